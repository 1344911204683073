//! The checks of a node, and their results.

use crate::{network_check, text::quoted};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Most bytes of a check's text.
const LONGEST: usize = 512;
/// Types of systemd's units (systemd.unit(5)).
const UNITS: [&str; 10] = [
    "service",
    "socket",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "device",
    "slice",
];

/// A condition that must hold: `unit sshd.service`, `mount /scratch`, `command /usr/local/sbin/check-gpu --quick`.
///
/// On the wire a check is text, so that an agent can report an unknown newer kind instead of failing to read its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The unit of systemd is active.
    Unit(String),
    /// A file system is mounted at this path.
    Mount(String),
    /// The program, run with its arguments and without a shell, ends with 0.
    Command(Vec<String>),
}

/// Why a text is not a [`Check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckError {
    /// The fault.
    pub message: String,
    /// The remedy.
    pub help: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Unit(name) => write!(f, "unit {name}"),
            Check::Mount(path) => write!(f, "mount {path}"),
            Check::Command(words) => write!(f, "command {}", words.join(" ")),
        }
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.message, self.help)
    }
}

impl std::error::Error for CheckError {}

impl FromStr for Check {
    type Err = CheckError;

    fn from_str(text: &str) -> Result<Self, CheckError> {
        const KINDS: &str =
            "write \"unit sshd.service\", \"mount /scratch\" or \"command /usr/local/sbin/check-gpu --quick\"";
        let wrong = |message: String, help: &str| {
            Err(CheckError {
                message,
                help: help.to_owned(),
            })
        };
        let shown = quoted(text, 60);
        if text.len() > LONGEST {
            return wrong(
                format!("a check has at most {LONGEST} bytes, this one {}", text.len()),
                "put its commands into a script",
            );
        }
        if text.chars().any(char::is_control) {
            return wrong(format!("the check '{shown}' is more than one line"), KINDS);
        }
        let (kind, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match (kind, words.as_slice()) {
            ("unit", [name]) => match unit(name) {
                true => Ok(Check::Unit((*name).to_owned())),
                false => wrong(
                    format!("'{}' is not a unit of systemd", shown.trim_start_matches("unit").trim()),
                    "write its whole name, such as \"unit sshd.service\"; systemctl list-units shows them",
                ),
            },
            ("mount", [path]) => match plain_path(path) {
                true => Ok(Check::Mount((*path).to_owned())),
                false => wrong(
                    format!("'{}' is not a mount point", shown.trim_start_matches("mount").trim()),
                    "write the whole path, without . and .. and without a / at its end, such as \"mount /scratch\"",
                ),
            },
            ("command", [program, ..]) if !plain_path(program) || *program == "/" => wrong(
                format!("the check '{shown}' does not begin with the path of a program"),
                "write its whole path on the node, such as \"command /usr/local/sbin/check-gpu --quick\"",
            ),
            ("command", [_, ..])
                if rest.contains(['\'', '"', '`', '\\', '$', '|', ';', '&', '<', '>', '(', ')', '*']) =>
            {
                wrong(
                    format!("the check '{shown}' is written for a shell, but runs without one"),
                    "put it into a script, and write that script's path",
                )
            }
            ("command", [_, ..]) => Ok(Check::Command(words.into_iter().map(str::to_owned).collect())),
            ("unit" | "mount", [_, _, ..]) => wrong(
                format!("the check '{shown}' names more than one {kind}"),
                "write a separate check for each, as its own entry of the list",
            ),
            ("unit" | "mount" | "command", []) => {
                wrong(format!("the check '{shown}' does not say which {kind}"), KINDS)
            }
            _ => wrong(format!("'{shown}' is not a check"), KINDS),
        }
    }
}

fn unit(name: &str) -> bool {
    // systemd.unit(5): at most 255 characters. A leading "-" would make it an option of systemctl.
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b));
    let kind = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty());
    plain && !name.starts_with('-') && name.len() <= 255 && kind.is_some_and(|(_, kind)| UNITS.contains(&kind))
}

