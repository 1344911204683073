//! Accepts a changed site file or image directory while everything runs.

use super::{Shared, nfs::ImageExports, tell_findings};
use crate::{http::script::Scripts, preflight};
use anyhow::{Context, Result, bail};
use rackstrap_base::{clock::Timestamp, sync::lock};
use rackstrap_catalog::Catalog;
use rackstrap_control::api::Reloaded;
use rackstrap_image::load_catalog;
use rackstrap_loaders::Loaders;
use rackstrap_model::{
    decide::{Current, World},
    disks::{DiskEffect, changed_layouts, describe_effects, disk_effects},
};
use rackstrap_overlay::Templates;
use rackstrap_registries::LOGGED_EFFECTS;
use rackstrap_site::Site;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// Name, version and digest of each layout.
fn in_use(site: &Site) -> impl Iterator<Item = (&str, u32, &str)> {
    let rows = site.layouts.iter();
    rows.map(|(name, policy)| (name.as_str(), policy.layout.version, policy.digest.as_str()))
}

/// Reads the site file again.
pub struct Reloader {
    config: PathBuf,
    shared: Shared,
    exports: Arc<ImageExports>,
    /// Allows one reload at a time; a later one reads the later file.
    busy: Mutex<()>,
}

impl Reloader {
    pub fn new(config: PathBuf, shared: Shared, exports: Arc<ImageExports>) -> Self {
        Reloader {
            config,
            shared,
            exports,
            busy: Mutex::new(()),
        }
    }

    /// Accepts the site file, templates, boot scripts and loaders, all or nothing. A file by which nodes lose data at their
    /// next boots is accepted only with `reprep`.
    pub fn reload(&self, reprep: bool) -> Result<Reloaded> {
        let _busy = lock(&self.busy);
        let (site, warnings) = rackstrap_site::load(&self.config)?;
        refuse_fixed_changes(&self.shared.world.load().site, &site)?;
        let (effects, lost) = self.disk_effects(&site);
        if !lost.is_empty() && !reprep {
            return Ok(Reloaded {
                message: String::new(),
                effects: lost,
                done: false,
            });
        }
        let changed = changed_layouts(&site, in_use(&self.shared.world.load().site));
        let loaders = Loaders::load(&site).context("reading boot loaders")?;
        let scripts = Scripts::load(site.server.bootscripts_dir.as_deref()).map_err(anyhow::Error::msg)?;
        let templates = Templates::load(site.server.templates_dir.as_deref())?;
        if let Some(problem) = rackstrap_overlay::check(&site, &self.shared.world.load().inventory, &templates)
            .into_iter()
            .next()
        {
            bail!("{}; to list all errors: rackstrap check", problem.brief());
        }
        let (images, told) = self.scan_images(&site)?;
        let disks = self.shared.boots.disks();
        disks
            .confirm(&site)
            .context("recording which disk layouts are confirmed")?;
        self.shared.recorder.set_limits(site.limits);
        self.shared.loaders.store(Arc::new(loaders));
        self.shared.scripts.store(Arc::new(scripts));
        self.shared.templates.store(Arc::new(templates));
        let site = Arc::new(site);
        self.shared.world.rcu(|world| World {
            site: site.clone(),
            images: images.clone(),
            confirmed: None,
            ..World::clone(world)
        });
        self.shared.rivals.forget(&self.shared.warnings, &site);
        self.exports.retain(&images);
        tell_findings(&self.shared);
        self.shared.reloaded.notify_one();
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        for line in changed.iter().chain(&describe_effects(&effects, LOGGED_EFFECTS)) {
            tracing::warn!("{line}");
        }
        let warned = match warnings.len() {
            0 => String::new(),
            _ => "; it has warnings, see: rackstrap check".to_owned(),
        };
        let changed: String = changed.iter().map(|line| format!("\nwarning: {line}")).collect();
        let mut told = told.lines().map(|line| format!("\n{line}")).collect::<String>();
        let world = self.shared.world.load();
        for finding in preflight::of_nodes(&world.site, &world.images, world.inventory.iter().map(|node| &**node)) {
            tracing::warn!("{}; {}", finding.message, finding.help);
            told += &format!("\nwarning: {}\n  help: {}", finding.message, finding.help);
        }
        Ok(Reloaded {
            message: format!("{} taken over{warned}{changed}{told}", self.config.display()),
            effects,
            done: true,
        })
    }

