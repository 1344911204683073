//! The server's users on a running node: fetched when the server has other users than the node, and added after the node's own.

use crate::{
    fail::{Doing, Failure, Res},
    http::Server,
};
use rackstrap_wire::{
    paths,
    text::cut,
    users::{EtcFiles, GivenUsers, NodeUsers, UsersReport, index, merge, without},
};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// The entries in the node's files that are there because of the server's users; next to the agent, in the writable layer.
pub const GIVEN: &str = "/usr/lib/rackstrap/users.json";
const TIMEOUT: Duration = Duration::from_secs(20);
/// lckpwdf(3) waits for 15 s.
const LOCK_TRIES: u32 = 15;
/// Most names in a report's detail.
const NAMED: usize = 5;
/// Bytes of a detail (the wire's limit).
const DETAIL: usize = 200;

/// The users of this node.
#[derive(Debug)]
pub struct Users {
    /// `/`, or another directory in tests.
    root: PathBuf,
    /// The server, with the secret of the boot as its token; none if the boot brought no secret.
    server: Option<Server>,
    given: GivenUsers,
    /// The last failure; empty after a success.
    failure: String,
}

impl Users {
    /// Opens the users that the boot brought, or that an earlier reporter process wrote.
    pub fn open(server: &Server, secret: Option<&str>) -> Self {
        Users::below(Path::new("/"), server, secret)
    }

    fn below(root: &Path, server: &Server, secret: Option<&str>) -> Self {
        let server = secret.map(|secret| Server {
            token: secret.to_owned(),
            ..server.clone()
        });
        let kept = fs::read(inside(root, GIVEN)).ok();
        Users {
            root: root.to_owned(),
            server,
            given: kept
                .and_then(|kept| serde_json::from_slice(&kept).ok())
                .unwrap_or_default(),
            failure: String::new(),
        }
    }

    /// The users' part of a heartbeat; none if this node cannot fetch users.
    pub fn report(&self) -> Option<UsersReport> {
        self.server.as_ref()?;
        Some(UsersReport {
            digest: self.given.digest.clone(),
            ..UsersReport::default()
        })
    }

    /// Fetches the users with `digest`, or newer ones. Returns a report if something changed or failed.
    pub fn get(&mut self, digest: &str) -> Option<UsersReport> {
        let server = self.server.clone()?;
        if digest == self.given.digest {
            return None;
        }
        let fetched = server.get::<NodeUsers>(paths::USERS, TIMEOUT);
        let (detail, failed) = match fetched.and_then(|users| self.put(&users)) {
            Ok(detail) => {
                self.failure.clear();
                (detail, false)
            }
            // The same failure is reported once; the next heartbeat tries again.
            Err(failure) if failure.to_string() == self.failure => return None,
            Err(failure) => {
                self.failure = failure.to_string();
                (format!("cannot update the server's users: {failure}"), true)
            }
        };
        eprintln!("rackstrap: {detail}");
        let report = self.report()?;
        Some(UsersReport {
            detail: cut(&detail, DETAIL).to_owned(),
            failed,
            ..report
        })
    }

    /// Replaces the server's users by `users`. Returns the changes, for people.
    fn put(&mut self, users: &NodeUsers) -> Res<String> {
        let etc = inside(&self.root, "/etc");
        let _lock = lock(&etc)?;
        let now = EtcFiles {
            passwd: read(&etc.join("passwd"))?,
            group: read(&etc.join("group"))?,
            shadow: match etc.join("shadow").exists() {
                true => Some(read(&etc.join("shadow"))?),
                false => None,
            },
        };
        let (accounts, groups) = users.read();
        let own = without(&now, &self.given.added);
        let merged = merge(&own, &accounts, &groups);
        let detail = changes(&self.given.added.users, &merged.added.users);
        // Until all files are written they may contain either set, so both are recorded for removal by a later process.
        let mut both = self.given.clone();
        both.digest = "half".to_owned();
        both.added.users.extend(merged.added.users.iter().cloned());
        both.added.groups.extend(merged.added.groups.iter().cloned());
        both.added.members.extend(merged.added.members.iter().cloned());
        self.record(both)?;
        // passwd comes last: a user exists when all its other entries exist.
        let files = &merged.files;
        let pairs = [
            ("group", Some(&files.group), Some(&now.group)),
            ("shadow", files.shadow.as_ref(), now.shadow.as_ref()),
            ("passwd", Some(&files.passwd), Some(&now.passwd)),
        ];
        for (name, new, old) in pairs {
            if let Some(new) = new.filter(|_| new != old) {
                replace(&etc.join(name), new.as_bytes())?;
            }
        }
        self.record(GivenUsers {
            digest: users.digest.clone(),
            added: merged.added,
        })?;
        Ok(match merged.conflicts.len() {
            0 => detail,
            1 => format!("{detail}; {}", merged.conflicts[0]),
            more => format!("{detail}; {} and {} more", merged.conflicts[0], more - 1),
        })
    }

