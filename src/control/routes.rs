//! What the daemon answers to the command line.

use super::{
    Context,
    api::{self, paths},
    socket::Peer,
    unknown,
};
use crate::{
    clock::Timestamp,
    decide::{Decision, Requester, World, decide},
    inventory::{ChangeError, InventoryError, NewNode, Node, Nodes, find},
    store::Table,
    timeline::{State as NodeState, Subject, status, summarise},
};
use axum::{
    Json, Router,
    extract::{ConnectInfo, Path, Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rackstrap_wire::HwAddr;
use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
};

/// What every route sees: the context, and the one keeper of the inventory.
#[derive(Clone)]
struct Shared {
    context: Arc<Context>,
    nodes: Nodes,
}

impl std::ops::Deref for Shared {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

/// All routes. Whoever serves them says who is at the other end of each connection.
pub fn router(context: Arc<Context>) -> Router {
    let nodes = Nodes::new(context.store.clone(), context.world.clone());
    let shared = Shared { context, nodes };
    Router::new()
        .route(paths::STATUS, get(show_status))
        .route(paths::NODES, get(list_nodes).post(add_node))
        .route("/v1/nodes/{name}", get(show_node).delete(delete_node))
        .route("/v1/timeline/{subject}", get(timeline))
        .route("/v1/explain/{about}", get(explain))
        .route(paths::LEASES, get(leases))
        .route(paths::LAYOUTS, get(layouts))
        .route(paths::IMAGES_IN_USE, get(images_in_use))
        .route(paths::RESCAN, post(rescan))
        .route(paths::RELOAD, post(reload))
        .route(paths::COUNTERS, get(counters))
        .fallback(|request: Request| async move {
            let path = request.uri().path().to_owned();
            Refusal(
                StatusCode::NOT_FOUND,
                format!("this daemon knows no {path}: it is of another release than this command; restart it"),
            )
        })
        .layer(middleware::from_fn(only_root))
        .with_state(shared)
}

/// An answer that is not 2xx.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(api::Failure { error: self.1 })).into_response()
    }
}

fn broken(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

impl From<InventoryError> for Refusal {
    fn from(error: InventoryError) -> Self {
        let code = match error {
            InventoryError::Unknown { .. } => StatusCode::NOT_FOUND,
            InventoryError::Exists { .. } | InventoryError::Taken { .. } => StatusCode::CONFLICT,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Refusal(code, error.to_string())
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(error) => error.into(),
            ChangeError::Store(_) => broken(error),
        }
    }
}

/// The socket's mode says the same; this holds also where somebody changed that.
async fn only_root(ConnectInfo(Peer(uid)): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let own = rustix::process::geteuid().as_raw();
    match uid {
        Some(uid) if uid == 0 || uid == own => next.run(request).await,
        _ => Refusal(
            StatusCode::FORBIDDEN,
            "only root may command this daemon; use sudo".into(),
        )
        .into_response(),
    }
}

/// Runs what waits for a disk where it may.
async fn blocking<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(f).await.map_err(broken)
}

async fn show_status(State(context): State<Shared>) -> Result<Json<api::StatusAnswer>, Refusal> {
    let world = context.world.load_full();
    let now = Timestamp::now();
    let mut nodes = status(&world, &context.recorder, &context.boots, now);
    if nodes.iter().any(|row| row.state == NodeState::Waiting) {
        // Unknown machines have no address but the one that they were lent.
        let leases = blocking(move || all_leases(&context)).await??;
        let lent: HashMap<String, Ipv4Addr> = leases
            .iter()
            .filter_map(|row| Some((hwaddr(row)?.to_string(), row.ipaddr)))
            .collect();
        for row in nodes.iter_mut().filter(|row| row.state == NodeState::Waiting) {
            row.ipaddr = lent.get(&row.node).copied();
        }
    }
    Ok(Json(api::StatusAnswer {
        cluster: world.site.cluster.name.clone(),
        now,
        nodes,
    }))
}

async fn list_nodes(State(context): State<Shared>) -> Json<Vec<Arc<Node>>> {
    Json(context.world.load().inventory.iter().cloned().collect())
}

