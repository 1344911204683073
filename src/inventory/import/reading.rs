//! What could be read of a file, and what is wrong with the rest of it.

use super::{Format, Import, ImportError, PROBLEMS};
use crate::config::Diagnostic;
use std::collections::HashSet;

/// What could be read of a file.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The nodes that nothing is wrong with.
    pub(super) import: Import,
    /// What is wrong, in the order of the file.
    pub(super) problems: Vec<Diagnostic>,
    /// Problems that were counted only.
    pub(super) omitted: usize,
    /// Lines with the nodes that are described there, sorted.
    pub(super) owners: Vec<(usize, String)>,
}

impl Reading {
    /// The names of all nodes of the file, also of those that something is wrong with.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().map(|(_, name)| name.as_str())
    }

    /// All nodes.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn all(self) -> Result<Import, ImportError> {
        match self.problems.is_empty() {
            true => Ok(self.import),
            false => Err(refused(self.problems, self.omitted, self.import.warnings)),
        }
    }

    /// The nodes that are `wanted`, whatever is wrong with the lines of other nodes. These problems come with them.
    ///
    /// # Errors
    /// What is wrong with nodes that are wanted.
    pub fn only(self, wanted: impl Fn(&str) -> bool) -> Result<(Import, Vec<Diagnostic>), ImportError> {
        let lines = !matches!(self.import.format, Format::Toml | Format::Dhcpd);
        let owner = |problem: &Diagnostic| {
            let before = self.owners.partition_point(|(line, _)| *line <= problem.line);
            let (line, name) = self.owners.get(before.checked_sub(1)?)?;
            // Where a node is a line, a fault on another line is not its own.
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
            // More problems than are kept: those of the wanted nodes are not among them.
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
    }
}
