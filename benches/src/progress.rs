//! What is being done now, on standard error.

use std::time::Instant;

/// Lines with the time since the start; silent where nobody wants them.
pub struct Progress {
    start: Instant,
    on: bool,
}

impl Progress {
    /// Progress from now on.
    pub fn new(on: bool) -> Self {
        Self { start: Instant::now(), on }
    }

    /// Says what begins now.
    pub fn say(&self, what: impl std::fmt::Display) {
        if self.on {
            eprintln!("[{:4} s] {what}", self.start.elapsed().as_secs());
        }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
