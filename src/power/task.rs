//! Tasks: one verb for many nodes. Each node has a deadline and a result; the tasks' results stay until the daemon ends or newer tasks displace
//! them. Results of everything but `status` are also on the nodes' timelines.

use super::{
    driver::{self, Controller, Trouble},
    verbs::{self, Details, Plan},
};
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_control::api::{PowerAnswer, PowerRow, PowerVerb, SwitchPower, on_or_off};
use rackstrap_model::{
    bmc::{BmcOf, bmc_collisions, bmc_of},
    decide::SharedWorld,
};
use rackstrap_registries::timeline::{Event, EventKind, Level, Recorder, Subject};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::Ipv4Addr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

/// At most this many BMCs at a time, of all tasks. Each takes a socket, and some packets a second.
const AT_ONCE: usize = 128;
/// This many tasks are kept, and at most this many run.
const MOST_TASKS: usize = 32;
/// The longest time that a node may take, in seconds.
const LONGEST: u32 = 3600;
/// Time between two looks at a machine that changes its state.
const AGAIN: Duration = Duration::from_secs(1);
/// Looks in a row that may fail: BMCs are busy while they switch.
const FAILED_LOOKS: u32 = 5;
/// Time for the end of a session, after the deadline too.
const CLOSING: Duration = Duration::from_secs(3);

/// All tasks of the daemon.
#[derive(Clone)]
pub struct Power {
    shared: Arc<Shared>,
}

struct Shared {
    world: SharedWorld,
    recorder: Recorder,
    /// The number of the first task: the time of the daemon's start. A command that waits over a restart of the daemon must not take another
    /// command's task for its own.
    first: u64,
    /// The oldest is first.
    tasks: Mutex<VecDeque<PowerAnswer>>,
    /// Changes with each result.
    changed: watch::Sender<u64>,
    seats: Semaphore,
    /// One session at a time per BMC: a mutex for each BMC that is in use.
    turns: Mutex<HashMap<Ipv4Addr, Weak<tokio::sync::Mutex<()>>>>,
}

/// The part of one node in a task.
struct Part {
    id: u64,
    node: String,
    bmc: BmcOf,
    verb: PowerVerb,
    details: Details,
    within: Duration,
    by: String,
}

/// How a node's part ended.
#[derive(Debug, Default)]
struct Outcome {
    before: Option<bool>,
    after: Option<bool>,
    detail: String,
    failure: Option<Trouble>,
}

impl Power {
    /// No tasks yet.
    pub fn new(world: SharedWorld, recorder: Recorder) -> Power {
        Power {
            shared: Arc::new(Shared {
                world,
                recorder,
                first: Timestamp::now().0,
                tasks: Mutex::default(),
                changed: watch::Sender::new(0),
                seats: Semaphore::new(AT_ONCE),
                turns: Mutex::default(),
            }),
        }
    }

    /// A counter that changes with each result of a task.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// The task `id`; none if it does not exist, or was displaced by newer ones.
    pub fn of(&self, id: u64) -> Option<PowerAnswer> {
        let tasks = lock(&self.shared.tasks);
        let task = tasks.iter().find(|task| task.id == id).cloned();
        task.map(|task| PowerAnswer {
            now: Timestamp::now(),
            ..task
        })
    }

