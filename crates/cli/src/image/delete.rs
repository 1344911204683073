//! `rackstrap image delete`, `gc` and `rename`

use super::{
    current::renaming,
    held::{Uses, still_free, variant_still_free},
    list::warn_of,
    progress::Shown,
};
use crate::{ask, output::count};
use anyhow::{Context, Result, bail};
use clap::Args;
use rackstrap_base::arch::Architecture;
use rackstrap_image::{
    Verdict, collect_leftovers, delete_variant, delete_versions, delete_working_copy, find_working_copy, gc_plan,
    load_catalog, rename_image, show_bytes, variant_to_delete, working_copies,
};
use rackstrap_model::decide::RenameStep;
use rackstrap_site::Site;
use rackstrap_wire::ImageRef;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// Versions (NAME@VERSION, 'NAME@[1-3,5]') and working copies (NAME)
    #[arg(required = true, value_name = "IMAGE", add = crate::complete::images())]
    images: Vec<String>,
    /// Delete only the variants for this architecture, such as arm64, and keep the versions
    #[arg(long, value_name = "ARCH", value_parser = super::import::architecture)]
    arch: Option<Architecture>,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Debug)]
pub(super) struct GcArgs {
    /// Number of newest versions of each image to keep in any case
    #[arg(long, default_value_t = 3, value_name = "N")]
    keep: usize,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
}

fn images_dir(site: &Site) -> PathBuf {
    site.server.state_dir.join("images")
}

pub(super) fn delete(args: DeleteArgs, config: &Path, site: &Site) -> Result<String> {
    let images = images_dir(site);
    let (catalog, problems) = load_catalog(&images);
    warn_of(&problems);
    let (mut versions, mut copies) = (Vec::new(), Vec::new());
    for wanted in &args.images {
        match wanted.split_once('@') {
            Some((name, numbers)) => versions.extend(select(&numbered(&images, name), name, numbers)?),
            None => match catalog.newest(wanted) {
                Some(newest) => bail!(
                    "{wanted} is an image; name the versions to delete, such as {} or '{wanted}@[1-3]'",
                    newest.manifest.image
                ),
                // Other commands suggest to make a working copy, which makes no sense before deleting it.
                None if working_copies(&images).0.is_empty() && !catalog.iter().any(|v| v.manifest.work == *wanted) => {
                    bail!("{wanted} is neither a working copy nor an image\nhelp: `rackstrap image list` shows all")
                }
                None => copies.push(find_working_copy(&images, wanted)?.name),
            },
        }
    }
    versions.sort();
    versions.dedup();
    if let Some(architecture) = args.arch {
        if let Some(copy) = copies.first() {
            bail!("--arch is for versions, and {copy} is a working copy, which has one tree");
        }
        return delete_variants(&versions, architecture, args.dry_run, config, site);
    }
    let uses = Uses::load(config, site)?;
    let held: Vec<String> = versions
        .iter()
        .filter_map(|image| Some(format!("{image}: {}", uses.holder(image)?)))
        .collect();
    if !held.is_empty() {
        bail!(
            "nothing was deleted, because these are in use:\n  {}",
            held.join("\n  ")
        );
    }
    let all: Vec<String> = versions
        .iter()
        .map(ToString::to_string)
        .chain(copies.iter().cloned())
        .collect();
    if args.dry_run {
        return Ok(format!("would delete {}\n", all.join(", ")));
    }
    let room = Room::now(&images);
    let mut progress = Shown::new();
    let mut delete = || -> Result<()> {
        for name in &copies {
            delete_working_copy(&images, name, &mut progress).with_context(|| format!("deleting {name}"))?;
        }
        remove(&versions, &images, config, site, &mut progress)
    };
    let done = delete();
    progress.end();
    done?;
    Ok(format!("deleted {}{}\n", all.join(", "), room.freed()))
}

/// Deletes the variants of these versions for one architecture. What else uses the versions does not matter: the other variants stay.
fn delete_variants(
    versions: &[ImageRef],
    architecture: Architecture,
    dry_run: bool,
    config: &Path,
    site: &Site,
) -> Result<String> {
    let images = images_dir(site);
    let uses = Uses::load(config, site)?;
    let mut names = Vec::new();
    for image in versions {
        let variant = variant_to_delete(&images, image, architecture).context("nothing was deleted")?;
        if let Some(holder) = uses.holder_of_variant(image, &variant) {
            bail!("nothing was deleted: {image}/{variant}: {holder}");
        }
        names.push(format!("{image}/{variant}"));
    }
    if dry_run {
        return Ok(format!("would delete {}\n", names.join(", ")));
    }
    let room = Room::now(&images);
    let mut progress = Shown::new();
    let mut delete = || -> Result<()> {
        for (image, name) in versions.iter().zip(&names) {
            let mut free = || variant_still_free(config, site, image, &architecture.to_string());
            let deleted = delete_variant(&images, image, architecture, &mut free, &mut progress);
            if deleted.is_err() {
                // It was put back, and the daemon has to find it again.
                super::rescan(config, &site.server.socket)?;
            }
            deleted.with_context(|| format!("{name} was not deleted"))?;
        }
        Ok(())
    };
    let done = delete();
    progress.end();
    done?;
    Ok(format!(
        "deleted {}{}\nmachines with {architecture} boot nothing of it any more\n",
        names.join(", "),
        room.freed()
    ))
}

