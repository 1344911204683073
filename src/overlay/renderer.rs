//! What a node gets: one way for a boot's overlay and for whoever wants to see it beforehand.

use super::{
    facts::{expected_disk, facts, no_disk},
    hostkeys::{host_keys, known_host_keys},
    mounts,
    render::{KeyPair, MountFacts, Placed, SshKeys, render},
    tree::Templates,
};
use crate::{
    boots::{Boot, Boots},
    config::Users,
    decide::{Decision, NodeDecision, Requester, SharedWorld, World, decide},
    image::{ImageVersion, RootDir},
    store::{Batch, Store, Table, secret_key},
    users::{Accounts, ImageFiles, Source, hide_hashes, merge},
};
use arc_swap::ArcSwap;
use rackstrap_wire::{DiskState, HwAddr, ImageRef, Overlay, OverlayContent, OverlayFile, Plan};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

/// Name of the tree that the merged passwd, group and shadow are shown under.
const USERS_TREE: &str = "[users]";
/// Largest passwd, group or shadow of an image, bytes.
const LARGEST: u64 = 4 << 20;
/// Under which a node's secrets have the boot and the digest of the users that it was given.
const GIVEN_USERS: &str = "users";
/// What is shown instead of a secret.
const HIDDEN: &str = "(hidden; --secrets shows it)";

/// Renders nodes' files.
pub struct Renderer {
    world: SharedWorld,
    store: Store,
    boots: Boots,
    templates: Arc<ArcSwap<Templates>>,
    users: Source,
}

/// A node's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// In the order of their paths.
    pub files: Vec<Placed>,
    /// What the site file wants and the node does not get, one line each.
    pub lacks: Vec<String>,
    /// What somebody may want to know besides: users that could not be added.
    pub notes: Vec<String>,
    /// Digest of what `[users]` made, if it made something.
    users: Option<String>,
}

impl Rendered {
    /// As agents take it.
    pub fn into_overlay(self) -> Overlay {
        Overlay {
            files: self.files.into_iter().map(|placed| placed.file).collect(),
        }
    }
}

/// What a node would get if it booted now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preview {
    /// The node.
    pub node: String,
    /// Its image version.
    pub image: ImageRef,
    /// Trees, in order.
    pub templates: Vec<String>,
    /// Where what is said of its disk is from.
    pub disk: String,
    /// Its files, in the order of their paths.
    pub files: Vec<Placed>,
    /// What the site file wants and the node does not get, one line each.
    pub lacks: Vec<String>,
    /// What somebody may want to know besides.
    pub notes: Vec<String>,
}

/// The server's users as nodes get them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsersReport {
    /// Directory of their files.
    pub from: PathBuf,
    /// Users, groups, and lines that could not be used.
    #[serde(flatten)]
    pub accounts: Accounts,
    /// Who is left out in which image, and what is missing for others.
    pub conflicts: Vec<String>,
    /// Running nodes that have others, and get these at their next boot.
    pub stale: Vec<String>,
}

/// What the sections `[[mount]]` and `[users]` make.
#[derive(Default)]
struct Made {
    mounts: Vec<MountFacts>,
    files: Vec<Placed>,
    lacks: Vec<String>,
    notes: Vec<String>,
}

impl Renderer {
    /// Of nodes of `world`; `templates` may be swapped under it.
    pub fn new(world: SharedWorld, store: Store, boots: Boots, templates: Arc<ArcSwap<Templates>>) -> Self {
        Renderer {
            world,
            store,
            boots,
            templates,
            users: Source::default(),
        }
    }

    /// The trees as they are now.
    pub fn templates(&self) -> Arc<Templates> {
        self.templates.load_full()
    }

    /// The files of a boot whose agent left the disk as `disk`. Makes the node's host keys if there are none. Blocks for disks.
    ///
    /// # Errors
    /// In one line: the node is no more, the store fails, or a template does.
    pub fn for_boot(&self, boot: &Boot, disk: DiskState) -> Result<Rendered, String> {
        let world = self.world.load_full();
        let node = &boot.plan.node;
        let decision = decided(&world, boot.plan.net.hwaddr)
            .ok_or_else(|| format!("node {node} is not in the inventory any more"))?;
        let ssh = host_keys(&self.store, node).map_err(|e| format!("ssh host keys: {e}"))?;
        let rendered = self.render(&world, &decision, &boot.plan, disk, ssh)?;
        if let Some(users) = &rendered.users {
            let given = (boot.plan.id.clone(), users.clone());
            let batch = Batch::new().put(Table::Secrets, secret_key(node, GIVEN_USERS), &given);
            // Should it be lost, the node counts as one whose users are old.
            self.store.queue(batch);
        }
        Ok(rendered)
    }

