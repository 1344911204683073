//! Applies boots, time and orders to a rollout.

use super::{Happened, Member, Pace, Rollout, Stage, State, shown};
use crate::{Observed, deadline};
use rackstrap_base::clock::Timestamp;
use rackstrap_hostlist::NodeSet;
use rackstrap_wire::ImageRef;
use std::collections::BTreeMap;

/// All nodes that boot the assigned version of the image, with their observations.
pub type Audience<'a> = BTreeMap<&'a str, &'a Observed>;

impl Rollout {
    /// `node` took the version's kernel in that boot. Returns true if this changed its state.
    pub fn boots(&mut self, node: &str, boot: &str, now: Timestamp) -> bool {
        let Some(member) = self.nodes.get_mut(node).filter(|member| member.boot != boot) else {
            return false;
        };
        match member.state {
            // It got the script before it rolled back.
            State::RolledBack { .. } => return false,
            State::Waiting | State::Ready => {
                member.boots = 1;
                member.first = Some(now);
                member.set_state(State::Booting, now);
            }
            State::Booting | State::Failed { .. } => member.boots = member.boots.saturating_add(1),
        }
        boot.clone_into(&mut member.boot);
        true
    }

    /// `node` is up on the version; `problem` names its failed checks, or is empty. Returns true if this changed its state.
    pub fn ready(&mut self, node: &str, boot: &str, problem: &str, now: Timestamp) -> bool {
        let soak = self.soak_secs;
        let Some(member) = self.nodes.get_mut(node) else {
            return false;
        };
        if member.state == State::Ready && member.boot == boot {
            return false;
        }
        if matches!(member.state, State::RolledBack { .. }) {
            return false;
        }
        boot.clone_into(&mut member.boot);
        if problem.is_empty() {
            member.set_state(State::Ready, now);
            member.proven = soak == 0;
        } else {
            let why = format!("up, but {problem}");
            member.set_state(State::Failed { why }, now);
            self.stop_if_failing(now);
        }
        true
    }

    /// `node` boots its last known good version, for the reason `why`. Returns true if this changed its state.
    pub fn rolls_back(&mut self, node: &str, why: &str, now: Timestamp) -> bool {
        let Some(member) = self.nodes.get_mut(node) else {
            return false;
        };
        if matches!(member.state, State::RolledBack { .. }) {
            return false;
        }
        let why = why.to_owned();
        member.set_state(State::RolledBack { why }, now);
        self.stop_if_failing(now);
        true
    }

    /// Evaluates the time and all nodes of the image. `restarting` tells whether a node has the order to restart for the rollout. Returns the
    /// changed nodes, including those that are no longer in the rollout.
    pub fn tick(&mut self, all: &Audience<'_>, restarting: impl Fn(&str) -> bool, now: Timestamp) -> Vec<String> {
        if !self.is_on() {
            return Vec::new();
        }
        self.settle_clock(now);
        let mut changed: Vec<String> = Vec::new();
        self.nodes.retain(|node, _| {
            let stays = all.contains_key(node.as_str());
            if !stays {
                changed.push(node.clone());
            }
            stays
        });
        let (ready_within, soak) = (self.ready_within_secs, self.soak_secs);
        for (node, member) in &mut self.nodes {
            let unknown = Observed::default();
            let observed = all.get(node.as_str()).copied().unwrap_or(&unknown);
            let restarting = restarting(node);
            if member.pass_time(observed, restarting, &self.image, ready_within, soak, now) {
                changed.push(node.clone());
            }
        }
        self.stop_if_failing(now);
        let settled = !self.nodes.values().any(Member::is_awaited) && self.nodes.values().any(|m| m.proven);
        match settled {
            true => self.settled = self.settled.or(Some(now)),
            false => self.settled = None,
        }
        changed.extend(self.next_batch(all, now));
        changed
    }

    /// Sets future times to now: the clock was set back since, and nothing would be late until they come again.
    fn settle_clock(&mut self, now: Timestamp) {
        self.settled = self.settled.map(|at| at.min(now));
        for member in self.nodes.values_mut() {
            member.since = member.since.min(now);
            member.first = member.first.map(|at| at.min(now));
        }
    }

    /// Returns true if the rollout stops by itself now.
    fn stop_if_failing(&mut self, now: Timestamp) -> bool {
        let failures = self.failures();
        if !self.is_on() || !self.stopped.is_empty() || failures <= self.max_failures as usize {
            return false;
        }
        let limit = match self.max_failures {
            0 => "none may".to_owned(),
            1 => "one may".to_owned(),
            limit => format!("{limit} may"),
        };
        let first = self.nodes.values().find(|member| member.state.is_failure());
        self.stopped = format!(
            "{failures} failed, and {limit}: {} ({})",
            self.names(|member| member.state.is_failure()),
            first.map(|member| member.state.why()).unwrap_or_default()
        );
        self.remark(format!("stopped: {}", self.stopped), now);
        true
    }

