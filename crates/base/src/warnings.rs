//! What is wrong with the site as a whole, as `rackstrap status` shows it: each warning with what mends it.
//!
//! Warnings are facts of the present, so they are kept in memory only: the part of the daemon that found one raises it again
//! after a restart. What belongs to one node is an event of its timeline instead.

use crate::{clock::Timestamp, rare::Rare, sync::lock, text::one_line};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard},
};

/// Warnings of the daemon's own that are kept at a time.
const LIMIT: usize = 32;

/// Other DHCP servers that are named at a time; the rest are counted. Whoever is root on a node can forge any number of them, so they
/// take no room of other warnings.
const SERVERS_LIMIT: usize = 4;

/// Topics without room that are told apart.
const CROWD_LIMIT: usize = 256;

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

    /// True if it is about another DHCP server.
    pub fn is_of_dhcp_server(&self) -> bool {
        is_server(&self.topic)
    }
}

/// The site's warnings; clones share them. All methods are short and from memory.
#[derive(Clone, Debug, Default)]
pub struct SiteWarnings(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    by_topic: BTreeMap<String, (SiteWarning, Option<Timestamp>)>,
    /// Other DHCP servers that found no room.
    servers: Crowd,
    /// Warnings of the daemon's own that found no room.
    own: Crowd,
    /// Since when there is each of the two warnings about what found no room, by topic.
    crowded: BTreeMap<String, Timestamp>,
    /// Since when each of the warnings is found that are looked for at each answer, by topic.
    found: BTreeMap<String, Timestamp>,
}

/// Topics that found no room.
#[derive(Debug, Default)]
struct Crowd {
    hasher: RandomState,
    /// By hash, with when each is forgotten.
    topics: HashMap<u64, Option<Timestamp>>,
    /// How often there was a new one, for the log.
    told: Rare,
}

impl SiteWarnings {
    /// Adds a warning, or renews the one of the same topic, which stays until [`SiteWarnings::clear`]. True if the caller should log
    /// it: the topic was not there before. That holds also for a warning that finds no room.
    pub fn raise(&self, now: Timestamp, topic: &str, message: &str, help: &str) -> bool {
        self.put(now, None, topic, message, help, false)
    }

    /// As [`SiteWarnings::raise`], for what keeps nodes from booting. It takes the room of a lesser warning if there is no other.
    pub fn raise_error(&self, now: Timestamp, topic: &str, message: &str, help: &str) -> bool {
        self.put(now, None, topic, message, help, true)
    }

    /// As [`SiteWarnings::raise`], for what is only observed from time to time: the warning ends by itself when it was not
    /// raised again for `secs` seconds.
    pub fn raise_for(&self, now: Timestamp, secs: u64, topic: &str, message: &str, help: &str) -> bool {
        self.put(now, Some(now.plus_secs(secs)), topic, message, help, false)
    }

    /// Takes the warning of `topic` away, if there is one.
    pub fn clear(&self, topic: &str) {
        let mut kept = self.lock();
        kept.by_topic.remove(&one_line(topic, TEXT_LIMIT));
        if kept.count(false) < LIMIT {
            // Whoever finds it wrong still raises it again, and is shown and logged then.
            kept.own.topics.clear();
        }
    }

    /// Takes away the warnings about other DHCP servers, except those for whose topic, without [`DHCP_SERVER`], `keep` is true. All
    /// other warnings stay.
    pub fn retain_servers(&self, keep: impl Fn(&str) -> bool) {
        let mut kept = self.lock();
        let before = kept.by_topic.len();
        kept.by_topic
            .retain(|topic, _| topic.strip_prefix(DHCP_SERVER).is_none_or(&keep));
        if kept.by_topic.len() < before {
            // Their topics are not kept. Those that are heard again are shown then.
            kept.servers.topics.clear();
        }
    }

    /// The warnings `found` at `now`, all that are looked for at each answer and not kept, each with the time since which it is found. That
    /// stays the same as long as it is found, so that an answer that says nothing new is the same answer.
    pub fn found(&self, now: Timestamp, mut found: Vec<SiteWarning>) -> Vec<SiteWarning> {
        let mut kept = self.lock();
        (kept.found).retain(|topic, _| found.iter().any(|warning| warning.topic == *topic));
        for warning in &mut found {
            let since = *kept.found.entry(warning.topic.clone()).or_insert(now);
            (warning.since, warning.last) = (since, since);
        }
        found
    }