    /// The server's users as nodes get them, with what stands against some of them in the images of `running` and of the
    /// profiles; and those of `running` (node, boot and its image) that were given others. None without `[users]`. Blocks for disks.
    ///
    /// # Errors
    /// In one line: passwd or group cannot be read, or the store fails.
    pub fn users(&self, running: &[(String, String, ImageRef)]) -> Result<Option<UsersReport>, String> {
        let world = self.world.load_full();
        let Some(policy) = &world.site.users else {
            return Ok(None);
        };
        let accounts = self.users.read(policy)?;
        let named = world
            .site
            .profiles
            .values()
            .filter_map(|profile| profile.image.as_deref());
        let named = named.filter_map(|name| match name.parse() {
            Ok(pinned) => world.images.get(&pinned),
            Err(_) => world.images.newest(name),
        });
        let held = running.iter().filter_map(|(_, _, image)| world.images.get(image));
        let images: BTreeMap<&ImageRef, &ImageVersion> = named
            .chain(held)
            .map(|version| (&version.manifest.image, &**version))
            .collect();
        let (mut conflicts, mut digests) = (Vec::new(), HashMap::new());
        for (name, version) in images {
            let root = RootDir::open(&version.dir.join("root")).map_err(|e| format!("the root of {name}: {e}"));
            match root.and_then(|root| self.users_of(policy, &root)) {
                Ok((files, against)) => {
                    conflicts.extend(against.into_iter().map(|one| format!("{name}: {one}")));
                    digests.extend(digest(&files).map(|digest| (name, digest)));
                }
                Err(problem) => conflicts.push(format!("{name}: {problem}")),
            }
        }
        let mut stale = Vec::new();
        for (node, boot, image) in running {
            let given = self
                .store
                .get::<(String, String)>(Table::Secrets, &secret_key(node, GIVEN_USERS));
            let given = given.map_err(|e| format!("what {node} was given: {e}"))?;
            if given.is_none_or(|(of, users)| of != *boot || digests.get(image) != Some(&users)) {
                stale.push(node.clone());
            }
        }
        Ok(Some(UsersReport {
            from: policy.from.clone(),
            accounts: Accounts::clone(&accounts),
            conflicts,
            stale,
        }))
    }

    /// What the node with that hardware address would get if it booted now. Without `secrets`, private keys, hashes of passwords
    /// and files of the site that only their owner may read are not in it. Blocks for disks.
    ///
    /// # Errors
    /// In one line: it is no node or cannot boot, the store fails, or a template does.
    pub fn preview(&self, hwaddr: HwAddr, secrets: bool) -> Result<Preview, String> {
        let world = self.world.load_full();
        let decision = decided(&world, hwaddr).ok_or_else(|| format!("{hwaddr} is no node's, or in no subnet"))?;
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
        let mut rendered = self.render(&world, &decision, &plan, disk, ssh)?;
        if !secrets {
            rendered.files.iter_mut().for_each(hide);
        }
        Ok(Preview {
            node,
            image: plan.image,
            templates: decision.templates,
            disk: disk_from,
            files: rendered.files,
            lacks: rendered.lacks,
            notes: rendered.notes,
        })
    }

    /// What the site file wants for the node and it does not get, one line each; then what somebody may want to know besides.
    /// Blocks for disks.
    pub fn warnings(&self, world: &World, decision: &NodeDecision) -> Vec<String> {
        let image = decision.image.as_ref().ok();
        let made = self.made(world, &decision.node.profiles, image.map(|image| &**image));
        made.lacks.into_iter().chain(made.notes).collect()
    }

    fn render(
        &self,
        world: &World,
        decision: &NodeDecision,
        plan: &Plan,
        disk: DiskState,
        ssh: SshKeys,
    ) -> Result<Rendered, String> {
        let key = self
            .store
            .cluster_key("machine-id")
            .map_err(|e| format!("cluster key: {e}"))?;
        let image = world.images.get(&plan.image).map(|image| &**image);
        let made = self.made(world, &decision.node.profiles, image);
        let facts = facts(world, decision, plan, disk, ssh, &key, made.mounts);
        let users = digest(&made.files);
        let files = render(&self.templates.load(), &decision.templates, &facts, made.files);
        Ok(Rendered {
            users,
            files: files.map_err(|problem| problem.brief())?,
            lacks: made.lacks,
            notes: made.notes,
        })
    }

