//! A set of names in natural order.

use super::{fold, fold::Dialect, natural_cmp};
use std::{
    cmp::Ordering,
    collections::{BTreeSet, btree_set},
    fmt,
};

/// A name that sorts as people count.
#[derive(Clone, PartialEq, Eq)]
struct Name(Box<str>);

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        natural_cmp(&self.0, &other.0)
    }
}

/// Names of nodes, each once, in natural order. Displays as the hostlist that it folds to.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NodeSet {
    names: BTreeSet<Name>,
}

impl NodeSet {
    /// How many different names are in the set.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True if no name is in the set.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// True if that name is in it.
    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(&Name(name.into()))
    }

    /// The names, in natural order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|name| &*name.0)
    }

    /// Adds a name; false if it was there.
    pub fn insert(&mut self, name: impl Into<Box<str>>) -> bool {
        self.names.insert(Name(name.into()))
    }

    /// Takes a name out; false if it was not there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.names.remove(&Name(name.into()))
    }

    /// Takes out all names that `keep` is false of.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.names.retain(|name| keep(&name.0));
    }

    /// The shortest reasonable hostlist of these names, for people: `r[01-02]n[01-32]`; empty without names.
    ///
    /// It has neither steps nor operators, so ClusterShell reads it too. Slurm may not: [`Self::fold_as`].
    pub fn fold(&self) -> String {
        self.fold_as(Dialect::Short)
    }

    /// The hostlist of these names in the dialect of the programs that will read it; empty without names.
    ///
    /// [`super::expand`] makes the same set of it, whatever the dialect.
    pub fn fold_as(&self, dialect: Dialect) -> String {
        fold::fold(self.iter(), dialect)
    }
}

impl fmt::Display for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.fold())
    }
}

impl fmt::Debug for NodeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeSet({})", self.fold())
    }
}

impl<S: Into<Box<str>>> FromIterator<S> for NodeSet {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        NodeSet {
            names: names.into_iter().map(|name| Name(name.into())).collect(),
        }
    }
}

impl<S: Into<Box<str>>> Extend<S> for NodeSet {
    fn extend<I: IntoIterator<Item = S>>(&mut self, names: I) {
        self.names.extend(names.into_iter().map(|name| Name(name.into())));
    }
}

impl IntoIterator for NodeSet {
    type Item = String;
    type IntoIter = IntoNames;

    fn into_iter(self) -> IntoNames {
        IntoNames(self.names.into_iter())
    }
}

/// The names of a [`NodeSet`], in natural order.
pub struct IntoNames(btree_set::IntoIter<Name>);

impl Iterator for IntoNames {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        self.0.next().map(|name| name.0.into_string())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for IntoNames {}
