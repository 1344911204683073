//! The daemon: binds everything, runs everything; the first fatal error stops all.
//!
//! The other files in this folder answer the questions that protocol engines ask through the traits of `dhcp`, `tftp` and
//! `nfs`, from the world, the boots and the store.

mod attempts;
mod bind;
mod dhcp;
#[cfg(feature = "dns")]
mod dns;
mod freebsd;
mod infiniband;
mod nfs;
mod nightly;
mod own_system;
mod reload;
mod rivals;
mod tftp;

use crate::{
    control,
    freebsd::{FreeBsd, Mounted},
    http,
    pinning::Pinning,
    power::Power,
    preflight,
};
use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use rackstrap_base::{
    clock::Timestamp, firmware::Firmwares, panics, subnet::DhcpPart, warnings::SiteWarnings, words::count,
};
use rackstrap_image::{load_catalog, own_images};
use rackstrap_loaders::Loaders;
use rackstrap_model::{
    decide::{SharedWorld, World},
    disks::describe_effects,
};
use rackstrap_overlay::{Renderer, Templates};
use rackstrap_registries::{
    LOGGED_EFFECTS, Registries,
    boots::{BootWindows, Boots, LoadingNodes},
    discovery::Discovery,
    hooks,
    nodes::Nodes,
    restart::{self, Restarts},
    rollout::Rollouts,
    timeline::{self, Recorder},
};
use rackstrap_site::Site;
use rackstrap_store::Store;
use std::{path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Time between two checks of this machine.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What all services share.
#[derive(Clone)]
pub struct Shared {
    world: SharedWorld,
    /// The store.
    pub store: Store,
    boots: Boots,
    windows: Arc<BootWindows>,
    /// The registry of timelines.
    pub recorder: Recorder,
    pub(crate) nodes: Nodes,
    /// Machines that wait.
    pub discovery: Discovery,
    rollouts: Rollouts,
    restarts: Restarts,
    firmware: Arc<Firmwares>,
    /// Other DHCP servers that were heard.
    rivals: rivals::Rivals,
    loaders: Arc<ArcSwap<Loaders>>,
    scripts: Arc<ArcSwap<http::script::Scripts>>,
    templates: Arc<ArcSwap<Templates>>,
    overlays: Arc<Renderer>,
    /// Warnings of the site as a whole, for `status`.
    warnings: SiteWarnings,
    /// Notifies waiters that the site file was read again.
    reloaded: Arc<Notify>,
    /// See [`Mounted`].
    mounted: Mounted,
}

/// Runs the daemon with the site file `config` until SIGTERM, SIGINT or the first fatal error.
pub async fn run(config: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("serve needs root: it binds ports below 1024 and reads images with every owner's files; run it as root");
    }
    raise_descriptor_limit();
    let site_warnings = SiteWarnings::default();
    panics::tell(&site_warnings);
    let (site, warnings) = rackstrap_site::load(config)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    bind::check_interfaces(&site)?;
    let shared = open(site, site_warnings)?;
    let cancel = CancellationToken::new();
    let mut services = JoinSet::new();
    let (counters, keeper, exports) = bind::spawn_all(&shared, &cancel, &mut services)?;
    let reloader = Arc::new(reload::Reloader::new(config.to_owned(), shared.clone(), exports));
    let control = control::bind(&shared.world.load().site.server.socket).await?;
    let (reload, rescan) = (reloader.clone(), reloader.clone());
    let context = Arc::new(shared.control_context(
        Arc::new(move |reprep| reload.reload(reprep)),
        Arc::new(move || rescan.rescan_images()),
        Arc::new(move |addresses| keeper.release(addresses)),
        counters,
    ));
    services.spawn(control::serve(control, context, cancel.clone()).in_named_task("control socket"));
    let watched = hooks::Watched {
        world: shared.world.clone(),
        boots: shared.boots.clone(),
        recorder: shared.recorder.clone(),
        store: shared.store.clone(),
        reloaded: shared.reloaded.clone(),
        config: std::path::absolute(config).unwrap_or_else(|_| config.to_owned()),
    };
    let restarting = restart::serve(shared.restarts.clone(), watched.config.clone(), cancel.clone());
    services.spawn(restarting.in_named_task("restarts"));
    let users = rackstrap_overlay::watch_users(shared.overlays.clone(), cancel.clone());
    services.spawn(users.in_named_task("users"));
    let watching = timeline::watch_over(
        shared.recorder.clone(),
        shared.boots.clone(),
        shared.world.clone(),
        cancel.clone(),
    );
    services.spawn(watching.in_named_task("watch over nodes"));
    services.spawn(hooks::serve(watched, cancel.clone()).in_named_task("hooks"));
    services.spawn(look_again(shared.clone(), cancel.clone()).in_named_task("findings"));
    services.spawn(nightly::serve(shared.clone(), cancel.clone()).in_named_task("backups"));
    watch_threads(&shared, &cancel, &mut services);
    // After all ports are bound, so that an error that keeps the daemon from starting is one clear line.
    tell_findings(&shared);
    announce(&shared.world.load());
    let result = supervise(&mut services, &reloader).await;
    cancel.cancel();
    while services.join_next().await.is_some() {}
    let flushed = shared.store.flush().context("writing the last timeline events");
    // The reason why the daemon ends comes first: a store that has ended cannot be flushed.
    result.and(flushed)
}

