//! A hostlist's terms, joined from left to right.

use super::{
    Groups, HostlistError, MAX_DEPTH, MAX_NAMES, MAX_TEXT, MAX_WORK, Members, NodeSet, Repeats,
    error::{At, Fault, shown},
    pattern::{Pattern, matches},
    split::{Operator, split},
};
use rackstrap_base::words::slips;

/// Patterns that one term with wildcards may be: each is held against every node.
const MAX_WILD: u64 = 256;
/// Groups that a message lists.
const LISTED: usize = 8;

/// One evaluation, with what it has cost so far.
pub(super) struct Evaluation<'a> {
    groups: &'a dyn Groups,
    set: NodeSet,
    /// Something was given: an operator has a left side.
    begun: bool,
    work: usize,
    /// The groups that we are in.
    stack: Vec<String>,
}

impl<'a> Evaluation<'a> {
    pub fn new(groups: &'a dyn Groups) -> Self {
        Evaluation {
            groups,
            set: NodeSet::default(),
            begun: false,
            work: 0,
            stack: Vec::new(),
        }
    }

    /// Joins one argument to those before it.
    pub fn add(&mut self, text: &str) -> Result<(), HostlistError> {
        let before = std::mem::take(&mut self.set);
        self.set = self.evaluate(text, before, self.begun)?;
        self.begun = true;
        Ok(())
    }

    /// Joins one argument to `names`, which are those of the arguments before it, in the order in which they are written.
    pub fn add_in_order(&mut self, text: &str, repeats: Repeats, names: &mut Vec<String>) -> Result<(), HostlistError> {
        let wrong = |(at, fault): At| HostlistError::new(text, at, fault);
        if text.len() > MAX_TEXT {
            return Err(wrong((0, too_long(text))));
        }
        for term in split(text, self.begun).map_err(wrong)? {
            let at = term.place.start;
            let found = self.term(text, &text[term.place], at)?;
            match term.operator {
                Operator::Union => {
                    for name in found {
                        if self.set.insert(name.as_str()) {
                            names.push(name);
                        } else if repeats == Repeats::Refused {
                            let fault = Fault::new(format!("{} is named twice", shown(&name)), "name each node once");
                            return Err(wrong((at, fault)));
                        }
                    }
                }
                // What these leave keeps its order; what `^` adds comes last.
                operator => {
                    join(&mut self.set, operator, found.clone());
                    names.retain(|name| self.set.contains(name));
                    let known: NodeSet = names.iter().map(String::as_str).collect();
                    let added: NodeSet = found.into_iter().filter(|name| self.set.contains(name)).collect();
                    names.extend(added.into_iter().filter(|name| !known.contains(name)));
                }
            }
            if names.len() > MAX_NAMES {
                return Err(wrong((at, too_many(names.len() as u64))));
            }
        }
        self.begun = true;
        Ok(())
    }

    pub fn finish(self) -> NodeSet {
        self.set
    }

    fn evaluate(&mut self, text: &str, mut set: NodeSet, begun: bool) -> Result<NodeSet, HostlistError> {
        let wrong = |(at, fault): At| HostlistError::new(text, at, fault);
        if text.len() > MAX_TEXT {
            return Err(wrong((0, too_long(text))));
        }
        for term in split(text, begun).map_err(wrong)? {
            let at = term.place.start;
            let names = self.term(text, &text[term.place], at)?;
            join(&mut set, term.operator, names);
            if set.len() > MAX_NAMES {
                return Err(wrong((at, too_many(set.len() as u64))));
            }
        }
        Ok(set)
    }

    /// The names of one term, which stands at `at` of `text`.
    fn term(&mut self, text: &str, term: &str, at: usize) -> Result<Vec<String>, HostlistError> {
        let wrong = |(inside, fault): At| HostlistError::new(text, at + inside, fault);
        if let Some(group) = term.strip_prefix('@') {
            return self.group_term(text, group, at);
        }
        let pattern = Pattern::parse(term, &[]).map_err(wrong)?;
        if pattern.is_wild() {
            return self.wild(&pattern).map_err(|fault| wrong((0, fault)));
        }
        self.charge(pattern.count()).map_err(|fault| wrong((0, fault)))?;
        Ok(pattern.expand())
    }

    fn wild(&mut self, pattern: &Pattern) -> Result<Vec<String>, Fault> {
        if pattern.count() > MAX_WILD {
            let found = format!("wildcards with {} different brackets", pattern.count());
            let advice = format!("at most {MAX_WILD} are looked for; write the names in full, or fewer of them");
            return Err(Fault::new(found, advice));
        }
        let globs = pattern.expand();
        let mut names = self.all()?;
        // Every further glob goes through all names again, which is cheaper than making them.
        self.spend(names.len() * (globs.len() - 1) / 16)?;
        names.retain(|name| globs.iter().any(|glob| matches(glob, name)));
        Ok(names)
    }

    fn all(&mut self) -> Result<Vec<String>, Fault> {
        let names = self.groups.all();
        self.charge(names.len() as u64)?;
        Ok(names)
    }

