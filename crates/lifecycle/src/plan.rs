//! The planner.

#[cfg(test)]
mod tests;

use crate::{
    Observed, Record,
    restart::{Frame, Member, Program, Programs, Request, Step},
    rollout::{Audience, Happened, Rollout, Stage, State},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A node, as input of the planner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The observations of the node.
    pub observed: Observed,
    /// The image whose assigned version it boots; none if its profile pins a version or names no image.
    pub follows: Option<String>,
    /// The image whose rollout gives it another version than that of the boot that it runs; none if it can stay in that boot.
    pub leaves: Option<String>,
}

/// The input of a plan, apart from rollouts and requests.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The current time.
    pub now: Timestamp,
    /// The settings of the site file for restarts.
    pub programs: Programs,
    /// All nodes that matter. A node that is not among them was deleted.
    pub nodes: &'a BTreeMap<String, Node>,
    /// Nodes for which a program is running.
    pub busy: &'a HashSet<String>,
    /// Number of the newest boot of all nodes.
    pub sequence: u64,
}

/// A rollout that the plan changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its new state.
    pub rollout: Rollout,
    /// Its changed nodes, including those that are no longer in it.
    pub nodes: Vec<String>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Id of the request.
    pub request: String,
    /// The program.
    pub program: Program,
    /// The nodes for which it runs.
    pub nodes: Vec<String>,
    /// The reason, for the program.
    pub reason: String,
}

/// An order to restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The node.
    pub node: String,
    /// The boot that it has to leave. In any other boot the order is void.
    pub boot: String,
    /// Id of the request.
    pub request: String,
    /// The reason, for the node.
    pub reason: String,
}

/// An action of the daemon. It may be repeated: the next plan asks for it again until it is observed as done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the version of a rollout that is done the current one.
    MakeCurrent(ImageRef),
    /// Run a program of the site.
    Run(Job),
    /// Order a node to restart.
    Restart(Order),
    /// Record an event on a node's timeline.
    Record(Record),
}

/// The new state of rollouts and requests, and the actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rollouts that have changed.
    pub rollouts: Vec<Changed>,
    /// Requests that are new or have changed.
    pub requests: Vec<Request>,
    /// Actions to carry out after the changes are on disk.
    pub actions: Vec<Action>,
}

/// Decides what happens to running nodes.
///
/// 1. Rollouts evaluate the time and their nodes, and give their version to the next batch.
/// 2. Requests evaluate their nodes: which are back, which are late.
/// 3. The one request of each rollout with `--reboot` is reconciled with the assignments: nodes that have to leave their boot are
///    added, nodes that need not are removed.
/// 4. Requests give turns to as many nodes as may be down.
pub fn plan(situation: &Situation<'_>, rollouts: &BTreeMap<u64, Rollout>, requests: &[Request]) -> Plan {
    let mut plan = Plan::default();
    let mut rollouts = rollouts.clone();
    let mut next = requests.to_vec();
    for rollout in rollouts.values_mut().filter(|rollout| rollout.is_on()) {
        advance_rollout(situation, rollout, requests, &mut plan);
    }
    let mut last: BTreeMap<&str, &Rollout> = BTreeMap::new();
    for rollout in rollouts.values() {
        last.insert(&rollout.image.name, rollout);
    }
    let observe = |node: &str| situation.nodes.get(node).map(|node| &node.observed);
    let mut records = Vec::new();
    for request in next.iter_mut().filter(|request| !request.is_over()) {
        let frame = frame(situation, 0);
        let owner = rollouts.get(&request.number).filter(|_| request.is_of_rollout());
        let first_boot = |node: &str| owner.and_then(|owner| owner.nodes.get(node)?.first);
        let first_boot = &first_boot;
        records.extend(request.evaluate(Frame { first_boot, ..frame }, observe));
    }
    for rollout in last.values() {
        reconcile(situation, rollout, &mut next);
    }
    for request in next.iter_mut().filter(|request| request.is_of_rollout()) {
        let rollout = last.get(request.rollout.as_str()).copied();
        let wanted = |node: &str| situation.wanted(node, &request.rollout);
        let unwanted: Vec<String> = (request.nodes.iter())
            .filter(|node| node.step.awaits_order() && !wanted(&node.name))
            .map(|node| node.name.clone())
            .collect();
        let ordered = |node: &str| observe(node).is_some_and(|observed| !observed.ordered.is_empty());
        let reasons = [
            (true, "it runs an order for one boot".to_owned()),
            (false, why_not(&request.rollout, rollout)),
        ];
        for (of_order, why) in reasons {
            let unwanted = |node: &str| ordered(node) == of_order && unwanted.iter().any(|other| other == node);
            if request.nodes.iter().any(|node| unwanted(&node.name)) {
                request.give_up(unwanted, &why, situation.now, situation.programs, &mut records);
            }
        }
    }
    for index in 0..next.len() {
        let request = &next[index];
        if request.is_over() {
            continue;
        }
        let owner = last.get(request.rollout.as_str()).filter(|_| request.is_of_rollout());
        let down = owner.map_or(0, |owner| down_otherwise(situation, owner, &next, index));
        next[index].give_turns(frame(situation, down), observe, &mut records);
    }
    for request in &next {
        for (program, nodes) in request.due(situation.now, |node| situation.busy.contains(node)) {
            plan.actions.push(Action::Run(Job {
                request: request.id.clone(),
                program,
                nodes,
                reason: request.reason.clone(),
            }));
        }
        for node in &request.nodes {
            let Some(observed) = observe(&node.name) else { continue };
            if request.is_order_due(node, observed, situation.now) {
                plan.actions.push(Action::Restart(Order {
                    node: node.name.clone(),
                    boot: observed.boot.clone(),
                    request: request.id.clone(),
                    reason: request.reason.clone(),
                }));
            }
        }
    }
    plan.actions.extend(records.into_iter().map(Action::Record));
    plan.requests = (next.into_iter())
        .filter(|request| !requests.iter().any(|before| before == request))
        .collect();
    plan
}

