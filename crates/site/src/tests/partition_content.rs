//! `fs`, `label` and `encrypt` in `[[layout.NAME.partition]]`.

use super::*;
use rackstrap_wire::{ContentOf, Encryption, FileSystem};

fn partition(lines: &str) -> String {
    format!(
        "{SMALL}[layout.s]\nversion = 1\n[[layout.s.partition]]\nname = \"a\"\nsize = \"1GiB\"\n{lines}\n[profile.default]\nlayout = \"s\"\n"
    )
}

fn policy(lines: &str) -> LayoutPolicy {
    site(&partition(lines)).layouts["s"].clone()
}

#[test]
fn each_file_system_can_have_a_label_and_options() {
    for (fs, label) in [
        (FileSystem::Ext4, "scratch.of_2-nodes"),
        (FileSystem::Xfs, "scratch"),
        (FileSystem::Btrfs, "a-label-of-thirty-two-characters"),
        (FileSystem::Vfat, "EXCHANGE_1"),
    ] {
        // 16 characters of ext4.
        let label = if fs == FileSystem::Ext4 { &label[..16] } else { label };
        let policy = policy(&format!(
            "fs = \"{}\"\nlabel = \"{label}\"\nmount = \"/data\"\noptions = \"noatime\"",
            fs.as_str()
        ));
        let [made] = &policy.layout.partitions[..] else {
            panic!("{policy:?}")
        };
        assert_eq!((made.fs, made.options.as_str()), (fs, "noatime"));
        assert_eq!(
            policy.contents,
            [ContentOf {
                label: Some(label.to_owned()),
                ..ContentOf::new("a")
            }]
        );
    }
    assert_eq!(policy("fs = \"swap\"\nlabel = \"swap0\"").contents.len(), 1);
}

#[test]
fn what_is_written_to_the_disk_is_in_the_digest_and_old_digests_stay() {
    let plain = policy("fs = \"ext4\"\nmount = \"/data\"");
    assert!(plain.contents.is_empty());
    // The digest of a layout that markers of disks have.
    assert_eq!(plain.digest, "33e5bf66ede70f868c5de4d0088181ea");
    let labelled = policy("fs = \"ext4\"\nmount = \"/data\"\nlabel = \"b\"");
    let encrypted = policy("fs = \"ext4\"\nmount = \"/data\"\nencrypt = \"boot-key\"");
    let both = policy("fs = \"ext4\"\nmount = \"/data\"\nencrypt = \"boot-key\"\nlabel = \"b\"");
    let btrfs = policy("fs = \"btrfs\"\nmount = \"/data\"");
    let all = [&plain, &labelled, &encrypted, &both, &btrfs].map(|policy| policy.digest.as_str());
    let different: std::collections::BTreeSet<&str> = all.into_iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    assert_eq!(encrypted.contents[0].encrypt, Some(Encryption::BootKey));
}

#[test]
fn wrong_labels_and_places_are_refused_with_what_to_write() {
    for (lines, part) in [
        ("fs = \"raw\"\nlabel = \"a\"", "a raw partition has no label"),
        (
            "fs = \"xfs\"\nmount = \"/a\"\nlabel = \"thirteen-char\"",
            "write at most 12 letters",
        ),
        ("fs = \"ext4\"\nmount = \"/a\"\nlabel = \"\"", "is not a label of ext4"),
        (
            "fs = \"ext4\"\nmount = \"/a\"\nlabel = \"a b\"",
            "is not a label of ext4",
        ),
        (
            "fs = \"ext4\"\nmount = \"/a\"\nlabel = \"-U\"",
            "is not a label of ext4",
        ),
        (
            "fs = \"btrfs\"\nmount = \"/a\"\nlabel = \"ä\"",
            "is not a label of btrfs",
        ),
        (
            "fs = \"vfat\"\nmount = \"/a\"\nlabel = \"data.1\"",
            "write label = \"DATA_1\"",
        ),
        (
            "fs = \"vfat\"\nmount = \"/a\"\nlabel = \"TWELVE-CHARS\"",
            "write at most 11 letters",
        ),
        (
            "fs = \"vfat\"\nmount = \"/var/lib\"",
            "/var/lib needs files with owners, modes and links",
        ),
        (
            "fs = \"vfat\"\nmount = \"/home\"",
            "write fs = \"ext4\", or mount it elsewhere",
        ),
        (
            "fs = \"vfat\"\nmount = \"/a\"\nmode = \"1777\"",
            "write options = \"uid=1000,gid=100,umask=022\"",
        ),
        ("fs = \"btrf\"", "write fs = \"btrfs\""),
        ("fs = \"swap\"\nmount = \"/a\"", "a swap partition cannot be mounted"),
    ] {
        let said = said(&partition(lines));
        assert!(said.contains(part), "{lines}: {said}");
    }
    // Beginnings of names are no directories.
    policy("fs = \"vfat\"\nmount = \"/variants\"");
    let small = partition("fs = \"btrfs\"\nmount = \"/a\"").replace("1GiB", "64MiB");
    assert!(said(&small).contains("64MiB is too small for btrfs, which needs 128MiB"));
}

#[test]
fn what_is_kept_cannot_be_encrypted_with_a_key_of_one_boot() {
    for (lines, part) in [
        (
            "fs = \"raw\"\nencrypt = \"boot-key\"",
            "a raw partition is kept as it is, and an encrypted one is made at each boot",
        ),
        (
            "fs = \"ext4\"\nmount = \"/home\"\nencrypt = \"boot-key\"",
            "/home is for data that are kept, and an encrypted partition is empty after each boot",
        ),
        (
            "fs = \"ext4\"\nmount = \"/var/lib/x\"\nencrypt = \"boot-key\"",
            "is for data that are kept",
        ),
        (
            "fs = \"ext4\"\nmount = \"/a\"\nencrypt = \"luks\"",
            "write encrypt = \"boot-key\"",
        ),
        ("fs = \"ext4\"\nmount = \"/a\"\nencrypt = true", "'encrypt'"),
    ] {
        let said = said(&partition(lines));
        assert!(said.contains(part), "{lines}: {said}");
    }
    let (_, warnings) = check(&partition("fs = \"ext4\"\nmount = \"/var\"\nencrypt = \"boot-key\"")).unwrap();
    let warned = format!("{warnings:?}");
    assert!(
        warned.contains("an encrypted /var is copied from the image at each boot"),
        "{warned}"
    );
    for lines in [
        "fs = \"swap\"\nencrypt = \"boot-key\"",
        "fs = \"xfs\"\nmount = \"/scratch\"\nencrypt = \"boot-key\"",
    ] {
        assert_eq!(policy(lines).contents[0].encrypt, Some(Encryption::BootKey), "{lines}");
    }
}