    fn next_batch(&mut self, all: &Audience<'_>, now: Timestamp) -> Vec<String> {
        // An administrator has checked the canary before the promotion.
        let pause = match self.last_batch {
            0 => 0,
            _ => self.pause_secs * 1000,
        };
        let over = self.settled.is_some_and(|settled| now.since(settled) >= pause);
        if self.stage != Stage::Promoting || self.is_held() || !over {
            return Vec::new();
        }
        let rest = all.keys().copied().filter(|node| !self.nodes.contains_key(*node));
        let rest: NodeSet = rest.collect();
        if rest.is_empty() {
            self.stage = Stage::Done;
            self.ended = Some(now);
            self.remark(format!("done: {} is current", self.image), now);
            return Vec::new();
        }
        self.last_batch += 1;
        self.settled = None;
        let batch: Vec<String> = rest.iter().take(self.batch.of(all.len())).map(str::to_owned).collect();
        for node in &batch {
            let unknown = Observed::default();
            let observed = all.get(node.as_str()).copied().unwrap_or(&unknown);
            self.nodes
                .insert(node.clone(), Member::new(self.last_batch, observed, now));
        }
        let names = shown(batch.iter().map(String::as_str));
        self.remark(format!("batch {}: given to {names}", self.last_batch), now);
        batch
    }

    /// The condition for which it waits, for people; empty if it has ended.
    pub fn waits_for(&self, now: Timestamp) -> String {
        if !self.is_on() {
            return String::new();
        }
        let ordered = |member: &Member| !member.ordered.is_empty() && !member.is_settled();
        let stalled = |member: &Member| !member.counts && !member.stalled.is_empty();
        let mut text = self.waits_for_others(now);
        let nodes = self.nodes.values();
        if nodes.clone().any(stalled) {
            text = format!("{text}; does not wait for {}: stalled", self.names(stalled));
        }
        if nodes.clone().any(ordered) {
            text = format!(
                "{text}; does not wait for {}: an order for one boot",
                self.names(ordered)
            );
        }
        text
    }

    fn waits_for_others(&self, now: Timestamp) -> String {
        if !self.stopped.is_empty() {
            return format!("stopped by itself: {}", self.stopped);
        }
        if self.paused {
            return "paused".to_owned();
        }
        let waiting = self.names(Member::is_awaited);
        match (self.stage, self.nodes.values().any(|member| member.proven)) {
            _ if waiting != "no node" => format!("waits for {waiting}"),
            (_, false) => "waits for a first node to be ready on it".to_owned(),
            (Stage::Canary, true) => "waits for: rackstrap rollout promote".to_owned(),
            (_, true) => {
                let since = self.settled.map_or(0, |settled| now.since(settled) / 1000);
                let left = self.pause_secs.saturating_sub(since);
                format!("the next batch is due in {left} s")
            }
        }
    }

    /// Gives the version to the remaining nodes, batch by batch.
    ///
    /// # Errors
    /// It has ended, or is held.
    pub fn promote(&mut self, pace: &Pace, by: &str, now: Timestamp) -> Result<(), String> {
        self.expect_on()?;
        if self.is_held() {
            return Err(format!(
                "the rollout of {} is {}; go on with: rackstrap rollout resume {}",
                self.image,
                match self.stopped.is_empty() {
                    true => "paused".to_owned(),
                    false => format!("stopped: {}", self.stopped),
                },
                self.image.name
            ));
        }
        self.batch = pace.batch.unwrap_or(self.batch);
        self.pause_secs = pace.pause_secs.unwrap_or(self.pause_secs);
        self.max_failures = pace.max_failures.unwrap_or(self.max_failures);
        self.stage = Stage::Promoting;
        self.remark(format!("promoted in batches of {}, by {by}", self.batch), now);
        Ok(())
    }

    /// Gives the version to no further node for now.
    ///
    /// # Errors
    /// It has ended, or is paused already.
    pub fn pause(&mut self, by: &str, now: Timestamp) -> Result<(), String> {
        self.expect_on()?;
        if self.paused {
            return Err(format!("the rollout of {} is paused already", self.image));
        }
        self.paused = true;
        self.remark_that(Happened::Paused, format!("paused, by {by}"), now);
        Ok(())
    }

    /// Continues after a pause or a stop, perhaps with more failures allowed.
    ///
    /// # Errors
    /// It has ended, is not held, or would stop again at once.
    pub fn resume(&mut self, max_failures: Option<u32>, by: &str, now: Timestamp) -> Result<(), String> {
        self.expect_on()?;
        if !self.is_held() && max_failures.is_none_or(|limit| limit == self.max_failures) {
            return Err(format!("the rollout of {} is neither paused nor stopped", self.image));
        }
        let (limit, failures) = (max_failures.unwrap_or(self.max_failures), self.failures());
        if failures > limit as usize {
            return Err(format!(
                "the rollout of {} would stop again at once: {failures} failed; allow that with --max-failures {failures}, have \
                 them try again with rackstrap rollout retry NODES, or end it with rackstrap rollout abort {}",
                self.image, self.image.name
            ));
        }
        self.max_failures = limit;
        self.paused = false;
        self.stopped.clear();
        self.remark(format!("resumed with {limit} failures allowed, by {by}"), now);
        Ok(())
    }

