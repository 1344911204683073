//! The kinds of events: one list, with everything that the daemon derives from each kind.

use super::{BootStage, LoaderStep};
use rackstrap_wire::Phase;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::HashMap, convert::Infallible, fmt, str::FromStr, sync::LazyLock};

/// Bytes of a kind's text that are kept when it comes from a store or a test.
pub(super) const KIND_LIMIT: usize = 40;

/// What the daemon derives from the kind of an event: one row per kind in the list of [`EventKind`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The sender whose packets can cause many of these events; none if no packet can.
    pub source: Option<Source>,
    /// The change of a [`Standing`](super::Standing).
    pub effect: Effect,
    /// The part of a [`BootSummary`](super::BootSummary).
    pub part: Part,
    /// The stage of a boot that it proves; none if it proves none.
    pub stage: Option<BootStage>,
}

/// Sender of packets that cause events in numbers. Its rows may not push out the other rows of a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Requests for addresses, files and scripts. Any program with the node's address can send them, also that of a user.
    Requests,
    /// Reports in the agent's name.
    Agent,
}

impl Source {
    /// Rows that it may have among `window` rows. The shares of all sources leave room for events that no packet causes.
    pub(super) fn share(self, window: usize) -> usize {
        match self {
            Source::Requests => window / 3,
            Source::Agent => window * 7 / 12,
        }
    }
}

/// The change of a node's state by an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Firmware asks: a boot begins.
    Begins,
    /// Firmware, a loader, or the DHCP client of a kernel or a system.
    MayLoad,
    /// A loader is at work.
    Loads,
    /// The agent is at work.
    Agent,
    /// The agent hands over when this phase has ended; until then the agent is at work.
    HandsOver,
    /// The loader starts something that reports nothing: the node leaves this server's hands.
    Leaves,
    /// The system is up.
    Up,
    /// The system of this boot is up, although a later boot was begun in the node's name.
    StillUp,
    /// A sign of life that changes no state.
    Alive,
    /// The same, while the node loads. Later any user of the node can cause it.
    AliveWhileLoading,
    /// The same, while the node boots. A running system does not need DHCP.
    AliveWhileBooting,
    /// A fault of the node's boot that another machine caused: no sign of life.
    Refused,
    /// The daemon or an administrator recorded it: not a sign of life.
    Said,
    /// The node is on: its firmware begins.
    SwitchedOn,
    /// The node is off because an administrator wants it.
    SwitchedOff,
    /// The node is lost since the silence began.
    Lost,
    /// The node is stalled since its last step.
    Stalled,
    /// Neither a sign of life nor a fault: any user of the node, or the daemon itself, can cause it.
    Nothing,
}

/// The part of an event in the summary of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Firmware or a loader: begins the next boot after an agent was there.
    Loader,
    /// The agent or the system.
    Beyond,
    /// Another part of the boot's own work: its failures are retries of the boot.
    Within,
    /// Something that happens during a boot and is not part of its work.
    Beside,
    /// The same, but no boot begins with it, because another machine caused it.
    Foreign,
    /// A loader's step in a boot in doubt ([`Boot::doubted`](crate::boots::Boot::doubted)). It belongs to the boot once its
    /// agent was heard of.
    DoubtedLoader,
    /// Another request in a boot in doubt.
    Doubted,
    /// Not part of a boot: heartbeats, and records of the daemon or an administrator.
    Outside,
}

/// The kind of a DHCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DhcpMessage {
    /// DISCOVER.
    Discover,
    /// REQUEST of an offered address.
    Request,
    /// REQUEST of a restarted client that remembers an address.
    InitReboot,
    /// REQUEST that extends a lease.
    Renewing,
    /// DECLINE.
    Decline,
    /// RELEASE.
    Release,
    /// INFORM.
    Inform,
}

impl DhcpMessage {
    /// All kinds.
    pub const ALL: [DhcpMessage; 7] = [
        DhcpMessage::Discover,
        DhcpMessage::Request,
        DhcpMessage::InitReboot,
        DhcpMessage::Renewing,
        DhcpMessage::Decline,
        DhcpMessage::Release,
        DhcpMessage::Inform,
    ];
}