fn frame<'a>(situation: &Situation<'_>, down: usize) -> Frame<'a> {
    Frame {
        now: situation.now,
        programs: situation.programs,
        down,
        first_boot: &|_| None,
    }
}

impl Situation<'_> {
    /// True if a rollout of `image` gives the node another version than it runs.
    fn wanted(&self, node: &str, image: &str) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| node.leaves.as_deref() == Some(image))
    }

    /// The nodes that boot the assigned version of `image`.
    fn audience(&self, image: &str) -> Audience<'_> {
        let follow = (self.nodes.iter()).filter(|(_, node)| node.follows.as_deref() == Some(image));
        follow.map(|(name, node)| (name.as_str(), &node.observed)).collect()
    }
}

/// Evaluates the time and the nodes of an active rollout.
fn advance_rollout(situation: &Situation<'_>, rollout: &mut Rollout, requests: &[Request], plan: &mut Plan) {
    let told: BTreeSet<&str> = (requests.iter())
        .filter(|request| request.is_of_rollout() && request.rollout == rollout.image.name)
        .flat_map(|request| &request.nodes)
        .filter(|node| node.step.has_order())
        .map(|node| node.name.as_str())
        .collect();
    let audience = situation.audience(&rollout.image.name);
    let summary = |rollout: &Rollout| (rollout.stage, rollout.stopped.clone(), rollout.settled, rollout.all);
    let before = summary(rollout);
    rollout.all = audience.len();
    let nodes = rollout.tick(&audience, |node| told.contains(node), situation.now);
    if nodes.is_empty() && before == summary(rollout) {
        return;
    }
    rollout.count();
    if rollout.stage == Stage::Done {
        plan.actions.push(Action::MakeCurrent(rollout.image.clone()));
    }
    plan.rollouts.push(Changed {
        rollout: rollout.clone(),
        nodes,
    });
}

/// Reconciles the request of the last rollout of an image with the nodes that have to leave their boot.
fn reconcile(situation: &Situation<'_>, rollout: &Rollout, requests: &mut Vec<Request>) {
    let image = rollout.image.name.as_str();
    let own = |request: &Request| request.rollout == image && request.number == rollout.number;
    let unfinished = |request: &Request| request.rollout == image && !request.is_over();
    // This request also finishes restarts of an older rollout of the image, because its nodes are still down.
    let place = requests
        .iter()
        .position(own)
        .or_else(|| requests.iter().position(unfinished));
    let batch = |node: &str| rollout.nodes.get(node).map_or(u32::MAX, |member| member.batch);
    let mut wanted: Vec<&str> = (situation.nodes.keys())
        .map(String::as_str)
        .filter(|node| situation.wanted(node, image))
        .collect();
    wanted.sort_by_key(|node| batch(node));
    let mut request = match place {
        Some(place) => requests.remove(place),
        None if wanted.is_empty() => return,
        None => begin(rollout, situation.sequence, situation.now),
    };
    request.number = rollout.number;
    request.max_down = u32::try_from(rollout.max_down.of(rollout.all)).unwrap_or(u32::MAX);
    request.within_secs = u32::try_from(rollout.ready_within_secs).unwrap_or(u32::MAX);
    if !wanted.is_empty() {
        request.reason = reason(rollout);
    }
    for name in wanted {
        let Some(node) = situation.nodes.get(name) else {
            continue;
        };
        let known = request.nodes.iter().position(|member| member.name == name);
        if let Some(known) = known
            && !request.nodes[known].step.is_over()
        {
            if request.is_back_unwell(&request.nodes[known], &node.observed) {
                request.nodes[known].want_again(situation.sequence, situation.now);
            }
            continue;
        }
        let elsewhere = requests.iter_mut().find_map(|other| {
            let place = other.open_member(name)?;
            Some((other, place))
        });
        if let Some((other, place)) = &elsewhere
            && !other.is_back_unwell(&other.nodes[*place], &node.observed)
        {
            // It is restarting already.
            continue;
        }
        let index = known.unwrap_or_else(|| {
            request.nodes.push(Member::waiting(name, situation.now));
            request.nodes.len() - 1
        });
        let member = &mut request.nodes[index];
        member.want_again(situation.sequence, situation.now);
        member.after = Some(situation.sequence);
        if let Some((other, place)) = elsewhere {
            other.hand_over(place, member, situation.now);
        }
    }
    match place {
        Some(place) => requests.insert(place, request),
        None if request.nodes.is_empty() => {}
        None => requests.push(request),
    }
}