    fn record(&mut self, given: GivenUsers) -> Res<()> {
        let json = serde_json::to_vec(&given).doing(|| format!("writing {GIVEN}"))?;
        let path = inside(&self.root, GIVEN);
        write_beside(&path, &json, |_| Ok(())).doing(|| format!("writing {GIVEN}"))?;
        self.given = given;
        Ok(())
    }
}

fn inside(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn read(path: &Path) -> Res<String> {
    fs::read_to_string(path).doing(|| format!("reading {}", path.display()))
}

/// Takes the lock of useradd(8), passwd(1) and systemd-sysusers(8) (lckpwdf(3)). Closing the file releases it.
fn lock(etc: &Path) -> Res<File> {
    let path = etc.join(".pwd.lock");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let doing = || format!("locking {}", path.display());
    let file = File::from(rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).doing(doing)?);
    for attempt in 1.. {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(_) if attempt < LOCK_TRIES => std::thread::sleep(Duration::from_secs(1)),
            Err(e) => {
                let text = format!("{}: {e}; another program on this node is changing users", doing());
                return Err(Failure::new(text));
            }
        }
    }
    Ok(file)
}

/// Replaces a file atomically, and keeps its owner and mode.
fn replace(path: &Path, bytes: &[u8]) -> Res<()> {
    let doing = || format!("writing {}", path.display());
    let before = fs::metadata(path).doing(doing)?;
    write_beside(path, bytes, |file| {
        std::os::unix::fs::fchown(file, Some(before.uid()), Some(before.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))
    })
    .doing(doing)
}

/// Writes a file that only root can read until `finish` changes that.
fn write_beside(path: &Path, bytes: &[u8], finish: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".rackstrap");
    let beside = PathBuf::from(name);
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| finish(&file));
    // After a full disk no half-written file stays.
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