fn plain_path(path: &str) -> bool {
    path == "/"
        || path
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

/// The conditions for a healthy node; part of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The texts of [`Check`]s.
    pub checks: Vec<String>,
    /// Seconds within which all of them must hold, before the node reports the failed ones.
    pub within_secs: u32,
    /// Most seconds of one command.
    pub command_secs: u32,
    /// Mount points of the node's fstab that it requires. Their `mount` checks are in `checks`, and the agent mounts those that are not
    /// mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// Whether the agent also checks that users can log in; that result is named [`LOGIN`]. An older agent ignores this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub login: bool,
    /// Names of the networks that the agent also checks; each result is named by [`network_check`]. An older agent ignores this.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// Name of the login check in results.
pub const LOGIN: &str = "login";

impl Health {
    /// True if a node with these checks may have made `check`.
    pub fn has(&self, check: &str) -> bool {
        let is_network = |name: &String| check == network_check(name);
        self.login && check == LOGIN
            || self.networks.iter().any(is_network)
            || self.checks.iter().any(|known| known == check)
    }
}

impl Default for Health {
    /// No checks.
    fn default() -> Self {
        Health {
            checks: Vec::new(),
            within_secs: 120,
            command_secs: 30,
            mounts: Vec::new(),
            login: false,
            networks: Vec::new(),
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The text of the check.
    pub check: String,
    /// Whether it holds.
    pub ok: bool,
    /// For people, at most 200 bytes: `unit sshd.service is failed`. Empty if it holds.
    pub detail: String,
}

/// Most results of a report; more than a site file can have (32 checks of a profile, 200 mounts, 32 networks).
pub const MOST_RESULTS: usize = 320;

/// The failed checks, for people, as in a heartbeat; empty if all hold.
pub fn failures(results: &[CheckResult]) -> String {
    named("check failed", results)
}

/// The checks for which a node that comes up waits, for people; empty if all hold.
pub fn waits(results: &[CheckResult]) -> String {
    named("waits, because this does not hold yet", results)
}

fn named(what: &str, results: &[CheckResult]) -> String {
    let failed: Vec<&str> = results
        .iter()
        .filter(|result| !result.ok)
        .map(|result| match result.detail.is_empty() {
            true => result.check.as_str(),
            false => result.detail.as_str(),
        })
        .collect();
    match failed.is_empty() {
        true => String::new(),
        false => format!("{what}: {}", failed.join("; ")),
    }
}

/// The server's answer to a heartbeat. If it would be empty, the server answers 204 instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// An order to restart; none if the node keeps running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// [`crate::users::NodeUsers::digest`] of the users that the node should fetch; none if it has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<String>,
}

/// An order to restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Id of the order: if it comes twice, the node restarts once.
    pub id: String,
    /// Why, for people.
    pub reason: String,
}

/// The progress of a [`Restart`] on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartReport {
    /// Id of the order.
    pub id: String,
    /// `restarts with systemctl reboot`; at most 200 bytes.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn checks_are_read_and_written() {
        for text in [
            "unit sshd.service",
            "unit getty@tty1.service",
            "unit dev-disk-by\\x2dlabel-x.swap",
            "mount /scratch",
            "mount /",
            "command /bin/true",
            "command /usr/local/sbin/check-gpu --quick -n 4",
        ] {
            assert_eq!(text.parse::<Check>().unwrap().to_string(), text);
        }
        assert_eq!(
            "  command   /bin/x   a ".parse::<Check>().unwrap().to_string(),
            "command /bin/x a"
        );
    }

    #[test]
    fn errors_name_the_fault_and_a_remedy() {
        for (text, part) in [
            ("", "'' is not a check"),
            ("sshd.service", "'sshd.service' is not a check"),
            ("unit", "does not say which unit"),
            ("unit sshd", "'sshd' is not a unit"),
            ("unit .service", "is not a unit"),
            ("unit -H.service", "is not a unit"),
            ("unit a.service b.service", "more than one unit"),
            ("mount scratch", "'scratch' is not a mount point"),
            ("mount /a/../b", "is not a mount point"),
            ("mount /a/", "is not a mount point"),
            ("command true", "does not begin with the path"),
            ("command /", "does not begin with the path"),
            ("command /bin/sh -c 'exit 0'", "written for a shell"),
            ("command /bin/a | /bin/b", "written for a shell"),
            ("command /bin/a\n/bin/b", "more than one line"),
        ] {
            let error = text.parse::<Check>().unwrap_err();
            assert!(error.message.contains(part), "{text}: {error}");
            assert!(!error.help.is_empty());
        }
        assert!(format!("command /{}", "x".repeat(600)).parse::<Check>().is_err());
    }

    #[test]
    fn failures_are_named() {
        let result = |check: &str, ok, detail: &str| CheckResult {
            check: check.into(),
            ok,
            detail: detail.into(),
        };
        assert_eq!(failures(&[]), "");
        assert_eq!(failures(&[result("mount /", true, "")]), "");
        assert_eq!(
            failures(&[
                result("unit a.service", false, "unit a.service is failed"),
                result("mount /", true, ""),
                result("mount /b", false, ""),
            ]),
            "check failed: unit a.service is failed; mount /b"
        );
    }

    #[test]
    fn old_and_new_releases_read_each_other() {
        assert_eq!(
            serde_json::from_str::<HeartbeatAnswer>("{}").unwrap(),
            HeartbeatAnswer::default()
        );
        let newer = r#"{"restart":{"id":"x","reason":"y","more":1},"other":[]}"#;
        let answer: HeartbeatAnswer = serde_json::from_str(newer).unwrap();
        assert_eq!(answer.restart.unwrap().id, "x");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_what_is_read_is_stable(text in "(unit|mount|command)? ?\\PC{0,60}") {
            if let Ok(check) = text.parse::<Check>() {
                prop_assert_eq!(check.to_string().parse::<Check>().unwrap(), check);
            }
        }
    }
}
