//! Pins the boot of a node when its loader asks: for the scripts of all loaders, and for FreeBSD's own loader.

use rackstrap_base::clock::Timestamp;
use rackstrap_model::orders::Once;
use rackstrap_registries::{
    boots::{Boot, BootWindows, Boots, Origin},
    discovery::Discovery,
    rollout::Rollouts,
    timeline::{Event, EventKind, Level, Recorder, Subject},
};
use rackstrap_wire::Plan;
use std::sync::Arc;

/// The registries that a new boot concerns; clones share them.
#[derive(Clone)]
pub struct Pinning {
    /// Pinned boots.
    pub boots: Boots,
    /// Which nodes may have a boot script or FreeBSD's loader.
    pub windows: Arc<BootWindows>,
    /// The registry of timelines.
    pub recorder: Recorder,
    /// The registry of rollouts, which is notified of boots.
    pub rollouts: Rollouts,
    /// The registry of unknown machines.
    pub discovery: Discovery,
}

impl Pinning {
    /// Waits until the last boot of `node` is counted: after a boot that did not get ready, the decision depends on the number of such
    /// boots.
    pub async fn wait_for_last_boot(&self, node: &str) {
        if self.boots.current(node).is_some_and(|boot| boot.ready.is_none()) {
            self.rollouts.heard_all().await;
        }
    }

    /// The boot that `node` began within the last `millis`, if nothing was heard of its system yet: firmware that asks for several files in
    /// one attempt is in this one. A boot in doubt counts only while what the node sends is in doubt.
    pub fn begun(&self, node: &str, millis: u64) -> Option<Arc<Boot>> {
        let newest = self.boots.of_node(node).into_iter().next()?;
        let fresh = Timestamp::now().is_within(millis, newest.opened);
        let loads = fresh && !newest.redeemed && !newest.void && newest.ready.is_none();
        (loads && (!newest.doubted || self.windows.is_doubted(node))).then_some(newest)
    }

    /// Records on the timeline why the loader of `node` gets no boot.
    pub fn refuse(&self, node: &str, problem: &str) {
        let kind = EventKind::script(self.windows.is_doubted(node));
        let event = Event::new(Timestamp::now(), kind, Level::Error, problem);
        self.recorder.record(Subject::Node(node.to_owned()), event);
    }

    /// Pins a boot by `plan`, whose id it replaces. The boot is on disk when this returns. `privileged` is whether the node's agent or
    /// reporter asks from ports that only root can use, `doubted` whether a user of the node may have asked, `settings` the digest of the
    /// node's settings ([`Boot::settings`]), `once` the order that the boot carries out.
    ///
    /// # Errors
    /// The store failed.
    pub async fn open(
        &self,
        plan: Plan,
        privileged: bool,
        doubted: bool,
        settings: Option<u64>,
        once: Option<Once>,
    ) -> Result<Arc<Boot>, String> {
        let origin = Origin {
            uuid: self.discovery.uuid_of(plan.net.hwaddr),
            privileged,
            doubted,
            settings,
            once,
        };
        let boot = self.boots.open_on(Timestamp::now(), origin, move |_| plan).await;
        boot.map_err(|error| error.to_string())
    }

    /// Reports the boot to rollouts and records it on the timeline, once its loader can have it.
    pub fn announce(&self, boot: &Arc<Boot>, detail: String) {
        if !boot.doubted && boot.is_usual() {
            self.rollouts.opened(boot, Timestamp::now());
        }
        let kind = EventKind::script(boot.doubted);
        let event = Event::new(Timestamp::now(), kind, Level::Ok, detail).of_boot(&boot.plan.id);
        self.recorder.record(Subject::Node(boot.plan.node.clone()), event);
    }
}
