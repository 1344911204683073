//! `[layout.NAME]`: what disks should look like.

use super::{
    LayoutPolicy,
    diagnostic::{Report, quote},
    disk, partition_content,
    section::Section,
};
use rackstrap_base::words::closest;
use rackstrap_wire::{
    ContentOf, ESP_PARTITION, FileSystem, Layout, Partition, PartitionTable, RootOf, Size, Wipe, content_of,
};
use std::ops::Range;
use toml::Spanned;

/// The MBR counts sectors of 512 bytes in 32 bits.
const LARGEST_MBR: u64 = 1 << 41;
/// The fourth entry of the MBR contains the marker.
const MOST_MBR: usize = 3;
/// GPT has room for 128 entries. A scratch disk does not need that many, and one is the marker.
const MOST_GPT: usize = 32;
/// Firmware reads a FAT file system with clusters of 32 KiB up to 2 GiB; nobody needs as much.
const LARGEST_ESP: u64 = 1 << 30;
/// The greatest priority of swap (swapon(2)).
const MOST_PRIORITY: u32 = 32767;
/// Where a file system of the local disk may be mounted, in the words of the help, the example and
/// docs/reference/site-file.md. [`system_path`] is the rule.
pub(super) const MAY_BE_MOUNTED: &str = "any directory except / itself, and except /bin, /dev, /etc, /lib, /lib32, /lib64, /libx32, \
     /proc, /run, /sbin, /sys, /usr and all below them; /usr/local and /usr/src are allowed";

/// A partition, with the places of its values.
struct Read {
    value: Partition,
    /// Owner and mode of its root directory; none if it has neither.
    root: Option<RootOf>,
    /// What is special about its content; none if nothing is.
    content: Option<ContentOf>,
    name_at: Range<usize>,
    size_at: Range<usize>,
    mount_at: Range<usize>,
}

pub(super) fn read(report: &mut Report<'_>, name: &str, section: &Section<'_>) -> Option<LayoutPolicy> {
    let mut complete = true;
    if !valid(name, 16) {
        let message = format!("{} is not a layout name", quote(name));
        report.error(
            section.at.clone(),
            message,
            "write 1 to 16 characters of a-z, 0-9 and -, such as [layout.scratch]",
        );
        complete = false;
    }
    section.require(report, "version", "1");
    let version = section.integer(report, "version", 1..=u64::from(u32::MAX), 1);
    let kinds = [("gpt", PartitionTable::Gpt), ("mbr", PartitionTable::Mbr)];
    let table = match section.get("table") {
        Some(_) => section.parsed(report, "table", "\"gpt\"", |text| choose("table", text, &kinds)),
        None => Some(Spanned::new(section.at.clone(), PartitionTable::Gpt)),
    };
    let when = [("ours", Wipe::Ours), ("known", Wipe::Known), ("always", Wipe::Always)];
    let wipe = match section.get("wipe") {
        Some(_) => section.parsed(report, "wipe", "\"ours\"", |text| choose("wipe", text, &when)),
        None => Some(Spanned::new(section.at.clone(), Wipe::Ours)),
    };
    if let Some(wipe) = wipe.as_ref().filter(|w| *w.get_ref() != Wipe::Ours) {
        let what = match wipe.get_ref() {
            Wipe::Known => "what earlier installations left on it",
            _ => "data that rackstrap did not write",
        };
        let message = format!("nodes with the layout '{name}' overwrite their disk, even {what}");
        report.warn(
            wipe.span(),
            message,
            "write wipe = \"ours\" once the disks are rackstrap's",
        );
    }
    let disk = disk::read(report, section, "disk");
    let esp = read_esp(report, section, table.as_ref(), &mut complete);
    let mut partitions = partitions(report, name, section, &mut complete)?;
    if let Some(esp) = esp {
        partitions.insert(0, esp);
    }
    let has_esp = section.get("esp").is_some();
    if let Some(table) = &table {
        complete &= check_table(report, section, *table.get_ref(), &partitions);
    }
    complete &= check_all(report, &partitions);
    if !complete {
        return None;
    }
    let roots = partitions.iter().filter_map(|p| p.root.clone()).collect();
    let contents: Vec<ContentOf> = partitions.iter().filter_map(|p| p.content.clone()).collect();
    let layout = Layout {
        name: name.to_owned(),
        version: u32::try_from(version?.into_inner()).ok()?,
        table: table?.into_inner(),
        partitions: partitions.into_iter().map(|p| p.value).collect(),
    };
    Some(LayoutPolicy {
        digest: digest(&layout, &contents, has_esp),
        layout,
        wipe: wipe?.into_inner(),
        disk,
        esp: has_esp,
        roots,
        contents,
    })
}

