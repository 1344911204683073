//! Arguments that name nodes: hostlists, groups, and names from standard input.

use super::output;
use anyhow::{Context, Result, bail};
use rackstrap_control::{
    Client,
    api::{self, NodeRow},
};
use rackstrap_hostlist::{
    Groups, MAX_TEXT, Membership, NoGroups, NodeSet, Repeats, expand_all, expand_in_order, lines,
};
use rackstrap_model::inventory::{Inventory, Node, find};
use rackstrap_wire::HwAddr;
use std::{io::Read, net::Ipv4Addr};

/// The part of `--help` that all commands with hostlists share.
pub const HELP: &str = "\
NODES: names (r01n01 r01n02), hostlists ('r[01-04]n[01-32]', 'n[1-9/2]', 'r01*!r01n05' excludes one), groups (@gpu,
@profile:compute, @rack:r03, @state:lost; `rackstrap node groups` lists them), or - to read names from standard input.
Put hostlists in single quotes: shells expand brackets, ! and *.";

const NO_NODES: &str =
    "the inventory has no nodes\nhelp: `rackstrap node add r01n01 --hwaddr 52:54:00:01:01:01` adds one";

/// The nodes that a command is about, as the user named them.
#[derive(Clone, Debug)]
pub struct Wanted {
    texts: Vec<String>,
}

