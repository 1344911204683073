//! The files of a node, rendered in the same way for a boot and for `rackstrap overlay render`.

use super::{
    facts::{expected_disk, facts, no_disk},
    hostkeys::{host_keys, known_host_keys},
    mounts,
    node_users::{Known, USERS_TREE},
    render::{KeyPair, MountFacts, Placed, SshKeys, render},
    rescue,
    tree::Templates,
};
use crate::users::{Source, hide_hashes};
use arc_swap::ArcSwap;
use rackstrap_catalog::ImageVersion;
use rackstrap_image::RootDir;
use rackstrap_model::{
    decide::{Decision, NodeDecision, Requester, SharedWorld, World, decide},
    inventory::{Node, Settings},
};
use rackstrap_registries::boots::{Boot, Boots};
use rackstrap_store::{Store, StoreError};
use rackstrap_wire::{
    DiskState, HwAddr, ImageRef, Overlay, OverlayContent, OverlayFile, Plan, SECRET_AUTHENTICATES, users::GivenUsers,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// Shown instead of a secret.
const HIDDEN: &str = "(hidden; --secrets shows it)";

/// Renders nodes' files.
pub struct Renderer {
    pub(super) world: SharedWorld,
    pub(super) store: Store,
    boots: Boots,
    templates: Arc<ArcSwap<Templates>>,
    pub(super) users: Source,
    pub(super) known: Known,
}

/// A node's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Sorted by path.
    pub files: Vec<Placed>,
    /// What the site file wants and the node does not get, one line for each.
    pub lacks: Vec<String>,
    /// Remarks, one line for each, such as users that could not be added.
    pub notes: Vec<String>,
    /// The result of `[users]`, if the node gets it: a tree may have its own passwd or group.
    users: Option<GivenUsers>,
    /// The secret of the boot: see [`Renderer::node_secret`].
    secret: Option<String>,
    /// The unit for agents that cannot mount: [`mounts::waits`].
    waits: Option<Placed>,
}

impl Rendered {
    /// The secret by which the node proves itself; none if its agent, which speaks version `wire`, does not support that.
    pub fn proof(&self, wire: u32) -> Option<String> {
        self.secret.clone().filter(|_| wire >= SECRET_AUTHENTICATES)
    }

    /// The overlay in the form of wire version `wire`.
    pub fn into_overlay(self, wire: u32) -> Overlay {
        let files = self.files.into_iter().map(|placed| placed.file);
        if wire >= 2 {
            return Overlay {
                files: files.collect(),
                secret: self.secret,
                users: self.users,
            };
        }
        let waits = self.waits.map(|placed| placed.file);
        Overlay {
            files: files.map(without_directory).chain(waits).collect(),
            secret: None,
            users: None,
        }
    }
}

/// Agents of version 1 do not know directories. They make missing directories above a file, with mode 0755 and owner root.
fn without_directory(file: OverlayFile) -> OverlayFile {
    match file.content {
        OverlayContent::Directory => OverlayFile {
            path: format!("{}/.rackstrap-mount-point", file.path),
            mode: 0o644,
            content: OverlayContent::Text(String::new()),
            ..file
        },
        _ => file,
    }
}

/// The files that a node would get if it booted now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preview {
    /// The name of the node.
    pub node: String,
    /// Its image version.
    pub image: ImageRef,
    /// Trees, in order.
    pub templates: Vec<String>,
    /// Where the description of its disk comes from.
    pub disk: String,
    /// Its variables, by name; the values of secret ones are hidden as private keys are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, Value>,
    /// Its files, sorted by path.
    pub files: Vec<Placed>,
    /// What the site file wants and the node does not get, one line for each.
    pub lacks: Vec<String>,
    /// Remarks, one line for each.
    pub notes: Vec<String>,
}

/// The results of the sections `[[mount]]` and `[users]`.
#[derive(Default)]
struct Made {
    mounts: Vec<MountFacts>,
    files: Vec<Placed>,
    lacks: Vec<String>,
    notes: Vec<String>,
    users: Option<GivenUsers>,
}

