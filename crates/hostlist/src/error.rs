//! What is wrong with a hostlist, in a form that teaches.

use rackstrap_base::text::is_harmful;
use std::fmt;

/// Characters that a message shows of a hostlist, around the place.
const SHOWN: usize = 60;

/// What is wrong with a hostlist, where, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostlistError {
    /// The group whose definition this is about, the innermost one; none if it is the text that was given.
    pub group: Option<String>,
    /// The hostlist, escaped; of a long one what is around the place.
    pub text: String,
    /// Character of the hostlist that this is about, from 1.
    pub column: usize,
    /// What was found in the text, shortened and escaped.
    pub found: String,
    /// What to write instead.
    pub advice: String,
}

impl HostlistError {
    /// About the place `at` (a byte offset) of `text`.
    pub(super) fn new(text: &str, at: usize, fault: Fault) -> Self {
        let before = text.get(..at).unwrap_or(text).chars().count();
        HostlistError {
            group: None,
            text: around(text, before),
            column: before + 1,
            found: fault.found,
            advice: fault.advice,
        }
    }
}

impl fmt::Display for HostlistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(group) = &self.group {
            write!(f, "in the definition of @{group}: ")?;
        }
        let HostlistError {
            text,
            column,
            found,
            advice,
            ..
        } = self;
        write!(f, "hostlist '{text}', column {column}: {found}; {advice}")
    }
}

impl std::error::Error for HostlistError {}

/// The same before it is known which text it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What was found in the text, shortened and escaped.
    pub found: String,
    /// What to write instead.
    pub advice: String,
}

impl Fault {
    /// Neither ends in a full stop.
    pub fn new(found: impl Into<String>, advice: impl Into<String>) -> Self {
        Fault {
            found: found.into(),
            advice: advice.into(),
        }
    }
}

/// A place and what is wrong there.
pub(super) type At = (usize, Fault);

/// Hostlists come from command lines and files: what is shown of them is short and harmless.
pub(super) fn shown(text: &str) -> String {
    around(text, 0)
}

fn around(text: &str, place: usize) -> String {
    let length = text.chars().count();
    let from = place.saturating_sub(SHOWN / 2).min(length.saturating_sub(SHOWN));
    let escaped = text.chars().skip(from).take(SHOWN);
    let middle: String = escaped
        .flat_map(|c| {
            let plain = !is_harmful(c) && (c.is_ascii() || c.is_alphanumeric());
            let escape = (!plain).then(|| c.escape_default());
            plain.then_some(c).into_iter().chain(escape.into_iter().flatten())
        })
        .collect();
    let ellipsis = |wanted: bool| if wanted { "…" } else { "" };
    format!("{}{middle}{}", ellipsis(from > 0), ellipsis(from + SHOWN < length))
}