fn remove(versions: &[ImageRef], images: &Path, config: &Path, site: &Site, progress: &mut Shown) -> Result<()> {
    if versions.is_empty() {
        return Ok(());
    }
    let mut free = || still_free(config, site, versions);
    let deleted = delete_versions(images, versions, &mut free, progress);
    if deleted.is_err() {
        // The versions were put back, and the daemon has to find them again.
        super::rescan(config, &site.server.socket)?;
    }
    deleted.context("nothing was deleted")
}

pub(super) fn gc(args: GcArgs, config: &Path, site: &Site) -> Result<String> {
    if args.keep == 0 {
        bail!(
            "--keep 0 would delete every version that no node uses now; keep at least 1\nhelp: `rackstrap image delete NAME@VERSION` deletes single versions"
        );
    }
    let images = images_dir(site);
    let (catalog, problems) = load_catalog(&images);
    warn_of(&problems);
    let uses = Uses::load(config, site)?;
    let plan = gc_plan(&catalog, args.keep, &|image| uses.holder(image));
    let mut text = String::new();
    let mut unused = Vec::new();
    for (image, verdict) in &plan {
        match verdict {
            Verdict::Delete => unused.push(image.clone()),
            Verdict::Keep(why) => text.push_str(&format!("{image} stays: {why}\n")),
        }
    }
    let mut progress = Shown::new();
    let leftovers = collect_leftovers(&images, true, &mut progress)?;
    let names: Vec<String> = unused.iter().map(ToString::to_string).collect();
    let mut what = Vec::new();
    if !names.is_empty() {
        what.push(names.join(", "));
    }
    if !leftovers.is_empty() {
        what.push(count(leftovers.len(), "leftover") + " of interrupted commands");
    }
    if what.is_empty() {
        return Ok(text + "nothing to delete\n");
    }
    let what = what.join(" and ");
    if args.dry_run {
        return Ok(format!("{text}would delete {what}\n"));
    }
    if !args.yes && !unused.is_empty() && !ask::yes(&format!("Delete {what}?"), false)? {
        return Ok("nothing was deleted\n".to_owned());
    }
    let room = Room::now(&images);
    let collected = collect_leftovers(&images, false, &mut progress).context("removing leftovers");
    let done = collected.and_then(|_| remove(&unused, &images, config, site, &mut progress));
    progress.end();
    done?;
    Ok(format!("{text}deleted {what}{}\n", room.freed()))
}

pub(super) fn rename(old: &str, new: &str, config: &Path, site: &Site) -> Result<String> {
    // A profile may name an image that has no version any more; it counts, too.
    let names = |image: &str| image == old || image.split_once('@').is_some_and(|(name, _)| name == old);
    let naming: Vec<&str> = site
        .profiles
        .iter()
        .filter(|(_, profile)| profile.image.as_deref().is_some_and(names))
        .map(|(name, _)| name.as_str())
        .collect();
    if !naming.is_empty() {
        bail!(
            "{old} was not renamed, because profiles in the site file {} name it; give these profiles another image there and reload, or \
             leave them without one until the image is renamed, and then write image = \"{new}\": {}",
            config.display(),
            naming.join(", ")
        );
    }
    let uses = Uses::load(config, site)?;
    if let Some(holder) = uses.holders_of(old) {
        bail!("{old} was not renamed, because it is in use: {holder}");
    }
    let mut progress = Shown::new();
    let mut begun = false;
    let mut before = || {
        renaming(config, site, old, new, RenameStep::Begin).map_err(|error| crate::error_line(&error))?;
        begun = true;
        Ok(())
    };
    let renamed = rename_image(&images_dir(site), old, new, &mut before, &mut progress);
    progress.end();
    if begun {
        let step = match renamed {
            Ok(()) => RenameStep::Done,
            Err(_) => RenameStep::Failed,
        };
        if let Err(error) = renaming(config, site, old, new, step) {
            let error = crate::error_line(&error);
            eprintln!("warning: the current version is now recorded under both names: {error}");
        }
    }
    renamed.with_context(|| format!("renaming {old}"))?;
    Ok(format!("renamed {old} to {new}\n"))
}