/// Reads `esp`: the size of an EFI system partition, which precedes the layout's own ones. Sets `complete` to false if it is wrong.
fn read_esp(
    report: &mut Report<'_>,
    section: &Section<'_>,
    table: Option<&Spanned<PartitionTable>>,
    complete: &mut bool,
) -> Option<Read> {
    section.get("esp")?;
    let size = section.parsed(report, "esp", "\"16MiB\"", |text| match text.parse() {
        Ok(Size::Bytes(bytes)) if bytes <= LARGEST_ESP => Ok(Size::Bytes(bytes)),
        _ => Err((
            format!("{} is not the size of an EFI system partition", quote(text)),
            format!(
                "write whole MiB, at most {}, such as esp = \"16MiB\"; `rackstrap check` names the smallest that is enough",
                Size::Bytes(LARGEST_ESP)
            ),
        )),
    });
    let is_mbr = table.is_some_and(|table| *table.get_ref() == PartitionTable::Mbr);
    if is_mbr {
        report.error(
            section.key_at("esp"),
            "a disk with an MBR gets no EFI system partition",
            "write table = \"gpt\", or remove 'esp'",
        );
    }
    let Some(size) = size.filter(|_| !is_mbr) else {
        *complete = false;
        return None;
    };
    let at = section.key_at("esp");
    Some(Read {
        name_at: at.clone(),
        size_at: size.span(),
        mount_at: at,
        root: None,
        content: None,
        value: Partition {
            name: ESP_PARTITION.to_owned(),
            size: size.into_inner(),
            fs: FileSystem::Raw,
            mount: None,
            options: String::new(),
        },
    })
}

/// Reads `[[layout.NAME.partition]]`. Sets `complete` to false if a partition had to be left out.
fn partitions(report: &mut Report<'_>, name: &str, section: &Section<'_>, complete: &mut bool) -> Option<Vec<Read>> {
    let title = format!("[[layout.{name}.partition]]");
    let example =
        format!("write {title}, and below it name = \"tmp\", size = \"rest\", fs = \"ext4\" and mount = \"/tmp\"");
    let Some(value) = section.get("partition") else {
        report.error(
            section.at.clone(),
            format!("{} has no partition", section.title),
            example,
        );
        return None;
    };
    let Some(all) = value.get_ref().as_array() else {
        let message = format!("{title} is a list of sections, written with two pairs of brackets");
        report.error(section.key_at("partition"), message, example);
        return None;
    };
    if all.is_empty() {
        report.error(
            section.key_at("partition"),
            format!("{} has no partition", section.title),
            example,
        );
        return None;
    }
    if all.len() > MOST_GPT {
        let message = format!("{} has {} partitions, at most {MOST_GPT}", section.title, all.len());
        report.error(section.key_at("partition"), message, "leave some out");
        return None;
    }
    let mut partitions = Vec::new();
    for value in all.iter() {
        let section = Section::new(report, "[[layout.NAME.partition]]", title.clone(), value.span(), value);
        match section.and_then(|section| partition(report, &section)) {
            Some(partition) => partitions.push(partition),
            None => *complete = false,
        }
    }
    Some(partitions)
}

