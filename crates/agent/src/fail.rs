//! Failures: what was being done, on what, and what came back.

use std::fmt;

/// Why something did not work, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    /// Repeating it cannot help (a plan of another wire version, a boot that the server has forgotten).
    pub hopeless: bool,
}

/// Result of everything that can go wrong here.
pub type Res<T> = Result<T, Failure>;

impl Failure {
    /// A failure that a retry may get over.
    pub fn new(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            hopeless: false,
        }
    }

    /// A failure that no retry gets over.
    pub fn hopeless(text: impl Into<String>) -> Self {
        Failure {
            text: text.into(),
            hopeless: true,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Says what was being done when an error came back.
pub trait Doing<T> {
    /// `doing` is a gerund with its object: `mounting /proc`.
    fn doing(self, doing: impl FnOnce() -> String) -> Res<T>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Res<T> {
        self.map_err(|e| Failure::new(format!("{}: {e}", doing())))
    }
}