    /// `@group`, with `group` after the `@` at `at`.
    fn group_term(&mut self, text: &str, group: &str, at: usize) -> Result<Vec<String>, HostlistError> {
        let wrong = |(inside, fault): At| HostlistError::new(text, at + inside, fault);
        if group.is_empty() {
            let fault = Fault::new("a '@' without a group", self.known(""));
            return Err(wrong((0, fault)));
        }
        if group == "*" {
            return self.all().map_err(|fault| wrong((0, fault)));
        }
        let pattern = Pattern::parse(group, &[':']).map_err(|(inside, fault)| wrong((1 + inside, fault)))?;
        if pattern.is_wild() {
            let fault = Fault::new(
                "a wildcard in the name of a group",
                "name the groups: @rack[1-3], or @* for all nodes",
            );
            return Err(wrong((0, fault)));
        }
        self.charge(pattern.count()).map_err(|fault| wrong((0, fault)))?;
        let mut names = Vec::new();
        for group in pattern.expand() {
            let mut members = self.group(text, &group, at)?;
            names.append(&mut members);
        }
        Ok(names)
    }

    fn group(&mut self, text: &str, group: &str, at: usize) -> Result<Vec<String>, HostlistError> {
        let wrong = |fault: Fault| HostlistError::new(text, at, fault);
        if self.stack.iter().any(|outer| outer == group) {
            let circle: Vec<String> = self.stack.iter().map(|outer| format!("@{outer} -> ")).collect();
            let found = format!("a group within itself ({}@{group})", circle.concat());
            return Err(wrong(Fault::new(found, "take it out of one of these definitions")));
        }
        if self.stack.len() >= MAX_DEPTH {
            let found = format!("groups within groups, more than {MAX_DEPTH} deep");
            return Err(wrong(Fault::new(found, "name the nodes in a group closer by")));
        }
        match self.groups.members(group) {
            None => {
                let found = format!("there is no group @{}", shown(group));
                Err(wrong(Fault::new(found, self.known(group))))
            }
            Some(Members::Names(names)) => {
                self.charge(names.len() as u64).map_err(wrong)?;
                Ok(names)
            }
            Some(Members::Hostlist(definition)) => {
                self.spend(definition.len() / 64).map_err(wrong)?;
                self.stack.push(group.to_owned());
                let members = self.evaluate(&definition, NodeSet::default(), false);
                self.stack.pop();
                let members = members.map_err(|mut error| {
                    error.group.get_or_insert_with(|| group.to_owned());
                    error
                })?;
                Ok(members.into_iter().collect())
            }
        }
    }

    /// What to write in place of a group that does not exist.
    fn known(&self, group: &str) -> String {
        let mut names = self.groups.names();
        names.sort_by(|a, b| super::natural_cmp(a, b));
        names.dedup();
        // "compute" for "profile:compute" is near, however long the source's name is.
        let distance = |name: &str| {
            let bare = name.split_once(':').map_or(name, |(_, bare)| bare);
            let bare = slips(group, bare).map(|slips| slips + 1);
            slips(group, name).into_iter().chain(bare).min()
        };
        let near = |name: &String| Some((distance(name)?, name.clone()));
        match names.iter().filter_map(near).min_by_key(|(slips, _)| *slips) {
            Some((_, name)) => format!("did you mean @{name}?"),
            None if !names.is_empty() => {
                let listed: Vec<String> = names.iter().take(LISTED).map(|name| format!("@{name}")).collect();
                let more = if names.len() > LISTED { ", …" } else { "" };
                format!("the groups are {}{more}", listed.join(", "))
            }
            None => "no groups are known here; write the nodes' names".to_owned(),
        }
    }

    /// Accounts for that many names before they are made; at least for one, as terms cost something too.
    fn charge(&mut self, names: u64) -> Result<(), Fault> {
        if names > MAX_NAMES as u64 {
            return Err(too_many(names));
        }
        self.spend((names as usize).max(1))
    }

    fn spend(&mut self, work: usize) -> Result<(), Fault> {
        self.work += work;
        if self.work > MAX_WORK {
            return Err(Fault::new(
                format!("the parts so far have more than {MAX_WORK} names in all"),
                "name each node fewer times",
            ));
        }
        Ok(())
    }
}

fn too_long(text: &str) -> Fault {
    let found = format!("a hostlist of {} bytes", text.len());
    Fault::new(found, format!("at most {MAX_TEXT} are read"))
}

fn too_many(names: u64) -> Fault {
    let found = match names {
        u64::MAX => "more names than can be counted".to_owned(),
        names => format!("{names} names"),
    };
    Fault::new(
        found,
        format!("a hostlist has at most {MAX_NAMES}; are the brackets as meant?"),
    )
}

fn join(set: &mut NodeSet, operator: Operator, names: Vec<String>) {
    match operator {
        Operator::Union => set.extend(names),
        Operator::Difference => names.iter().for_each(|name| {
            set.remove(name);
        }),
        Operator::Intersection => {
            let other: NodeSet = names.into_iter().collect();
            set.retain(|name| other.contains(name));
        }
        Operator::SymmetricDifference => {
            // A name twice in one term is there once.
            let other: NodeSet = names.into_iter().collect();
            for name in other {
                if !set.remove(&name) {
                    set.insert(name);
                }
            }
        }
    }
}
