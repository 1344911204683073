//! Opens a session of root as sshd opens one, through PAM, and ends it at once.
//!
//! systemd opens it: PAM's rules for accounts, those for sessions, then a program. A rule may refuse root on purpose (from this
//! machine, from which no person logs in). That is not a fault of the node.

use crate::checks::System;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest session. A module that needs more time waits for something that is missing.
const LONGEST_SECS: u32 = 60;
/// Time for `systemd-run`, which waits for the session and its end.
const PATIENCE: Duration = Duration::from_secs(LONGEST_SECS as u64 + 30);
/// Time for `journalctl`.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(20);
/// systemd.exec(5), EXIT_PAM.
const AT_PAM: &str = "ended with exit status 224";
/// PAM's messages for an account that its rules refuse: `PAM_PERM_DENIED`, `PAM_AUTH_ERR` (pam_strerror(3)).
const REFUSED: [&str; 2] = ["Permission denied", "Authentication failure"];
/// PAM's messages for an account that cannot be used, perhaps on purpose.
const UNUSABLE: [&str; 3] = [
    "User account has expired",
    "Authentication token is no longer valid; new one required",
    "User not known to the underlying authentication module",
];
/// Parts of modules' messages about failures; modules also print other messages.
const COMPLAINTS: [&str; 6] = ["ould not", "annot", "ailed", "enied", "rror", "oo many"];
/// The program of the session. systemd names its child `(true)` before it runs the program (its `exec_child`).
const PROGRAM: &str = "true";
const CHILD: &str = "--identifier=(true)";

/// Opens the session. `attempt` is another number each time. `root` says whether root is meant to log in by ssh.
///
/// # Errors
/// The session cannot be opened: the text says why.
pub fn open(system: &impl System, attempt: u32, root: bool) -> Result<(), String> {
    let unit = format!("rackstrap-login-{}-{attempt}.service", std::process::id());
    let longest = format!("--property=RuntimeMaxSec={LONGEST_SECS}");
    let words = [
        "systemd-run",
        "--quiet",
        "--wait",
        "--collect",
        "--unit",
        &unit,
        "--description=rackstrap's check that a session can be opened",
        "--uid=0",
        "--property=PAMName=sshd",
        &longest,
        PROGRAM,
    ];
    let began = SystemTime::now();
    let ran = system.run(&words, PATIENCE);
    // systemd-run is missing or older than systemd 236, or systemd was too busy: nothing is known about sessions.
    let unable = ran.end.starts_with("cannot be run")
        || ran.output.contains("unrecognized option")
        || ran.output.contains("Unknown assignment")
        || ran.output.contains("Failed to ");
    if ran.ok || unable {
        return Ok(());
    }
    system.run(&["journalctl", "--sync"], JOURNAL_PATIENCE);
    let journal = [
        "journalctl",
        "--quiet",
        "--no-pager",
        "--boot",
        "--output=cat",
        "--lines=30",
        "--unit",
    ];
    let of_unit = system.run(&[&journal[..], &[&unit]].concat(), JOURNAL_PATIENCE).output;
    // The unit of a child's last messages is unknown if the child has ended: journald looks at the process when it reads them.
    let since = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = format!("--since=@{since}");
    let of_child = [&journal[..journal.len() - 1], &[CHILD, &since]].concat();
    let of_child = system.run(&of_child, JOURNAL_PATIENCE).output;
    verdict(&ran.end, &format!("{of_unit} / {of_child}"), root)
}