    /// What nodes' next boots do to their disks under `site`, and which of these effects lose data and are new.
    fn disk_effects(&self, site: &Site) -> (Vec<DiskEffect>, Vec<DiskEffect>) {
        let world = self.shared.world.load();
        let disks = self.shared.boots.disks();
        let nodes = || world.inventory.iter().map(|node| &**node);
        let before = disks.next_effects(world.disk_rules(), nodes());
        let after = disk_effects(site, nodes(), |node| disks.get(node));
        let new = |effect: &&DiskEffect| effect.loses_data() && !before.contains(effect);
        let lost = after.iter().filter(new).cloned().collect();
        (after, lost)
    }

    /// Reads the image directory again.
    pub fn rescan_images(&self) -> Result<String> {
        let _busy = lock(&self.busy);
        let (images, told) = self.scan_images(&self.shared.world.load().site)?;
        self.shared.world.rcu(|world| World {
            images: images.clone(),
            ..World::clone(world)
        });
        self.exports.retain(&images);
        tell_findings(&self.shared);
        Ok(told)
    }

    /// All images, and a message about new ones, which no node gets automatically. Current versions are recorded before
    /// decisions see the images.
    fn scan_images(&self, site: &Site) -> Result<(Arc<Catalog>, String)> {
        let (images, problems) = load_catalog(&site.server.state_dir.join("images"));
        for problem in &problems {
            tracing::warn!("{problem}");
        }
        let rollouts = &self.shared.rollouts;
        rollouts
            .see(&images, Timestamp::now())
            .context("recording which versions are current")?;
        let told = tell_of_new(&self.shared.world.load().images, &images, &rollouts.current());
        Ok((Arc::new(images), told))
    }
}

/// What nodes will boot after the versions of `after` that are not in `before` were added.
fn tell_of_new(before: &Catalog, after: &Catalog, current: &[Current]) -> String {
    let images = after.iter().map(|version| &version.manifest.image);
    let lines = images.filter(|image| before.get(image).is_none()).filter_map(|image| {
        let current = &current.iter().find(|current| current.image.name == image.name)?.image;
        Some(match current == image {
            true => format!("nodes of {} boot {image} from now on", image.name),
            false => format!(
                "nodes of {} keep booting {current}; to try {image} on some nodes first: rackstrap rollout start {image} --nodes \
                 NODES; to all at once: rackstrap image promote {image}",
                image.name
            ),
        })
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Refuses changes of values that sockets and the store were opened with: they cannot change while the daemon runs.
fn refuse_fixed_changes(old: &Site, new: &Site) -> Result<()> {
    let servers = |site: &Site| {
        let mut servers: Vec<_> = site.subnets.iter().map(|s| s.server).collect();
        servers.sort();
        servers.dedup();
        servers
    };
    let (a, b) = (&old.server, &new.server);
    let changed = [
        ("[server] state-dir", a.state_dir != b.state_dir),
        ("[server] socket", a.socket != b.socket),
        ("[server] http-port", a.http_port != b.http_port),
        ("[server] nfs-port", a.nfs_port != b.nfs_port),
        ("[server] tftp-port", a.tftp_port != b.tftp_port),
        ("[server] netconsole-port", a.netconsole_port != b.netconsole_port),
        (
            "whether there is a [dns] section",
            old.dns.is_some() != new.dns.is_some(),
        ),
        ("the servers' addresses of [[subnet]]", servers(old) != servers(new)),
    ];
    let names: Vec<&str> = changed
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(name, _)| *name)
        .collect();
    if !names.is_empty() {
        bail!(
            "{} cannot change while the daemon runs; restart it instead of reloading",
            names.join(", ")
        );
    }
    Ok(())
}