impl Renderer {
    /// The public ssh host keys of a node; empty before its first boot, at which they are made.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn public_host_keys(&self, node: &str) -> Result<Vec<String>, StoreError> {
        let keys = known_host_keys(&self.store, node)?;
        Ok(keys.map_or_else(Vec::new, |keys| vec![keys.ed25519.public, keys.ecdsa.public]))
    }

    /// Renders files of nodes of `world`. `templates` may be replaced at any time.
    pub fn new(world: SharedWorld, store: Store, boots: Boots, templates: Arc<ArcSwap<Templates>>) -> Self {
        Renderer {
            world,
            store,
            boots,
            templates,
            users: Source::default(),
            known: Known::default(),
        }
    }

    /// The present trees.
    pub fn templates(&self) -> Arc<Templates> {
        self.templates.load_full()
    }

    /// The files of a boot whose agent speaks version `wire` and left the disk as `disk`. Makes the node's host keys if it
    /// has none. Blocks for disks.
    ///
    /// # Errors
    /// One line: the node no longer exists, the store fails, or a template does.
    pub fn for_boot(&self, boot: &Boot, disk: DiskState, wire: u32) -> Result<Rendered, String> {
        let world = self.world.load_full();
        let node = &boot.plan.node;
        let decision = decided(&world, boot.plan.net.hwaddr)
            .ok_or_else(|| format!("node {node} is no longer in the inventory"))?;
        let ssh = host_keys(&self.store, node).map_err(|e| format!("ssh host keys: {e}"))?;
        let vars = variables(&world, &decision.node, None);
        let mut rendered = self.render(&world, &decision, &boot.plan, disk, (ssh, vars))?;
        let own = ["/etc/passwd", "/etc/group", "/etc/shadow"]
            .iter()
            .any(|path| is_of_a_tree(&rendered.files, path));
        if own {
            rendered.users = None;
        }
        // An agent of version 2 that has a secret fetches users while it runs.
        if !own || wire >= SECRET_AUTHENTICATES {
            let secret = self
                .node_secret(&boot.plan.id)
                .map_err(|e| format!("cluster key: {e}"))?;
            rendered.secret = Some(secret);
        }
        rendered.files.extend(boot.shell().map(rescue::init));
        let digest = rendered.users.as_ref().map(|users| users.digest.clone());
        self.users_given(boot, (!own).then(|| digest.unwrap_or_default()), !own && wire >= 2);
        Ok(rendered)
    }

    /// The files that the node with that hardware address would get if it booted now. Without `secrets`, private keys,
    /// password hashes, and the site's files that only their owner may read are left out. Blocks for disks.
    ///
    /// # Errors
    /// One line: the machine is not a node or cannot boot, the store fails, or a template does.
    pub fn preview(&self, hwaddr: HwAddr, secrets: bool) -> Result<Preview, String> {
        let world = self.world.load_full();
        let mut decision = decided(&world, hwaddr)
            .ok_or_else(|| format!("{hwaddr} belongs to no node, or its node is in no subnet"))?;
        let disk = self.boots.disks().get(&decision.node.name);
        decision.hold_disk(world.disk_rules(), disk.as_ref());
        let node = decision.node.name.clone();
        let plan = decision
            .plan(&world.site, hwaddr, "preview")
            .map_err(|why| format!("{node} gets no files, because it cannot boot: {why}"))?;
        let (disk, disk_from) = self.likely_disk(&node, &decision);
        let ssh = match secrets {
            true => host_keys(&self.store, &node),
            false => known_host_keys(&self.store, &node).map(public_keys),
        };
        let ssh = ssh.map_err(|e| format!("ssh host keys: {e}"))?;
        let vars = variables(&world, &decision.node, (!secrets).then_some(HIDDEN));
        let mut rendered = self.render(&world, &decision, &plan, disk, (ssh, vars.clone()))?;
        if !secrets {
            rendered.files.iter_mut().for_each(hide);
        }
        Ok(Preview {
            node,
            image: plan.image,
            templates: decision.templates,
            disk: disk_from,
            vars,
            files: rendered.files,
            lacks: rendered.lacks,
            notes: rendered.notes,
        })
    }

    /// What the site file wants for the node and the node does not get, one line for each; then further remarks. Blocks for
    /// disks.
    pub fn warnings(&self, world: &World, decision: &NodeDecision) -> Vec<String> {
        let image = decision.image.as_ref().ok();
        let made = self.made(world, &decision.node, image.map(|image| &**image));
        made.lacks.into_iter().chain(made.notes).collect()
    }

    fn render(
        &self,
        world: &World,
        decision: &NodeDecision,
        plan: &Plan,
        disk: DiskState,
        own: (SshKeys, BTreeMap<String, Value>),
    ) -> Result<Rendered, String> {
        let key = self
            .store
            .cluster_key("machine-id")
            .map_err(|e| format!("cluster key: {e}"))?;
        let image = world.images.of_plan(plan).map(|image| &**image);
        let made = self.made(world, &decision.node, image);
        let waits = mounts::waits(&made.mounts);
        let facts = facts(world, decision, plan, disk, own, &key, made.mounts);
        let files = render(&self.templates.load(), &decision.templates, &facts, made.files);
        Ok(Rendered {
            users: made.users,
            secret: None,
            waits,
            files: files.map_err(|problem| problem.brief())?,
            lacks: made.lacks,
            notes: made.notes,
        })
    }

    fn made(&self, world: &World, node: &Node, image: Option<&ImageVersion>) -> Made {
        let settings = Settings::of_node(&world.site, node, |_| ());
        let (mounts, lacks) = mounts::of_node(&world.site, &node.profiles, &settings);
        let mut made = Made {
            files: mounts::files(&mounts),
            mounts,
            lacks,
            ..Made::default()
        };
        let Some(image) = image.filter(|_| !made.mounts.is_empty() || world.site.users.is_some()) else {
            return made;
        };
        let name = &image.manifest.image;
        let root = match RootDir::open(&image.dir.join("root")) {
            Ok(root) => root,
            Err(error) => {
                made.lacks.push(format!("the root of {name} cannot be read: {error}"));
                return made;
            }
        };
        let lacking = mounts::lacking(&made.mounts, &name.to_string(), |path| root.exists(path));
        made.lacks.extend(lacking);
        if let Some(policy) = &world.site.users {
            match self.users_of(policy, &root) {
                Ok(merged) => {
                    made.files.extend(merged.files);
                    made.users = Some(merged.given);
                    let conflicts = merged.conflicts.into_iter();
                    made.notes
                        .extend(conflicts.map(|conflict| format!("{name}: {conflict}")));
                }
                Err(problem) => made.lacks.push(format!("the server's users are not added: {problem}")),
            }
        }
        made
    }

    /// The disk as the agent left it at the node's last boot, if that boot had the same layout; otherwise as the layout
    /// describes it.
    fn likely_disk(&self, node: &str, decision: &NodeDecision) -> (DiskState, String) {
        let boots = self.boots.of_node(node);
        let last = boots
            .iter()
            .find(|boot| boot.disk.is_some() && boot.plan.disk == decision.disk);
        match (last.and_then(|boot| Some((boot, boot.disk.clone()?))), &decision.disk) {
            (Some((boot, disk)), _) => (disk, format!("as in boot {}", boot.plan.id)),
            (None, Some(plan)) => (
                expected_disk(
                    std::iter::once(plan)
                        .chain(&plan.more)
                        .map(|plan| (plan.whole_layout(), &plan.contents[..])),
                ),
                "by the layout; no boot has reported the devices yet".to_owned(),
            ),
            (None, None) => (no_disk(), "left alone".to_owned()),
        }
    }
}

