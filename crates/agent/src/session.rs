//! A session of root's, opened as sshd opens one, through PAM, and ended at once.
//!
//! systemd opens it: rules of PAM's for accounts, those for sessions, then a program. A rule may refuse root on purpose (from this
//! machine, which is not where people come from), and that is no fault of the node's.

use crate::checks::System;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A session that takes longer is none: a module waits for something that is not there.
const LONGEST_SECS: u32 = 60;
/// Of `systemd-run`, which waits for it and for its end.
const PATIENCE: Duration = Duration::from_secs(LONGEST_SECS as u64 + 30);
/// Of `journalctl`.
const JOURNAL_PATIENCE: Duration = Duration::from_secs(20);
/// systemd.exec(5), EXIT_PAM.
const AT_PAM: &str = "ended with exit status 224";
/// What PAM says of an account that its rules refuse: `PAM_PERM_DENIED`, `PAM_AUTH_ERR` (pam_strerror(3)).
const REFUSED: [&str; 2] = ["Permission denied", "Authentication failure"];
/// And of one that cannot be used: on purpose where root is not to log in.
const UNUSABLE: [&str; 3] = [
    "User account has expired",
    "Authentication token is no longer valid; new one required",
    "User not known to the underlying authentication module",
];
/// In what modules say when they fail; they say other things as well.
const COMPLAINTS: [&str; 6] = ["ould not", "annot", "ailed", "enied", "rror", "oo many"];
/// What is run in the session, and what messages are from before it runs: systemd names a child so (its `exec_child`).
const PROGRAM: &str = "true";
const CHILD: &str = "--identifier=(true)";

/// Opens the session; `attempt` is another number each time. `root` says that root is meant to log in by ssh.
///
/// # Errors
/// It cannot be opened: why.
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
        "--description=rackstrap's look at whether a session can be opened",
        "--uid=0",
        "--property=PAMName=sshd",
        &longest,
        PROGRAM,
    ];
    let began = SystemTime::now();
    let ran = system.run(&words, PATIENCE);
    // It is not there, is older than systemd 236, or systemd had no time for it: nothing is known of sessions.
    let unable = ran.how.starts_with("cannot be run")
        || ran.said.contains("unrecognized option")
        || ran.said.contains("Unknown assignment")
        || ran.said.contains("Failed to ");
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
    let of_unit = system.run(&[&journal[..], &[&unit]].concat(), JOURNAL_PATIENCE).said;
    // The last words of a child that ended are not known to be its unit's any more: journald looks at the process when it reads them.
    let since = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = format!("--since=@{since}");
    let of_child = [&journal[..journal.len() - 1], &[CHILD, &since]].concat();
    let of_child = system.run(&of_child, JOURNAL_PATIENCE).said;
    verdict(&ran.how, &format!("{of_unit} / {of_child}"), root)
}

/// What an end of `systemd-run` and the words in the journal mean (pure).
fn verdict(how: &str, journal: &str, root: bool) -> Result<(), String> {
    let lines = || journal.split(" / ");
    let pam = lines().find_map(|line| Some(line.split_once("PAM failed: ")?.1));
    let failed = |why: &str| Err(format!("no session can be opened for root as sshd opens one: {why}"));
    let Some(pam) = pam else {
        return match how {
            // Who refused it, and whether on purpose, is not known.
            AT_PAM => Ok(()),
            _ => failed(
                lines()
                    .find(|line| line.contains("Failed "))
                    .unwrap_or(&format!("systemd-run {how}")),
            ),
        };
    };
    // Modules say their name, the service and what they were asked for: pam_limits(sshd:session).
    let session = |line: &&str| line.contains("(sshd:session)");
    let on_purpose = REFUSED.contains(&pam) || !root && UNUSABLE.contains(&pam);
    if on_purpose && !lines().any(|line| session(&line)) {
        return Ok(());
    }
    let complains = |line: &&str| COMPLAINTS.iter().any(|word| line.contains(word));
    // pam_selinux says that "Unable to get valid context for root"; what is to be done about that, it does not.
    if lines()
        .filter(session)
        .any(|line| line.contains("pam_selinux") && line.contains("context"))
    {
        return failed(
            "SELinux enforces, and nothing on an NFS root has a label; take enforcing=1 out of the kernel arguments",
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

    /// As systemd 252 and Linux-PAM 1.5 say it.
    fn journal(module: &str, pam: &str) -> String {
        format!(
            "{module}PAM failed: {pam} / rackstrap-login-9-1.service: Failed to set up PAM session: Operation not permitted / \
             rackstrap-login-9-1.service: Failed at step PAM spawning /usr/bin/true: Operation not permitted"
        )
    }

    #[test]
    fn who_is_refused_on_purpose_is_told_from_what_is_broken() {
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
            // Without a word nobody knows.
            (String::new(), true, true),
        ] {
            assert_eq!(verdict(AT_PAM, &said, root).is_ok(), ok, "{said} {root}");
        }
        let limits = "pam_limits(sshd:session): Could not set limit for 'nofile': Operation not permitted / ";
        assert_eq!(
            verdict(AT_PAM, &journal(limits, "Permission denied"), true).unwrap_err(),
            "no session can be opened for root as sshd opens one: Permission denied; pam_limits(sshd:session): Could not set limit \
             for 'nofile': Operation not permitted"
        );
        let opened = "pam_unix(sshd:session): session opened for user root(uid=0) by (uid=0) / pam_env(sshd:session): deprecated \
                      reading of user environment enabled / ";
        assert_eq!(
            verdict(AT_PAM, &journal(opened, "Permission denied"), true).unwrap_err(),
            "no session can be opened for root as sshd opens one: Permission denied"
        );
    }

    /// The words of Debian 12 with `enforcing=1` on the kernel's command line. None of the child's last words is the unit's.
    #[test]
    fn the_last_words_of_the_child_are_heard() {
        struct Enforcing;
        impl System for Enforcing {
            fn has_systemd(&self) -> bool {
                true
            }
            fn is_active(&self, _: &str) -> crate::command::Ran {
                unreachable!()
            }
            fn mounts(&self) -> String {
                String::new()
            }
            fn run(&self, words: &[&str], _: Duration) -> crate::command::Ran {
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
                crate::command::Ran {
                    ok: words[0] != "systemd-run",
                    how: AT_PAM.to_owned(),
                    said: said.to_owned(),
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
            verdict("still ran after 90 s and was killed", "", false).unwrap_err(),
            "no session can be opened for root as sshd opens one: systemd-run still ran after 90 s and was killed"
        );
    }
}
