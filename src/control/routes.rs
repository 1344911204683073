//! The daemon's routes for the command line.

use super::{
    Context,
    api::{self, StatusRow, paths},
    backup, discover, disks, firmware,
    leases::{self, all_leases, lease_of},
    meant::{Meant, meant},
    nodes, orders, overlays, power,
    refusal::{Refusal, Shared, blocking},
    restarts, rollouts,
    signed::Asked,
    socket::Peer,
    store, unknown,
    watched::{Sources, Watchers, watchable},
};
use crate::preflight;
use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, Path, Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rackstrap_base::{clock::Timestamp, dhcp_option::merged, warnings::SiteWarning};
use rackstrap_control::answers::{describe_boot_order, describe_start, status};
use rackstrap_model::bmc::bmc_of;
use rackstrap_model::decide::{Decision, Requester, decide};
use rackstrap_registries::{
    discovery::Waiting,
    timeline::{Level, NodeState, Subject, summarise},
};
use rackstrap_store::Table;
use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

/// Sources of the status: the states of nodes, and what their next boots do.
const STATUS_SOURCES: Sources = Sources {
    tables: &[
        Table::Nodes,
        Table::Machines,
        Table::Leases,
        Table::Boots,
        Table::Disks,
        Table::Orders,
        Table::Events,
        Table::Standings,
        Table::Current,
        Table::Rollouts,
    ],
    machines: true,
    overdue: true,
    power: false,
};

/// Sources of discovery: waiting machines, and racks that are being filled.
const DISCOVERY_SOURCES: Sources = Sources {
    tables: &[
        Table::Nodes,
        Table::Machines,
        Table::Sessions,
        Table::Events,
        Table::Standings,
    ],
    machines: true,
    overdue: true,
    power: false,
};

const ROLLOUT_SOURCES: Sources = Sources {
    tables: &[Table::Rollouts, Table::RolloutNodes, Table::Current, Table::Boots],
    machines: false,
    overdue: false,
    power: false,
};

const RESTART_SOURCES: Sources = Sources {
    tables: &[Table::Restarts, Table::Rollouts],
    machines: false,
    overdue: false,
    power: false,
};

const TIMELINE_SOURCES: Sources = Sources {
    tables: &[Table::Events, Table::Nodes, Table::Leases],
    machines: false,
    overdue: false,
    power: false,
};

const POWER_SOURCES: Sources = Sources {
    tables: &[],
    machines: false,
    overdue: false,
    power: true,
};