    /// All that hold at `now`: errors first, by topic.
    pub fn list(&self, now: Timestamp) -> Vec<SiteWarning> {
        let mut kept = self.lock();
        kept.expire(now);
        let mut all: Vec<SiteWarning> = kept.by_topic.values().map(|(warning, _)| warning.clone()).collect();
        all.sort_by_key(|warning| !warning.fatal);
        let Kept {
            servers, own, crowded, ..
        } = &mut *kept;
        let mut more = |topic: &str, message: Option<String>, help: &str| {
            let Some(message) = message else {
                crowded.remove(topic);
                return;
            };
            let since = *crowded.entry(topic.to_owned()).or_insert(now);
            all.push(SiteWarning {
                topic: topic.to_owned(),
                message,
                help: help.to_owned(),
                fatal: false,
                since,
                last: since,
            });
        };
        more(
            &format!("{DHCP_SERVER}more"),
            servers.size().map(|number| {
                format!(
                    "{number} more DHCP servers were heard than the {SERVERS_LIMIT} that are named; somebody may forge them"
                )
            }),
            "stop those that are named first; find the sender in the switch's MAC table; the log names some: journalctl -u rackstrap",
        );
        more(
            "more",
            (own.size()).map(|number| format!("there are {number} more warnings than the {LIMIT} that are kept")),
            "the daemon's log has all of them: journalctl -u rackstrap",
        );
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
        let topic = one_line(topic, TEXT_LIMIT);
        let mut kept = self.lock();
        kept.expire(now);
        let before = kept.by_topic.get(&topic).map(|(warning, _)| warning.since);
        if before.is_none() && !kept.make_room(&topic, fatal) {
            return match is_server(&topic) {
                // Their number is the sender's choice.
                true => kept.servers.add(&topic, until) && kept.servers.told.tell().is_some(),
                false => kept.own.add(&topic, until),
            };
        }
        let warning = SiteWarning {
            topic: topic.clone(),
            message: one_line(message, TEXT_LIMIT),
            help: one_line(help, TEXT_LIMIT),
            fatal,
            since: before.unwrap_or(now),
            last: now,
        };
        kept.by_topic.insert(topic, (warning, until));
        before.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        lock(&self.0)
    }
}

impl Kept {
    fn expire(&mut self, now: Timestamp) {
        let holds = |until: Option<Timestamp>| until.is_none_or(|until| now < until);
        self.by_topic.retain(|_, (_, until)| holds(*until));
        self.servers.topics.retain(|_, until| holds(*until));
        self.own.topics.retain(|_, until| holds(*until));
    }

    /// How many there are: of other DHCP servers, or of all else.
    fn count(&self, servers: bool) -> usize {
        let topics = self.by_topic.keys();
        topics.filter(|topic| is_server(topic) == servers).count()
    }

    /// False if there is no room for a warning of `topic`. A fatal one pushes the latest of the lesser ones out.
    fn make_room(&mut self, topic: &str, fatal: bool) -> bool {
        let servers = is_server(topic);
        let limit = if servers { SERVERS_LIMIT } else { LIMIT };
        let has_room = self.count(servers) < limit || (fatal && self.push_out());
        if has_room {
            let crowd = if servers { &mut self.servers } else { &mut self.own };
            crowd.remove(topic);
        }
        has_room
    }

    /// False if all are fatal.
    fn push_out(&mut self) -> bool {
        let own = self.by_topic.iter().filter(|(topic, _)| !is_server(topic));
        let lesser = own.filter(|(_, (warning, _))| !warning.fatal);
        let Some(topic) = lesser
            .max_by_key(|(_, (warning, _))| warning.since)
            .map(|(topic, _)| topic.clone())
        else {
            return false;
        };
        if let Some((_, until)) = self.by_topic.remove(&topic) {
            self.own.add(&topic, until);
        }
        true
    }
}

impl Crowd {
    /// True if `topic` is to be logged: it was not in it, or it is one of those that are not told apart and not all logged.
    fn add(&mut self, topic: &str, until: Option<Timestamp>) -> bool {
        let hash = self.hasher.hash_one(topic);
        if self.topics.len() >= CROWD_LIMIT && !self.topics.contains_key(&hash) {
            return self.told.tell().is_some();
        }
        self.topics.insert(hash, until).is_none()
    }

    fn remove(&mut self, topic: &str) {
        self.topics.remove(&self.hasher.hash_one(topic));
    }

    /// How many are in it, in words; none if it is empty.
    fn size(&self) -> Option<String> {
        match self.topics.len() {
            0 => None,
            CROWD_LIMIT.. => Some(format!("at least {CROWD_LIMIT}")),
            number => Some(number.to_string()),
        }
    }
}