/// `the server's users were updated: bob is new; carol is gone` (pure).
fn changes(before: &[String], after: &[String]) -> String {
    let missing = |from: &[String], others: &[String]| -> Vec<String> {
        let others = index(others.iter().map(String::as_str));
        let missing = from.iter().filter(|name| !others.contains_key(name.as_str()));
        missing.cloned().collect()
    };
    let named = |names: Vec<String>, what: &str| match names.len() {
        0 => None,
        count @ 1..=NAMED => Some(format!(
            "{} {} {what}",
            names.join(", "),
            if count == 1 { "is" } else { "are" }
        )),
        count => Some(format!(
            "{} and {} more are {what}",
            names[..NAMED].join(", "),
            count - NAMED
        )),
    };
    let parts = [
        named(missing(after, before), "new"),
        named(missing(before, after), "gone"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "the server's users were updated: details changed".to_owned(),
        false => format!("the server's users were updated: {}", parts.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::users::Added;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nlocal:x:900:900::/:/bin/sh\n";

    fn node() -> (tempfile::TempDir, Users) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("etc")).unwrap();
        fs::create_dir_all(at("usr/lib/rackstrap")).unwrap();
        fs::write(at("etc/passwd"), PASSWD).unwrap();
        fs::write(at("etc/group"), "root:x:0:\nlab:x:1100:\n").unwrap();
        fs::write(at("etc/shadow"), "root:*:::::::\nalice:*:::::::\nlocal:!:::::::\n").unwrap();
        fs::set_permissions(at("etc/shadow"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(at("etc/shadow"), None, Some(42)).unwrap();
        let given = GivenUsers {
            digest: "one".into(),
            added: Added {
                users: vec!["alice".into()],
                ..Added::default()
            },
        };
        fs::write(at("usr/lib/rackstrap/users.json"), serde_json::to_vec(&given).unwrap()).unwrap();
        let users = open(dir.path());
        (dir, users)
    }

    fn open(root: &Path) -> Users {
        let server = Server {
            base: "http://127.0.0.1:1".into(),
            plan: "b1".into(),
            token: "cafe".into(),
        };
        Users::below(root, &server, Some("secret"))
    }

    fn two() -> NodeUsers {
        NodeUsers {
            digest: "two".into(),
            passwd: "bob:x:1001:1100::/home/bob:/bin/sh\nroot:x:1002:1100::/:/bin/sh\n".into(),
            group: "lab:x:1100:bob\n".into(),
            shadow: "bob:$6$x:1::::::\n".into(),
        }
    }

    #[test]
    fn users_are_added_and_removed_and_the_nodes_own_users_stay() {
        let (dir, mut users) = node();
        let text = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(users.report().unwrap().digest, "one");
        let said = users.put(&two()).unwrap();
        assert!(
            said.starts_with(
                "the server's users were updated: bob is new; alice is gone; user root (1002) is left out"
            ),
            "{said}"
        );
        assert_eq!(
            text("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nlocal:x:900:900::/:/bin/sh\nbob:x:1001:1100::/home/bob:/bin/sh\n"
        );
        assert_eq!(text("etc/group"), "root:x:0:\nlab:x:1100:bob\n");
        assert_eq!(text("etc/shadow"), "root:*:::::::\nlocal:!:::::::\nbob:$6$x:1::::::\n");
        let shadow = fs::metadata(dir.path().join("etc/shadow")).unwrap();
        assert_eq!((shadow.mode() & 0o7777, shadow.gid()), (0o640, 42));
        let kept = fs::metadata(dir.path().join("usr/lib/rackstrap/users.json")).unwrap();
        assert_eq!(kept.mode() & 0o7777, 0o600);
        // A second reporter process reads the record. With no users the files are as the image made them.
        let mut users = open(dir.path());
        assert_eq!(users.report().unwrap().digest, "two");
        users.put(&NodeUsers::default()).unwrap();
        assert_eq!(
            text("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nlocal:x:900:900::/:/bin/sh\n"
        );
        assert_eq!(text("etc/group"), "root:x:0:\nlab:x:1100:\n");
        let left: Vec<_> = fs::read_dir(dir.path().join("etc")).unwrap().flatten().collect();
        assert_eq!(left.len(), 4, "three files and the lock: {left:?}");
    }

    #[test]
    fn an_interrupted_update_is_completed_later() {
        let (dir, mut users) = node();
        // group cannot be replaced, and passwd comes after it.
        fs::create_dir(dir.path().join("etc/group.rackstrap")).unwrap();
        assert!(users.put(&two()).unwrap_err().to_string().contains("etc/group"));
        assert_eq!(fs::read_to_string(dir.path().join("etc/passwd")).unwrap(), PASSWD);
        let mut users = open(dir.path());
        assert_eq!(
            users.report().unwrap().digest,
            "half",
            "another digest makes the server send them again"
        );
        fs::remove_dir(dir.path().join("etc/group.rackstrap")).unwrap();
        users.put(&two()).unwrap();
        let passwd = fs::read_to_string(dir.path().join("etc/passwd")).unwrap();
        assert!(
            !passwd.contains("alice") && passwd.ends_with("bob:x:1001:1100::/home/bob:/bin/sh\n"),
            "{passwd}"
        );
    }

    #[test]
    fn a_failure_is_reported_once_and_no_request_is_made_in_vain() {
        let (dir, mut users) = node();
        assert_eq!(users.get("one"), None, "the node has these already");
        let report = users.get("two").unwrap();
        assert!(report.failed && report.digest == "one", "{report:?}");
        assert_eq!(users.get("two"), None);
        let server = users.server.clone().unwrap();
        assert_eq!(Users::below(dir.path(), &server, None).report(), None, "no secret");
    }

    #[test]
    fn changes_are_described() {
        let all = |names: &str| -> Vec<String> { names.split_whitespace().map(str::to_owned).collect() };
        assert_eq!(
            changes(&all("a b"), &all("b c d e f g h")),
            "the server's users were updated: c, d, e, f, g and 1 more are new; a is gone"
        );
        assert_eq!(
            changes(&all("a"), &all("a")),
            "the server's users were updated: details changed"
        );
    }
}