/// All routes. The server must supply the peer of each connection. Watched answers end with `ending`.
pub fn router(context: Arc<Context>, ending: CancellationToken) -> Router {
    let watchers = Watchers::new(ending);
    Router::new()
        .route(paths::STATUS, watchable(show_status, STATUS_SOURCES))
        .route(paths::NODES, get(nodes::list))
        .route("/v1/nodes/{name}", get(nodes::show))
        .route(paths::GROUPS, get(nodes::groups))
        .route(paths::EXPORT, get(nodes::export))
        .route(paths::EXPORT_BOOT, get(nodes::export_boot))
        .route(paths::CHANGES, post(nodes::change))
        .route("/v1/history/{name}", get(nodes::history))
        .route("/v1/timeline/{subject}", watchable(timeline, TIMELINE_SOURCES))
        .route("/v1/explain/{about}", get(explain))
        .route(paths::DISCOVERY, watchable(discover::view, DISCOVERY_SOURCES))
        .route(paths::SESSIONS, post(discover::start))
        .route(paths::SESSIONS_END, post(discover::stop))
        .route(paths::SESSIONS_UNDO, post(discover::undo))
        .route(paths::ACCEPT, post(discover::accept))
        .route(paths::IGNORE, post(discover::ignore))
        .route(
            paths::RESTARTS,
            watchable(restarts::list, RESTART_SOURCES).post(restarts::want),
        )
        .route(paths::RESTARTS_CANCEL, post(restarts::cancel))
        .route(paths::LEASES, get(leases::list))
        .route(paths::LEASES_RELEASE, post(leases::release))
        .route(paths::LAYOUTS, get(layouts))
        .route(paths::FIRMWARE, get(firmware::list))
        .route(paths::DISKS, get(disks::list))
        .route(paths::DISKS_WISH, post(disks::wish))
        .route(paths::ORDERS, get(orders::list).post(orders::give))
        .route(paths::POWER, post(power::begin))
        .route("/v1/power/{id}", watchable(power::show, POWER_SOURCES))
        .route(paths::TREES, get(overlays::trees))
        .route("/v1/overlays/{node}", get(overlays::preview))
        .route(paths::USERS, get(overlays::users))
        .route(paths::USERS_SYNC, post(overlays::sync))
        .route(paths::IMAGES_IN_USE, get(images_in_use))
        .route(paths::IMAGES_CURRENT, get(rollouts::current))
        .route(paths::IMAGE_PROMOTE, post(rollouts::promote_image))
        .route(paths::IMAGE_RENAME, post(rollouts::rename_image))
        .route(paths::IMAGE_ROLLBACK, post(rollouts::roll_back))
        .route(
            paths::ROLLOUTS,
            watchable(rollouts::all, ROLLOUT_SOURCES).post(rollouts::begin),
        )
        .route(paths::ROLLOUT_PROMOTE, post(rollouts::promote))
        .route(paths::ROLLOUT_PAUSE, post(rollouts::pause))
        .route(paths::ROLLOUT_RESUME, post(rollouts::resume))
        .route(paths::ROLLOUT_ABORT, post(rollouts::abort))
        .route(paths::ROLLOUT_RETRY, post(rollouts::retry))
        .route(paths::RESCAN, post(rescan))
        .route(paths::RELOAD, post(reload))
        .route(paths::COUNTERS, get(counters))
        .route(paths::BACKUP, get(backup::stream).layer(Extension(backup::Turn::new())))
        .route(paths::STORE, get(store::look))
        .route(paths::STORE_DISCARD, post(store::discard))
        .fallback(|request: Request| async move { other_release(StatusCode::NOT_FOUND, request.uri().path()) })
        .method_not_allowed_fallback(|request: Request| async move {
            let what = format!("{} of {}", request.method(), request.uri().path());
            other_release(StatusCode::METHOD_NOT_ALLOWED, &what)
        })
        .layer(middleware::from_fn(only_root))
        .layer(middleware::from_fn(count_served))
        .layer(Extension(watchers))
        .with_state(context)
}

/// The refusal of a request that another release may support.
fn other_release(code: StatusCode, what: &str) -> Refusal {
    let text = format!(
        "this daemon does not know {what}: daemon and command are of different releases\nhelp: `systemctl restart rackstrap` \
         starts the installed one"
    );
    Refusal(code, text)
}

/// The mode of the socket already ensures this; here it is checked again, in case the mode was changed.
async fn only_root(ConnectInfo(Peer(peer)): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match peer {
        Some((uid, _)) if uid == 0 || uid == own => next.run(request).await,
        _ => Refusal(
            StatusCode::FORBIDDEN,
            "only root may use the control socket; use sudo".into(),
        )
        .into_response(),
    }
}

/// Counts requests, and wakes watchers after those that changed something.
async fn count_served(Extension(watchers): Extension<Arc<Watchers>>, request: Request, next: Next) -> Response {
    let changes = request.method() != Method::GET;
    let response = next.run(request).await;
    watchers.served(changes);
    response
}

