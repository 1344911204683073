//! What is wrong with the site as a whole, as `rackstrap status` shows it: each warning with what mends it.
//!
//! Warnings are facts of the present, so they are kept in memory only: the part of the daemon that found one raises it again
//! after a restart. What belongs to one node is an event of its timeline instead.

use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Warnings that are kept at a time. Topics may name what came from the network, such as other servers.
const LIMIT: usize = 32;

/// Bytes of a message or a remedy that are kept.
const TEXT_LIMIT: usize = 500;

/// What topics of warnings about other DHCP servers begin with.
pub const DHCP_SERVER: &str = "dhcp-server ";

/// One warning about the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteWarning {
    /// Short name of the thing: `dhcp-server 10.5.0.9`, `panic rollouts`. There is one warning for each topic.
    pub topic: String,
    /// What is wrong, on what.
    pub message: String,
    /// What mends it: a sentence, with the command if there is one.
    pub help: String,
    /// True if it keeps nodes from booting: an error.
    #[serde(default)]
    pub fatal: bool,
    /// When it was raised first.
    pub since: Timestamp,
    /// When it was raised last.
    pub last: Timestamp,
}

impl SiteWarning {
    /// `error` or `warning`.
    pub fn level(&self) -> &'static str {
        if self.fatal { "error" } else { "warning" }
    }
}

/// The site's warnings; clones share them. All methods are short and from memory.
#[derive(Clone, Debug, Default)]
pub struct SiteWarnings(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_topic: BTreeMap<String, (SiteWarning, Option<Timestamp>)>,
    /// Topics that found no room, since the start.
    omitted: u64,
}

impl SiteWarnings {
    /// Adds a warning, or renews the one of the same topic, which stays until [`SiteWarnings::clear`]. True if the topic
    /// was not there before, so that the caller can log it once.
    pub fn raise(&self, now: Timestamp, topic: &str, message: &str, help: &str) -> bool {
        self.put(now, None, topic, message, help, false)
    }

    /// As [`SiteWarnings::raise`], for what keeps nodes from booting.
    pub fn raise_error(&self, now: Timestamp, topic: &str, message: &str, help: &str) -> bool {
        self.put(now, None, topic, message, help, true)
    }

    /// As [`SiteWarnings::raise`], for what is only heard of from time to time: the warning goes by itself when it was not
    /// raised again for `secs` seconds.
    pub fn raise_for(&self, now: Timestamp, secs: u64, topic: &str, message: &str, help: &str) -> bool {
        self.put(now, Some(now.plus_secs(secs)), topic, message, help, false)
    }

    /// Takes the warning of `topic` away, if there is one.
    pub fn clear(&self, topic: &str) {
        self.lock().by_topic.remove(&printable(topic));
    }

    /// All that hold at `now`: errors first, by topic.
    pub fn list(&self, now: Timestamp) -> Vec<SiteWarning> {
        let mut kept = self.lock();
        kept.expire(now);
        let mut all: Vec<SiteWarning> = kept.by_topic.values().map(|(warning, _)| warning.clone()).collect();
        all.sort_by_key(|warning| !warning.fatal);
        if kept.omitted > 0 && kept.by_topic.len() >= LIMIT {
            all.push(SiteWarning {
                topic: "more".to_owned(),
                message: format!("there are more warnings than the {LIMIT} that are kept"),
                help: "the daemon's log has all of them: journalctl -u rackstrap".to_owned(),
                fatal: false,
                since: now,
                last: now,
            });
        }
        all
    }

    fn put(
        &self,
        now: Timestamp,
        until: Option<Timestamp>,
        topic: &str,
        message: &str,
        help: &str,
        fatal: bool,
    ) -> bool {
        let topic = printable(topic);
        let mut kept = self.lock();
        kept.expire(now);
        let before = kept.by_topic.get(&topic).map(|(warning, _)| warning.since);
        if before.is_none() && kept.by_topic.len() >= LIMIT {
            kept.omitted += 1;
            return false;
        }
        let warning = SiteWarning {
            topic: topic.clone(),
            message: printable(message),
            help: printable(help),
            fatal,
            since: before.unwrap_or(now),
            last: now,
        };
        kept.by_topic.insert(topic, (warning, until));
        before.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn expire(&mut self, now: Timestamp) {
        self.by_topic
            .retain(|_, (_, until)| until.is_none_or(|until| now < until));
    }
}

/// The text without control characters, which would act on a terminal, and not too long.
fn printable(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(TEXT_LIMIT)];
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_one_warning_that_stays_until_it_is_cleared() {
        let warnings = SiteWarnings::default();
        assert!(warnings.raise(Timestamp(1), "panic", "a thread panicked", "restart"));
        assert!(!warnings.raise(Timestamp(9), "panic", "two threads panicked", "restart"));
        let all = warnings.list(Timestamp(u64::MAX));
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all[0].message.as_str(), all[0].since, all[0].last),
            ("two threads panicked", Timestamp(1), Timestamp(9))
        );
        warnings.clone().clear("panic");
        assert!(warnings.list(Timestamp(9)).is_empty(), "clones share them");
    }

    #[test]
    fn what_keeps_nodes_from_booting_is_an_error_and_stands_first() {
        let warnings = SiteWarnings::default();
        warnings.raise(Timestamp(1), "a", "no keys", "write some");
        warnings.raise_error(Timestamp(1), "b", "no image", "make one");
        let levels = || {
            warnings
                .list(Timestamp(2))
                .iter()
                .map(SiteWarning::level)
                .collect::<Vec<_>>()
        };
        assert_eq!(levels(), ["error", "warning"]);
        warnings.raise(Timestamp(2), "b", "an old image", "make one");
        assert_eq!(levels(), ["warning", "warning"]);
    }

    #[test]
    fn what_is_not_heard_again_goes_by_itself() {
        let warnings = SiteWarnings::default();
        warnings.raise_for(Timestamp(0), 60, "server", "another server", "stop it");
        warnings.raise_for(Timestamp(50_000), 60, "server", "another server", "stop it");
        assert_eq!(warnings.list(Timestamp(109_999)).len(), 1);
        assert!(warnings.list(Timestamp(110_000)).is_empty());
    }

    #[test]
    fn strangers_neither_fill_the_memory_nor_write_to_the_terminal() {
        let warnings = SiteWarnings::default();
        for number in 0..1000 {
            warnings.raise_for(
                Timestamp(0),
                60,
                &format!("server {number}"),
                &"é".repeat(9_000),
                "\x1b[2J",
            );
        }
        let all = warnings.list(Timestamp(0));
        assert_eq!(all.len(), LIMIT + 1);
        assert!(all[LIMIT].message.contains("more warnings"), "{all:?}");
        assert!(
            all.iter()
                .all(|one| one.message.len() <= TEXT_LIMIT && !one.help.contains('\x1b'))
        );
        assert!(warnings.list(Timestamp(60_000)).is_empty());
    }
}