    /// Begins a task, and returns its number. Must be called in the daemon's runtime.
    ///
    /// # Errors
    /// The request names no node or an unknown one, or has no valid time, or too many tasks run.
    pub fn begin(&self, asked: &SwitchPower, by: &str) -> Result<u64, String> {
        if !(1..=LONGEST).contains(&asked.within_secs) {
            return Err(format!("--within is from 1s to {LONGEST}s"));
        }
        let world = self.shared.world.load_full();
        let collisions = bmc_collisions(&world.site, world.inventory.iter().map(|node| &**node));
        let mut seen = HashSet::new();
        let (mut rows, mut parts) = (Vec::new(), Vec::new());
        let mut tasks = lock(&self.shared.tasks);
        let id = tasks.back().map_or(self.shared.first, |task| task.id + 1);
        for name in asked.nodes.iter().filter(|name| seen.insert(name.as_str())) {
            let Some(node) = world.inventory.get(name) else {
                return Err(format!(
                    "node {name} is not in the inventory\nhelp: `rackstrap node list` shows all nodes"
                ));
            };
            let bmc = bmc_of(&world.site, node);
            let mut row = PowerRow {
                node: name.clone(),
                bmc: bmc.as_ref().map(|bmc| bmc.address),
                level: None,
                before: None,
                after: None,
                detail: String::new(),
                help: String::new(),
            };
            match (bmc, collisions.get(name)) {
                (None, _) => {
                    row.level = Some(Level::Error);
                    row.detail = "the node has no BMC".to_owned();
                    row.help = "write [bmc] in the site file, or give the node one by `rackstrap node set`".to_owned();
                }
                // It would switch another machine.
                (Some(_), Some(why)) => {
                    row.level = Some(Level::Error);
                    row.detail.clone_from(why);
                    row.help = "give the node another one by `rackstrap node set`, key bmc-address".to_owned();
                }
                (Some(bmc), None) => parts.push(Part {
                    id,
                    node: name.clone(),
                    bmc,
                    verb: asked.verb,
                    details: Details {
                        identify_secs: asked.identify_secs,
                        boot_from: asked.boot_from,
                        efi: asked.efi,
                    },
                    within: Duration::from_secs(asked.within_secs.into()),
                    by: by.to_owned(),
                }),
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err("no node is named".to_owned());
        }
        if tasks.len() >= MOST_TASKS {
            let Some(done) = tasks.iter().position(|task| task.done) else {
                return Err(format!(
                    "{MOST_TASKS} power commands run already; wait until one has ended"
                ));
            };
            tasks.remove(done);
        }
        let now = Timestamp::now();
        tasks.push_back(PowerAnswer {
            now,
            id,
            verb: asked.verb,
            by: by.to_owned(),
            began: now,
            done: parts.is_empty(),
            nodes: rows,
        });
        drop(tasks);
        if asked.verb != PowerVerb::Status {
            tracing::info!("power {} of {} by {by}", asked.verb, asked.nodes.join(", "));
        }
        for part in parts {
            let shared = self.shared.clone();
            tokio::spawn(async move {
                let (id, node) = (part.id, part.node.clone());
                // A panic of a driver ends the part of one node.
                let ended = tokio::spawn(shared.clone().carry_out(part)).await;
                let outcome = ended.unwrap_or_else(|panic| Outcome::failed(panic.to_string(), "see the daemon's log"));
                shared.finish(id, &node, outcome);
            });
        }
        Ok(id)
    }
}

impl Outcome {
    fn failed(message: String, help: &str) -> Outcome {
        Outcome {
            failure: Some(Trouble {
                message,
                help: help.to_owned(),
            }),
            ..Outcome::default()
        }
    }
}

impl Shared {
    /// Waits for the BMC and for a seat, and does the part of one node.
    async fn carry_out(self: Arc<Self>, part: Part) -> Outcome {
        // The BMC first: a part that waits for its turn takes no seat from other BMCs.
        let turn = self.turn(part.bmc.address);
        let _turn = turn.lock().await;
        let Ok(_seat) = self.seats.acquire().await else {
            return Outcome::failed("the daemon ends".to_owned(), "repeat the command");
        };
        let outcome = switch(&part).await;
        if part.verb != PowerVerb::Status {
            self.record(&part, &outcome);
        }
        outcome
    }

