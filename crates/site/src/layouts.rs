//! The layouts of one node: their names in `layout`, and whether several of them go together.

use super::{
    LayoutPolicy, Profile, Site,
    diagnostic::{quote, shown},
};
use rackstrap_base::words::closest;
use rackstrap_wire::DiskRule;
use std::collections::BTreeMap;

type Problem = (String, String);

/// The layouts of the site file by name; none for a layout with problems, which exists.
pub(super) type Known<'a> = BTreeMap<&'a str, Option<&'a LayoutPolicy>>;

/// Reads the name of a layout. An empty text means no layout, for a profile that overrides the default one. Any name is accepted if the
/// layouts are unknown.
pub(super) fn read_name(text: &str, layouts: Option<&Known<'_>>) -> Result<String, Problem> {
    // A name has no blank, because several are kept with blanks between them.
    let Some(layouts) = layouts.filter(|_| !text.is_empty()) else {
        return match text.contains(char::is_whitespace) {
            true => Err(unknown(text, &Known::new())),
            false => Ok(text.to_owned()),
        };
    };
    match layouts.contains_key(text) {
        true => Ok(text.to_owned()),
        false => Err(unknown(text, layouts)),
    }
}

fn unknown(text: &str, layouts: &Known<'_>) -> Problem {
    let all: Vec<&str> = layouts.keys().copied().collect();
    let help = match (closest(text, all.iter().copied()), all.as_slice()) {
        (Some(near), _) => format!("did you mean \"{near}\"?"),
        (None, []) => format!(
            "add [layout.{}], or remove the key: without a layout disks are left alone",
            shown(text)
        ),
        (None, all) => format!("write one of {}, or \"\" to leave disks alone", all.join(", ")),
    };
    (format!("layout {} does not exist", quote(text)), help)
}

/// Whether layouts with these names can be those of one node, each on a disk of its own.
pub(super) fn check(names: &[String], layouts: Option<&Known<'_>>) -> Result<(), Problem> {
    if let ([_, _, ..], true) = (names, names.iter().any(String::is_empty)) {
        let help = "remove the empty name, or write layout = \"\" to leave disks alone".to_owned();
        return Err(("\"\" is no layout in a list of several".to_owned(), help));
    }
    let Some(layouts) = layouts else { return Ok(()) };
    let policies: Vec<&LayoutPolicy> = names
        .iter()
        .filter_map(|name| layouts.get(name.as_str()).copied().flatten())
        .collect();
    // A layout with problems is reported at its own place.
    if policies.len() < names.len() {
        return Ok(());
    }
    for (index, this) in policies.iter().enumerate().skip(1) {
        let name = &this.layout.name;
        let Some(disk) = this.disk.as_deref().filter(|disk| *disk != "auto") else {
            return Err((
                format!("the layout '{name}' is not the first one, and does not say which disk it is for"),
                format!(
                    "write disk = {{ transport = \"sata\", pick = \"largest\" }} or another rule into [layout.{name}]"
                ),
            ));
        };
        if this.esp {
            return Err((
                format!("the layout '{name}' has an EFI system partition, and is not the first one"),
                "make it the first one of the list, or remove its 'esp'".to_owned(),
            ));
        }
        for before in &policies[..index] {
            apart(before, this, disk)?;
        }
    }
    Ok(())
}

/// Whether two layouts can be on two disks of one node. `disk` is that of the second one.
fn apart(a: &LayoutPolicy, b: &LayoutPolicy, disk: &str) -> Result<(), Problem> {
    let (first, second) = (&a.layout.name, &b.layout.name);
    if a.disk.as_deref() == Some(disk) && names_one_disk(disk) {
        return Err((
            format!("the layouts '{first}' and '{second}' are both for the disk {disk}"),
            "write another disk for one of them: a disk has one layout".to_owned(),
        ));
    }
    for partition in &b.layout.partitions {
        let twin = a.layout.partitions.iter().find(|other| other.name == partition.name);
        if twin.is_some() {
            return Err((
                format!(
                    "the layouts '{first}' and '{second}' both have a partition '{}'",
                    partition.name
                ),
                "give one of them another name: partitions of one node are known by their names".to_owned(),
            ));
        }
        let Some(mount) = &partition.mount else { continue };
        if a.layout
            .partitions
            .iter()
            .any(|other| other.mount.as_ref() == Some(mount))
        {
            return Err((
                format!("the layouts '{first}' and '{second}' are both mounted on {mount}"),
                "mount one of them somewhere else".to_owned(),
            ));
        }
    }
    Ok(())
}

/// Whether the disk that the profile `name` chooses for its first layout is also that of a further one.
pub(super) fn disk_of_two(
    name: &str,
    profiles: &BTreeMap<String, Profile>,
    layouts: &BTreeMap<String, LayoutPolicy>,
) -> Option<Problem> {
    let chain = || [name, "default"].into_iter().filter_map(|name| profiles.get(name));
    let names = chain().find_map(|profile| profile.layout.as_deref())?;
    let disk = chain().find_map(|profile| profile.disk.as_deref())?;
    let mut names = names.split_ascii_whitespace();
    let first = names.next()?;
    let is_same = |name: &&str| {
        layouts
            .get(*name)
            .is_some_and(|policy| policy.disk.as_deref() == Some(disk))
    };
    let second = names.find(is_same).filter(|_| names_one_disk(disk))?;
    Some((
        format!("the layouts '{first}' and '{second}' of the profile '{name}' are both for the disk {disk}"),
        format!("write another disk into the profile, or into [layout.{second}]: a disk has one layout"),
    ))
}

/// Whether at most one disk of a node can fit.
fn names_one_disk(disk: &str) -> bool {
    match disk.parse::<DiskRule>() {
        Ok(rule) => rule.names_disks() && !disk.contains(['*', '?']) && rule.pick.is_none(),
        Err(_) => disk != "auto",
    }
}

impl Site {
    /// The layouts whose names are in `names`, the value of a setting `layout`. Names of layouts that are not in the site file are left out.
    pub fn layouts_of<'s>(&'s self, names: &'s str) -> impl Iterator<Item = &'s LayoutPolicy> {
        names.split_ascii_whitespace().filter_map(|name| self.layouts.get(name))
    }
}

#[cfg(test)]
#[path = "layouts_tests.rs"]
mod tests;