fn is_server(topic: &str) -> bool {
    topic.starts_with(DHCP_SERVER)
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
    fn what_is_found_at_each_look_is_since_the_first_look_that_found_it() {
        let warnings = SiteWarnings::default();
        let found = |now: u64, topics: &[&str]| -> Vec<(String, u64, u64)> {
            let warning = |topic: &&str| SiteWarning {
                topic: (*topic).to_owned(),
                message: "m".into(),
                help: "h".into(),
                fatal: false,
                since: Timestamp(now),
                last: Timestamp(now),
            };
            let found = warnings.found(Timestamp(now), topics.iter().map(warning).collect());
            let shown = found
                .into_iter()
                .map(|warning| (warning.topic, warning.since.0, warning.last.0));
            shown.collect()
        };
        let one = |topic: &str, since: u64| (topic.to_owned(), since, since);
        assert_eq!(found(1, &["a"]), [one("a", 1)]);
        assert_eq!(found(2, &["a", "b"]), [one("a", 1), one("b", 2)]);
        assert_eq!(found(3, &["b"]), [one("b", 2)]);
        assert_eq!(found(4, &["a"]), [one("a", 4)], "it had gone");
        assert!(warnings.list(Timestamp(5)).is_empty(), "they are not kept");
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
        let raise = |number: usize| {
            let topic = format!("{DHCP_SERVER}{number}");
            warnings.raise_for(Timestamp(0), 60, &topic, &"é".repeat(9_000), "\x1b[2J")
        };
        let logged = (0..1000).filter(|number| raise(*number)).count();
        assert!((SERVERS_LIMIT + 8..SERVERS_LIMIT + 20).contains(&logged), "{logged}");
        let all = warnings.list(Timestamp(0));
        assert_eq!(all.len(), SERVERS_LIMIT + 1);
        assert!(all[SERVERS_LIMIT].message.starts_with("at least 256 more"), "{all:?}");
        assert!(all.iter().all(|one| is_server(&one.topic)));
        assert!(
            all.iter()
                .all(|one| one.message.len() <= TEXT_LIMIT && !one.help.contains('\x1b'))
        );
        assert!(warnings.list(Timestamp(60_000)).is_empty());
    }

    #[test]
    fn servers_that_are_not_looked_for_any_more_go_and_all_else_stays() {
        let warnings = SiteWarnings::default();
        for number in 0..=SERVERS_LIMIT {
            let topic = format!("{DHCP_SERVER}eth{number} 10.9.0.1");
            warnings.raise_for(Timestamp(0), 60, &topic, "another server", "stop it");
        }
        warnings.raise(Timestamp(0), "eth0", "no keys", "write some");
        let topics = || -> Vec<String> {
            let all = warnings.list(Timestamp(1)).into_iter();
            all.map(|warning| warning.topic).collect()
        };
        assert_eq!(topics().len(), SERVERS_LIMIT + 2);
        warnings.retain_servers(|topic| topic.starts_with("eth1 "));
        assert_eq!(topics(), ["dhcp-server eth1 10.9.0.1", "eth0"]);
    }

    #[test]
    fn strangers_take_no_room_of_what_keeps_nodes_from_booting() {
        let warnings = SiteWarnings::default();
        for number in 0..LIMIT + 8 {
            warnings.raise_for(
                Timestamp(0),
                60,
                &format!("{DHCP_SERVER}10.9.0.{number}"),
                "another",
                "stop it",
            );
        }
        assert!(warnings.raise_error(
            Timestamp(1),
            "site image small",
            "image small does not exist",
            "make it"
        ));
        assert!(warnings.raise(Timestamp(1), "site keys", "no keys", "write some"));
        let all = warnings.list(Timestamp(2));
        assert_eq!((all[0].topic.as_str(), all[0].fatal), ("site image small", true));
        let counted = format!("{} more DHCP servers", LIMIT + 8 - SERVERS_LIMIT);
        assert!(all.iter().any(|one| one.message.starts_with(&counted)), "{all:?}");
        assert!(all.iter().any(|one| one.topic == "site keys"));
    }

    #[test]
    fn a_fatal_warning_pushes_a_lesser_one_out_and_what_finds_no_room_is_logged_once() {
        let warnings = SiteWarnings::default();
        for number in 0..LIMIT as u64 {
            assert!(warnings.raise(Timestamp(number), &format!("site {number:02}"), "lesser", "mend it"));
        }
        let raise = |topic: &str| warnings.raise(Timestamp(99), topic, "lesser", "mend it");
        assert!(
            (raise("site 99"), raise("site 99")) == (true, false),
            "logged, and only once"
        );
        assert!(warnings.raise_error(Timestamp(99), "site fatal", "no image", "make one"));
        assert!(!warnings.raise_error(Timestamp(100), "site fatal", "no image", "make one"));
        assert!(!raise("site 31"), "it was logged when it had room");
        let all = warnings.list(Timestamp(100));
        assert_eq!((all.len(), all[0].topic.as_str()), (LIMIT + 1, "site fatal"));
        assert!(all[LIMIT].message.starts_with("there are 2 more warnings"), "{all:?}");
        assert!(all.iter().any(|one| one.topic == "site 30"));
        for number in 0..LIMIT {
            warnings.raise_error(Timestamp(101), &format!("fatal {number:02}"), "no image", "make one");
        }
        let all = warnings.list(Timestamp(101));
        assert!(all[..LIMIT].iter().all(|one| one.fatal));
        // There is room again.
        warnings.clear("site fatal");
        assert!(raise("site 99"));
        assert_eq!(warnings.list(Timestamp(102)).len(), LIMIT);
    }
}