/// Whether a tree has that file, so that `[users]` does not make it.
fn is_of_a_tree(files: &[Placed], path: &str) -> bool {
    let found = files.iter().find(|placed| placed.file.path == path);
    found.is_some_and(|placed| placed.tree != USERS_TREE)
}

/// The variables of a node; instead of each secret value, `hidden`, if there is one.
fn variables(world: &World, node: &Node, hidden: Option<&str>) -> BTreeMap<String, Value> {
    Settings::of_node(&world.site, node, |_| ()).vars(hidden)
}

fn decided(world: &World, hwaddr: HwAddr) -> Option<Box<NodeDecision>> {
    let requester = Requester {
        hwaddr: Some(hwaddr),
        ..Requester::default()
    };
    match decide(world, &requester) {
        Decision::Node(decision) => Some(decision),
        Decision::Unknown { .. } => None,
    }
}

/// Host keys to show: the public keys that the node has or will have.
fn public_keys(known: Option<SshKeys>) -> SshKeys {
    let shown = |pair: Option<KeyPair>| KeyPair {
        private: HIDDEN.to_owned(),
        public: pair.map_or_else(|| "(made at the node's first boot)".to_owned(), |pair| pair.public),
    };
    let (ed25519, ecdsa) = known.map(|keys| (keys.ed25519, keys.ecdsa)).unzip();
    SshKeys {
        ed25519: shown(ed25519),
        ecdsa: shown(ecdsa),
    }
}

