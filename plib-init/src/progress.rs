//! Progress bars: on stderr, only when it is a terminal and nobody asked for JSON.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
        (Unit::Items, Some(_)) => "{msg} [{bar:32}] {pos}/{len} items, {per_sec}, {eta} left",
        (Unit::Items, None) => "{msg} {spinner} {pos} items, {per_sec}",
        (Unit::Bytes, Some(_)) => "{msg} [{bar:32}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
        (Unit::Bytes, None) => "{msg} {spinner} {bytes}, {bytes_per_sec}",
    };
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // The templates are ours; should one not parse, the default style serves.
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_message(what)
}