    /// Ends it: all its nodes return to the earlier version at their next boots.
    ///
    /// # Errors
    /// It has ended already.
    pub fn end(&mut self, stage: Stage, by: &str, now: Timestamp) -> Result<(), String> {
        self.expect_on()?;
        self.stage = stage;
        self.ended = Some(now);
        // Its nodes return, and with --reboot at once.
        self.paused = false;
        self.remark_that(Happened::TakenBack, format!("{stage}, by {by}"), now);
        Ok(())
    }

    /// Makes `node` try the version again. Returns true if it had failed.
    pub fn retry(&mut self, node: &str, observed: &Observed, now: Timestamp) -> bool {
        let on = self.is_on();
        let Some(member) = self
            .nodes
            .get_mut(node)
            .filter(|member| on && member.state.is_failure())
        else {
            return false;
        };
        *member = Member::new(member.batch, observed, now);
        self.settled = None;
        true
    }

    fn expect_on(&self) -> Result<(), String> {
        match self.is_on() {
            true => Ok(()),
            false => Err(format!("the rollout of {} is over: {}", self.image, self.stage)),
        }
    }
}

impl Member {
    fn set_state(&mut self, state: State, now: Timestamp) {
        self.state = state;
        self.since = now;
        self.proven = false;
        self.stalled.clear();
    }

    /// Applies the effects of time: late, proven, or no longer waited for. Returns true if there were any.
    fn pass_time(
        &mut self,
        observed: &Observed,
        restarting: bool,
        image: &ImageRef,
        ready_within: u64,
        soak: u64,
        now: Timestamp,
    ) -> bool {
        if let Some(moved) = self.set_aside(observed, now) {
            return moved;
        }
        let silent = !observed.on && now > deadline(observed.heard, ready_within);
        let stalled = match self.state {
            State::Waiting | State::Booting => observed.stalled.as_str(),
            _ => "",
        };
        let news = self.stalled != stalled;
        if news {
            stalled.clone_into(&mut self.stalled);
        }
        let moved = match self.state {
            State::Booting => {
                let late = self.first.is_some_and(|first| now > deadline(first, ready_within));
                if late {
                    let mut why = format!("not ready within {ready_within} s ({} boots)", self.boots);
                    if !stalled.is_empty() {
                        why = format!("{why}; stalled at {stalled}");
                    }
                    self.set_state(State::Failed { why }, now);
                }
                late
            }
            // It has the script of this version, or was restarted for it, and its boot stalls: both may be the cause. A boot that began before
            // the node should try (again) proves nothing.
            State::Waiting
                if !stalled.is_empty()
                    && (observed.image.as_ref() == Some(image) && observed.opened >= self.since || restarting) =>
            {
                let why = format!("stalled at {stalled}");
                self.set_state(State::Failed { why }, now);
                true
            }
            // It was switched off, or stalled in another boot, after it got the version. The next batch must not wait for it for ever. A node
            // that stalls may request an address again and again, so it never falls silent.
            State::Waiting if self.counts && (silent || !stalled.is_empty()) => {
                self.counts = false;
                true
            }
            State::Ready if !self.proven => self.soak(observed, soak, now),
            _ => false,
        };
        news || moved
    }

    /// A boot by an order says nothing about the version: while it lasts the node is neither late, nor failed, nor proven, and its times start
    /// again after it. Returns whether something changed; none means that the usual boot of the node counts.
    fn set_aside(&mut self, observed: &Observed, now: Timestamp) -> Option<bool> {
        let news = self.ordered != observed.ordered;
        if news {
            self.ordered.clone_from(&observed.ordered);
            self.stalled.clear();
            match self.state {
                State::Booting => self.first = Some(now),
                State::Waiting => self.since = now,
                State::Ready if !self.proven => self.since = now,
                State::Ready | State::Failed { .. } | State::RolledBack { .. } => {}
            }
        }
        (news || !self.ordered.is_empty()).then_some(news)
    }

    fn soak(&mut self, observed: &Observed, soak: u64, now: Timestamp) -> bool {
        let lived = now.since(self.since) / 1000;
        if !observed.stalled.is_empty() {
            let why = format!("booted again after it was ready, and stalled at {}", observed.stalled);
            self.set_state(State::Failed { why }, now);
        } else if !observed.on {
            let why = format!("fell silent {lived} s after it was ready");
            self.set_state(State::Failed { why }, now);
        } else if !observed.problem.is_empty() && !self.was_degraded {
            let why = format!("degraded {lived} s after it was ready: {}", observed.problem);
            self.set_state(State::Failed { why }, now);
        } else if lived >= soak {
            self.proven = true;
        } else {
            return false;
        }
        true
    }
}
