use super::*;
use proptest::prelude::*;
use rackstrap_site::Users;
use rackstrap_wire::users::without;

fn policy() -> Users {
    Users {
        uid: 1000..=59_999,
        gid: 1000..=59_999,
        exclude: vec!["backup".to_owned(), "secret".to_owned()],
        shadow: true,
        from: "/etc".into(),
    }
}

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/bash
# people
alice:x:1000:1000:Alice A.,,,:/home/alice:/bin/bash
bob:x:1001:1000::/home/bob:/bin/zsh
backup:x:1002:1002::/home/backup:/bin/sh
eve::notanumber:1000::/home/eve:/bin/sh
mallory:x:1003:1000:\u{1b}[31m:/home/m:/bin/sh
+@people::::::
short:x:1004
bob:x:1005:1000:again:/home/bob:/bin/sh
climber:x:1006:1000::/home/../etc:/bin/sh
own:x:1007:1000::/home/own:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
carol:x:1008:4000::/home/carol:
";

const GROUP: &str = "\
people:x:1000:
lab:x:1100:alice,bob,stranger
secret:x:1200:alice
docker:x:998:alice
video:x:1300:bob
:x:1400:
colon:x:1500:al:ice
";

const SHADOW: &str = "\
root:$y$root:19000:0:99999:7:::
alice:$y$j9T$abc:19000:0:99999:7:::
bob::19000:0:99999:7:::
carol:!:x:0:99999:7:::
";

fn selected() -> Accounts {
    select(&policy(), PASSWD.as_bytes(), GROUP.as_bytes(), SHADOW.as_bytes())
}

#[test]
fn the_range_is_taken_and_each_bad_line_is_named() {
    let found = selected();
    let names: Vec<&str> = found.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob", "own", "carol"]);
    let groups: Vec<&str> = found.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(groups, ["people", "lab", "video"]);
    assert_eq!(found.users[0].shadow.as_deref(), Some("$y$j9T$abc:19000:0:99999:7:::"));
    assert_eq!(found.users[1].shadow, None, "an empty password lets nobody in");
    let said: Vec<String> = found.refused.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"));
    assert!(!said.join("").contains("$y$"));
    let quiet = Users {
        shadow: false,
        ..policy()
    };
    let quiet = select(&quiet, PASSWD.as_bytes(), GROUP.as_bytes(), SHADOW.as_bytes());
    assert!(quiet.users.iter().all(|user| user.shadow.is_none()));
}

fn merged(image: &EtcFiles, accounts: &Accounts, has: impl Fn(&str) -> bool) -> Merged {
    let mut merged = merge(image, &accounts.users, &accounts.groups);
    merged.conflicts.extend(lacking(&merged, &accounts.users, has));
    merged
}

fn image() -> EtcFiles {
    EtcFiles {
        passwd:
            "root:x:0:0:root:/root:/bin/bash\nown:x:1500:1500::/home/own:/bin/sh\nubuntu:x:1001:1001::/home/u:/bin/sh"
                .to_owned(),
        group: "root:x:0:\nlab:x:1100:root\nrender:x:1300:\nodd line\n".to_owned(),
        shadow: Some("root:*:19000:0:99999:7:::\n".to_owned()),
    }
}

#[test]
fn the_images_own_entries_stay_and_conflicts_are_named() {
    let found = merged(&image(), &selected(), |path| path == "/bin/bash");
    insta::assert_snapshot!(format!(
        "{}---\n{}---\n{}---\n{}",
        found.files.passwd,
        found.files.group,
        found.files.shadow.clone().unwrap(),
        found.conflicts.join("\n")
    ));
    assert!(found.files.passwd.starts_with(&image().passwd));
    // Another user of the same name gets no groups of the server's user; the same user does.
    let group = "lab:x:1100:own,shared\n";
    let policy = Users {
        shadow: false,
        ..policy()
    };
    let passwd = "own:x:1007:1000::/home/own:/bin/sh\nshared:x:1600:1100::/:/bin/sh\n";
    let two = select(&policy, passwd.as_bytes(), group.as_bytes(), b"");
    let with = EtcFiles {
        passwd: format!("{}\nshared:x:1600:1100::/:/bin/sh\n", image().passwd),
        ..image()
    };
    assert!(
        merged(&with, &two, |_| true)
            .files
            .group
            .contains("lab:x:1100:root,shared\n")
    );
    let bare = EtcFiles {
        shadow: None,
        ..image()
    };
    let found = merged(&bare, &selected(), |_| true);
    assert!(
        found.files.shadow.is_none() && found.files.passwd.contains("alice:*:1000"),
        "no hash where all can read"
    );
    let nothing = merged(&image(), &Accounts::default(), |_| true);
    assert_eq!(
        nothing.files.passwd,
        format!("{}\n", image().passwd).trim_end_matches('\n').to_owned() + "\n"
    );
}

#[test]
fn users_that_were_added_on_a_node_stay_when_the_servers_users_change() {
    let before = merged(&image(), &selected(), |_| true);
    // The changes that useradd and gpasswd make on the node.
    let mut files = before.files.clone();
    files.passwd += "daemonized:x:990:990::/:/usr/sbin/nologin\n";
    files.group = files.group.replace("lab:x:1100:root", "lab:x:1100:root,local") + "daemonized:x:990:\n";
    files.shadow.as_mut().unwrap().push_str("daemonized:!:::::::\n");
    let own = without(&files, &before.added);
    let only_carol = "carol:x:1008:4000::/home/carol:\n";
    let later = select(&policy(), only_carol.as_bytes(), b"lab:x:1100:carol\n", b"");
    let after = merged(&own, &later, |_| true).files;
    assert!(
        after
            .passwd
            .ends_with("daemonized:x:990:990::/:/usr/sbin/nologin\ncarol:x:1008:4000::/home/carol:\n")
    );
    assert!(!after.passwd.contains("alice"), "{}", after.passwd);
    assert!(
        after.group.contains("\nlab:x:1100:root,local,carol\n"),
        "{}",
        after.group
    );
    assert!(
        !after.group.contains("people") && after.group.contains("\ndaemonized:x:990:\n"),
        "{}",
        after.group
    );
    let shadow = after.shadow.unwrap();
    assert_eq!(
        shadow,
        "root:*:19000:0:99999:7:::\ndaemonized:!:::::::\ncarol:*:::::::\n"
    );
}

#[test]
fn a_digest_identifies_the_entries_and_cannot_be_guessed() {
    let (one, key) = (selected().for_nodes(&[1; 32]), [1; 32]);
    assert_eq!(one, selected().for_nodes(&key));
    assert_ne!(one.digest, selected().for_nodes(&[2; 32]).digest);
    let other = SHADOW.replace("abc", "abd");
    let other = select(&policy(), PASSWD.as_bytes(), GROUP.as_bytes(), other.as_bytes());
    assert_ne!(one.digest, other.for_nodes(&key).digest, "another password");
    assert_eq!(Accounts::default().for_nodes(&key).digest, "");
    assert!(
        !one.passwd.contains("$y$") && one.shadow.starts_with("alice:$y$"),
        "{one:?}"
    );
}

#[test]
fn hashes_are_hidden() {
    let shown = hide_hashes("root:*:19000::::::\nalice:$y$j9T$abc:19000:0:99999:7:::\nbob:!$6$x:1::::::\nodd\nx:!::\n");
    assert_eq!(
        shown,
        "root:*:19000::::::\nalice:(hidden):19000:0:99999:7:::\nbob:(hidden):1::::::\nodd\nx:!::\n"
    );
}

#[test]
fn files_are_read_again_when_they_changed() {
    let dir = tempfile::tempdir().unwrap();
    let policy = Users {
        from: dir.path().to_owned(),
        shadow: false,
        ..policy()
    };
    let source = Source::default();
    assert!(source.read(&policy).unwrap_err().contains("passwd"));
    std::fs::write(dir.path().join("passwd"), PASSWD).unwrap();
    std::fs::write(dir.path().join("group"), GROUP).unwrap();
    assert_eq!(source.read(&policy).unwrap().users.len(), 4);
    // The way in which vipw writes.
    std::fs::write(dir.path().join("new"), "dave:x:1010:1000::/home/dave:/bin/sh\n").unwrap();
    std::fs::rename(dir.path().join("new"), dir.path().join("passwd")).unwrap();
    assert_eq!(source.read(&policy).unwrap().users[0].name, "dave");
    let narrow = Users {
        uid: 2000..=2001,
        ..policy.clone()
    };
    assert!(source.read(&narrow).unwrap().users.is_empty());
    std::fs::remove_file(dir.path().join("group")).unwrap();
    std::fs::create_dir(dir.path().join("group")).unwrap();
    assert!(source.read(&policy).unwrap_err().contains("not a regular file"));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_no_invalid_entry_is_accepted(
        passwd in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b":x\n1,/a".to_vec())], 0..400),
        group in "([a-c]{0,3}:x:1[0-9]{0,4}:[a-c,]{0,6}\n|\\PC{0,20}){0,8}",
        shadow in "([a-c]:[$!*a]{0,3}:[0-9:]{0,9}\n){0,4}",
    ) {
        let accounts = select(&policy(), &passwd, group.as_bytes(), shadow.as_bytes());
        let found = merged(&image(), &accounts, |_| true);
        // Added entries can be removed again, and nothing else is removed with them.
        let mut own = image();
        own.passwd.push('\n');
        prop_assert_eq!(without(&found.files, &found.added), own.clone());
        let (users, groups) = accounts.for_nodes(&[7; 32]).read();
        let there = merge(&without(&found.files, &found.added), &users, &groups);
        prop_assert_eq!((&there.files, &there.added), (&found.files, &found.added), "an agent makes the same of it");
        prop_assert!(found.files.passwd.starts_with(&image().passwd));
        for line in found.files.passwd.lines() {
            prop_assert_eq!(line.split(':').count(), 7, "{}", line);
        }
        for line in found.files.shadow.unwrap().lines() {
            prop_assert_eq!(line.split(':').count(), 9, "{}", line);
        }
        let roots = found.files.passwd.lines().filter(|line| line.split(':').nth(2) == Some("0"));
        prop_assert_eq!(roots.count(), 1);
    }
}