async fn add_node(State(context): State<Shared>, Json(new): Json<NewNode>) -> Result<Json<Node>, Refusal> {
    let node = blocking(move || {
        let node = context.nodes.add(&new)?;
        for hwaddr in &node.hwaddrs {
            // It was an unknown machine perhaps; it waits no longer.
            context.recorder.forget(&Subject::Machine(*hwaddr));
        }
        Ok::<_, ChangeError>(node)
    })
    .await??;
    tracing::info!(
        "node {}: added, hwaddr {}, address {}",
        node.name,
        node.hwaddrs[0],
        node.ipaddr
    );
    Ok(Json(node))
}

async fn show_node(State(context): State<Shared>, Path(text): Path<String>) -> Result<Json<api::NodeAnswer>, Refusal> {
    let world = context.world.load_full();
    let node = match meant(&world, &text)? {
        Meant::Node(node) => Node::clone(&node),
        Meant::Machine(_) | Meant::Address(_) => {
            let text = format!("{text} belongs to no node; what it is: rackstrap explain {text}");
            return Err(Refusal(StatusCode::NOT_FOUND, text));
        }
    };
    let name = node.name.clone();
    let rows = status(&world, &context.recorder, &context.boots, Timestamp::now());
    let row = rows.into_iter().find(|row| row.node == name);
    let boots = context.boots.of_node(&name);
    Ok(Json(api::NodeAnswer {
        status: row.ok_or_else(|| broken(format!("node {name} went away")))?,
        hardware: boots.iter().find_map(|boot| boot.hardware.clone()),
        boots: summarise(&context.recorder.of(&Subject::Node(name))),
        node,
    }))
}

async fn delete_node(State(context): State<Shared>, Path(name): Path<String>) -> Result<Json<Node>, Refusal> {
    let node = blocking(move || {
        let node = context.nodes.delete(&name)?;
        context.recorder.forget(&Subject::Node(name.clone()));
        context.boots.forget_node(&name)?;
        Ok::<_, ChangeError>(node)
    })
    .await??;
    tracing::info!("node {}: deleted", node.name);
    Ok(Json(node))
}

/// What a person may mean: a node's name, a hardware address, an address.
enum Meant {
    Node(Arc<Node>),
    Machine(HwAddr),
    Address(Ipv4Addr),
}

fn meant(world: &World, text: &str) -> Result<Meant, InventoryError> {
    if let Ok(hwaddr) = text.parse::<HwAddr>() {
        let node = world.inventory.by_hwaddr(hwaddr);
        return Ok(node.cloned().map_or(Meant::Machine(hwaddr), Meant::Node));
    }
    if let Ok(ipaddr) = text.parse::<Ipv4Addr>() {
        let node = world.inventory.by_ipaddr(ipaddr);
        return Ok(node.cloned().map_or(Meant::Address(ipaddr), Meant::Node));
    }
    find(&world.inventory, text).cloned().map(Meant::Node)
}

async fn timeline(
    State(context): State<Shared>,
    Path(text): Path<String>,
) -> Result<Json<api::TimelineAnswer>, Refusal> {
    let world = context.world.load_full();
    let subject = match meant(&world, &text)? {
        Meant::Node(node) => Subject::Node(node.name.clone()),
        Meant::Machine(hwaddr) => Subject::Machine(hwaddr),
        Meant::Address(ipaddr) => match lease_of(&context, |row| row.ipaddr == ipaddr)?.and_then(|row| hwaddr(&row)) {
            Some(hwaddr) => Subject::Machine(hwaddr),
            None => {
                return Err(Refusal(
                    StatusCode::NOT_FOUND,
                    format!("address {ipaddr} is nobody's; what it would be: rackstrap explain {ipaddr}"),
                ));
            }
        },
    };
    let events = context.recorder.of(&subject);
    if events.is_empty()
        && let Subject::Machine(hwaddr) = subject
    {
        let text = format!("hardware address {hwaddr} belongs to no node and was never heard of");
        return Err(Refusal(StatusCode::NOT_FOUND, text));
    }
    Ok(Json(api::TimelineAnswer {
        boots: summarise(&events),
        subject,
        events,
    }))
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
        // Asked for an address, the way by the address is explained: NFS and TFTP ask like this.
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
                lease = lease_of(&context, |row| hwaddr(row) == Some(asked))?;
            }
            Meant::Address(ipaddr) => requester.ipaddr = Some(ipaddr),
        },
    }
    let (decision, pinned) = match decide(&world, &requester) {
        Decision::Unknown { why: steps } => {
            why.extend(steps);
            why.extend(unknown::steps(&world, &requester));
            (None, None)
        }
        Decision::Node(decided) => {
            why.extend(decided.why);
            let pinned = context.boots.current(&decided.node.name);
            let (image, image_problem) = match decided.image {
                Ok(version) => (Some(version.manifest.image.clone()), None),
                Err(problem) => (None, Some(problem)),
            };
            let decision = api::ExplainDecision {
                node: Node::clone(&decided.node),
                image,
                image_problem,
                disk: decided.disk,
                kernel_args: decided.kernel_args,
                templates: decided.templates,
                console: decided.console,
                init: decided.init,
                ram_size: decided.ram_size,
            };
            (Some(decision), pinned.map(|boot| api::PinnedBoot::from(&*boot)))
        }
    };
    Ok(Json(api::ExplainAnswer {
        about,
        why,
        decision,
        pinned,
        lease,
    }))
}

