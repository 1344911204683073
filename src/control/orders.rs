//! The routes of orders for one boot.

use super::{
    api,
    refusal::{OfNodes, Refusal, Shared, blocking, broken},
    signed::Signed,
};
use crate::http::server_lacks;
use axum::{Json, extract::State, http::StatusCode};
use rackstrap_base::{clock::Timestamp, firmware::language_of};
use rackstrap_image::RootDir;
use rackstrap_model::{
    decide::{Decision, NodeDecision, Requester, World, decide},
    inventory::{Node, find},
    orders::{AtScript, OnceBoot},
};
use rackstrap_registries::timeline::{Event, EventKind, Level, NodeStatus, Subject};

/// The programs of an image that accept ssh, in the order in which rescue looks for them.
const SSH_SERVERS: [&str; 2] = ["/usr/sbin/sshd", "/usr/sbin/dropbear"];

pub(super) async fn list(State(context): State<Shared>) -> Json<api::OrdersAnswer> {
    let orders = context.boots.orders().all().into_iter();
    Json(api::OrdersAnswer {
        now: Timestamp::now(),
        orders: orders
            .map(|(node, order)| api::NodeOrder {
                node,
                order: order.into(),
            })
            .collect(),
    })
}

pub(super) async fn give(
    State(context): State<Shared>,
    Signed { mut asked, by }: Signed<api::GiveOrders>,
) -> Result<Json<api::OrdersGiven>, Refusal> {
    let what: Option<OnceBoot> = (asked.once.as_deref().map(str::parse).transpose())
        .map_err(|error| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{error}")))?;
    asked.nodes.sort();
    asked.nodes.dedup();
    let given = blocking(move || give_to(&context, &asked.nodes, what.as_ref(), &by)).await??;
    Ok(Json(given))
}

/// Gives all of the nodes the order, or none.
fn give_to(context: &Shared, nodes: &[String], what: Option<&OnceBoot>, by: &str) -> Result<api::OrdersGiven, Refusal> {
    let (world, now) = (context.world.load_full(), Timestamp::now());
    let mut given = api::OrdersGiven::default();
    if let Some(what) = what {
        given.remarks = check(context, &world, nodes, what)?;
    }
    // If the name were given up meanwhile, the order would remain for the next machine with that name.
    let withdrawn = context.nodes.while_unchanged(|inventory| {
        for node in nodes {
            find(inventory, node)?;
        }
        context.boots.orders().give(nodes, what, by, now).map_err(broken)
    })?;
    let note = |node: &str, detail: String| {
        let event = Event::new(now, EventKind::Order, Level::Ok, detail);
        context.recorder.record(Subject::Node(node.to_owned()), event);
    };
    for (node, order) in &withdrawn {
        let (how, list) = match order.used {
            None => ("taken back before a boot used it", &mut given.withdrawn),
            Some(_) => (
                "taken back, and the boot that has it already carries it out",
                &mut given.late,
            ),
        };
        list.push(node.clone());
        note(node, format!("{}: {how} (by {by})", order.what));
    }
    match what {
        Some(what) => {
            for node in nodes {
                note(
                    node,
                    format!("{what}: the next boot {} (ordered by {by})", what.describe()),
                );
                let status = NodeStatus::of(&world, &context.recorder, &context.boots, node, now);
                given.running.extend(status.state.is_up().then(|| node.clone()));
            }
            given.ordered = nodes.to_vec();
        }
        None => {
            let had = |node: &&String| withdrawn.iter().any(|(other, _)| other == *node);
            given.none = nodes.iter().filter(|node| !had(node)).cloned().collect();
        }
    }
    Ok(given)
}

/// Refuses an order that some of the nodes cannot carry out, with their names. Returns remarks about those that can.
fn check(context: &Shared, world: &World, nodes: &[String], what: &OnceBoot) -> Result<Vec<String>, Refusal> {
    let lack = server_lacks(&context.loaders.load(), &context.scripts.load(), what);
    if let Some(lack) = lack {
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, lack));
    }
    let (mut problems, mut remarks) = (OfNodes::default(), OfNodes::default());
    for name in nodes {
        let node = find(&world.inventory, name)?;
        let requester = requester_of(context, node);
        let Decision::Node(decision) = decide(world, &requester) else {
            continue;
        };
        let problem = refused(context, &decision, what).or_else(|| decision.cannot(world, &requester, what));
        if let Some(problem) = problem {
            problems.add(problem, name);
        } else if *what == OnceBoot::Rescue
            && let Ok(image) = &decision.image
            && let Ok(root) = RootDir::open(&image.dir.join("root"))
            && !SSH_SERVERS.iter().any(|program| root.exists(program))
        {
            let image = &image.manifest.image;
            let text = format!("{image} has neither sshd nor dropbear: the rescue shell is on the console only");
            remarks.add(text, name);
        }
    }
    match problems.is_empty() {
        true => Ok(remarks.lines()),
        false => Err(Refusal(
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("{}\nnothing was ordered", problems.lines().join("\n")),
        )),
    }
}

/// What is known of the machine of a node.
fn requester_of(context: &Shared, node: &Node) -> Requester {
    let hwaddr = node.hwaddrs.first().copied();
    let said = hwaddr
        .and_then(|hwaddr| context.firmware.said(hwaddr))
        .unwrap_or_default();
    Requester {
        hwaddr,
        ipaddr: Some(node.ipaddr),
        arch: said.arch,
        class: said.class,
        ..Requester::default()
    }
}

/// Why the loader that the node's firmware gets cannot carry out the order; none if it can, or if the loader is not known.
fn refused(context: &Shared, decision: &NodeDecision, what: &OnceBoot) -> Option<String> {
    let choice = decision.loader.as_ref().ok()?;
    let loaders = context.loaders.load();
    let language = language_of(loaders.name_of(choice)?)?;
    what.refused_by(language, false)
}

/// The step of an explanation about the node's order, and why the order cannot be carried out. `decision` becomes that of the boot that
/// carries it out.
pub(super) fn explain(
    context: &Shared,
    world: &World,
    requester: &Requester,
    decision: &mut NodeDecision,
) -> (Option<String>, Option<String>) {
    let Some(order) = context.boots.orders().get(&decision.node.name) else {
        return (None, None);
    };
    let step = format!("order for one boot: {}", order.describe());
    if order.at_script(false, Timestamp::now()) == AtScript::Over {
        return (
            Some(format!("{step}; its boot is over, so that the next one is as usual")),
            None,
        );
    }
    let problem = server_lacks(&context.loaders.load(), &context.scripts.load(), &order.what)
        .or_else(|| refused(context, decision, &order.what))
        .or_else(|| decision.carry_out(world, requester, &order.once()).err());
    let problem = problem.map(|problem| format!("{problem}; the node boots as usual"));
    (Some(step), problem)
}