impl Wanted {
    /// Reads the arguments; `-` is replaced by standard input, with one or more hostlists per line.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub fn new(arguments: Vec<String>) -> Result<Wanted> {
        let mut texts = Vec::with_capacity(arguments.len());
        for argument in arguments {
            match argument.as_str() {
                "-" => texts.extend(from_stdin()?),
                _ => texts.push(argument),
            }
        }
        Ok(Wanted { texts })
    }

    /// The nodes in natural order; all nodes if none were named.
    ///
    /// # Errors
    /// A hostlist is malformed, or names nodes that do not exist.
    pub fn nodes(&self, client: &Client) -> Result<Vec<NodeRow>> {
        let all: Vec<NodeRow> = client.get(api::paths::NODES)?;
        let membership = self.membership(client, &all)?;
        let texts: &[String] = match self.texts.is_empty() {
            true => &["*".to_owned()],
            false => &self.texts,
        };
        let set = expand_all(texts, &membership)?;
        let inventory = Inventory::new(all.into_iter().map(Node::from));
        let missing: NodeSet = set.iter().filter(|name| inventory.get(name).is_none()).collect();
        match missing.iter().next() {
            None => {}
            Some(name) if missing.len() == 1 => drop(find(&inventory, name)?),
            Some(_) => bail!("nodes {missing} are not in the inventory\nhelp: `rackstrap node list` shows all nodes"),
        }
        Ok(set
            .iter()
            .filter_map(|name| inventory.get(name))
            .map(|node| NodeRow::from(&**node))
            .collect())
    }

    /// The names of at least one node.
    ///
    /// # Errors
    /// Those of [`Wanted::nodes`], and that no node matches.
    pub fn some_names(&self, client: &Client) -> Result<Vec<String>> {
        let nodes = self.nodes(client)?;
        if nodes.is_empty() {
            bail!(self.nothing_to_do(client)?);
        }
        Ok(nodes.into_iter().map(|node| node.name).collect())
    }

    /// The names in the order in which they were named, for commands that take one node after the other.
    ///
    /// # Errors
    /// Those of [`Wanted::some_names`].
    pub fn some_names_in_order(&self, client: &Client) -> Result<Vec<String>> {
        let nodes = self.nodes(client)?;
        if nodes.is_empty() {
            bail!(self.nothing_to_do(client)?);
        }
        let all: Vec<NodeRow> = client.get(api::paths::NODES)?;
        let membership = self.membership(client, &all)?;
        let known: NodeSet = nodes.into_iter().map(|node| node.name).collect();
        let mut names = expand_in_order(&self.texts, &membership, Repeats::First)?;
        names.retain(|name| known.contains(name));
        Ok(names)
    }

    /// Names in natural order, whether or not such nodes exist.
    ///
    /// # Errors
    /// A hostlist is malformed.
    pub fn names(&self, client: &Client) -> Result<Vec<String>> {
        let all: Vec<NodeRow> = client.get(api::paths::NODES)?;
        let membership = self.membership(client, &all)?;
        let names: Vec<String> = expand_all(&self.texts, &membership)?.into_iter().collect();
        match names.is_empty() {
            true => bail!(self.nothing_to_do(client)?),
            false => Ok(names),
        }
    }

    /// The names of `all` that are meant. `all` are names of a file, which the inventory need not have; each name without a
    /// wildcard must be among them.
    ///
    /// # Errors
    /// A hostlist is malformed, or names are not among `all`.
    pub fn names_among(&self, all: impl IntoIterator<Item = String>) -> Result<NodeSet> {
        let all: Vec<String> = all.into_iter().collect();
        let set = expand_all(&self.texts, &Membership::new(all.clone(), Default::default()))?;
        if set.is_empty() {
            bail!("no node of the file matches {}", self.texts.join(" "));
        }
        let all: NodeSet = all.into_iter().collect();
        let missing: NodeSet = set.iter().filter(|name| !all.contains(name)).collect();
        match missing.is_empty() {
            true => Ok(set),
            false => bail!("{missing} is not in the file"),
        }
    }

    /// Names, hardware addresses and IP addresses; the daemon reports those that do not exist.
    ///
    /// # Errors
    /// A hostlist is malformed.
    pub fn subjects(&self, client: &Client) -> Result<Vec<String>> {
        let alone = |text: &String| {
            let name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            text.parse::<HwAddr>().is_ok()
                || text.parse::<Ipv4Addr>().is_ok()
                || !text.is_empty() && text.chars().all(name)
        };
        if self.texts.iter().all(alone) {
            return Ok(self.texts.clone());
        }
        let (addresses, texts): (Vec<_>, Vec<_>) = (self.texts.iter().cloned())
            .partition(|text| text.parse::<HwAddr>().is_ok() || text.parse::<Ipv4Addr>().is_ok());
        let mut subjects = Wanted { texts }.some_names(client)?;
        subjects.extend(addresses);
        Ok(subjects)
    }

    fn nothing_to_do(&self, client: &Client) -> Result<String> {
        let all: Vec<NodeRow> = client.get(api::paths::NODES)?;
        Ok(format!("{}; nothing to do", self.matches_none(all.len())))
    }

    /// The message that no node matches; `all` is the number of nodes in the inventory.
    pub fn matches_none(&self, all: usize) -> String {
        match all {
            0 => NO_NODES.to_owned(),
            all => format!(
                "no node matches {} ({} in the inventory)",
                self.texts.join(" "),
                output::count(all, "node")
            ),
        }
    }

    /// Whether no names were given, so that all nodes are meant.
    pub fn is_all(&self) -> bool {
        self.texts.is_empty()
    }

    /// Groups are fetched only if one is named, because a large cluster has many.
    fn membership(&self, client: &Client, all: &[NodeRow]) -> Result<Membership> {
        let names = all.iter().map(|node| node.name.clone()).collect();
        let groups = match self.texts.iter().any(|text| text.contains('@')) {
            true => client.get(api::paths::GROUPS)?,
            false => Default::default(),
        };
        Ok(Membership::new(names, groups))
    }
}

fn from_stdin() -> Result<Vec<String>> {
    let mut text = String::new();
    let most = MAX_TEXT as u64 + 1;
    let read = std::io::stdin().take(most).read_to_string(&mut text);
    read.context("reading names from standard input")?;
    if text.len() > MAX_TEXT {
        bail!(
            "standard input is longer than {} MiB, too long for a list of names",
            MAX_TEXT >> 20
        );
    }
    let found: Vec<String> = lines(&text).map(str::to_owned).collect();
    match found.is_empty() {
        // An empty list is refused here, because an empty list of arguments means all nodes.
        true => bail!("standard input names no nodes; nothing to do"),
        false => Ok(found),
    }
}