/// Removes secrets from a file. Host keys were never in it.
fn hide(placed: &mut Placed) {
    let file = &mut placed.file;
    let OverlayContent::Text(text) = &mut file.content else {
        return;
    };
    if file.path == "/etc/shadow" {
        *text = hide_hashes(text);
    } else if placed.tree != "base" && file.mode & 0o077 == 0 {
        *text = format!("{HIDDEN}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of an overlay in wire version 1, as agents of sealed images read it.
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum FirstContent {
        Text(String),
        Symlink(String),
    }

    #[derive(Deserialize)]
    struct FirstFile {
        path: String,
        mode: u32,
        content: FirstContent,
    }

    #[derive(Deserialize)]
    struct FirstOverlay {
        files: Vec<FirstFile>,
    }

    #[test]
    fn an_agent_of_the_first_version_reads_its_plan() {
        let placed = |path: &str, content| Placed {
            tree: "x".to_owned(),
            file: OverlayFile {
                path: path.to_owned(),
                mode: 0o755,
                uid: 0,
                gid: 0,
                content,
            },
        };
        let rendered = Rendered {
            files: vec![
                placed("/etc/x", OverlayContent::Text("x".to_owned())),
                placed("/etc/y", OverlayContent::Symlink("x".to_owned())),
                placed("/home", OverlayContent::Directory),
            ],
            users: Some(GivenUsers::default()),
            secret: Some("00".to_owned()),
            waits: Some(placed("/unit", OverlayContent::Text("waits".to_owned()))),
            ..Rendered::default()
        };
        let json = serde_json::to_string(&rendered.clone().into_overlay(1)).unwrap();
        let first: FirstOverlay = serde_json::from_str(&json).unwrap();
        let read: Vec<(&str, u32, &str)> = (first.files.iter())
            .map(|file| match &file.content {
                FirstContent::Text(text) | FirstContent::Symlink(text) => {
                    (file.path.as_str(), file.mode, text.as_str())
                }
            })
            .collect();
        assert_eq!(
            read,
            [
                ("/etc/x", 0o755, "x"),
                ("/etc/y", 0o755, "x"),
                ("/home/.rackstrap-mount-point", 0o644, ""),
                ("/unit", 0o755, "waits"),
            ]
        );
        assert!(!json.contains("secret") && !json.contains("users"), "{json}");
        let overlay = rendered.into_overlay(2);
        assert_eq!(overlay.files.len(), 3, "this one mounts by itself");
        assert_eq!(
            (overlay.secret.as_deref(), overlay.users),
            (Some("00"), Some(GivenUsers::default()))
        );
        // Such an agent could not read this file.
        let json = serde_json::to_string(&overlay.files[2]).unwrap();
        assert!(serde_json::from_str::<FirstFile>(&json).is_err(), "{json}");
    }
}
