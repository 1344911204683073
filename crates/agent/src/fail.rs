//! Failures: the operation, its object, and the cause.

use std::fmt;

/// Why an operation failed, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    /// Whether repeating it is useless (a plan of another wire version, a boot that the server has forgotten).
    pub permanent: bool,
}

/// The result of an operation of the agent.
pub type Res<T> = Result<T, Failure>;

impl Failure {
    /// A failure that a retry may overcome.
    pub fn new(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            permanent: false,
        }
    }

    /// A failure that no retry overcomes.
    pub fn permanent(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            permanent: true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Adds the operation to an error.
pub trait Doing<T> {
    /// `doing` is a gerund with its object: `mounting /proc`.
    fn doing(self, doing: impl FnOnce() -> String) -> Res<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Res<T> {
        self.map_err(|e| Failure::new(format!("{}: {e}", doing())))
    }
}
