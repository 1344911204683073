//! `rackstrap image list` and `show`

use super::{
    current::{current, is_current},
    find,
};
use crate::{error_line, output, screen};
use anyhow::Result;
use comfy_table::{CellAlignment, Table};
use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::{ImageVersion, InitKind, PackageKind, System, import_command};
use rackstrap_image::{WorkingCopy, load_catalog, packages_of, show_bytes, show_pids, working_copies};
use rackstrap_site::Site;
use rackstrap_wire::ImageRef;
use std::{collections::BTreeMap, path::Path};

/// Size of the file `part` of a version, in bytes.
pub(super) fn size_of(version: &ImageVersion, part: &str) -> u64 {
    std::fs::metadata(version.dir.join(part)).map_or(0, |data| data.len())
}

/// The boot loaders of a version of FreeBSD, with their sizes.
pub(super) fn boot_loaders(version: &ImageVersion) -> String {
    let names = version.manifest.loaders.keys();
    let all: Vec<String> = names
        .map(|name| format!("{name} ({})", show_bytes(size_of(version, name))))
        .collect();
    all.join(", ")
}

/// Warns about entries of the directory of images that could not be used.
pub(super) fn warn_of(problems: &[rackstrap_image::CatalogProblem]) {
    for problem in problems {
        eprintln!("warning: {problem}");
    }
}

pub(super) fn list(config: &Path, site: &Site, json: bool) -> Result<String> {
    // If the current versions cannot be read, the rest of the list is still useful.
    let current = current(config, site)
        .inspect_err(|error| eprintln!("warning: current versions are unknown: {}", error_line(error)))
        .ok();
    shown(&site.server.state_dir.join("images"), current.as_ref(), json)
}

