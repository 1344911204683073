//! What `[[mount]]` makes of a node: lines of its fstab, mount points, and a unit that waits for required mounts.

use super::render::{MountFacts, Placed};
use rackstrap_model::inventory::Settings;
use rackstrap_site::{Mount, Site, expanded_mount};
use rackstrap_wire::{OverlayContent, OverlayFile};

/// The name of the tree that these files are shown under.
const TREE: &str = "[[mount]]";

/// Types that need the network. systemd orders the types that it knows after the network; for the others, `_netdev` does.
const NETWORK: [&str; 20] = [
    "9p",
    "acfs",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "davfs",
    "glusterfs",
    "gpfs",
    "lustre",
    "mfs",
    "moosefs",
    "ncpfs",
    "nfs",
    "nfs4",
    "orangefs",
    "pvfs2",
    "smb3",
    "smbfs",
];

/// File systems that mount(8) passes to the kernel. All other types need a program `mount.TYPE`.
const KERNEL: [&str; 31] = [
    "9p",
    "auto",
    "bcachefs",
    "binfmt_misc",
    "btrfs",
    "configfs",
    "debugfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hfsplus",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "mqueue",
    "msdos",
    "none",
    "overlay",
    "ramfs",
    "reiserfs",
    "squashfs",
    "tmpfs",
    "tracefs",
    "udf",
    "vfat",
    "virtiofs",
    "xfs",
];

/// The mounts of a node with these profiles, in an order in which they can be mounted: a mount below another one comes after
/// it. Also returns, in words, the mounts of the site file that the node does not get.
pub(super) fn of_node(site: &Site, profiles: &[String], settings: &Settings<'_>) -> (Vec<MountFacts>, Vec<String>) {
    let (mut mounts, mut notes): (Vec<MountFacts>, Vec<String>) = Default::default();
    for mount in site.mounts.iter().filter(|mount| mount.applies_to(profiles)) {
        // Two profiles may define different mounts for one place, which is an error only if a node has both.
        if let Some(first) = mounts.iter().find(|other| other.place == mount.place) {
            notes.push(format!(
                "two of the node's profiles have a mount for {}: the node gets {}, not {}",
                mount.place, first.what, mount.what
            ));
            continue;
        }
        match expanded_mount(mount, |name| settings.variable(name)) {
            Ok(mount) => mounts.push(facts(&mount)),
            Err(problem) => notes.push(format!("nothing is mounted on {}: {problem}", mount.place)),
        }
    }
    // The sort is stable: mounts of equal depth keep the order of the file.
    mounts.sort_by_key(|mount| mount.place.matches('/').count());
    (mounts, notes)
}

fn facts(mount: &Mount) -> MountFacts {
    MountFacts {
        what: escaped(&mount.what),
        place: escaped(&mount.place),
        kind: mount.kind.clone(),
        options: options(mount),
        required: mount.required,
    }
}

