//! Paths, in the order in which a newcomer needs them.
//!
//! A `GET` that is watched (`?watch=true`) answers with [`WatchLine`](super::WatchLine)s.

/// `GET`: [`super::StatusAnswer`].
pub const STATUS: &str = "/v1/status";
/// `GET`: all [`super::NodeRow`]s.
pub const NODES: &str = "/v1/nodes";
/// `GET /v1/nodes/{name, hwaddr or address}`: [`super::NodeAnswer`].
pub const NODE: &str = "/v1/nodes/";
/// `GET`: the members of every group, by the group's name in hostlists.
pub const GROUPS: &str = "/v1/groups";
/// `GET /v1/export?tmp=/tmp`: all nodes, as [`super::ExportRow`]s.
pub const EXPORT: &str = "/v1/export";
/// `GET`: what other DHCP servers need to know of each network with nodes, as [`super::ExportSubnet`]s.
pub const EXPORT_BOOT: &str = "/v1/export/boot";
/// `POST` [`super::Changes`]: [`super::ChangesAnswer`].
pub const CHANGES: &str = "/v1/changes";
/// `GET /v1/history/{name}`: all [`super::HistoryRow`]s, oldest first.
pub const HISTORY: &str = "/v1/history/";
/// `GET /v1/timeline/{node or hwaddr}`: [`super::TimelineAnswer`].
pub const TIMELINE: &str = "/v1/timeline/";
/// `GET /v1/explain/{node, hwaddr or address}`: [`super::ExplainAnswer`].
pub const EXPLAIN: &str = "/v1/explain/";
/// `GET`: [`super::DiscoveryAnswer`].
pub const DISCOVERY: &str = "/v1/discovery";
/// `POST` [`super::StartSession`]: the [`super::SessionRow`].
pub const SESSIONS: &str = "/v1/discovery/sessions";
/// `POST` [`super::Rack`]: the session that was ended.
pub const SESSIONS_END: &str = "/v1/discovery/sessions/end";
/// `POST` [`super::Rack`]: the [`super::PlacedRow`] of the machine that waits again.
pub const SESSIONS_UNDO: &str = "/v1/discovery/sessions/undo";
/// `POST` [`super::Accept`]: [`super::Accepted`].
pub const ACCEPT: &str = "/v1/discovery/accept";
/// `POST` [`super::Ignore`]: [`super::Done`].
pub const IGNORE: &str = "/v1/discovery/ignore";
/// `GET`: [`super::RestartsAnswer`]; `POST` [`super::WantRestarts`]: [`super::RestartsWanted`].
pub const RESTARTS: &str = "/v1/restarts";
/// `POST` [`super::CancelRestarts`]: [`super::RestartsCancelled`].
pub const RESTARTS_CANCEL: &str = "/v1/restarts/cancel";
/// `GET`: all [`super::LeaseRow`]s.
pub const LEASES: &str = "/v1/leases";
/// `POST` [`super::ReleaseLeases`]: [`super::Released`].
pub const LEASES_RELEASE: &str = "/v1/leases/release";
/// `GET`: all [`super::LayoutRow`]s.
pub const LAYOUTS: &str = "/v1/layouts";
/// `GET`: a [`super::FirmwareRow`] for each card whose firmware was heard of.
pub const FIRMWARE: &str = "/v1/firmware";
/// `GET`: a [`super::DiskRow`] for each node.
pub const DISKS: &str = "/v1/disks";
/// `POST` [`super::WishDisks`]: [`super::Done`].
pub const DISKS_WISH: &str = "/v1/disks/wish";
/// `GET`: [`super::OrdersAnswer`]; `POST` [`super::GiveOrders`]: [`super::OrdersGiven`].
pub const ORDERS: &str = "/v1/orders";
/// `POST` [`super::SwitchPower`]: [`super::PowerBegun`]. `GET /v1/power/{id}`: [`super::PowerAnswer`].
pub const POWER: &str = "/v1/power";
/// `GET`: all [`super::TreeRow`]s.
pub const TREES: &str = "/v1/overlays";
/// `GET /v1/overlays/{node, hwaddr or address}?secrets=true`: [`super::Preview`].
pub const OVERLAY: &str = "/v1/overlays/";
/// `GET`: [`super::UsersReport`].
pub const USERS: &str = "/v1/users";
/// `POST`: sends the present users to running nodes; the answer is that of [`USERS`].
pub const USERS_SYNC: &str = "/v1/users/sync";
/// `GET`: image versions that may not be deleted, with the nodes that use each.
pub const IMAGES_IN_USE: &str = "/v1/images/in-use";
/// `GET`: every [`super::CurrentVersion`], by image name.
pub const IMAGES_CURRENT: &str = "/v1/images/current";
/// `POST` [`super::PromoteImage`]: the new [`super::CurrentVersion`].
pub const IMAGE_PROMOTE: &str = "/v1/images/promote";
/// `POST` [`super::RenameImage`]: [`super::Done`].
pub const IMAGE_RENAME: &str = "/v1/images/rename";
/// `POST` [`super::RollBack`]: [`super::RolledBack`].
pub const IMAGE_ROLLBACK: &str = "/v1/images/rollback";
/// `GET`: [`super::RolloutsAnswer`]. `POST` [`super::BeginRollout`]: [`super::RolloutBegun`].
pub const ROLLOUTS: &str = "/v1/rollouts";
/// `POST` [`super::RolloutOrder`]: the [`super::RolloutAnswer`] afterwards.
pub const ROLLOUT_PROMOTE: &str = "/v1/rollouts/promote";
/// `POST` [`super::RolloutOrder`]: [`super::RolloutHeld`].
pub const ROLLOUT_PAUSE: &str = "/v1/rollouts/pause";
/// As [`ROLLOUT_PROMOTE`].
pub const ROLLOUT_RESUME: &str = "/v1/rollouts/resume";
/// As [`ROLLOUT_PAUSE`].
pub const ROLLOUT_ABORT: &str = "/v1/rollouts/abort";
/// `POST` [`super::Retry`]: the names of the nodes that try again.
pub const ROLLOUT_RETRY: &str = "/v1/rollouts/retry";
/// `POST`: reads the images again; [`super::Done`].
pub const RESCAN: &str = "/v1/images/rescan";
/// `POST` [`super::Reload`]: reads the site file again; [`super::Reloaded`].
pub const RELOAD: &str = "/v1/reload";
/// `GET`: all counters by name.
pub const COUNTERS: &str = "/v1/counters";
/// `GET`: streams the store in the format of [`rackstrap_store::backup`].
pub const BACKUP: &str = "/v1/backup";
/// `GET`: reads all rows of the store; [`super::StoreAnswer`].
pub const STORE: &str = "/v1/store";
/// `POST`: deletes the rows that were set aside; [`super::Discarded`].
pub const STORE_DISCARD: &str = "/v1/store/discard";