/// Pairs of nodes and their new names, in the order in which they are written. One of the two lists may be `-` for standard
/// input.
///
/// # Errors
/// A hostlist is malformed, a name is written twice, or the lists have different lengths.
pub fn pairs(client: &Client, from: &str, to: &str) -> Result<Vec<(String, String)>> {
    if (from, to) == ("-", "-") {
        bail!(
            "only one of the two lists can come from standard input\nhelp: `rackstrap node rename - 'r03n[01-32]'` reads only the present names from it"
        );
    }
    let from = Wanted::new(vec![from.to_owned()])?;
    let all: Vec<NodeRow> = match from.texts.iter().any(|text| text.contains(['@', '*', '?'])) {
        true => client.get(api::paths::NODES)?,
        // Names need no inventory; the daemon reports nodes that do not exist.
        false => Vec::new(),
    };
    let groups = from.membership(client, &all)?;
    zipped(&from.texts, &Wanted::new(vec![to.to_owned()])?.texts, &groups)
}

/// The names of both lists, in pairs (pure).
fn zipped(from: &[String], to: &[String], groups: &dyn Groups) -> Result<Vec<(String, String)>> {
    let (from, to) = (
        expand_in_order(from, groups, Repeats::Refused)?,
        expand_in_order(to, &NoGroups, Repeats::Refused)?,
    );
    if from.is_empty() {
        bail!("no node is named\nhelp: `rackstrap node rename r01n07 r03n01` takes the present name and the new one");
    }
    if from.len() != to.len() {
        let said = |names: &[String]| {
            let set: NodeSet = names.iter().map(String::as_str).collect();
            format!("{set} is {}", output::count(names.len(), "name"))
        };
        bail!("{} and {}; name as many new names as nodes", said(&from), said(&to));
    }
    Ok(from.into_iter().zip(to).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(from: &str, to: &str) -> Result<String, String> {
        let pairs = zipped(&[from.to_owned()], &[to.to_owned()], &NoGroups).map_err(|error| error.to_string())?;
        let pairs: Vec<String> = pairs.iter().map(|(from, to)| format!("{from}>{to}")).collect();
        Ok(pairs.join(" "))
    }

    #[test]
    fn pairs_are_made_in_the_order_in_which_names_are_written() {
        for (from, to, want) in [
            ("r06n02,r06n01", "r08n[01-02]", "r06n02>r08n01 r06n01>r08n02"),
            ("r01n01,r01n02", "r01n02,r01n01", "r01n01>r01n02 r01n02>r01n01"),
            ("n[3,1-2]", "m1 m2 m3", "n3>m1 n1>m2 n2>m3"),
            ("n[9,1-3]!n2", "m[1-3]", "n9>m1 n1>m2 n3>m3"),
        ] {
            assert_eq!(paired(from, to).as_deref(), Ok(want), "{from} {to}");
        }
    }

    #[test]
    fn a_name_that_is_written_twice_has_its_first_place() {
        let all: Vec<String> = ["n1", "n2", "n10"].map(str::to_owned).into();
        let groups = Membership::new(all, Default::default());
        let names = expand_in_order(["n10", "n*"], &groups, Repeats::First).unwrap();
        assert_eq!(names, ["n10", "n1", "n2"]);
    }

    #[test]
    fn lists_that_do_not_pair_are_refused() {
        for (from, to, want) in [
            (
                "n1,n1",
                "m[1-2]",
                "hostlist 'n1,n1', column 4: n1 is named twice; name each node once",
            ),
            (
                "n[1-2]",
                "m1,m[1-2]",
                "hostlist 'm1,m[1-2]', column 4: m1 is named twice; name each node once",
            ),
            (
                "n[1-2]",
                "m1",
                "n[1-2] is 2 names and m1 is 1 name; name as many new names as nodes",
            ),
            (
                "",
                "m1",
                "no node is named\nhelp: `rackstrap node rename r01n07 r03n01` takes the present name and the new one",
            ),
        ] {
            assert_eq!(paired(from, to).unwrap_err(), want);
        }
    }
}