/// The request of a rollout, without nodes. `sequence` is the number of the newest boot of all nodes.
pub fn begin(rollout: &Rollout, sequence: u64, now: Timestamp) -> Request {
    Request {
        // Each rollout has one request.
        id: format!("rollout{}", rollout.number),
        wanted: now,
        after: Some(sequence),
        by: "rollout".to_owned(),
        rollout: rollout.image.name.clone(),
        number: rollout.number,
        reason: reason(rollout),
        max_down: 1,
        drain: true,
        within_secs: u32::try_from(rollout.ready_within_secs).unwrap_or(u32::MAX),
        stopped: String::new(),
        nodes: Vec::new(),
    }
}

/// Why nodes restart, for the drain program and for their timelines.
fn reason(rollout: &Rollout) -> String {
    match rollout.stage.is_taken_back() {
        true => format!("the rollout of {} is {}", rollout.image, rollout.stage),
        false => format!("the rollout of {} gives it another version", rollout.image),
    }
}

/// Why nodes no longer need to restart.
fn why_not(image: &str, rollout: Option<&Rollout>) -> String {
    let said = |rollout: &Rollout, kind: Happened, word: &str| {
        let remark = rollout.remarks.iter().rev().find(|remark| remark.kind == kind);
        let what = remark.map_or(word, |remark| &remark.what);
        format!("the rollout of {} is {what}", rollout.image)
    };
    match rollout {
        Some(rollout) if rollout.paused => said(rollout, Happened::Paused, "paused"),
        Some(rollout) if rollout.stage.is_taken_back() => {
            said(rollout, Happened::TakenBack, &rollout.stage.to_string())
        }
        Some(rollout) if !rollout.stopped.is_empty() => format!("the rollout of {} stopped by itself", rollout.image),
        Some(rollout) => format!("the rollout of {} no longer gives it another version", rollout.image),
        None => format!("no rollout of {image} gives it another version"),
    }
}

/// Nodes of the rollout's image that are down, except those in the request at `own`: another request has them out of service, or they
/// boot the version. A node that does not come back stops counting when it is late or has failed.
fn down_otherwise(situation: &Situation<'_>, rollout: &Rollout, requests: &[Request], own: usize) -> usize {
    let mut down: BTreeSet<&str> = BTreeSet::new();
    let ours = &requests[own];
    for (_, request) in requests.iter().enumerate().filter(|(index, _)| *index != own) {
        let late = |member: &&Member| matches!(member.step, Step::Late { .. });
        let members = request
            .nodes
            .iter()
            .filter(|member| member.step.is_down() && !late(member));
        down.extend(members.map(|member| member.name.as_str()).filter(|name| {
            let node = situation.nodes.get(*name);
            node.is_some_and(|node| node.follows.as_deref() == Some(rollout.image.name.as_str()))
        }));
    }
    for (name, member) in rollout
        .nodes
        .iter()
        .filter(|(_, member)| member.state == State::Booting)
    {
        let Some(node) = situation.nodes.get(name) else {
            continue;
        };
        // The nodes of a rollout that has ended are no longer evaluated, so the deadline decides.
        let expected = crate::deadline(member.since, rollout.ready_within_secs) >= situation.now;
        if rollout.is_on() || !node.observed.up && expected {
            down.insert(name);
        }
    }
    let is_ours = |name: &&&str| {
        ours.nodes
            .iter()
            .any(|member| member.name == **name && member.step.is_down())
    };
    down.len() - down.iter().filter(is_ours).count()
}