fn list(items: &[HwAddr]) -> String {
    items.iter().map(HwAddr::to_string).collect::<Vec<_>>().join(", ")
}

fn hwaddr(row: &api::LeaseRow) -> Option<HwAddr> {
    row.lease.get("hwaddr")?.as_str()?.parse().ok()
}

fn all_leases(context: &Shared) -> Result<Vec<api::LeaseRow>, Refusal> {
    let found = context
        .store
        .scan::<BTreeMap<String, serde_json::Value>>(Table::Leases, b"");
    let rows = found.map_err(broken)?.into_iter().filter_map(|(key, mut lease)| {
        let ipaddr = Ipv4Addr::from(<[u8; 4]>::try_from(key).ok()?);
        lease.remove("ipaddr");
        Some(api::LeaseRow { ipaddr, lease })
    });
    Ok(rows.collect())
}

fn lease_of(context: &Shared, wanted: impl Fn(&api::LeaseRow) -> bool) -> Result<Option<api::LeaseRow>, Refusal> {
    Ok(all_leases(context)?.into_iter().find(wanted))
}

async fn leases(State(context): State<Shared>) -> Result<Json<Vec<api::LeaseRow>>, Refusal> {
    blocking(move || all_leases(&context)).await?.map(Json)
}

async fn layouts(State(context): State<Shared>) -> Json<Vec<api::LayoutRow>> {
    let world = context.world.load();
    let rows = world.site.layouts.iter().map(|(name, policy)| api::LayoutRow {
        layout: policy.layout.clone(),
        digest: policy.digest.clone(),
        wipe: policy.wipe,
        profiles: world
            .site
            .profiles
            .iter()
            .filter(|(_, profile)| profile.layout.as_ref() == Some(name))
            .map(|(profile, _)| profile.clone())
            .collect(),
    });
    Json(rows.collect())
}

async fn images_in_use(State(context): State<Shared>) -> Json<Vec<api::ImageUse>> {
    let world = context.world.load();
    let uses = context.boots.images_in_use().into_iter().map(|image| {
        let nodes = world.inventory.iter().map(|node| node.name.clone());
        let nodes = nodes.filter(|name| context.boots.may_mount(name, &image)).collect();
        api::ImageUse { image, nodes }
    });
    Json(uses.collect())
}

async fn rescan(State(context): State<Shared>) -> Result<Json<api::Done>, Refusal> {
    act(context.rescan.clone()).await
}

async fn reload(State(context): State<Shared>) -> Result<Json<api::Done>, Refusal> {
    act(context.reload.clone()).await
}

async fn act(action: super::Action) -> Result<Json<api::Done>, Refusal> {
    let result = blocking(move || action()).await?;
    let message = result.map_err(|error| Refusal(StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}")))?;
    Ok(Json(api::Done { message }))
}

async fn counters(State(context): State<Shared>) -> Json<BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, u64> = (context.counters)().into_iter().collect();
    all.insert("timeline events".into(), context.recorder.recorded());
    all.insert("store writes dropped".into(), context.store.dropped());
    Json(all)
}