    fn made(&self, world: &World, profiles: &[String], image: Option<&ImageVersion>) -> Made {
        let (mounts, lacks) = mounts::of_node(&world.site, profiles);
        let mut made = Made {
            files: mounts::files(&mounts),
            mounts,
            lacks,
            notes: Vec::new(),
        };
        let Some(image) = image.filter(|_| !made.mounts.is_empty() || world.site.users.is_some()) else {
            return made;
        };
        let name = &image.manifest.image;
        let root = match RootDir::open(&image.dir.join("root")) {
            Ok(root) => root,
            Err(error) => {
                made.lacks
                    .push(format!("the root of {name} cannot be looked at: {error}"));
                return made;
            }
        };
        let lacking = mounts::lacking(&made.mounts, &name.to_string(), |path| root.exists(path));
        made.lacks.extend(lacking);
        if let Some(policy) = &world.site.users {
            match self.users_of(policy, &root) {
                Ok((files, conflicts)) => {
                    made.files.extend(files);
                    made.notes
                        .extend(conflicts.into_iter().map(|conflict| format!("{name}: {conflict}")));
                }
                Err(problem) => made.lacks.push(format!("the server's users are not added: {problem}")),
            }
        }
        made
    }

    /// passwd, group and shadow of a node whose image is `root`.
    fn users_of(&self, policy: &Users, root: &RootDir) -> Result<(Vec<Placed>, Vec<String>), String> {
        let accounts = self.users.read(policy)?;
        let read = |path: &str| -> Result<(String, OverlayFile), String> {
            let failed = |error: &dyn std::fmt::Display| format!("/{path} of the image: {error}");
            let bytes = root.read(path, LARGEST).map_err(|e| failed(&e))?;
            let meta = root
                .open_file(path)
                .and_then(|file| file.metadata())
                .map_err(|e| failed(&e))?;
            let file = OverlayFile {
                path: format!("/{path}"),
                mode: meta.mode() & 0o7777,
                uid: meta.uid(),
                gid: meta.gid(),
                content: OverlayContent::Directory,
            };
            let text = String::from_utf8(bytes).map_err(|_| failed(&"it is not UTF-8"))?;
            Ok((text, file))
        };
        let (passwd, passwd_file) = read("etc/passwd")?;
        let (group, group_file) = read("etc/group")?;
        let shadow = match root.exists("etc/shadow") {
            true => Some(read("etc/shadow")?),
            false => None,
        };
        let (shadow, shadow_file) = shadow.unzip();
        let merged = merge(&ImageFiles { passwd, group, shadow }, &accounts, |path| {
            root.exists(path)
        });
        let files = [
            (Some(merged.passwd), Some(passwd_file)),
            (Some(merged.group), Some(group_file)),
            (merged.shadow, shadow_file),
        ];
        let files = files.into_iter().filter_map(|(text, file)| {
            Some(Placed {
                tree: USERS_TREE.to_owned(),
                file: OverlayFile {
                    content: OverlayContent::Text(text?),
                    ..file?
                },
            })
        });
        Ok((files.collect(), merged.conflicts))
    }

    /// The disk as the agent left it at the node's last boot, if it was asked for the same one then; otherwise as the layout has it.
    fn likely_disk(&self, node: &str, decision: &NodeDecision) -> (DiskState, String) {
        let boots = self.boots.of_node(node);
        let last = boots
            .iter()
            .find(|boot| boot.disk.is_some() && boot.plan.disk == decision.disk);
        match (last.and_then(|boot| Some((boot, boot.disk.clone()?))), &decision.disk) {
            (Some((boot, disk)), _) => (disk, format!("as in boot {}", boot.plan.id)),
            (None, Some(plan)) => (
                expected_disk(&plan.layout),
                "as the layout says; no boot has told yet which devices these are".to_owned(),
            ),
            (None, None) => (no_disk(), "left alone".to_owned()),
        }
    }
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

/// Digest of the files that `[users]` made, if it made some.
fn digest(files: &[Placed]) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    let mut files = files.iter().filter(|placed| placed.tree == USERS_TREE).peekable();
    files.peek()?;
    for placed in files {
        if let OverlayContent::Text(text) = &placed.file.content {
            hasher.update(format!("{}:{}:", placed.file.path, text.len()).as_bytes());
            hasher.update(text.as_bytes());
        }
    }
    Some(hasher.finalize().to_hex().to_string())
}

/// Host keys to be shown: the public ones, which the node has or will have.
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

/// Takes secrets out of a file. The host keys never were in it.
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