fn partition(report: &mut Report<'_>, section: &Section<'_>) -> Option<Read> {
    section.require(report, "name", "\"tmp\"");
    section.require(report, "size", "\"rest\"");
    section.require(report, "fs", "\"ext4\"");
    let name = section.parsed(report, "name", "\"tmp\"", |text| {
        if text.starts_with("rackstrap") {
            let help = "choose another name: rackstrap's own partitions have this one";
            return Err((format!("{} is taken", quote(text)), help.to_owned()));
        }
        match valid(text, 12) {
            true => Ok(text.to_owned()),
            false => Err((
                format!("{} is not a partition name", quote(text)),
                "write 1 to 12 characters of a-z, 0-9 and - (it is the file system's label too)".to_owned(),
            )),
        }
    });
    let size = section.parsed(report, "size", "\"20GiB\"", |text| {
        text.parse::<Size>().map_err(|_| {
            // People often write powers of ten, which are not supported.
            let binary = text
                .strip_suffix('B')
                .map(|t| format!("{t}iB"))
                .filter(|t| t.parse::<Size>().is_ok());
            let help = match binary {
                Some(size) => format!("write size = \"{size}\", in powers of 1024"),
                None => "write whole MiB, GiB or TiB, such as size = \"512MiB\" or \"20GiB\", or \"rest\"".to_owned(),
            };
            (format!("{} is not a size", quote(text)), help)
        })
    });
    let kinds = FileSystem::ALL.map(|fs| (fs.as_str(), fs));
    let fs = section.parsed(report, "fs", "\"ext4\"", |text| choose("fs", text, &kinds));
    let mount = section.parsed(report, "mount", "\"/tmp\"", read_mount);
    let options = section.parsed(report, "options", "\"noatime\"", |text| {
        // fstab(5): a blank ends the field; the remaining characters could only be an error.
        match text.len() <= 200 && text.chars().all(|c| c.is_ascii_graphic() && !"\"'\\#".contains(c)) {
            true => Ok(text.to_owned()),
            false => Err((
                format!("{} are not mount options", quote(text)),
                "write them as in fstab, with commas and no blanks, such as options = \"noatime,nosuid\"".to_owned(),
            )),
        }
    });
    let owner = section.parsed(report, "owner", "\"1000:100\"", read_owner);
    let mode = section.parsed(report, "mode", "\"1777\"", read_mode);
    let (name, size, fs) = (name?, size?, fs?);
    let mounted = fs.get_ref().is_mountable();
    let kind = fs.get_ref().as_str();
    let before = report.is_clean();
    let mut sound = true;
    if let (false, Some(_)) = (mounted, section.get("mount")) {
        let message = format!("a {kind} partition cannot be mounted");
        report.error(
            section.key_at("mount"),
            message,
            "remove 'mount', or choose fs = \"ext4\", \"xfs\", \"btrfs\" or \"vfat\"",
        );
        sound = false;
    }
    for key in ["owner", "mode"] {
        if section.get(key).is_some() && (!mounted || section.get("mount").is_none()) {
            let message = format!("'{key}' is for partitions that are mounted");
            report.error(
                section.key_at(key),
                message,
                format!("remove '{key}', or write mount = \"/scratch\""),
            );
            sound = false;
        }
    }
    if let Some(options) = options.as_ref().filter(|_| *fs.get_ref() == FileSystem::Swap)
        && let Some(wrong) = options.get_ref().split(',').find(|option| !is_swap_option(option))
    {
        let message = format!("{} is not an option of swap", quote(wrong));
        report.error(
            options.span(),
            message,
            "write pri=0 to pri=32767, discard, discard=once or discard=pages, with commas between them",
        );
        sound = false;
    }
    if *fs.get_ref() == FileSystem::Raw && section.get("options").is_some() {
        report.error(
            section.key_at("options"),
            "a raw partition has no mount options",
            "remove 'options'",
        );
        sound = false;
    }
    if mounted && section.get("mount").is_none() && before {
        let message = format!(
            "the partition '{}' gets a file system and is mounted nowhere",
            name.get_ref()
        );
        report.warn(section.at.clone(), message, "write mount = \"/tmp\", or fs = \"raw\"");
    }
    let least = partition_content::smallest(*fs.get_ref());
    if matches!(*size.get_ref(), Size::Bytes(bytes) if bytes < least) {
        let message = format!(
            "{} is too small for {kind}, which needs {}",
            size.get_ref(),
            Size::Bytes(least)
        );
        report.error(
            size.span(),
            message,
            format!("write size = \"{}\" or more", Size::Bytes(least)),
        );
        sound = false;
    }
    let content = partition_content::read(report, section, name.get_ref(), *fs.get_ref(), mount.as_ref());
    sound &= content.is_some();
    let missing = |key: &str, is_read: bool| section.get(key).is_some() && !is_read;
    let unread = missing("mount", mount.is_some())
        || missing("options", options.is_some())
        || missing("owner", owner.is_some())
        || missing("mode", mode.is_some());
    if unread || !sound {
        return None;
    }
    let (owner, mode) = (owner.map(Spanned::into_inner), mode.map(Spanned::into_inner));
    let root = (owner.is_some() || mode.is_some()).then(|| RootOf {
        partition: name.get_ref().clone(),
        owner,
        mode,
    });
    Some(Read {
        root,
        content: content.flatten(),
        name_at: name.span(),
        size_at: size.span(),
        mount_at: mount.as_ref().map_or(section.at.clone(), Spanned::span),
        value: Partition {
            name: name.into_inner(),
            size: size.into_inner(),
            fs: fs.into_inner(),
            mount: mount.map(Spanned::into_inner),
            options: options.map(Spanned::into_inner).unwrap_or_default(),
        },
    })
}

