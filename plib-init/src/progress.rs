//! Progress bars: on stderr, only when it is a terminal and nobody asked for JSON.

use std::fmt::Write;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// What the bar counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Items,
    Bytes,
}

/// A bar for `total` units (none where the end is not known), or one that shows nothing.
pub(crate) fn bar(what: &'static str, unit: Unit, total: Option<u64>, json: bool) -> ProgressBar {
    if json || !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
    }
    let template = match (unit, total) {
        (Unit::Items, Some(_)) => "{msg} [{bar:32}] {pos}/{len} items, {rate} items/s, {eta} left",
        (Unit::Items, None) => "{msg} {spinner} {pos} items, {rate} items/s",
        (Unit::Bytes, Some(_)) => "{msg} [{bar:32}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
        (Unit::Bytes, None) => "{msg} {spinner} {bytes}, {bytes_per_sec}",
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // The templates are ours; should one not parse, the default style serves.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style.with_key("rate", |state: &ProgressState, w: &mut dyn Write| {
        // A writer that refuses shows no rate.
        let _ = write!(w, "{:.0}", state.per_sec());
    }));
    bar.with_message(what)
}