/// Makes the end of a thread end the daemon, as the end of a service does.
fn watch_threads(shared: &Shared, cancel: &CancellationToken, services: &mut JoinSet<Result<()>>) {
    let mut watch = |name: &'static str, ended: BoxFuture| {
        let cancel = cancel.clone();
        // When the daemon ends, a thread continues until it is not needed any more.
        let ended = async move { cancel.run_until_cancelled(ended).await.unwrap_or(Ok(())) };
        services.spawn(ended.in_named_task(name));
    };
    watch("the store", Box::pin(shared.store.ended()));
    watch("racking", Box::pin(shared.discovery.ended()));
    watch("rollouts", Box::pin(shared.rollouts.ended()));
}

/// The future that resolves when a thread ends.
type BoxFuture = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

impl Shared {
    /// What the control socket answers from, and what it has the daemon do.
    pub fn control_context(
        &self,
        reload: control::Reload,
        rescan: control::Action,
        release: control::Release,
        counters: control::Counters,
    ) -> control::Context {
        control::Context {
            world: self.world.clone(),
            store: self.store.clone(),
            recorder: self.recorder.clone(),
            boots: self.boots.clone(),
            nodes: self.nodes.clone(),
            discovery: self.discovery.clone(),
            rollouts: self.rollouts.clone(),
            restarts: self.restarts.clone(),
            power: Power::new(self.world.clone(), self.recorder.clone()),
            overlays: self.overlays.clone(),
            warnings: self.warnings.clone(),
            firmware: self.firmware.clone(),
            loaders: self.loaders.clone(),
            scripts: self.scripts.clone(),
            reload,
            rescan,
            release,
            counters,
        }
    }

    /// The HTTP service; it calls `waits` for each machine that waits, and `holder` for addresses of the temporary pool.
    pub fn http_service(&self, waits: http::Waits, holder: http::Holder, limits: http::Limits) -> http::Service {
        http::Service {
            world: self.world.clone(),
            pinning: self.pinning(),
            loading: LoadingNodes::default(),
            waits,
            holder,
            files: http::SharedFiles::default(),
            restarts: self.restarts.clone(),
            firmware: self.firmware.clone(),
            loaders: self.loaders.clone(),
            scripts: self.scripts.clone(),
            overlays: self.overlays.clone(),
            reported: http::ReportedEvents::default(),
            freebsd: self.freebsd(),
            limits,
            counters: Arc::default(),
        }
    }

    /// What pins boots.
    fn pinning(&self) -> Pinning {
        Pinning {
            boots: self.boots.clone(),
            windows: self.windows.clone(),
            recorder: self.recorder.clone(),
            rollouts: self.rollouts.clone(),
            discovery: self.discovery.clone(),
        }
    }

    /// What boots nodes with FreeBSD.
    pub fn freebsd(&self) -> FreeBsd {
        FreeBsd {
            world: self.world.clone(),
            pinning: self.pinning(),
            firmware: self.firmware.clone(),
            mounted: self.mounted.clone(),
        }
    }
}