/// `1000:100`
fn read_owner(text: &str) -> Result<(u32, u32), (String, String)> {
    // The kernel uses the greatest number for "no one" (chown(2)).
    let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
        true => text.parse().ok().filter(|id| *id < u32::MAX),
        false => None,
    };
    let ids = text.split_once(':');
    let ids = ids.and_then(|(user, group)| Some((number(user)?, number(group)?)));
    ids.ok_or_else(|| {
        let help = "write the numbers of a user and a group, such as owner = \"1000:100\": names can have other numbers in another image";
        (format!("{} is not an owner", quote(text)), help.to_owned())
    })
}

/// `1777`
fn read_mode(text: &str) -> Result<u32, (String, String)> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
    mode.ok_or_else(|| {
        let help =
            "write three or four octal digits, such as mode = \"1777\" for a directory in which all users may write";
        (format!("{} is not a mode", quote(text)), help.to_owned())
    })
}

/// Whether swapon(8) knows the option in fstab.
fn is_swap_option(option: &str) -> bool {
    match option.split_once('=') {
        Some(("pri", number)) => {
            !number.is_empty()
                && number.bytes().all(|b| b.is_ascii_digit())
                && number.parse::<u32>().is_ok_and(|priority| priority <= MOST_PRIORITY)
        }
        Some(("discard", how)) => matches!(how, "once" | "pages"),
        None => matches!(option, "defaults" | "discard"),
        Some(_) => false,
    }
}

/// The mount point in `text`; an error if it cannot be one.
fn read_mount(text: &str) -> Result<String, (String, String)> {
    let wrong = |why: &str, help: String| Err((format!("{} {why}", quote(text)), help));
    let place = plain_path(text, "mount", "mount = \"/scratch\"")?;
    if place == "/" {
        let help = format!("the root comes over NFS with a layer in RAM above it; choose {MAY_BE_MOUNTED}");
        return wrong("is the root", help);
    }
    match system_path(&place) {
        Some(why) => wrong(why, format!("choose {MAY_BE_MOUNTED}")),
        None => Ok(place),
    }
}

/// An absolute path that can be written to fstab unchanged. `key` and `example` are for the help.
pub(super) fn plain_path(text: &str, key: &str, example: &str) -> Result<String, (String, String)> {
    let wrong = |why: &str, help: String| Err((format!("{} {why}", quote(text)), help));
    if !text.starts_with('/') {
        return wrong(
            "is not an absolute path",
            format!("write {key} = \"/{}\"", text.trim_start_matches("./")),
        );
    }
    // Blanks, # and \ would have to be escaped in fstab, and no real mount point contains them.
    let clean = text.len() <= 255 && text.chars().all(|c| c.is_ascii_graphic() && !"\"'\\#".contains(c));
    if !clean {
        return wrong(
            "is not a plain path",
            format!("write letters, digits, / - _ and dots, such as {example}"),
        );
    }
    if text == "/" {
        return Ok(text.to_owned());
    }
    let parts: Vec<&str> = text[1..].split('/').collect();
    if parts.iter().any(|p| matches!(*p, "" | "." | "..")) {
        let plain: Vec<&str> = parts.iter().filter(|p| !matches!(**p, "" | ".")).copied().collect();
        let help = match plain.contains(&"..") {
            true => "write the path that is meant, without ..".to_owned(),
            false => format!("write {key} = \"/{}\"", plain.join("/")),
        };
        return wrong("is not in its plain form", help);
    }
    Ok(text.to_owned())
}

/// Why nothing can be mounted on `place`, a plain path; none if mounting there does not break the system.
pub(super) fn system_path(place: &str) -> Option<&'static str> {
    let mut parts = place.trim_start_matches('/').split('/');
    match (parts.next().unwrap_or_default(), parts.next()) {
        ("usr", second) if !matches!(second, Some("local" | "src")) => Some("would hide the image's programs"),
        ("bin" | "sbin" | "lib" | "lib32" | "lib64" | "libx32", _) => Some("would hide the image's programs"),
        ("etc", _) => Some("would hide the node's configuration"),
        ("proc" | "sys" | "dev" | "run", _) => Some("belongs to the kernel and to init"),
        _ => None,
    }
}

