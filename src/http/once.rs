//! Boots by an order, and nodes that boot from their own disks: what a loader gets instead of its usual script.

use super::{
    answer::Problem,
    ask::ScriptAsk,
    script::{Scripts, UnmanagedScript},
    service::Service,
};
use rackstrap_base::{clock::Timestamp, pauses::Pauses};
use rackstrap_loaders::Loaders;
use rackstrap_model::{
    decide::{NodeDecision, Requester, World},
    orders::{BootOrder, Once, OnceBoot},
};
use rackstrap_registries::{
    boots::{Boot, Taken},
    timeline::{Event, EventKind, Level, Subject},
};

/// The boot script of the site that the boot's order names; none for the node's usual script.
pub(super) fn script_file(boot: &Boot) -> Option<&str> {
    match &boot.once.as_ref()?.what {
        OnceBoot::Script(file) => Some(file),
        _ => None,
    }
}

/// What this server lacks for an order, with the remedy; none if it lacks nothing.
pub fn server_lacks(loaders: &Loaders, scripts: &Scripts, what: &OnceBoot) -> Option<String> {
    let lack = match what {
        OnceBoot::Memtest => loaders.lacks_memtest()?,
        OnceBoot::Script(file) => scripts.lacks(file)?,
        OnceBoot::Rescue | OnceBoot::Shell | OnceBoot::Local | OnceBoot::Image(_) => return None,
    };
    Some(format!("{what}: {lack}"))
}

impl Service {
    /// Takes the order of the node for this request, and makes `decision` that of its boot. None if the node boots as usual. `failed` is
    /// whether the loader could not carry out its last script. An order that cannot be carried out ends, so that the node is not stuck.
    ///
    /// # Errors
    /// The store failed: the loader asks again.
    pub(super) async fn take_order(
        &self,
        world: &World,
        requester: &Requester,
        decision: &mut NodeDecision,
        asks: &ScriptAsk,
        failed: bool,
    ) -> Result<Option<Once>, Problem> {
        let node = decision.node.name.clone();
        let (orders, doubted) = (self.pinning.boots.orders(), self.pinning.windows.is_doubted(&node));
        let taken = orders.take(&node, failed, doubted, Timestamp::now()).await;
        let (order, again) = match taken.map_err(|error| Problem::unavailable(error.to_string()))? {
            Taken::Nothing => return Ok(None),
            Taken::Over(order) => {
                if order.what.has_agent() {
                    self.note_order(&node, Level::Error, not_reached(&order));
                }
                return Ok(None);
            }
            Taken::Use { order, again } => (order, again),
        };
        let once = order.once();
        let refused = (once.what.refused_by(asks.language, asks.locked))
            .or_else(|| server_lacks(&self.loaders.load(), &self.scripts.load(), &once.what))
            .or_else(|| decision.carry_out(world, requester, &once).err());
        if let Some(problem) = refused {
            let ended = orders.refuse(&node, order.id).await;
            ended.map_err(|error| Problem::unavailable(error.to_string()))?;
            self.note_order(&node, Level::Error, format!("{problem}; the node boots as usual"));
            return Ok(None);
        }
        if !again {
            let detail = format!("used: this boot {} (ordered by {})", once.what.describe(), once.by);
            self.note_order(&node, Level::Ok, detail);
        }
        Ok(Some(once))
    }

    /// The script that starts something which reports nothing, by an order or by `boot = "local"`; none if the node boots an image.
    ///
    /// # Errors
    /// The loader cannot be told, or a script of the site is wrong.
    pub(super) fn unmanaged_script(
        &self,
        world: &World,
        decision: &NodeDecision,
        asks: &ScriptAsk,
        once: Option<&Once>,
    ) -> Result<Option<String>, Problem> {
        let what = match once.map(|once| &once.what) {
            Some(what @ (OnceBoot::Local | OnceBoot::Memtest)) => what.clone(),
            None if decision.local => OnceBoot::Local,
            _ => return Ok(None),
        };
        let node = &decision.node.name;
        let doubted = self.pinning.windows.is_doubted(node);
        let by = match once {
            Some(once) => format!("by the order of {}", once.by),
            None => "because of boot = \"local\"".to_owned(),
        };
        let (base, pauses) = (self.base_of(world, decision, asks.peer), Pauses::spread(rand::random()));
        if let Some(problem) = what.refused_by(asks.language, asks.locked) {
            self.pinning.refuse(node, &problem);
            return self.wait(asks, &base, &[problem], false).map(Some);
        }
        let script = UnmanagedScript {
            node,
            hwaddr: asks.hwaddr,
            base: &base,
            console: &decision.console,
            pauses,
        };
        let text = match what {
            OnceBoot::Memtest => self.scripts.load().memtest(asks.language, &script),
            _ => self.scripts.load().local(asks.language, &script),
        };
        let text = text.map_err(|problem| {
            self.pinning.refuse(node, &problem);
            Problem::unavailable(problem)
        })?;
        let (kind, detail) = (EventKind::script(doubted), format!("{}, {by}", what.describe()));
        // While the node's system sends heartbeats, the request may not be its firmware's: its state stays as it is.
        let kind = if doubted { kind } else { EventKind::Unmanaged };
        let event = Event::new(Timestamp::now(), kind, Level::Ok, detail);
        self.pinning.recorder.record(Subject::Node(node.clone()), event);
        Ok(Some(text))
    }

    fn note_order(&self, node: &str, level: Level, detail: String) {
        let event = Event::new(Timestamp::now(), EventKind::Order, level, detail);
        self.pinning.recorder.record(Subject::Node(node.to_owned()), event);
    }
}

/// The message about an order whose agent never reported.
fn not_reached(order: &BootOrder) -> String {
    format!(
        "{} (ordered by {}): no agent reported within half an hour of its first boot script; the node boots as usual",
        order.what, order.by
    )
}
