//! The planner.

#[cfg(test)]
mod tests;

use crate::{
    Note, Observed,
    restart::{Frame, Member, Program, Programs, Request, Step},
    rollout::{Audience, Happened, Rollout, Stage, State},
};
use rackstrap_base::clock::Timestamp;
use rackstrap_wire::ImageRef;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A node as the planner gets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// How it is.
    pub observed: Observed,
    /// The image of which it boots whatever version it is given; none if its profile pins a version or names no image.
    pub follows: Option<String>,
    /// The image whose rollout has it leave the boot that it runs, for another version; none if it is to stay.
    pub leaves: Option<String>,
}

/// All that a plan follows from, apart from rollouts and requests.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The present.
    pub now: Timestamp,
    /// What the site file says about restarts.
    pub programs: Programs,
    /// The nodes that are concerned. A node that is not among them was deleted.
    pub nodes: &'a BTreeMap<String, Node>,
    /// Nodes for which a program runs.
    pub busy: &'a HashSet<String>,
    /// Number of the newest boot of all.
    pub sequence: u64,
}

/// A rollout that is different now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As it is now.
    pub rollout: Rollout,
    /// Its nodes that are different, with those that are no longer in it.
    pub nodes: Vec<String>,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Id of the request.
    pub request: String,
    /// Which program.
    pub program: Program,
    /// For which nodes.
    pub nodes: Vec<String>,
    /// Why, for the program.
    pub reason: String,
}

/// An order to restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The node.
    pub node: String,
    /// The boot that it has to leave: in any other one the order is void.
    pub boot: String,
    /// Id of the request.
    pub request: String,
    /// Why, for the node.
    pub reason: String,
}

/// What to do. Each may be done again: the next plan asks for it until what is observed says that it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A rollout is done: its version becomes the current one.
    MakeCurrent(ImageRef),
    /// Run a program of the site.
    Run(Job),
    /// Have a node restart.
    Restart(Order),
    /// Record something on a node's timeline.
    Record(Note),
}

/// What becomes of rollouts and requests, and what to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Rollouts that are different now.
    pub rollouts: Vec<Changed>,
    /// Requests that are new or different now.
    pub requests: Vec<Request>,
    /// What to do once they are on disk.
    pub actions: Vec<Action>,
}

/// Decides what happens to running nodes.
///
/// 1. Rollouts look at the time and at their nodes, and give their version to the next batch.
/// 2. Requests look at theirs: which are back, which are late.
/// 3. The one request of each rollout with `--reboot` is brought in line with what is assigned: nodes that have to leave what they run
///    come in, nodes that need not leave it any more go out.
/// 4. Requests give as many turns as nodes may be down.
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
    let mut notes = Vec::new();
    for request in next.iter_mut().filter(|request| !request.is_over()) {
        let frame = frame(situation, 0);
        let owner = rollouts.get(&request.number).filter(|_| request.is_of_rollout());
        let first_boot = |node: &str| owner.and_then(|owner| owner.nodes.get(node)?.first);
        let first_boot = &first_boot;
        notes.extend(request.look(Frame { first_boot, ..frame }, observe));
    }
    for rollout in last.values() {
        reconcile(situation, rollout, &mut next);
    }
    for request in next.iter_mut().filter(|request| request.is_of_rollout()) {
        let rollout = last.get(request.rollout.as_str()).copied();
        let wanted = |node: &str| situation.wanted(node, &request.rollout);
        let why = why_not(&request.rollout, rollout);
        let unwanted: Vec<String> = (request.nodes.iter())
            .filter(|node| node.step.is_untold() && !wanted(&node.name))
            .map(|node| node.name.clone())
            .collect();
        if !unwanted.is_empty() {
            let unwanted = |node: &str| unwanted.iter().any(|other| other == node);
            request.give_up(unwanted, &why, situation.now, situation.programs, &mut notes);
        }
    }
    for index in 0..next.len() {
        let request = &next[index];
        if request.is_over() {
            continue;
        }
        let owner = last.get(request.rollout.as_str()).filter(|_| request.is_of_rollout());
        let down = owner.map_or(0, |owner| down_otherwise(situation, owner, &next, index));
        next[index].give_turns(frame(situation, down), observe, &mut notes);
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
            if request.is_due_to_be_told(node, observed, situation.now) {
                plan.actions.push(Action::Restart(Order {
                    node: node.name.clone(),
                    boot: observed.boot.clone(),
                    request: request.id.clone(),
                    reason: request.reason.clone(),
                }));
            }
        }
    }
    plan.actions.extend(notes.into_iter().map(Action::Record));
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
    /// True if a rollout of `image` has that node leave what it runs.
    fn wanted(&self, node: &str, image: &str) -> bool {
        let node = self.nodes.get(node);
        node.is_some_and(|node| node.leaves.as_deref() == Some(image))
    }

    /// The nodes that boot whatever version of `image` they are given.
    fn audience(&self, image: &str) -> Audience<'_> {
        let follow = (self.nodes.iter()).filter(|(_, node)| node.follows.as_deref() == Some(image));
        follow.map(|(name, node)| (name.as_str(), &node.observed)).collect()
    }
}

/// Looks at the time and at the nodes of a rollout that is on.
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

/// Brings the request of the last rollout of an image in line with which nodes have to leave what they run.
fn reconcile(situation: &Situation<'_>, rollout: &Rollout, requests: &mut Vec<Request>) {
    let image = rollout.image.name.as_str();
    let own = |request: &Request| request.rollout == image && request.number == rollout.number;
    let unfinished = |request: &Request| request.rollout == image && !request.is_over();
    // What an older rollout of the image has not finished is finished by this one: its nodes are down all the same.
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
            let open = |member: &Member| member.name == name && !member.step.is_over();
            other.nodes.iter().position(open).map(|place| (other, place))
        });
        if let Some((other, place)) = &elsewhere
            && !other.is_back_unwell(&other.nodes[*place], &node.observed)
        {
            // It restarts already.
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

/// The request that a rollout owns, without nodes. `sequence` is the number of the newest boot of all.
pub fn begin(rollout: &Rollout, sequence: u64, now: Timestamp) -> Request {
    Request {
        // There is one for each rollout.
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

/// Why nodes do not restart after all.
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
        Some(rollout) => format!("the rollout of {} gives it no other version now", rollout.image),
        None => format!("no rollout of {image} gives it another version"),
    }
}

/// Nodes of the image of `rollout` that are down apart from those in the request at `own`: another request has them out of service, or
/// they boot the version. One that does not come back is not waited for: it is late, or has failed.
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
        // Of a rollout that has ended, nobody says when they are ready, or late.
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