async fn show_status(context: Shared, _: String) -> Result<api::StatusAnswer, Refusal> {
    let world = context.world.load_full();
    let now = Timestamp::now();
    let mut nodes = status(&world, &context.recorder, &context.boots, now);
    let view = context.discovery.view(now);
    let (ignored, waiting): (Vec<Waiting>, Vec<Waiting>) =
        view.machines.into_iter().partition(|waiting| waiting.machine.ignored);
    if !waiting.is_empty() {
        // Unknown machines have no address except their lease.
        let stored = context.clone();
        let leases = blocking(move || all_leases(&stored)).await??;
        let lent: HashMap<HwAddr, Ipv4Addr> = leases.iter().map(|row| (row.hwaddr, row.ipaddr)).collect();
        nodes.extend(waiting.into_iter().map(|waiting| {
            let ipaddr = lent.get(&waiting.machine.hwaddr).copied();
            waiting_row(&context, waiting, ipaddr)
        }));
    }
    let mut warnings = context.warnings.list(now);
    // Computed for each answer and not stored, because commands about nodes correct it.
    let of_nodes = preflight::of_nodes(&world.site, &world.images, world.inventory.iter().map(|node| &**node));
    let of_nodes = of_nodes.into_iter().map(|finding| SiteWarning {
        topic: finding.topic,
        message: finding.message,
        help: finding.help,
        fatal: finding.fatal,
        since: now,
        last: now,
    });
    warnings.extend(context.warnings.found(now, of_nodes.collect()));
    Ok(api::StatusAnswer {
        cluster: world.site.cluster.name.clone(),
        now,
        nodes,
        ignored: ignored.len(),
        full: view.full,
        warnings,
    })
}

/// The row of a waiting machine: what prevents its placement, or else its last error.
fn waiting_row(context: &Context, waiting: Waiting, ipaddr: Option<Ipv4Addr>) -> StatusRow {
    let machine = waiting.machine;
    let no_loader = firmware::no_loader(context, &machine);
    let last = context.recorder.last(&Subject::Machine(machine.hwaddr));
    let failure = last.filter(|event| event.level != Level::Ok);
    StatusRow {
        node: machine.hwaddr.to_string(),
        state: NodeState::Waiting,
        since: Some(machine.first_seen),
        image: None,
        ipaddr,
        disk: String::new(),
        next_disk: String::new(),
        disk_trouble: None,
        last_error: match waiting.trouble.is_empty() {
            true => no_loader
                .or_else(|| failure.map(|event| format!("{}: {}", event.step, event.detail)))
                .unwrap_or_default(),
            false => waiting.trouble,
        },
        heard: Some(machine.last_seen),
        boot: String::new(),
        remark: String::new(),
        order: None,
        retries: api::RetryCounts::new(),
    }
}

async fn timeline(context: Shared, text: String) -> Result<api::TimelineAnswer, Refusal> {
    let world = context.world.load_full();
    let subject = match meant(&world, &text)? {
        Meant::Node(node) => Subject::Node(node.name.clone()),
        Meant::Machine(hwaddr) => Subject::Machine(hwaddr),
        Meant::Address(ipaddr) => match lease_of(&context, |row| row.ipaddr == ipaddr)?.map(|row| row.hwaddr) {
            Some(hwaddr) => Subject::Machine(hwaddr),
            None => {
                return Err(Refusal(
                    StatusCode::NOT_FOUND,
                    format!("address {ipaddr} belongs to no node; to see what it would be: rackstrap explain {ipaddr}"),
                ));
            }
        },
    };
    let events = context.recorder.of(&subject);
    if events.is_empty()
        && let Subject::Machine(hwaddr) = subject
    {
        let text = format!("hardware address {hwaddr} belongs to no node and was never seen");
        return Err(Refusal(StatusCode::NOT_FOUND, text));
    }
    Ok(api::TimelineAnswer {
        retries: context.recorder.retries(&subject).into(),
        boots: summarise(&events).into_iter().map(api::BootSummary::from).collect(),
        subject: subject.into(),
        events: events.into_iter().map(api::EventRow::from).collect(),
    })
}