    /// The mutex of a BMC.
    fn turn(&self, address: Ipv4Addr) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&address).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(address, Arc::downgrade(&turn));
        turn
    }

    /// Writes to the node's timeline who asked for what, and what came of it.
    fn record(&self, part: &Part, outcome: &Outcome) {
        let kind = kind(part.verb, outcome);
        let (before, after) = (on_or_off(outcome.before), on_or_off(outcome.after));
        let (level, end) = match &outcome.failure {
            None if outcome.before == outcome.after => (Level::Ok, outcome.detail.clone()),
            None => (Level::Ok, format!("{before} -> {after}")),
            Some(failure) => (Level::Error, failure.message.clone()),
        };
        let text = format!("{} by {}: {end}", part.verb, part.by);
        match level {
            Level::Ok => tracing::info!("power of {}: {text}", part.node),
            _ => tracing::warn!("power of {}: {text}", part.node),
        }
        let event = Event::new(Timestamp::now(), kind, level, text);
        self.recorder.record(Subject::Node(part.node.clone()), event);
    }

    fn finish(&self, id: u64, node: &str, outcome: Outcome) {
        let mut tasks = lock(&self.tasks);
        let Some(task) = tasks.iter_mut().find(|task| task.id == id) else {
            return;
        };
        if let Some(row) = task.nodes.iter_mut().find(|row| row.node == node) {
            (row.before, row.after) = (outcome.before, outcome.after);
            match outcome.failure {
                None => (row.level, row.detail) = (Some(Level::Ok), outcome.detail),
                Some(Trouble { message, help }) => {
                    (row.level, row.detail, row.help) = (Some(Level::Error), message, help);
                }
            }
        }
        task.done = task.nodes.iter().all(|row| row.level.is_some());
        drop(tasks);
        self.changed.send_modify(|number| *number += 1);
    }
}

/// The kind of the event. A node that an administrator switched off is off, and not lost.
fn kind(verb: PowerVerb, outcome: &Outcome) -> EventKind {
    match (verb, outcome.after) {
        _ if outcome.failure.is_some() => EventKind::Power,
        (PowerVerb::On | PowerVerb::Cycle | PowerVerb::Reset, Some(true)) => EventKind::PowerOn,
        (PowerVerb::Off | PowerVerb::Soft, Some(false)) => EventKind::PowerOff,
        _ => EventKind::Power,
    }
}

/// Does the part of one node within its time.
async fn switch(part: &Part) -> Outcome {
    let deadline = Instant::now() + part.within;
    let late = |what: &str| format!("BMC {}: {what} within {} s", part.bmc.address, part.within.as_secs());
    let mut controller = match timeout_at(deadline, driver::open(&part.bmc)).await {
        Ok(Ok(controller)) => controller,
        Ok(Err(Trouble { message, help })) => return Outcome::failed(message, &help),
        Err(_) => {
            let help = "check the BMC's address, its cable, and that IPMI over LAN is on; --within gives it more time";
            return Outcome::failed(late("no login"), help);
        }
    };
    let mut outcome = Outcome::default();
    match timeout_at(deadline, work(&mut *controller, part, &mut outcome)).await {
        Ok(Ok(())) => {}
        Ok(Err(trouble)) => outcome.failure = Some(trouble),
        Err(_) => {
            let (address, secs) = (part.bmc.address, part.within.as_secs());
            let message = match outcome.after {
                Some(_) => format!(
                    "BMC {address}: the power is still {} after {secs} s",
                    on_or_off(outcome.after)
                ),
                None => late("no answer"),
            };
            outcome.failure = Some(Trouble {
                message,
                help: verbs::late_help(part.verb).to_owned(),
            });
        }
    }
    let _ = timeout(CLOSING, controller.close()).await;
    outcome
}