/// The text as getmntent(3) reads it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' ' => escaped.push_str("\\040"),
            '\t' => escaped.push_str("\\011"),
            '\\' => escaped.push_str("\\134"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The site's options, and those that keep a boot from hanging (systemd.mount(5)). No mount may send a node into the
/// emergency shell, where it would wait for an administrator. Required mounts are waited for by [`files`].
fn options(mount: &Mount) -> String {
    let mut all: Vec<String> = mount
        .options
        .split(',')
        .filter(|o| !o.is_empty())
        .map(str::to_owned)
        .collect();
    let has = |all: &[String], key: &str| all.iter().any(|o| o.split('=').next() == Some(key));
    let mut add = |key: &str, option: &str| {
        if !has(&all, key) {
            all.push(option.to_owned());
        }
    };
    let network = NETWORK.contains(&mount.kind.as_str()) || mount.kind.starts_with("fuse");
    if network {
        add("_netdev", "_netdev");
    }
    match (mount.required, network) {
        // A failed remote-fs.target does not end a boot. Without nofail, units after that target find the mount.
        (true, true) => {}
        // nofail removes the ordering together with the requirement.
        (true, false) => {
            add("nofail", "nofail");
            add("x-systemd.before", "x-systemd.before=local-fs.target");
        }
        (false, _) => add("nofail", "nofail"),
    }
    if !mount.required {
        if mount.what.starts_with("/dev/") || mount.what.contains('=') {
            // The boot does not wait for it, and after this time systemd does not look for it any more: long enough for disks
            // that a busy machine finds late.
            add("x-systemd.device-timeout", "x-systemd.device-timeout=10min");
        }
        if network {
            add("x-systemd.mount-timeout", "x-systemd.mount-timeout=30s");
        }
    }
    all.join(",")
}

fn placed(path: String, mode: u32, content: OverlayContent) -> Placed {
    Placed {
        tree: TREE.to_owned(),
        file: OverlayFile {
            path,
            mode,
            uid: 0,
            gid: 0,
            content,
        },
    }
}

/// The mount points.
pub(super) fn files(mounts: &[MountFacts]) -> Vec<Placed> {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
    // A mount point below another mount belongs to that file system.
    let points = mounts
        .iter()
        .filter(|mount| !mounts.iter().any(|other| below(&mount.place, &other.place)));
    points
        .map(|mount| placed(mount.place.clone(), 0o755, OverlayContent::Directory))
        .collect()
}

/// A condition of the unit that reports `ready`, for agents that cannot mount (wire version 1): it mounts the required
/// mounts, and retries until they are mounted.
pub(super) fn waits(mounts: &[MountFacts]) -> Option<Placed> {
    let required: Vec<&MountFacts> = mounts.iter().filter(|mount| mount.required).collect();
    if required.is_empty() {
        return None;
    }
    let mut unit = "# Without these the node is not ready: they are tried again until they are there.\n\
                    [Unit]\nStartLimitIntervalSec=0\n\n[Service]\nTimeoutStartSec=infinity\n"
        .to_owned();
    for mount in required {
        // With nofail, mount(8) succeeds if the device does not exist.
        let place = mount.place.replace('%', "%%").replace('$', "$$");
        unit.push_str(&format!(
            "ExecStartPre=/bin/sh -c 'mountpoint -q -- \"$$0\" || {{ timeout 120 mount -- \"$$0\"; mountpoint -q -- \"$$0\"; }}' \
             {place}\n"
        ));
    }
    let path = "/etc/systemd/system/rackstrap-voice.service.d/mounts.conf".to_owned();
    Some(placed(path, 0o644, OverlayContent::Text(unit)))
}

/// The programs and modules that the image lacks for these mounts; `has` returns whether a path exists in the image.
pub(super) fn lacking(mounts: &[MountFacts], image: &str, has: impl Fn(&str) -> bool) -> Vec<String> {
    let mut notes = Vec::new();
    for mount in mounts {
        let kind = mount.kind.as_str();
        if KERNEL.contains(&kind) {
            continue;
        }
        // mount(8) calls mount.fuse.NAME for fuse.NAME, or mount.fuse, which runs NAME.
        let helpers: Vec<String> = match kind.split_once('.') {
            Some((stem, _)) => vec![
                format!("mount.{kind}"),
                format!("mount.{stem}"),
                format!("mount.{stem}3"),
            ],
            None if kind == "fuse" => vec!["mount.fuse".to_owned(), "mount.fuse3".to_owned()],
            None => vec![format!("mount.{kind}")],
        };
        let found = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"]
            .iter()
            .any(|dir| helpers.iter().any(|helper| has(&format!("{dir}/{helper}"))));
        if found {
            continue;
        }
        let package = match kind {
            "nfs" | "nfs4" => "; Debian's is in nfs-common, Red Hat's in nfs-utils",
            "cifs" | "smb3" => "; it is in cifs-utils",
            "ceph" => "; it is in ceph-common",
            "glusterfs" => "; Debian's is in glusterfs-client",
            "fuse.sshfs" => "; it is in sshfs",
            _ => "",
        };
        let what = format!(
            "{image} has no {}, so {} ({kind}) is not mounted{package}",
            helpers[0], mount.place
        );
        if !notes.contains(&what) {
            notes.push(what);
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(what: &str, place: &str, kind: &str, options: &str, required: bool) -> Mount {
        Mount {
            what: what.to_owned(),
            place: place.to_owned(),
            kind: kind.to_owned(),
            options: options.to_owned(),
            profiles: None,
            required,
        }
    }

    #[test]
    fn options_keep_a_boot_from_hanging() {
        for (what, kind, given, required, expected) in [
            (
                "10.5.0.2:/home",
                "nfs",
                "rw,hard",
                false,
                "rw,hard,_netdev,nofail,x-systemd.mount-timeout=30s",
            ),
            ("10.5.0.2:/home", "nfs4", "", true, "_netdev"),
            (
                "10.5.0.2:/home",
                "nfs",
                "_netdev,nofail,x-systemd.mount-timeout=9",
                false,
                "_netdev,nofail,x-systemd.mount-timeout=9",
            ),
            (
                "LABEL=data",
                "ext4",
                "noatime",
                false,
                "noatime,nofail,x-systemd.device-timeout=10min",
            ),
            (
                "LABEL=data",
                "ext4",
                "",
                true,
                "nofail,x-systemd.before=local-fs.target",
            ),
            ("tmpfs", "tmpfs", "size=1g", false, "size=1g,nofail"),
            (
                "u@h:/x",
                "fuse.sshfs",
                "",
                false,
                "_netdev,nofail,x-systemd.mount-timeout=30s",
            ),
        ] {
            assert_eq!(
                options(&mount(what, "/x", kind, given, required)),
                expected,
                "{kind} {given}"
            );
        }
    }

    #[test]
    fn blanks_are_escaped() {
        assert_eq!(escaped("//server/our share\\x"), "//server/our\\040share\\134x");
    }

    #[test]
    fn points_are_made_where_no_other_mount_has_them_and_ready_waits_for_the_required() {
        let all: Vec<MountFacts> = [
            mount("s:/a", "/home", "nfs", "", true),
            mount("s:/b", "/home/big", "nfs", "", false),
            mount("s:/c", "/opt/100%", "nfs", "", true),
        ]
        .iter()
        .map(facts)
        .collect();
        let files = files(&all);
        let paths: Vec<&str> = files.iter().map(|placed| placed.file.path.as_str()).collect();
        assert_eq!(paths, ["/home", "/opt/100%"]);
        let unit = waits(&all).expect("two are required").file;
        assert_eq!(unit.path, "/etc/systemd/system/rackstrap-voice.service.d/mounts.conf");
        let OverlayContent::Text(unit) = &unit.content else {
            panic!("no text")
        };
        insta::assert_snapshot!(unit);
        assert_eq!(waits(&all[1..2]), None, "no unit waits for optional mounts");
    }

    #[test]
    fn helpers_that_are_missing_are_named_once() {
        let all: Vec<MountFacts> = [
            mount("s:/a", "/home", "nfs", "", true),
            mount("x", "/scratch", "beegfs", "", false),
            mount("x", "/mnt/y", "fuse.sshfs", "", false),
            mount("tmpfs", "/mnt/z", "tmpfs", "", false),
        ]
        .iter()
        .map(facts)
        .collect();
        let none = lacking(&all, "debian@1", |_| false);
        assert_eq!(none.len(), 3, "{none:?}");
        assert_eq!(
            none[0],
            "debian@1 has no mount.nfs, so /home (nfs) is not mounted; Debian's is in nfs-common, Red Hat's in nfs-utils"
        );
        let some = lacking(&all, "debian@1", |path| {
            ["/usr/sbin/mount.nfs", "/sbin/mount.fuse3"].contains(&path)
        });
        assert_eq!(
            some,
            ["debian@1 has no mount.beegfs, so /scratch (beegfs) is not mounted"]
        );
    }
}
