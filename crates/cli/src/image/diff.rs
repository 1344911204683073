//! `rackstrap image diff`

use super::{find, progress::Shown};
use anyhow::{Context, Result};
use clap::Args;
use rackstrap_base::arch::Architecture;
use rackstrap_catalog::Catalog;
use rackstrap_image::{
    Became, Locked, PackageChange, Packages, diff_trees, find_working_copy, keep_version, load_catalog,
    packages_installed, packages_of, working_copies,
};
use serde_json::json;
use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

#[derive(Args, Debug)]
pub(super) struct DiffArgs {
    /// Version (NAME@VERSION), NAME for the newest version, or a working copy
    before: String,
    /// Version, name or working copy to compare it with
    after: String,
    /// Compare only packages
    #[arg(long, conflicts_with = "files")]
    packages: bool,
    /// Compare only files
    #[arg(long)]
    files: bool,
    /// Compare the variants for this architecture, such as arm64 [default: those with which the versions were made]
    #[arg(long, value_name = "ARCH", value_parser = super::import::architecture)]
    arch: Option<Architecture>,
    /// Print JSON, one line per difference
    #[arg(long)]
    json: bool,
}

/// One of the two trees that are compared.
struct Side {
    root: PathBuf,
    bytes: u64,
    packages: Packages,
    /// The lock that keeps the tree from being deleted while it is read.
    _kept: Option<Locked>,
}

fn side(images: &Path, catalog: &Catalog, name: &str, arch: Option<Architecture>) -> Result<Side> {
    let is_copy = !name.contains('@') && working_copies(images).0.iter().any(|copy| copy.name == name);
    if is_copy {
        let copy = find_working_copy(images, name)?;
        copy.tidy().with_context(|| format!("looking at {name}"))?;
        return Ok(Side {
            root: copy.root(),
            bytes: copy.info.bytes,
            // The working copy may have changed since it was made, so its tree is read.
            packages: packages_installed(&copy.root()),
            _kept: None,
        });
    }
    let version = find(catalog, name)?;
    let mut variants = version.variants();
    let version = match arch {
        None => version,
        Some(arch) => variants
            .find(|variant| variant.architecture() == Some(arch))
            .with_context(|| {
                let image = &version.manifest.image;
                format!("{image} has no variant for {arch}; it has {}", version.architectures())
            })?,
    };
    Ok(Side {
        root: version.dir.join("root"),
        bytes: version.manifest.bytes,
        packages: packages_of(&version.dir),
        _kept: Some(keep_version(version)?),
    })
}

pub(super) fn run(args: DiffArgs, images: &Path) -> Result<()> {
    let (catalog, _) = load_catalog(images);
    let (before, after) = (
        side(images, &catalog, &args.before, args.arch)?,
        side(images, &catalog, &args.after, args.arch)?,
    );
    let mut out = BufWriter::new(io::stdout().lock());
    if !args.files {
        packages(&before, &after, args.json, &mut out).context("writing to standard output")?;
    }
    if !args.packages {
        files(&before, &after, args.json, &mut out)?;
    }
    out.flush().context("writing to standard output")
}

fn packages(before: &Side, after: &Side, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    let changes = match after.packages.since(&before.packages) {
        Ok(changes) => changes,
        Err(why) if as_json => return writeln!(out, "{}", json!({ "packages": "unknown", "why": why })),
        Err(why) => return writeln!(out, "packages: unknown: {why}"),
    };
    if as_json {
        return changes.iter().try_for_each(|change| {
            let line = json!({ "package": change.name, "before": change.before, "after": change.after });
            writeln!(out, "{line}")
        });
    }
    let kind = after.packages.kind.as_str();
    match changes.len() {
        0 => writeln!(out, "packages ({kind}): no difference")?,
        _ => writeln!(out, "packages ({kind}):")?,
    }
    changes
        .iter()
        .try_for_each(|change| writeln!(out, "{}", line(change)))?;
    out.flush()
}

fn line(change: &PackageChange) -> String {
    let name = &change.name;
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => format!("~ {name} {before} -> {after}"),
        (Some(before), None) => format!("- {name} {before}"),
        (None, after) => format!("+ {name} {}", after.as_deref().unwrap_or_default()),
    }
}

fn files(before: &Side, after: &Side, as_json: bool, out: &mut dyn Write) -> Result<()> {
    let mut any = false;
    if !as_json {
        writeln!(out, "files:")
            .and_then(|()| out.flush())
            .context("writing to standard output")?;
    }
    let mut progress = Shown::new();
    let mut found = |change: rackstrap_image::FileChange| {
        any = true;
        if as_json {
            return writeln!(out, "{}", serde_json::to_string(&change)?);
        }
        let mark = match change.became {
            Became::Added => '+',
            Became::Removed => '-',
            Became::Changed => '~',
        };
        match change.what.is_empty() {
            true => writeln!(out, "{mark} {}", change.file),
            false => writeln!(out, "{mark} {}  {}", change.file, change.what.join(", ")),
        }
    };
    let compared = diff_trees(&before.root, &after.root, Some(before.bytes), &mut found, &mut progress);
    progress.end();
    compared.context("comparing the files")?;
    if !any && !as_json {
        writeln!(out, "no difference").context("writing to standard output")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_lines() {
        let change = |before: Option<&str>, after: Option<&str>| PackageChange {
            name: "bash".into(),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        assert_eq!(line(&change(Some("1"), Some("2"))), "~ bash 1 -> 2");
        assert_eq!(line(&change(Some("1"), None)), "- bash 1");
        assert_eq!(line(&change(None, Some("2"))), "+ bash 2");
    }
}
