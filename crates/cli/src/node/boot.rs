//! `rackstrap node boot`: orders for one boot, lists them and takes them back.

use crate::{
    hostlist::Wanted,
    output::{self, Format},
};
use anyhow::Result;
use clap::Args;
use rackstrap_control::{
    Client,
    api::{self, OrdersAnswer, OrdersGiven},
};
use rackstrap_hostlist::NodeSet;
use rackstrap_model::orders::OnceBoot;

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["once", "cancel", "list"])))]
pub struct BootArgs {
    /// Names or hostlists
    #[arg(required_unless_present = "list", value_name = "NODES", add = crate::complete::nodes())]
    nodes: Vec<String>,
    /// What the next boot does: rescue, shell, local, memtest, script:FILE or image=NAME@VERSION
    #[arg(long, value_name = "WHAT")]
    once: Option<OnceBoot>,
    /// Take back the orders of these nodes
    #[arg(long)]
    cancel: bool,
    /// Show the orders that wait or are in use
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(client: &Client, args: BootArgs) -> Result<()> {
    if args.list {
        return list(client, args.nodes, args.format);
    }
    let asked = api::GiveOrders {
        nodes: Wanted::new(args.nodes)?.some_names(client)?,
        once: args.once.as_ref().map(ToString::to_string),
    };
    let given: OrdersGiven = client.post(api::paths::ORDERS, &asked)?;
    match args.format.json {
        true => output::print_json(&given),
        false => output::print(&describe(&given, args.once.as_ref())),
    }
}

fn fold(nodes: &[String]) -> String {
    nodes.iter().map(String::as_str).collect::<NodeSet>().fold()
}

/// What was ordered, and what the order waits for.
fn describe(given: &OrdersGiven, once: Option<&OnceBoot>) -> String {
    let mut lines = Vec::new();
    if let Some(once) = once.filter(|_| !given.ordered.is_empty()) {
        let ordered = fold(&given.ordered);
        lines.push(match given.ordered.len() {
            1 => format!(
                "{ordered}: the next boot {}; the one after it is as usual",
                once.describe()
            ),
            _ => format!(
                "{ordered}: each next boot {}; the one after it is as usual",
                once.describe()
            ),
        });
    }
    for (nodes, text) in [
        (&given.withdrawn, "the earlier order was taken back"),
        (
            &given.late,
            "the earlier order was taken back, but the boot that has it carries it out",
        ),
        (&given.none, "no order waits"),
    ] {
        if !nodes.is_empty() {
            lines.push(format!("{}: {text}", fold(nodes)));
        }
    }
    lines.extend(given.remarks.iter().cloned());
    if !given.running.is_empty() {
        let (running, verb) = (
            fold(&given.running),
            if given.running.len() == 1 { "runs" } else { "run" },
        );
        lines.push(format!(
            "{running} {verb} now, and the order waits for the next boot: rackstrap node restart '{running}'"
        ));
    }
    lines.join("\n")
}

fn list(client: &Client, nodes: Vec<String>, format: Format) -> Result<()> {
    let mut answer: OrdersAnswer = client.get(api::paths::ORDERS)?;
    if !nodes.is_empty() {
        let names = Wanted::new(nodes)?.some_names(client)?;
        answer.orders.retain(|row| names.contains(&row.node));
    }
    if format.json {
        return output::print_json(&answer);
    }
    output::print(&listed(&answer))
}

fn listed(answer: &OrdersAnswer) -> String {
    if answer.orders.is_empty() {
        return "no orders wait\nhelp: `rackstrap node boot r01n01 --once rescue` gives one".to_owned();
    }
    let mut table = output::table(["node", "order", "by", "given", "state"]);
    for row in &answer.orders {
        let order = &row.order;
        let state = match order.used {
            None => "waits for the next boot".to_owned(),
            Some(used) => format!("in use for {}", output::ago(answer.now, used)),
        };
        table.add_row([
            &row.node,
            &order.once,
            &order.by,
            &format!("{} ago", output::ago(answer.now, order.at)),
            &state,
        ]);
    }
    output::render(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_base::clock::Timestamp;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn an_order_for_a_running_node_says_what_it_waits_for() {
        let given = OrdersGiven {
            ordered: names(&["r01n01", "r01n02"]),
            running: names(&["r01n02"]),
            withdrawn: names(&["r01n01"]),
            ..OrdersGiven::default()
        };
        insta::assert_snapshot!(describe(&given, Some(&OnceBoot::Rescue)), @r"
        r01n[01-02]: each next boot starts a rescue shell on its console and by ssh; the one after it is as usual
        r01n01: the earlier order was taken back
        r01n02 runs now, and the order waits for the next boot: rackstrap node restart 'r01n02'
        ");
        let taken_back = OrdersGiven {
            late: names(&["r01n01"]),
            none: names(&["r01n02"]),
            ..OrdersGiven::default()
        };
        insta::assert_snapshot!(describe(&taken_back, None), @r"
        r01n01: the earlier order was taken back, but the boot that has it carries it out
        r01n02: no order waits
        ");
    }

    #[test]
    fn the_list_says_who_ordered_what() {
        let order = |node: &str, once: &str, used| api::NodeOrder {
            node: node.to_owned(),
            order: api::BootOrderRow {
                once: once.to_owned(),
                by: "anna".to_owned(),
                at: Timestamp(10_000),
                used,
            },
        };
        let answer = OrdersAnswer {
            now: Timestamp(130_000),
            orders: vec![
                order("r01n01", "image=debian@2", None),
                order("r01n02", "memtest", Some(Timestamp(70_000))),
            ],
        };
        insta::assert_snapshot!(listed(&answer), @r"
        NODE    ORDER           BY    GIVEN          STATE
        r01n01  image=debian@2  anna  2 min 0 s ago  waits for the next boot
        r01n02  memtest         anna  2 min 0 s ago  in use for 1 min 0 s
        ");
        let none = OrdersAnswer {
            orders: Vec::new(),
            ..answer
        };
        assert!(listed(&none).contains("rackstrap node boot r01n01 --once rescue"));
    }
}