/// Reads the state, does what it needs, and reads the state until it is the wanted one.
async fn work(controller: &mut dyn Controller, part: &Part, outcome: &mut Outcome) -> Result<(), Trouble> {
    let (on, faults) = controller.state().await?;
    (outcome.before, outcome.after) = (Some(on), Some(on));
    let (action, wanted) = match verbs::plan(part.verb, on, part.details) {
        Plan::Nothing(why) => {
            let said = [why, &faults].into_iter().filter(|text| !text.is_empty());
            outcome.detail = said.collect::<Vec<_>>().join("; ");
            return Ok(());
        }
        Plan::Refused(why, help) => {
            return Err(Trouble {
                message: why.to_owned(),
                help: help.to_owned(),
            });
        }
        Plan::Do(action, wanted) => (action, wanted),
    };
    // An answer may be lost after the BMC has done it: from here on, only what is read again counts.
    outcome.after = None;
    controller.act(action).await?;
    outcome.detail = "done".to_owned();
    let Some(wanted) = wanted else {
        outcome.after = outcome.before;
        return Ok(());
    };
    let mut failed = 0;
    loop {
        sleep(AGAIN).await;
        match controller.state().await {
            Ok((on, _)) => {
                outcome.after = Some(on);
                if on == wanted {
                    return Ok(());
                }
                failed = 0;
            }
            Err(trouble) => {
                failed += 1;
                if failed >= FAILED_LOOKS {
                    return Err(trouble);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{driver::Doing, verbs::Action},
        *,
    };
    use rackstrap_site::BmcDriver;

    /// A controller that answers these states, one after the other and then none, and `acts` or does not.
    struct Fake {
        states: VecDeque<bool>,
        acts: bool,
    }

    fn silent() -> Trouble {
        Trouble {
            message: "no answer".to_owned(),
            help: String::new(),
        }
    }

    impl Controller for Fake {
        fn state(&mut self) -> Doing<'_, Result<(bool, String), Trouble>> {
            let state = self.states.pop_front().map(|on| (on, String::new()));
            Box::pin(async move { state.ok_or_else(silent) })
        }

        fn act(&mut self, _: Action) -> Doing<'_, Result<(), Trouble>> {
            let acted = if self.acts { Ok(()) } else { Err(silent()) };
            Box::pin(async move { acted })
        }

        fn close(self: Box<Self>) -> Doing<'static, ()> {
            Box::pin(async {})
        }
    }

    async fn ended(verb: PowerVerb, states: &[bool], acts: bool) -> (Result<(), Trouble>, Outcome) {
        let part = Part {
            id: 1,
            node: "r01n01".to_owned(),
            bmc: BmcOf {
                address: Ipv4Addr::LOCALHOST,
                driver: BmcDriver::Ipmi,
                user: String::new(),
                password_file: None,
            },
            verb,
            details: Details::default(),
            within: Duration::from_secs(60),
            by: "root".to_owned(),
        };
        let states = states.iter().copied().collect();
        let (mut fake, mut outcome) = (Fake { states, acts }, Outcome::default());
        let ended = work(&mut fake, &part, &mut outcome).await;
        (ended, outcome)
    }

    #[tokio::test]
    async fn only_a_state_that_was_read_after_an_action_is_said_to_be_the_present_one() {
        let (result, outcome) = ended(PowerVerb::Off, &[true], false).await;
        assert_eq!(result, Err(silent()));
        assert_eq!((outcome.before, outcome.after), (Some(true), None));
        let (result, outcome) = ended(PowerVerb::Off, &[true, false], true).await;
        assert_eq!(result, Ok(()));
        assert_eq!((outcome.before, outcome.after), (Some(true), Some(false)));
        // Nothing reads the state after a blink.
        let (result, outcome) = ended(PowerVerb::Identify, &[true], true).await;
        assert_eq!(result, Ok(()));
        assert_eq!((outcome.before, outcome.after), (Some(true), Some(true)));
    }

    #[test]
    fn a_node_is_on_or_off_on_purpose_only_if_its_bmc_said_so() {
        let after = |after, failure| Outcome {
            after,
            failure,
            ..Outcome::default()
        };
        let off = |verb| kind(verb, &after(Some(false), None));
        assert_eq!(off(PowerVerb::Off), EventKind::PowerOff);
        assert_eq!(off(PowerVerb::Soft), EventKind::PowerOff);
        // The light of a machine that is off for another reason.
        assert_eq!(off(PowerVerb::Identify), EventKind::Power);
        assert_eq!(kind(PowerVerb::Off, &after(None, None)), EventKind::Power);
        assert_eq!(kind(PowerVerb::Cycle, &after(Some(true), None)), EventKind::PowerOn);
        assert_eq!(
            kind(PowerVerb::On, &after(Some(true), Some(silent()))),
            EventKind::Power
        );
        assert_eq!(
            kind(PowerVerb::Soft, &after(Some(true), Some(silent()))),
            EventKind::Power
        );
    }
}