async fn explain(
    State(context): State<Shared>,
    Path(about): Path<String>,
) -> Result<Json<api::ExplainAnswer>, Refusal> {
    let world = context.world.load_full();
    let mut requester = Requester::default();
    let mut why = Vec::new();
    let mut lease = None;
    match about.parse::<Ipv4Addr>() {
        // If an address was asked about, the decision by address is explained: NFS and TFTP decide like this.
        Ok(ipaddr) => {
            requester.ipaddr = Some(ipaddr);
            lease = lease_of(&context, |row| row.ipaddr == ipaddr)?;
        }
        Err(_) => match meant(&world, &about)? {
            Meant::Node(node) => {
                if node.name == about {
                    why.push(format!("node {} has hwaddr {}", node.name, list(&node.hwaddrs)));
                }
                requester.hwaddr = about.parse().ok().or(node.hwaddrs.first().copied());
            }
            Meant::Machine(asked) => {
                requester.hwaddr = Some(asked);
                lease = lease_of(&context, |row| row.hwaddr == asked)?;
            }
            Meant::Address(ipaddr) => requester.ipaddr = Some(ipaddr),
        },
    }
    let said = requester
        .hwaddr
        .and_then(|hwaddr| firmware::of(&context, hwaddr))
        .unwrap_or_default();
    (requester.arch, requester.class) = (said.arch, said.class);
    let (mut warnings, mut rollouts) = (Vec::new(), Vec::new());
    let decided = decide(&world, &requester);
    let missing = firmware::missing_file(&context, &requester, &decided);
    let (decision, pinned) = match decided {
        Decision::Unknown { why: steps, .. } => {
            why.extend(steps);
            let owner = requester.hwaddr.and_then(|hwaddr| context.discovery.owner(hwaddr));
            let full = match lease.as_ref().is_some_and(leases::holds) {
                // The node keeps its address.
                true => Vec::new(),
                false => leases::full_pools(&world, &all_leases(&context)?),
            };
            why.extend(unknown::steps(&world, &requester, owner.as_ref(), &full));
            (None, None)
        }
        Decision::Node(mut decided) => {
            let disk = context.boots.disks().get(&decided.node.name);
            decided.hold_disk(world.disk_rules(), disk.as_ref());
            let disks = disk.map(|disk| api::FoundDisk::of(&disk.state)).unwrap_or_default();
            let asked = (context.clone(), world.clone(), decided.clone());
            warnings = blocking(move || asked.0.overlays.warnings(&asked.1, &asked.2)).await?;
            let (ordered, refused) = orders::explain(&context, &world, &requester, &mut decided);
            warnings.extend(refused);
            let checks = decided.all_checks();
            why.extend(std::mem::take(&mut decided.why));
            why.extend(ordered);
            warnings.extend(disks::warnings(&context, &world, &decided.node));
            warnings.extend(nodes::overdue(&context, &world, &decided.node.name));
            why.extend(nodes::dhcp_part(&decided.subnet));
            warnings.extend(nodes::wrong_address_of(&context, &decided.node, &decided.subnet));
            let further = context.discovery.further_cards(&decided.node.name);
            why.extend(further.iter().map(|owner| {
                let card = owner.card;
                format!(
                    "{card} was seen, and is {owner}; to boot from it as well: {}",
                    owner.remedy()
                )
            }));
            let asked = (context.clone(), decided.node.name.clone());
            rollouts = blocking(move || super::rollouts::of_node(&asked.0, &asked.1)).await?;
            let pinned = context.boots.current(&decided.node.name);
            let boots = context.boots.of_node(&decided.node.name);
            let hardware = boots.iter().find_map(|boot| boot.hardware.as_ref());
            let boot_order = describe_boot_order(hardware, decided.network_first);
            let started_by = describe_start(hardware);
            let (image, image_problem) = match decided.image {
                Ok(version) => (Some(version.manifest.image.clone()), None),
                Err(problem) => (None, Some(problem)),
            };
            let decision = api::ExplainDecision {
                node: api::NodeRow::from(&*decided.node),
                image,
                image_problem,
                disk: decided.disk,
                kernel_args: decided.kernel_args,
                templates: decided.templates,
                console: decided.console,
                boot_order,
                started_by,
                init: decided.init,
                ram_size: decided.ram_size,
                mtu: decided.mtu.or(decided.subnet.mtu),
                vlan: decided.subnet.vlan,
                networks: decided.networks,
                bmc: bmc_of(&world.site, &decided.node)
                    .map(|bmc| bmc.to_string())
                    .unwrap_or_default(),
                dhcp_options: merged(&decided.subnet.options, &decided.dhcp_options)
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                checks,
                settings: api::SettingRow::of(&world, &decided.node),
                disks,
            };
            (Some(decision), pinned.map(|boot| api::PinnedBoot::from(&*boot)))
        }
    };
    why.extend(missing);
    let site_warnings = context.warnings.list(Timestamp::now()).into_iter();
    // A machine that accepts another server's offer gets nothing of this.
    why.extend(
        site_warnings
            .filter(SiteWarning::is_of_dhcp_server)
            .map(|warning| warning.message),
    );
    let retries = decision.as_ref().map(|decision: &api::ExplainDecision| {
        let subject = Subject::Node(decision.node.name.clone());
        context.recorder.retries(&subject).into()
    });
    let order = decision
        .as_ref()
        .and_then(|decision| context.boots.orders().get(&decision.node.name));
    Ok(Json(api::ExplainAnswer {
        order: order.map(api::BootOrderRow::from),
        retries: retries.unwrap_or_default(),
        about,
        why,
        warnings,
        rollouts,
        decision,
        pinned,
        lease,
    }))
}