impl fmt::Display for DhcpMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DhcpMessage::Discover => "discover",
            DhcpMessage::Request => "request",
            DhcpMessage::InitReboot => "request (init-reboot)",
            DhcpMessage::Renewing => "request (renewing)",
            DhcpMessage::Decline => "decline",
            DhcpMessage::Release => "release",
            DhcpMessage::Inform => "inform",
        })
    }
}

/// Makes [`EventKind`] of a list: documentation, name, data, text in the store, and the columns of [`Row`]. The text of a
/// kind with data is followed by a space and the text of the data.
macro_rules! event_kinds {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident $(($data:ident: $type:ty))? = $text:literal {
            source: $source:expr, effect: $effect:expr, part: $part:expr, stage: $stage:expr
        }
    )+) => {
        /// What happened: the `step` of an event in the store, in JSON and for people.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", from = "String")]
        pub enum EventKind {
            $($(#[doc = $doc])+ $name $(($type))?,)+
            /// A kind of an older or newer release, shown unchanged. The daemon derives nothing from it.
            Other(String),
        }

        impl EventKind {
            /// All kinds that this release knows, with all of their data.
            pub(super) fn known() -> Vec<EventKind> {
                let mut all = Vec::new();
                $(event_kinds!(@all all, $name $(, $type)?);)+
                all
            }

            /// What the daemon derives from this kind.
            pub(super) fn row(&self) -> Row {
                match self {
                    $(EventKind::$name $(($data))? => {
                        $(let _ = $data;)?
                        Row { source: $source, effect: $effect, part: $part, stage: $stage }
                    })+
                    EventKind::Other(_) => Row { source: None, effect: Effect::Alive, part: Part::Beside, stage: None },
                }
            }

            fn text(&self) -> Cow<'_, str> {
                match self {
                    $(EventKind::$name $(($data))? => event_kinds!(@text $text $(, $data)?),)+
                    EventKind::Other(text) => Cow::Borrowed(text),
                }
            }
        }
    };
    (@all $all:ident, $name:ident) => { $all.push(EventKind::$name) };
    (@all $all:ident, $name:ident, $type:ty) => { $all.extend(<$type>::ALL.map(EventKind::$name)) };
    (@text $text:literal) => { Cow::Borrowed($text) };
    (@text $text:literal, $data:ident) => { Cow::Owned(format!("{} {}", $text, $data)) };
}