/// All versions of `name`, also damaged ones, which can only be deleted.
fn numbered(images: &Path, name: &str) -> Vec<ImageRef> {
    // An entry that is not a number is not a version, and a name with a slash is not the name of an image.
    let entries = std::fs::read_dir(images.join(name)).into_iter().flatten().flatten();
    let mut found: Vec<ImageRef> = entries
        .filter_map(|entry| format!("{name}@{}", entry.file_name().to_str()?).parse().ok())
        .collect();
    found.sort();
    found
}

/// The versions of `name` that `numbers` selects: `4`, or `[1-3,5]`.
fn select(all: &[ImageRef], name: &str, numbers: &str) -> Result<Vec<ImageRef>> {
    let wrong = || format!("'{name}@{numbers}' names no versions; write {name}@4 or '{name}@[1-3,5]'");
    let single = !numbers.starts_with('[');
    let inner = match single {
        true => numbers,
        false => numbers
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .with_context(wrong)?,
    };
    let mut ranges = Vec::new();
    for part in inner.split(',') {
        let (first, last) = match single {
            true => (part, part),
            false => part.split_once('-').unwrap_or((part, part)),
        };
        let number = |text: &str| {
            text.parse::<u32>()
                .ok()
                .filter(|n| *n > 0 && !text.starts_with(['0', '+']))
        };
        let (first, last) = number(first)
            .zip(number(last))
            .filter(|(a, b)| a <= b)
            .with_context(wrong)?;
        ranges.push(first..=last);
    }
    let picked = all
        .iter()
        .filter(|image| ranges.iter().any(|range| range.contains(&image.version)));
    let picked: Vec<ImageRef> = picked.cloned().collect();
    if picked.is_empty() {
        let known: Vec<String> = all.iter().map(ToString::to_string).collect();
        match known.is_empty() {
            true => bail!("image {name} does not exist"),
            false => bail!("{name}@{numbers} does not exist; available: {}", known.join(", ")),
        }
    }
    Ok(picked)
}

/// Free space on the file system of the images.
struct Room {
    path: PathBuf,
    free: u64,
}

impl Room {
    fn now(path: &Path) -> Self {
        let stat = rustix::fs::statvfs(path);
        Room {
            path: path.to_owned(),
            free: stat.map_or(0, |stat| stat.f_bfree.saturating_mul(stat.f_frsize)),
        }
    }

    /// How much space was freed since then. Extents that other files share are not freed.
    fn freed(&self) -> String {
        let freed = Room::now(&self.path).free.saturating_sub(self.free);
        match freed {
            0 => String::new(),
            freed => format!("; {} freed", show_bytes(freed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_versions_have_numbers_too() {
        let images = tempfile::tempdir().unwrap();
        for dir in [
            "debian/2",
            "debian/1",
            "debian/.deleted-1",
            "debian/03",
            "debian/x",
            "other/1",
        ] {
            std::fs::create_dir_all(images.path().join(dir)).unwrap();
        }
        let shown = |name: &str| {
            numbered(images.path(), name)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown("debian"), ["debian@1", "debian@2"]);
        assert!(shown("../other").is_empty() && shown("nobody").is_empty() && shown(".").is_empty());
    }

    #[test]
    fn numbers_select_existing_versions() {
        let all: Vec<ImageRef> = [1, 2, 3, 7, 12].map(|n| format!("debian@{n}").parse().unwrap()).into();
        let picked = |numbers: &str| -> Vec<u32> {
            select(&all, "debian", numbers)
                .unwrap()
                .iter()
                .map(|image| image.version)
                .collect()
        };
        assert_eq!(picked("2"), [2]);
        assert_eq!(picked("[1-3,12]"), [1, 2, 3, 12]);
        assert_eq!(picked("[5-4294967295]"), [7, 12]);
        for wrong in [
            "", "[]", "[1-]", "[3-1]", "0", "[0-3]", "01", "[1", "1-3", "x", "[1,,2]", "-1", "+1",
        ] {
            let error = select(&all, "debian", wrong).unwrap_err().to_string();
            assert!(error.contains("names no versions"), "{wrong}: {error}");
        }
        let error = select(&all, "debian", "[4-6]").unwrap_err().to_string();
        assert!(error.contains("available: debian@1, debian@2"), "{error}");
        assert!(
            select(&[], "other", "1")
                .unwrap_err()
                .to_string()
                .contains("image other does not exist")
        );
    }
}
