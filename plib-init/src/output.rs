//! Answers: words for people, one JSON document for programs.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::error::CliError;

/// Colours, where they are wanted.
#[derive(Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// No colours.
    #[cfg(test)]
    pub(crate) const fn plain() -> Self {
        Self { on: false }
    }

    /// Colours on a terminal that has them, unless NO_COLOR is set (https://no-color.org).
    fn for_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        Self { on: io::stdout().is_terminal() && !refused && !dumb }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(crate) fn note(self, text: &str) -> String {
        self.wrap("33", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.wrap("31", text)
    }
}

/// Where answers go and in which form.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) paint: Paint,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, paint: Paint::for_stdout() }
    }

    /// Whether a person looks at stdout.
    pub(crate) fn to_terminal(self) -> bool {
        io::stdout().is_terminal()
    }

    /// Prints `document` as JSON, or what `human` writes.
    pub(crate) fn answer(
        self,
        document: &impl Serialize,
        human: impl FnOnce(&mut dyn Write, Paint) -> io::Result<()>,
    ) -> Result<(), CliError> {
        let mut stdout = io::BufWriter::new(io::stdout().lock());
        self.write(&mut stdout, document, human).map_err(CliError::Output)
    }

    /// The same on stderr, for commands whose stdout carries data.
    pub(crate) fn answer_aside(
        self,
        document: &impl Serialize,
        human: impl FnOnce(&mut dyn Write, Paint) -> io::Result<()>,
    ) -> Result<(), CliError> {
        self.write(&mut io::stderr().lock(), document, human).map_err(CliError::Output)
    }

    fn write(
        self,
        w: &mut dyn Write,
        document: &impl Serialize,
        human: impl FnOnce(&mut dyn Write, Paint) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *w, document)?;
            writeln!(w)?;
        } else {
            human(w, self.paint)?;
        }
        w.flush()
    }
}
