//! `label` and `encrypt` in `[[layout.NAME.partition]]`: what is special about the content of a partition, and where each file system may be used.

use super::{
    diagnostic::{Report, quote},
    section::Section,
};
use rackstrap_wire::{ContentOf, Encryption, FileSystem};
use toml::Spanned;

const MIB: u64 = 1 << 20;
/// mkfs.xfs refuses smaller file systems (xfsprogs 5.19, "Filesystem must be larger than 300MB").
const SMALLEST_XFS: u64 = 300 * MIB;
/// Below this size, mke2fs makes no journal or fails.
const SMALLEST_EXT4: u64 = 8 * MIB;
/// mkfs.btrfs needs 109 MiB for metadata in two copies (mkfs.btrfs(8), "minimum size").
const SMALLEST_BTRFS: u64 = 128 * MIB;

/// Directories that need files with owners, modes and links, which FAT does not have; with all below them.
const NEED_ATTRIBUTES: &[&str] = &["/var", "/home", "/root", "/opt", "/tmp", "/usr", "/srv"];

/// Directories whose files are expected after a restart; with all below them.
const KEPT: &[&str] = &["/home", "/root", "/srv", "/opt", "/usr", "/var/lib", "/var/log"];

/// Bytes of the smallest partition that can have a file system.
pub(super) fn smallest(fs: FileSystem) -> u64 {
    match fs {
        FileSystem::Xfs => SMALLEST_XFS,
        FileSystem::Ext4 => SMALLEST_EXT4,
        FileSystem::Btrfs => SMALLEST_BTRFS,
        FileSystem::Vfat | FileSystem::Swap | FileSystem::Raw => MIB,
    }
}

/// Characters of the longest label (mke2fs(8), mkfs.xfs(8), mkswap(8), mkfs.fat(8)); btrfs takes 255, of which nobody needs more than 32.
fn longest_label(fs: FileSystem) -> usize {
    match fs {
        FileSystem::Ext4 => 16,
        FileSystem::Swap => 15,
        FileSystem::Xfs => 12,
        FileSystem::Vfat => 11,
        FileSystem::Btrfs => 32,
        FileSystem::Raw => 0,
    }
}

/// Reads the keys for the content of the partition `name`. None if one of them is wrong; a partition without them has no content.
pub(super) fn read(
    report: &mut Report<'_>,
    section: &Section<'_>,
    name: &str,
    fs: FileSystem,
    mount: Option<&Spanned<String>>,
) -> Option<Option<ContentOf>> {
    let kind = fs.as_str();
    let mut sound = true;
    let mut content = ContentOf::new(name);
    if section.get("label").is_some() {
        if fs == FileSystem::Raw {
            report.error(
                section.key_at("label"),
                "a raw partition has no label",
                "remove 'label'",
            );
            sound = false;
        }
        let label = section.parsed(report, "label", "\"scratch\"", |text| match fs {
            FileSystem::Raw => Ok(String::new()),
            fs => read_label(text, fs),
        });
        sound &= label.is_some();
        content.label = label.map(Spanned::into_inner);
    }
    if fs == FileSystem::Vfat {
        for key in ["owner", "mode"].into_iter().filter(|key| section.get(key).is_some()) {
            let message = format!("{kind} has no owners and modes of files, so '{key}' cannot be set");
            report.error(
                section.key_at(key),
                message,
                "write options = \"uid=1000,gid=100,umask=022\" instead",
            );
            sound = false;
        }
        let needs = mount.filter(|mount| {
            let mount = mount.get_ref();
            NEED_ATTRIBUTES.iter().any(|dir| is_in(mount, dir))
        });
        if let Some(mount) = needs {
            let message = format!(
                "{} needs files with owners, modes and links, which {kind} does not have",
                mount.get_ref()
            );
            report.error(mount.span(), message, "write fs = \"ext4\", or mount it elsewhere");
            sound = false;
        }
    }
    if section.get("encrypt").is_some() {
        let encrypt = section.parsed(report, "encrypt", "\"boot-key\"", |text| match text {
            "boot-key" => Ok(Encryption::BootKey),
            _ => Err((
                format!("'encrypt' cannot be {}", quote(text)),
                "write encrypt = \"boot-key\", or remove the line".to_owned(),
            )),
        });
        sound &= encrypt.is_some();
        content.encrypt = encrypt.map(Spanned::into_inner);
        sound &= check_encrypted(report, section, fs, mount);
    }
    let is_special = content != ContentOf::new(name);
    sound.then(|| is_special.then_some(content))
}

/// Whether the content of a partition may be lost at each boot.
fn check_encrypted(
    report: &mut Report<'_>,
    section: &Section<'_>,
    fs: FileSystem,
    mount: Option<&Spanned<String>>,
) -> bool {
    if fs == FileSystem::Raw {
        report.error(
            section.key_at("encrypt"),
            "a raw partition is kept as it is, and an encrypted one is made at each boot",
            "remove 'encrypt', or choose fs = \"ext4\", \"xfs\", \"btrfs\", \"vfat\" or \"swap\"",
        );
        return false;
    }
    let Some(mount) = mount else { return true };
    let place = mount.get_ref();
    if KEPT.iter().any(|dir| is_in(place, dir)) {
        report.error(
            mount.span(),
            format!("{place} is for data that are kept, and an encrypted partition is empty after each boot"),
            "encrypt a partition for /tmp, /scratch or swap, or remove 'encrypt'",
        );
        return false;
    }
    if place == "/var" {
        report.warn(
            mount.span(),
            "an encrypted /var is copied from the image at each boot, and loses all logs",
            "mount it on /tmp or /scratch, or remove 'encrypt'",
        );
    }
    true
}

/// Whether `place` is the directory or below it.
fn is_in(place: &str, dir: &str) -> bool {
    place
        .strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn read_label(text: &str, fs: FileSystem) -> Result<String, (String, String)> {
    let longest = longest_label(fs);
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let fits = (1..=longest).contains(&text.len()) && text.bytes().all(is_plain) && !text.starts_with('-');
    // mkfs.fat(8): small letters do not work on all systems.
    if fs == FileSystem::Vfat && fits && text.bytes().any(|c| c.is_ascii_lowercase() || c == b'.') {
        let upper = text.to_ascii_uppercase().replace('.', "_");
        let message = format!("{} is not a label of vfat, which has capital letters only", quote(text));
        return Err((message, format!("write label = \"{upper}\"")));
    }
    match fits {
        true => Ok(text.to_owned()),
        false => Err((
            format!("{} is not a label of {}", quote(text), fs.as_str()),
            format!("write at most {longest} letters, digits, dots, - and _, such as label = \"SCRATCH\""),
        )),
    }
}