fn list(items: &[HwAddr]) -> String {
    items.iter().map(HwAddr::to_string).collect::<Vec<_>>().join(", ")
}

async fn layouts(State(context): State<Shared>) -> Json<Vec<api::LayoutRow>> {
    let world = context.world.load();
    let rows = world.site.layouts.iter().map(|(name, policy)| api::LayoutRow {
        layout: policy.layout.clone(),
        digest: policy.digest.clone(),
        wipe: policy.wipe,
        disk: policy.disk.clone(),
        roots: policy.roots.clone(),
        contents: policy.contents.clone(),
        profiles: world
            .site
            .profiles
            .iter()
            .filter(|(_, profile)| {
                let names = profile.layout.as_deref().unwrap_or_default();
                names.split_ascii_whitespace().any(|used| used == name)
            })
            .map(|(profile, _)| profile.clone())
            .collect(),
    });
    Json(rows.collect())
}

async fn images_in_use(State(context): State<Shared>) -> Json<Vec<api::ImageUse>> {
    let world = context.world.load();
    let mut holds = world.assignments.holds(&world.site, &world.inventory, &world.images);
    let mut images = context.boots.images_in_use();
    images.extend(holds.keys().cloned());
    let variants = context.boots.variants_in_use();
    let uses = images.into_iter().map(|image| {
        let nodes = world.inventory.iter().map(|node| node.name.clone());
        let nodes = nodes.filter(|name| context.boots.uses(name, &image)).collect();
        let reasons = holds.remove(&image).unwrap_or_default();
        let of_image = variants.iter().filter(|((of, _), _)| *of == image);
        let variants = of_image.map(|((_, variant), nodes)| (variant.clone(), nodes.clone()));
        api::ImageUse {
            variants: Some(variants.collect()),
            image,
            nodes,
            reasons,
        }
    });
    Json(uses.collect())
}

async fn rescan(State(context): State<Shared>) -> Result<Json<api::Done>, Refusal> {
    act(context.rescan.clone()).await
}

async fn reload(
    State(context): State<Shared>,
    Asked(asked): Asked<api::Reload>,
) -> Result<Json<api::Reloaded>, Refusal> {
    let reload = context.reload.clone();
    let result = blocking(move || reload(asked.reprep)).await?;
    let reloaded = result.map_err(|error| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")))?;
    Ok(Json(reloaded))
}

async fn act(action: super::Action) -> Result<Json<api::Done>, Refusal> {
    let result = blocking(move || action()).await?;
    let message = result.map_err(|error| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")))?;
    Ok(Json(api::Done { message }))
}

async fn counters(
    State(context): State<Shared>,
    Extension(watchers): Extension<Arc<Watchers>>,
) -> Json<BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, u64> = (context.counters)().into_iter().collect();
    all.extend(watchers.counters());
    all.insert("timeline events".into(), context.recorder.recorded());
    all.insert("store writes dropped".into(), context.store.dropped());
    Json(all)
}