/// Interprets the end of `systemd-run` and the messages in the journal (pure).
fn verdict(how: &str, journal: &str, root: bool) -> Result<(), String> {
    let lines = || journal.split(" / ");
    let pam = lines().find_map(|line| Some(line.split_once("PAM failed: ")?.1));
    let failed = |why: &str| Err(format!("cannot open a session for root as sshd does: {why}"));
    let Some(pam) = pam else {
        return match how {
            // It is unknown which module refused it, and whether on purpose.
            AT_PAM => Ok(()),
            _ => failed(
                lines()
                    .find(|line| line.contains("Failed "))
                    .unwrap_or(&format!("systemd-run {how}")),
            ),
        };
    };
    // Modules print their name, the service and the call: pam_limits(sshd:session).
    let session = |line: &&str| line.contains("(sshd:session)");
    let on_purpose = REFUSED.contains(&pam) || !root && UNUSABLE.contains(&pam);
    if on_purpose && !lines().any(|line| session(&line)) {
        return Ok(());
    }
    let complains = |line: &&str| COMPLAINTS.iter().any(|word| line.contains(word));
    // pam_selinux prints "Unable to get valid context for root", but not what to do about it.
    if lines()
        .filter(session)
        .any(|line| line.contains("pam_selinux") && line.contains("context"))
    {
        return failed(
            "SELinux enforces, and files on an NFS root have no labels; remove enforcing=1 from the kernel arguments",
        );
    }
    match lines().filter(session).find(complains) {
        Some(module) => failed(&format!("{pam}; {module}")),
        None => failed(pam),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The journal as systemd 252 and Linux-PAM 1.5 write it.
    fn journal(module: &str, pam: &str) -> String {
        format!(
            "{module}PAM failed: {pam} / rackstrap-login-9-1.service: Failed to set up PAM session: Operation not permitted / \
             rackstrap-login-9-1.service: Failed at step PAM spawning /usr/bin/true: Operation not permitted"
        )
    }

    #[test]
    fn a_refusal_on_purpose_is_told_from_a_fault() {
        let access = "pam_access(sshd:account): access denied for user `root' from `sshd' / ";
        for (said, root, ok) in [
            (journal(access, "Permission denied"), true, true),
            (journal("", "Authentication failure"), true, true),
            (journal("", "User account has expired"), false, true),
            (journal("", "User account has expired"), true, false),
            (journal("", "Module is unknown"), false, false),
            (
                journal("", "Cannot make/remove an entry for the specified session"),
                false,
                false,
            ),
            // Without a message the cause is unknown.
            (String::new(), true, true),
        ] {
            assert_eq!(verdict(AT_PAM, &said, root).is_ok(), ok, "{said} {root}");
        }
        let limits = "pam_limits(sshd:session): Could not set limit for 'nofile': Operation not permitted / ";
        assert_eq!(
            verdict(AT_PAM, &journal(limits, "Permission denied"), true).unwrap_err(),
            "cannot open a session for root as sshd does: Permission denied; pam_limits(sshd:session): Could not set limit \
             for 'nofile': Operation not permitted"
        );
        let opened = "pam_unix(sshd:session): session opened for user root(uid=0) by (uid=0) / pam_env(sshd:session): deprecated \
                      reading of user environment enabled / ";
        assert_eq!(
            verdict(AT_PAM, &journal(opened, "Permission denied"), true).unwrap_err(),
            "cannot open a session for root as sshd does: Permission denied"
        );
    }

    /// The journal of Debian 12 with `enforcing=1` on the kernel command line. The child's last messages do not belong to the unit.
    #[test]
    fn the_last_messages_of_the_child_are_read() {
        struct Enforcing;
        impl System for Enforcing {
            fn has_systemd(&self) -> bool {
                true
            }
            fn is_active(&self, _: &str) -> crate::command::Execution {
                unreachable!()
            }
            fn mounts(&self) -> String {
                String::new()
            }
            fn run(&self, words: &[&str], _: Duration) -> crate::command::Execution {
                let said = match words {
                    ["systemd-run", ..] => "",
                    [.., "--unit", _] => {
                        "Started rackstrap-login-9-1.service / pam_unix(sshd:session): session opened for user root(uid=0) by (uid=0) / \
                         rackstrap-login-9-1.service: Main process exited, code=exited, status=224/PAM"
                    }
                    [.., CHILD, since] if since.starts_with("--since=@") => {
                        "pam_env(sshd:session): Unable to open env file: /etc/default/locale: No such file or directory / \
                         pam_selinux(sshd:session): Unable to get valid context for root / \
                         PAM failed: Cannot make/remove an entry for the specified session / \
                         pam_selinux(sshd:session): conversation failed"
                    }
                    _ => "",
                };
                crate::command::Execution {
                    ok: words[0] != "systemd-run",
                    end: AT_PAM.to_owned(),
                    output: said.to_owned(),
                }
            }
        }
        let why = open(&Enforcing, 1, true).unwrap_err();
        assert!(why.contains("SELinux enforces") && why.contains("enforcing=1"), "{why}");
        assert!(why.len() <= 200, "{}", why.len());
    }

    #[test]
    fn a_program_that_does_not_start_is_a_fault() {
        let said =
            "x.service: Failed at step EXEC spawning /usr/bin/true: Permission denied / x.service: Main process exited";
        assert!(
            verdict("ended with exit status 203", said, true)
                .unwrap_err()
                .contains("step EXEC")
        );
        assert_eq!(
            verdict("ran longer than 90 s and was killed", "", false).unwrap_err(),
            "cannot open a session for root as sshd does: systemd-run ran longer than 90 s and was killed"
        );
    }
}