/// Whether the partition table can hold the partitions.
fn check_table(report: &mut Report<'_>, section: &Section<'_>, table: PartitionTable, all: &[Read]) -> bool {
    let total = all.iter().try_fold(0u64, |sum, p| match p.value.size {
        Size::Bytes(bytes) => sum.checked_add(bytes),
        Size::Rest => Some(sum),
    });
    let mut complete = true;
    let mut error = |message: String, help: &str| {
        report.error(section.key_at("table"), message, help);
        complete = false;
    };
    if table == PartitionTable::Mbr && all.len() > MOST_MBR {
        let message = format!(
            "an MBR has room for {MOST_MBR} partitions in addition to the marker, but the layout has {}",
            all.len()
        );
        error(message, "write table = \"gpt\", or leave some out");
    }
    match total {
        None => error(
            "the sizes add up to more than any disk has".to_owned(),
            "make the partitions smaller",
        ),
        Some(total) if table == PartitionTable::Mbr && total > LARGEST_MBR => {
            error(
                "an MBR reaches 2 TiB, and the partitions need more".to_owned(),
                "write table = \"gpt\"",
            );
        }
        Some(_) => {}
    }
    complete
}

/// Checks names, mount points and "rest" across the partitions of one layout.
fn check_all(report: &mut Report<'_>, all: &[Read]) -> bool {
    let mut complete = true;
    let mut error = |at: &Range<usize>, message: String, help: String| {
        report.error(at.clone(), message, help);
        complete = false;
    };
    for (i, this) in all.iter().enumerate() {
        let earlier = &all[..i];
        if earlier.iter().any(|p| p.value.name == this.value.name) {
            let message = format!("two partitions are called '{}'", this.value.name);
            let help = match this.value.name.as_str() {
                ESP_PARTITION => "give each its own name; the one of 'esp' is called so",
                _ => "give each its own name",
            };
            error(&this.name_at, message, help.to_owned());
        }
        if this.value.size == Size::Rest && earlier.iter().any(|p| p.value.size == Size::Rest) {
            let message = "a second partition takes the rest of the disk".to_owned();
            error(
                &this.size_at,
                message,
                "give one of them a size, such as size = \"20GiB\"".to_owned(),
            );
        }
        let Some(mount) = &this.value.mount else { continue };
        for before in earlier.iter().filter_map(|p| p.value.mount.as_ref()) {
            if before == mount {
                let message = format!("two partitions are mounted on {mount}");
                error(&this.mount_at, message, "mount each somewhere else".to_owned());
            } else if before
                .strip_prefix(mount.as_str())
                .is_some_and(|below| below.starts_with('/'))
            {
                let message = format!("{mount} would be mounted over {before}, which is mounted before it");
                error(
                    &this.mount_at,
                    message,
                    format!("put the partition for {mount} first: they are mounted in this order"),
                );
            }
        }
    }
    complete
}

fn valid(name: &str, longest: usize) -> bool {
    (1..=longest).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The value of one of a few words.
fn choose<T: Copy>(key: &str, text: &str, words: &[(&str, T)]) -> Result<T, (String, String)> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let all: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let help = match closest(text, words.iter().map(|(word, _)| *word)) {
        Some(near) => format!("write {key} = \"{near}\""),
        None => format!("write {key} = {}", all.join(" or ")),
    };
    Err((format!("'{key}' cannot be {}", quote(text)), help))
}

/// The digest of what preparing a disk by `layout` writes to it: the first 16 bytes of a BLAKE3 hash, as 32 hex digits.
///
/// The hash is over a list of texts, each as `LENGTH:TEXT,` (a netstring, so that no two lists are equal as bytes):
/// `rackstrap layout 1`, name, version, table, and for each partition in order its name, its size (bytes in decimal, or
/// `rest`) and its file system. Mount points and options are left out: they are not on the disk, so changing them must not
/// erase data. An EFI system partition, which is the first one if `has_esp`, has the file system `efi`. A label and encryption follow the
/// file system after a blank: `ext4 label=logs encrypt=boot-key`.
pub fn digest(layout: &Layout, contents: &[ContentOf], has_esp: bool) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(format!("{}:{text},", text.len()).as_bytes());
    };
    add("rackstrap layout 1");
    add(&layout.name);
    add(&layout.version.to_string());
    add(&layout.table.to_string());
    for (index, partition) in layout.partitions.iter().enumerate() {
        add(&partition.name);
        match partition.size {
            Size::Bytes(bytes) => add(&bytes.to_string()),
            Size::Rest => add("rest"),
        }
        let mut fs = match has_esp && index == 0 {
            true => "efi".to_owned(),
            false => partition.fs.as_str().to_owned(),
        };
        let content = content_of(contents, &partition.name);
        if let Some(label) = content.and_then(|content| content.label.as_ref()) {
            fs += &format!(" label={label}");
        }
        if let Some(encrypt) = content.and_then(|content| content.encrypt) {
            fs += &format!(" encrypt={}", encrypt.as_str());
        }
        add(&fs);
    }
    hex::encode(&hasher.finalize().as_bytes()[..16])
}
