//! Why a measurement stopped.

use std::fmt;

/// A measurement that cannot go on, in words for the person who started it.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure with its whole message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// A function that puts `what` in front of an error, for `map_err`.
    pub fn during<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<plib::Error> for Failure {
    fn from(error: plib::Error) -> Self {
        Self(format!("plib: {error}"))
    }
}

/// What a measurement gives.
pub type Result<T> = std::result::Result<T, Failure>;