event_kinds! {
    /// Firmware, a loader or a starting system sent this packet.
    Dhcp(message: DhcpMessage) = "dhcp" {
        source: Some(Source::Requests),
        effect: if *message == DhcpMessage::Discover { Effect::Begins } else { Effect::MayLoad },
        part: if *message == DhcpMessage::Discover { Part::Loader } else { Part::Within },
        stage: Some(BootStage::Firmware)
    }
    /// A running system sent this packet.
    DhcpClient(message: DhcpMessage) = "dhcp-client" {
        source: Some(Source::Requests), effect: Effect::AliveWhileBooting, part: Part::Beside, stage: None
    }
    /// A user of the node may have sent this packet: to port 4011, or through a relay while the node's system runs.
    DhcpDoubted(message: DhcpMessage) = "dhcp-doubted" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::Doubted, stage: None
    }
    /// Firmware asked for an address, and no loader is made or found for it: one event for each of its attempts.
    NoLoader = "no-loader" {
        source: Some(Source::Requests), effect: Effect::Alive, part: Part::Within, stage: None
    }
    /// A boot script was asked for outside of a PXE exchange.
    DhcpFirst = "dhcp-first" {
        source: Some(Source::Requests), effect: Effect::AliveWhileLoading, part: Part::Beside, stage: None
    }
    /// The machine is plugged in at another place.
    Place = "place" {
        source: Some(Source::Requests), effect: Effect::Alive, part: Part::Beside, stage: None
    }
    /// An InfiniBand card of the machine asked for an address, and gets none.
    Infiniband = "infiniband" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::Beside, stage: None
    }
    /// A system that this daemon did not boot asked for the node's address: it runs from a disk of the node.
    OwnSystem = "own-system" {
        source: Some(Source::Requests), effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// Firmware fetched a loader.
    Tftp = "tftp" {
        source: Some(Source::Requests), effect: Effect::Loads, part: Part::Loader, stage: Some(BootStage::Loader)
    }
    /// A user of the node tried TFTP.
    TftpClient = "tftp-client" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::Doubted, stage: None
    }
    /// Firmware fetched a loader by HTTP. Only rows of older releases are of this kind.
    Http = "http" {
        source: None, effect: Effect::Loads, part: Part::Loader, stage: Some(BootStage::Loader)
    }
    /// A loader asked for its script.
    Script = "script" {
        source: Some(Source::Requests), effect: Effect::Loads, part: Part::Loader, stage: Some(BootStage::Script)
    }
    /// A loader failed at this step, and asked for its script again.
    Retry(step: LoaderStep) = "retry" {
        source: Some(Source::Requests),
        effect: Effect::Loads,
        part: Part::Loader,
        stage: None
    }
    /// A loader starts something that reports nothing: the system on the node's own disk, or a test of its memory.
    Unmanaged = "unmanaged" {
        source: Some(Source::Requests), effect: Effect::Leaves, part: Part::Loader, stage: None
    }
    /// A machine asks firmware's way again after it had kernel and initramfs, and its agent was never heard of.
    NoAgent = "no-agent" {
        source: Some(Source::Requests), effect: Effect::Said, part: Part::Within, stage: None
    }
    /// The kernel of the node panicked.
    Panic = "panic" {
        source: Some(Source::Agent), effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// A line of the node's console: of its kernel in the initramfs, or around a panic.
    Console = "console" {
        source: Some(Source::Agent), effect: Effect::Nothing, part: Part::Outside, stage: None
    }
    /// A script was requested in a boot in doubt.
    ScriptClient = "script-client" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::DoubtedLoader, stage: None
    }
    /// A loader fetched the kernel.
    Kernel = "kernel" {
        source: None, effect: Effect::Loads, part: Part::Loader, stage: Some(BootStage::Kernel)
    }
    /// The kernel was fetched in a boot in doubt.
    KernelClient = "kernel-client" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::DoubtedLoader, stage: None
    }
    /// A loader fetched the initramfs.
    Initramfs = "initramfs" {
        source: None, effect: Effect::Loads, part: Part::Loader, stage: Some(BootStage::Kernel)
    }
    /// The initramfs was fetched in a boot in doubt.
    InitramfsClient = "initramfs-client" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::DoubtedLoader, stage: None
    }
    /// The agent fetched its plan.
    Plan = "plan" {
        source: None, effect: Effect::Agent, part: Part::Beyond, stage: Some(BootStage::Agent(Phase::Plan as u8))
    }
    /// The agent fetched the node's own files.
    Overlay = "overlay" {
        source: None, effect: Effect::Agent, part: Part::Beyond, stage: Some(BootStage::Agent(Phase::Overlay as u8))
    }
    /// The agent reported on this phase.
    Agent(phase: Phase) = "agent" {
        source: Some(Source::Agent),
        effect: if *phase == Phase::SwitchRoot { Effect::HandsOver } else { Effect::Agent },
        part: Part::Beyond,
        stage: Some(BootStage::Agent(*phase as u8))
    }
    /// A client acted as the agent in a boot in doubt, and has to wait.
    AgentClient = "agent-client" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::Doubted, stage: None
    }
    /// The node mounted a root, or was refused.
    NfsMount = "nfs mount" {
        source: Some(Source::Requests), effect: Effect::Alive, part: Part::Within, stage: None
    }
    /// The node unmounted a root.
    NfsUnmount = "nfs unmount" {
        source: Some(Source::Requests), effect: Effect::Alive, part: Part::Within, stage: None
    }
    /// An NFS connection or handle of the node was refused.
    Nfs = "nfs" {
        source: Some(Source::Requests), effect: Effect::Alive, part: Part::Within, stage: None
    }
    /// A user of the node tried NFS.
    NfsClient = "nfs-client" {
        source: Some(Source::Requests), effect: Effect::Nothing, part: Part::Doubted, stage: None
    }
    /// A client asked for a boot of another node, or for this node's boot from another address.
    Refused = "refused" {
        source: Some(Source::Requests), effect: Effect::Refused, part: Part::Foreign, stage: None
    }
    /// The starting system waits for its checks.
    Checks = "checks" {
        source: None, effect: Effect::Alive, part: Part::Within, stage: None
    }
    /// The system is up.
    Ready = "ready" {
        source: None, effect: Effect::Up, part: Part::Beyond, stage: Some(BootStage::Up)
    }
    /// The running system reported something new.
    Heartbeat = "heartbeat" {
        source: None, effect: Effect::Up, part: Part::Outside, stage: Some(BootStage::Up)
    }
    /// The running system proved that it is up, although a later boot was begun in its name.
    Running = "running" {
        source: None, effect: Effect::StillUp, part: Part::Outside, stage: Some(BootStage::Up)
    }
    /// The running system changed its users.
    Users = "users" {
        source: None, effect: Effect::Alive, part: Part::Beside, stage: None
    }
    /// A rollout changed something for the node.
    Rollout = "rollout" {
        source: None, effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// A requested restart progressed or failed.
    Restart = "restart" {
        source: None, effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// An order for one boot was given, used, taken back, or cannot be carried out.
    Order = "order" {
        source: None, effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// An administrator switched the node's power, or tried to. A BMC that fails is no fault of the system on its node.
    Power = "power" {
        source: None, effect: Effect::Nothing, part: Part::Outside, stage: None
    }
    /// An administrator switched the node on, or on again, and its BMC said that it is on.
    PowerOn = "power-on" {
        source: None, effect: Effect::SwitchedOn, part: Part::Outside, stage: None
    }
    /// An administrator switched the node off, and its BMC said that it is off.
    PowerOff = "power-off" {
        source: None, effect: Effect::SwitchedOff, part: Part::Outside, stage: None
    }
    /// An administrator gave an order about the node's disk.
    Reprep = "reprep" {
        source: None, effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// An administrator released the machine's lease of a temporary pool.
    Lease = "lease" {
        source: None, effect: Effect::Said, part: Part::Outside, stage: None
    }
    /// The server did not run for some time.
    Server = "server" {
        source: None, effect: Effect::Nothing, part: Part::Outside, stage: None
    }
    /// The node's heartbeats stopped.
    Lost = "lost" {
        source: None, effect: Effect::Lost, part: Part::Outside, stage: None
    }
    /// The next step of the node's boot is overdue.
    Stalled = "stalled" {
        source: None, effect: Effect::Stalled, part: Part::Outside, stage: None
    }
}

impl EventKind {
    /// A request for a script or, if `doubted`, one that a user of the node may have sent: then the state of the node stays as it was.
    pub fn script(doubted: bool) -> Self {
        match doubted {
            false => EventKind::Script,
            true => EventKind::ScriptClient,
        }
    }

    /// Whether a system sends this packet when it starts: it asks for its address, and does not extend a lease.
    pub(super) fn starts_system(&self) -> bool {
        matches!(
            self,
            EventKind::DhcpClient(DhcpMessage::Request | DhcpMessage::InitReboot)
        )
    }

    /// A transfer of the kernel, in the same way.
    pub fn kernel(doubted: bool) -> Self {
        match doubted {
            false => EventKind::Kernel,
            true => EventKind::KernelClient,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

impl From<String> for EventKind {
    /// Reads a text that [`fmt::Display`] of this or another release wrote. An unknown text is cut to 40 bytes, and control
    /// characters become spaces, because the text is shown on terminals.
    fn from(mut text: String) -> Self {
        static KNOWN: LazyLock<HashMap<String, EventKind>> = LazyLock::new(|| {
            let all = EventKind::known().into_iter();
            all.map(|kind| (kind.to_string(), kind)).collect()
        });
        if let Some(known) = KNOWN.get(&text) {
            return known.clone();
        }
        text = rackstrap_base::text::one_line(&text, KIND_LIMIT);
        EventKind::Other(text)
    }
}

impl FromStr for EventKind {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl From<EventKind> for String {
    fn from(kind: EventKind) -> String {
        kind.text().into_owned()
    }
}