fn shown(images: &Path, current: Option<&BTreeMap<String, ImageRef>>, json: bool) -> Result<String> {
    let (catalog, problems) = load_catalog(images);
    warn_of(&problems);
    let (copies, problems) = working_copies(images);
    warn_of(&problems);
    let is_current = |image: &ImageRef| Some(is_current(current?, &catalog, image));
    if json {
        let versions = catalog.iter().map(|version| {
            let mut value = as_json(version);
            value["current"] = is_current(&version.manifest.image).into();
            value
        });
        let all: Vec<_> = versions.chain(copies.iter().map(copy_as_json)).collect();
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    if catalog.iter().next().is_none() && copies.is_empty() {
        return Ok(format!(
            "no images in {}; make one with `{}`\n",
            images.display(),
            import_command("debian")
        ));
    }
    let mut table = output::table([
        "image", "current", "created", "os", "kernel", "arch", "files", "size", "message",
    ]);
    for version in catalog.iter() {
        let m = &version.manifest;
        table.add_row([
            m.image.to_string(),
            match is_current(&m.image) {
                Some(true) => "yes".to_owned(),
                Some(false) => String::new(),
                None => "?".to_owned(),
            },
            show_time(m.created),
            m.os.clone(),
            m.kernel_release.clone(),
            version.architectures(),
            m.files.to_string(),
            show_bytes(m.bytes),
            m.message.clone(),
        ]);
    }
    for column in [6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = output::render(&table) + "\n";
    if !copies.is_empty() {
        text.push_str(&format!("\n{}\n", output::render(&copies_table(&copies))));
    }
    Ok(text)
}

fn copies_table(copies: &[WorkingCopy]) -> Table {
    let mut table = output::table(["working copy", "of", "created", "by", "size", "open in"]);
    for copy in copies {
        let users = copy.users();
        table.add_row([
            copy.name.clone(),
            copy.info.parent.to_string(),
            show_time(copy.info.created),
            copy.info.by.clone(),
            show_bytes(copy.info.bytes),
            match users.is_empty() {
                true => String::new(),
                false => show_pids(&users),
            },
        ]);
    }
    if let Some(column) = table.column_mut(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn copy_as_json(copy: &WorkingCopy) -> serde_json::Value {
    serde_json::json!({
        "kind": "working-copy",
        "name": copy.name,
        "parent": copy.info.parent,
        "created_ms": copy.info.created,
        "by": copy.info.by,
        "files": copy.info.files,
        "bytes": copy.info.bytes,
        "open_in_pids": copy.users(),
        "directory": copy.dir,
    })
}

pub(super) fn show(images: &Path, image: &str, json: bool) -> Result<String> {
    let (catalog, problems) = load_catalog(images);
    warn_of(&problems);
    let version = find(&catalog, image)?;
    if json {
        return Ok(serde_json::to_string_pretty(&as_json(version))? + "\n");
    }
    let m = &version.manifest;
    let init = match m.init {
        InitKind::Systemd => "systemd",
        InitKind::Other => "other than systemd",
    };
    let (kernel, booted) = match m.system {
        System::Linux => (
            format!("{} ({})", m.kernel_release, show_bytes(size_of(version, "kernel"))),
            ("initramfs", show_bytes(size_of(version, "initramfs"))),
        ),
        System::FreeBsd => (m.kernel_release.clone(), ("boot loaders", boot_loaders(version))),
    };
    let fields = [
        ("image", m.image.to_string()),
        ("created", show_time(m.created)),
        ("from", m.source.clone()),
        ("by", m.by.clone()),
        ("message", m.message.clone()),
        ("parent", m.parent.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("packages", show_packages(version)),
        ("digest", m.digest.clone()),
        ("os", m.os.clone()),
        ("architecture", version.architectures()),
        ("kernel", kernel),
        booted,
        ("init", init.to_owned()),
        ("files", m.files.to_string()),
        ("size", show_bytes(m.bytes)),
        ("directory", version.dir.display().to_string()),
    ];
    let fields = fields.into_iter().chain(version.variants().skip(1).map(|variant| {
        let m = &variant.manifest;
        let about = format!(
            "{}: {}, kernel {}, {} files, {}, from {}, in {}",
            variant.variant,
            show_time(m.created),
            m.kernel_release,
            m.files,
            show_bytes(m.bytes),
            m.source,
            variant.dir.display()
        );
        ("variant", about)
    }));
    let fields: Vec<_> = fields.collect();
    let width = fields.iter().map(|(field, _)| field.len()).max().unwrap_or(0);
    let text: String = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(field, value)| format!("{field:width$}  {value}\n"))
        .collect();
    Ok(output::fit(&text, screen::columns()))
}

/// `dpkg: 312 installed; compared with debian@3: 2 added, 5 changed`
fn show_packages(version: &ImageVersion) -> String {
    let Some(counts) = version.manifest.packages else {
        return String::new();
    };
    if counts.kind == PackageKind::Unknown {
        let why = packages_of(&version.dir).why;
        return match why.is_empty() {
            true => "unknown".to_owned(),
            false => format!("unknown: {why}"),
        };
    }
    let changes: Vec<String> = [
        (counts.added, "added"),
        (counts.removed, "removed"),
        (counts.changed, "changed"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{count} {what}"))
    .collect();
    let against = match &version.manifest.parent {
        Some(parent) if changes.is_empty() => format!("; the same as in {parent}"),
        Some(parent) => format!("; compared with {parent}: {}", changes.join(", ")),
        None => String::new(),
    };
    format!("{}: {} installed{against}", counts.kind.as_str(), counts.installed)
}

fn show_time(time: Timestamp) -> String {
    // Seconds are left out.
    let text = output::local_time(time);
    text.rsplit_once(':')
        .map_or(text.clone(), |(minute, _)| minute.to_owned())
}

fn as_json(version: &ImageVersion) -> serde_json::Value {
    let mut value = variant_as_json(version);
    let further = version.variants().skip(1).map(variant_as_json);
    value["variants"] = further.collect();
    value
}

fn variant_as_json(version: &ImageVersion) -> serde_json::Value {
    let m = &version.manifest;
    serde_json::json!({
        "kind": "version",
        "image": m.image,
        "name": m.image.name,
        "version": m.image.version,
        "created_ms": m.created,
        "source": m.source,
        "by": m.by,
        "parent": m.parent,
        "digest": m.digest,
        "packages": m.packages,
        "message": m.message,
        "os": m.os,
        "kernel_release": m.kernel_release,
        "arch": m.arch,
        "architectures": version.variants().filter_map(|v| Some(v.architecture()?.to_string())).collect::<Vec<_>>(),
        "init": m.init,
        "files": m.files,
        "bytes": m.bytes,
        "kernel_bytes": size_of(version, "kernel"),
        "initramfs_bytes": size_of(version, "initramfs"),
        "system": m.system,
        "loaders": m.loaders,
        "directory": version.dir,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        for number in 1..=2 {
            let dir = state.path().join(format!("images/debian/{number}"));
            std::fs::create_dir_all(dir.join("root")).unwrap();
            std::fs::write(dir.join("kernel"), "kernel").unwrap();
            std::fs::write(dir.join("initramfs"), "initramfs").unwrap();
            let text = format!(
                "image = 'debian@{number}'\ncreated = 1700000000000\nsource = '/x'\nmessage = 'try {number}'\n\
                 kernel-release = '6.1.0-40-amd64'\narch = 'x86_64'\ninit = 'systemd'\nfiles = 12400\n\
                 bytes = 389021696\nos = 'Debian GNU/Linux 12 (bookworm)'\n"
            );
            std::fs::write(dir.join("manifest.toml"), text).unwrap();
        }
        state
    }

    #[test]
    fn lists_and_shows() {
        let state = state();
        let images = state.path().join("images");
        let none = BTreeMap::new();
        let text = shown(&images, Some(&none), false).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(
            rows[0].starts_with("IMAGE") && rows[2].starts_with("debian@2"),
            "{text}"
        );
        assert!(rows[1].contains("amd64  12400"), "{text}");
        assert!(rows[1].contains("371.0 MiB") && rows[1].ends_with("try 1"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&shown(&images, Some(&none), true).unwrap()).unwrap();
        assert_eq!(json[1]["image"], "debian@2");
        assert_eq!(json[1]["initramfs_bytes"], 9);
        assert_eq!(json[1]["architectures"], serde_json::json!(["amd64"]));
        // No version is current yet, so the newest one counts as current.
        assert_eq!(
            (&json[0]["current"], &json[1]["current"]),
            (&false.into(), &true.into())
        );
        assert!(
            rows[2].starts_with("debian@2  yes") && !rows[1].contains("yes"),
            "{text}"
        );
        let current = BTreeMap::from([("debian".to_owned(), "debian@1".parse().unwrap())]);
        let text = shown(&images, Some(&current), false).unwrap();
        assert!(
            text.contains("debian@1  yes") && text.matches("yes").count() == 1,
            "{text}"
        );
        assert!(shown(&images, None, false).unwrap().contains("debian@1  ?"));
        let json: serde_json::Value = serde_json::from_str(&shown(&images, None, true).unwrap()).unwrap();
        assert!(json[0]["current"].is_null());
        let text = show(&images, "debian", false).unwrap();
        assert!(
            text.contains("debian@2") && text.contains("systemd") && text.contains("/images/debian/2"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&show(&images, "debian@1", true).unwrap()).unwrap();
        assert_eq!(json["message"], "try 1");
    }

    #[test]
    fn the_refusal_lists_the_versions_that_exist() {
        let state = state();
        let images = state.path().join("images");
        let error = show(&images, "debian@3", false).unwrap_err().to_string();
        assert_eq!(error, "image debian@3 does not exist; available: debian@1, debian@2");
        assert!(
            show(&images, "debian@x", false)
                .unwrap_err()
                .to_string()
                .contains("NAME@VERSION")
        );
        let none = tempfile::tempdir().unwrap();
        assert!(shown(none.path(), None, false).unwrap().contains("image import"));
        assert!(
            show(none.path(), "x", false)
                .unwrap_err()
                .to_string()
                .contains("image x does not exist: no image has been imported yet")
        );
    }
}