/// Opens the store and loads everything from disk.
///
/// # Errors
/// The file or row that cannot be read.
pub fn open(site: Site, warnings: SiteWarnings) -> Result<Shared> {
    let state_dir = site.server.state_dir.clone();
    let make = |dir: &Path| std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()));
    make(&state_dir)?;
    make(&state_dir.join("images"))?;
    if let Err(error) = own_images(&state_dir.join("images")) {
        tracing::warn!("{error}; local users can keep all image commands waiting");
    }
    let store = Store::open(&state_dir.join("store.redb"))?;
    let (images, problems) = load_catalog(&state_dir.join("images"));
    for problem in &problems {
        tracing::warn!("{problem}");
    }
    let loaders = Loaders::load(&site).context("reading boot loaders")?;
    let scripts = http::script::Scripts::load(site.server.bootscripts_dir.as_deref()).map_err(anyhow::Error::msg)?;
    let templates = Templates::load(site.server.templates_dir.as_deref())?;
    let world = World {
        site: Arc::new(site),
        inventory: Arc::default(),
        images: Arc::new(images),
        assignments: Arc::default(),
        confirmed: None,
    };
    let registries = Registries::load(store, world, Timestamp::now())?;
    let loaded = registries.world.load();
    for problem in rackstrap_overlay::check(&loaded.site, &loaded.inventory, &templates) {
        tracing::error!("nodes will not boot: {}", problem.brief());
    }
    let discovery = registries.start_discovery()?;
    let restarts = registries.load_restarts()?;
    let rollouts = registries.start_rollouts(&restarts)?;
    rollouts.see(&loaded.images, Timestamp::now())?;
    drop(loaded);
    let Registries {
        store,
        world,
        recorder,
        boots,
        nodes,
    } = registries;
    let templates = Arc::new(ArcSwap::from_pointee(templates));
    let overlays = Renderer::new(world.clone(), store.clone(), boots.clone(), templates.clone());
    Ok(Shared {
        world,
        boots,
        restarts,
        windows: Arc::default(),
        firmware: Arc::default(),
        rivals: rivals::Rivals::default(),
        recorder,
        nodes,
        discovery,
        rollouts,
        store,
        loaders: Arc::new(ArcSwap::from_pointee(loaders)),
        scripts: Arc::new(ArcSwap::from_pointee(scripts)),
        templates,
        overlays: Arc::new(overlays),
        warnings,
        reloaded: Arc::default(),
        mounted: Mounted::default(),
    })
}

/// Waits for the end: a signal, or a service that failed. SIGHUP reloads.
async fn supervise(services: &mut JoinSet<Result<()>>, reloader: &Arc<reload::Reloader>) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                let reloader = reloader.clone();
                match tokio::task::spawn_blocking(move || reloader.reload(false)).await {
                    Ok(Ok(reloaded)) if reloaded.done => tracing::info!("{}", reloaded.message),
                    Ok(Ok(refused)) => tracing::error!(
                        "the old site file stays in use, because nodes would lose data: {}; to accept it: rackstrap reload --reprep",
                        describe_effects(&refused.effects, LOGGED_EFFECTS).join("; ")
                    ),
                    Ok(Err(error)) => tracing::error!("the old site file stays in use: {error:#}"),
                    Err(panic) => tracing::error!("the old site file stays in use: reading the new one: {panic}"),
                }
            }
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            ended = services.join_next() => match ended {
                None => return Ok(()),
                Some(Ok(Ok(()))) => continue,
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(panic)) => return Err(anyhow::Error::new(panic).context("a service stopped")),
            },
        }
    }
}

/// Reports the problems of this machine in the log and in `status`.
fn tell_findings(shared: &Shared) {
    let world = shared.world.load();
    preflight::report(&world.site, &world.images, shared.loaders.load_full(), &shared.warnings);
}

/// Reports the problems again regularly: programs, directories and addresses appear and disappear without a reload.
async fn look_again(shared: Shared, cancel: CancellationToken) -> std::io::Result<()> {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        let shared = shared.clone();
        // The panic hook reports a panic, and the next check follows.
        let _ = tokio::task::spawn_blocking(move || tell_findings(&shared)).await;
    }
}

/// Prints the line that scripts and tests wait for: every port is bound.
fn announce(world: &World) {
    let site = &world.site;
    let subnets: Vec<String> = site
        .subnets
        .iter()
        .map(|s| {
            let part = match s.dhcp {
                DhcpPart::Full => String::new(),
                part => format!(" with dhcp = \"{part}\""),
            };
            match &s.interface {
                Some(interface) => format!("{} on {interface}{part}", s.network),
                None => format!("{} by relays{part}", s.network),
            }
        })
        .collect();
    let (nodes, images) = (world.inventory.len(), world.images.iter().count());
    eprintln!(
        "rackstrap: ready: {} ({}, {})",
        subnets.join(", "),
        count(nodes, "node"),
        count(images, "image version")
    );
}

/// A connection takes one descriptor, a TFTP transfer two, and NFS some thousands. One rack would use up the usual soft limit
/// of 1,024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// Adds the name of a service to its error.
trait InNamedTask: Future<Output = std::io::Result<()>> + Send + Sized + 'static {
    fn in_named_task(self, name: impl Into<String>) -> impl Future<Output = Result<()>> + Send + 'static {
        let name = name.into();
        async move { self.await.with_context(|| format!("{name} stopped")) }
    }
}

impl<F: Future<Output = std::io::Result<()>> + Send + 'static> InNamedTask for F {}
