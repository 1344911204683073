//! The nodes that could be read from a file, and its problems.

use super::{Difference, Entry, Import, ImportError, PROBLEMS, compare, compare::conflicts_of_flawed};
use rackstrap_hostlist::{NodeSet, naming::Naming};
use rackstrap_model::inventory::Inventory;
use rackstrap_site::{Diagnostic, IPADDR, Site, one_line};
use std::collections::HashSet;

/// The result of reading a file.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The nodes without problems.
    pub(super) import: Import,
    /// The other nodes, as far as they could be read.
    pub(super) flawed: Vec<Entry>,
    /// The problems, in the order of the file.
    pub(super) problems: Vec<Diagnostic>,
    /// Number of further problems, which were only counted.
    pub(super) omitted: usize,
    /// Lines with the nodes that are described there, sorted.
    pub(super) owners: Vec<(usize, String)>,
}

/// The result of importing a file.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The nodes that were read.
    pub import: Import,
    /// The changes that they make, without conflicts.
    pub difference: Difference,
    /// Problems of lines for other nodes.
    pub passed_over: Vec<Diagnostic>,
}

impl Reading {
    /// The file's profiles, as sections for the site file; empty if it has none.
    pub fn profiles(&self) -> &str {
        &self.import.profiles
    }

    /// What has no place in the site file or the inventory, and other warnings.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.import.warnings
    }

    /// Leaves out the addresses that the file gives to nodes.
    pub fn forget_addresses(&mut self) {
        for entry in self.import.entries.iter_mut().chain(&mut self.flawed) {
            entry.ipaddr = None;
        }
    }

    /// Gives nodes the addresses of the file as settings of their own, if their names do not stand for them.
    pub fn keep_addresses(&mut self, naming: &Naming) {
        for entry in self.import.entries.iter_mut().chain(&mut self.flawed) {
            let Some(ipaddr) = entry.ipaddr else { continue };
            if naming.name_to_address(&entry.name) == Ok(ipaddr) {
                continue;
            }
            // A file without settings leaves those of the node as they are.
            entry.adds |= entry.settings.is_none();
            let settings = entry.settings.get_or_insert_default();
            settings
                .entry(IPADDR.to_owned())
                .or_insert_with(|| ipaddr.to_string().into());
        }
    }

    /// The result of importing all nodes of the file, or those of `only`. `file` is its name, for messages.
    ///
    /// # Errors
    /// All problems of the lines of these nodes, and all conflicts with the inventory and the site file.
    pub fn judge(
        self,
        file: &str,
        inventory: &Inventory,
        site: &Site,
        only: Option<&NodeSet>,
    ) -> Result<Judged, ImportError> {
        let wanted = |name: &str| only.is_none_or(|only| only.contains(name));
        let chosen = |entries: &[Entry]| -> Vec<Entry> {
            let chosen = entries.iter().filter(|entry| wanted(&entry.name));
            chosen.cloned().collect()
        };
        let flawed = chosen(&self.flawed);
        let mut difference = compare(inventory, site, &chosen(&self.import.entries));
        let mut conflicts = std::mem::take(&mut difference.conflicts);
        conflicts.extend(conflicts_of_flawed(inventory, site, &flawed));
        // A card may move from a node whose line has a problem. Whether it does is known when the line is corrected.
        let in_file: HashSet<&str> = self.names().filter(|name| wanted(name)).collect();
        let unsure = !flawed.is_empty();
        conflicts
            .retain(|conflict| !(unsure && !conflict.owner.is_empty() && in_file.contains(conflict.owner.as_str())));
        let addresses = conflicts.iter().filter(|conflict| conflict.is_address).count();
        let keepable = conflicts.iter().filter(|conflict| conflict.can_keep).count();
        let conflicts: Vec<Diagnostic> = conflicts
            .into_iter()
            .map(|conflict| Diagnostic {
                file: one_line(file),
                line: conflict.line,
                column: conflict.column,
                message: conflict.message,
                help: String::new(),
                excerpt: None,
            })
            .collect();
        drop(in_file);
        let warnings = self.import.warnings.clone();
        let read = match only {
            Some(only) => self.only(|name| only.contains(name)),
            None => self.all().map(|import| (import, Vec::new())),
        };
        let (mut problems, omitted, warnings) = match read {
            Ok((import, passed_over)) if conflicts.is_empty() => {
                return Ok(Judged {
                    import,
                    difference,
                    passed_over,
                });
            }
            Ok(_) => (Vec::new(), 0, warnings),
            Err(error) => (error.problems, error.omitted, error.warnings),
        };
        problems.extend(conflicts);
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(ImportError {
            addresses,
            keepable,
            ..refused(problems, omitted, warnings)
        })
    }

    /// The names of all nodes of the file, including those with problems.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|(_, name)| name.as_str())
    }

    /// All nodes.
    ///
    /// # Errors
    /// All problems of the file.
    pub fn all(self) -> Result<Import, ImportError> {
        match self.problems.is_empty() {
            true => Ok(self.import),
            false => Err(refused(self.problems, self.omitted, self.import.warnings)),
        }
    }

    /// The nodes that are `wanted`, with the problems of other nodes, which are not errors.
    ///
    /// # Errors
    /// Problems of wanted nodes.
    pub fn only(self, wanted: impl Fn(&str) -> bool) -> Result<(Import, Vec<Diagnostic>), ImportError> {
        let lines = self.import.format.has_lines();
        let owner = |problem: &Diagnostic| {
            let before = self.owners.partition_point(|(line, _)| *line <= problem.line);
            let (line, name) = self.owners.get(before.checked_sub(1)?)?;
            // If a node is one line, a problem on another line does not concern it.
            (!lines || *line == problem.line).then_some(name.as_str())
        };
        let is_wanted = |problem: &Diagnostic| owner(problem).is_some_and(&wanted);
        let (ours, theirs): (Vec<_>, Vec<_>) = self.problems.iter().cloned().partition(is_wanted);
        let mut import = self.import;
        import.entries.retain(|entry| wanted(&entry.name));
        let read: HashSet<&str> = import.entries.iter().map(|entry| entry.name.as_str()).collect();
        let unread = |(_, name): &&(usize, String)| wanted(name) && !read.contains(name.as_str());
        let unread = self.owners.iter().filter(unread).count();
        match (ours.is_empty(), unread) {
            (true, 0) => Ok((import, theirs)),
            // There are more problems than are kept, and those of the wanted nodes may be missing.
            (true, unread) => Err(refused(self.problems, self.omitted.max(unread), import.warnings)),
            (false, _) => Err(refused(ours, 0, import.warnings)),
        }
    }
}

fn refused(mut problems: Vec<Diagnostic>, omitted: usize, warnings: Vec<Diagnostic>) -> ImportError {
    let omitted = omitted + problems.len().saturating_sub(PROBLEMS);
    problems.truncate(PROBLEMS);
    ImportError {
        problems,
        omitted,
        warnings,
        addresses: 0,
        keepable: 0,
    }
}
