//! The server's users on nodes: those that a boot brings, those that a running node fetches, and which node has which.

use super::{render::Placed, renderer::Renderer};
use crate::users::{Accounts, EtcFiles, Stamps, lacking, merge};
use rackstrap_base::{sync::lock, text::cut};
use rackstrap_catalog::ImageVersion;
use rackstrap_image::RootDir;
use rackstrap_registries::boots::Boot;
use rackstrap_site::Users;
use rackstrap_store::{Batch, StoreError, Table, secret_key};
use rackstrap_wire::{
    ImageRef, OverlayContent, OverlayFile,
    users::{GivenUsers, NodeUsers},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

/// The name of the tree that the merged passwd, group and shadow are shown under.
pub(super) const USERS_TREE: &str = "[users]";
/// Largest passwd, group or shadow of an image, in bytes.
const LARGEST: u64 = 4 << 20;
/// The name under which a node's secrets contain the [`Given`] of its last boot.
const GIVEN_USERS: &str = "given-users";
/// Names of the cluster's keys: see [`Renderer::node_secret`] and [`Accounts::for_nodes`].
const SECRET_KEY: &str = "node-secret";
const DIGEST_KEY: &str = "users-digest";

/// The users that running nodes should have now.
#[derive(Debug, Default)]
pub struct Held {
    /// The digest of these users; empty for an empty list.
    pub digest: String,
    /// [`NodeUsers`] as JSON, made once for all nodes that fetch it.
    pub body: bytes::Bytes,
    users: usize,
}

/// The users that a node has now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    boot: String,
    /// None if its passwd or group comes from a tree of the site.
    digest: Option<String>,
    /// Whether it accepts changes while it runs.
    live: bool,
}

/// The policy, the versions of the files, and the resulting users of running nodes.
type Looked = (Option<Users>, Option<Stamps>, Arc<Held>);

/// The server's users as last read.
#[derive(Debug, Default)]
pub(super) struct Known {
    held: Mutex<Option<Looked>>,
    /// By node, as the node reported it. Nodes that are not here may be in the store.
    given: Mutex<HashMap<String, Given>>,
}

/// The server's users as nodes get them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UsersReport {
    /// The directory of the files.
    pub from: PathBuf,
    /// Users, groups, and lines that could not be used.
    #[serde(flatten)]
    pub accounts: Accounts,
    /// Users that are left out in an image, with the reason, and what other users lack.
    pub conflicts: Vec<String>,
    /// Running nodes that have these users.
    pub current: Vec<String>,
    /// Running nodes with other users, which get these at their next heartbeats.
    pub behind: Vec<String>,
    /// Running nodes with other users, which get these at their next boot, because their images were sealed with an older
    /// agent.
    pub stale: Vec<String>,
    /// Running nodes that never get these users: a tree of the site has a passwd or group for them.
    pub own: Vec<String>,
}

/// passwd, group and shadow of a node, and how they were made.
pub(super) struct Merge {
    pub files: Vec<Placed>,
    pub given: GivenUsers,
    pub conflicts: Vec<String>,
}

impl Renderer {
    /// A secret that only root of the node in that boot knows, 64 hex digits. The boot's token is not enough, because every
    /// user of the node can read it on the kernel command line. The secret is sent with the boot's only overlay, and is
    /// computed from a key of the cluster.
    ///
    /// # Errors
    /// An error of the store.
    pub fn node_secret(&self, boot: &str) -> Result<String, StoreError> {
        let key = self.store.cluster_key(SECRET_KEY)?;
        Ok(blake3::keyed_hash(&key, boot.as_bytes()).to_hex().to_string())
    }

    /// Whether `secret` is the secret of that boot. The time does not depend on where the two differ.
    ///
    /// # Errors
    /// An error of the store.
    pub fn is_node_secret(&self, boot: &str, secret: &str) -> Result<bool, StoreError> {
        let key = self.store.cluster_key(SECRET_KEY)?;
        let right = blake3::keyed_hash(&key, boot.as_bytes());
        // blake3 compares its hashes in constant time.
        Ok(blake3::Hash::from_hex(secret).is_ok_and(|hash| hash == right))
    }

    /// The users that running nodes should have; none before the files were read first, or while they cannot be read.
    pub fn held_users(&self) -> Option<Arc<Held>> {
        let held = lock(&self.known.held);
        held.as_ref().map(|(_, _, held)| held.clone())
    }

    /// Whether the server's files or `[users]` changed since the set last offered to running nodes; with the stamps
    /// of the files. Blocks for disks.
    pub(crate) fn users_changed(&self) -> (bool, Option<Stamps>) {
        let policy = self.world.load().site.users.clone();
        let stamps = policy.as_ref().map(Stamps::of);
        let held = lock(&self.known.held);
        let same = held.as_ref().is_some_and(|(of, at, _)| *of == policy && *at == stamps);
        (!same, stamps)
    }

    /// Gives running nodes the users as they are now. Returns their number if they have changed. Blocks for disks.
    ///
    /// # Errors
    /// One line: passwd, group or shadow cannot be read, or the store fails. Nodes keep their users.
    pub fn hold_users(&self) -> Result<Option<usize>, String> {
        let policy = self.world.load().site.users.clone();
        let stamps = policy.as_ref().map(Stamps::of);
        let (users, count) = match &policy {
            None => (NodeUsers::default(), 0),
            Some(policy) => {
                let accounts = self.users.read(policy)?;
                (self.for_nodes(&accounts)?, accounts.users.len())
            }
        };
        let body = serde_json::to_vec(&users).map_err(|e| format!("writing users as JSON: {e}"))?;
        let fresh = Arc::new(Held {
            digest: users.digest,
            body: body.into(),
            users: count,
        });
        let mut held = lock(&self.known.held);
        let before = held.replace((policy, stamps, fresh.clone()));
        let same = before.is_some_and(|(_, _, before)| before.digest == fresh.digest);
        Ok((!same).then_some(fresh.users))
    }

    fn for_nodes(&self, accounts: &Accounts) -> Result<NodeUsers, String> {
        let key = self.store.cluster_key(DIGEST_KEY);
        Ok(accounts.for_nodes(&key.map_err(|e| format!("cluster key: {e}"))?))
    }

    /// Records the users that a node was given with its boot; `live` if its agent accepts changes while the node runs.
    pub(super) fn users_given(&self, boot: &Boot, digest: Option<String>, live: bool) {
        let given = Given {
            boot: boot.plan.id.clone(),
            digest,
            live,
        };
        self.keep(&boot.plan.node, given);
    }

    /// Whether the node's passwd or group comes from a tree of the site, so that it gets no changes of users while it runs.
    pub fn has_own_users(&self, boot: &Boot) -> bool {
        let given = self.given(&boot.plan.node).ok().flatten();
        given.is_some_and(|given| given.boot == boot.plan.id && given.digest.is_none())
    }

    /// Records the users that the node in that boot reports.
    pub fn users_told(&self, boot: &Boot, digest: &str) {
        let told = Given {
            boot: boot.plan.id.clone(),
            digest: Some(cut(digest, 64).to_owned()),
            live: true,
        };
        self.keep(&boot.plan.node, told);
    }

    fn keep(&self, node: &str, given: Given) {
        let mut known = lock(&self.known.given);
        if known.get(node) == Some(&given) {
            return;
        }
        // If this write is lost, the node reports its users again, or counts as a node with old users.
        self.store
            .queue(Batch::new().put(Table::Secrets, secret_key(node, GIVEN_USERS), &given));
        let inventory = self.world.load().inventory.clone();
        if known.len() > 2 * inventory.iter().count() + 16 {
            known.clear();
        }
        known.insert(node.to_owned(), given);
    }

    /// The server's users as nodes get them, with conflicts in the images of `running` and of the profiles, and which nodes
    /// of `running` (node, boot and its image) have them. None without `[users]`. Blocks for disks.
    ///
    /// # Errors
    /// One line: passwd or group cannot be read, or the store fails.
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
        let images: BTreeMap<String, &ImageVersion> = named
            .chain(held)
            .flat_map(|version| version.variants())
            .map(|variant| (variant.export_name(), variant))
            .collect();
        let mut conflicts = Vec::new();
        for (name, version) in images {
            let root = RootDir::open(&version.dir.join("root")).map_err(|e| format!("the root of {name}: {e}"));
            match root.and_then(|root| self.users_of(policy, &root)) {
                Ok(merged) => conflicts.extend(merged.conflicts.into_iter().map(|one| format!("{name}: {one}"))),
                Err(problem) => conflicts.push(format!("{name}: {problem}")),
            }
        }
        let digest = self.for_nodes(&accounts)?.digest;
        let mut report = UsersReport {
            from: policy.from.clone(),
            accounts: Accounts::clone(&accounts),
            conflicts,
            current: Vec::new(),
            behind: Vec::new(),
            stale: Vec::new(),
            own: Vec::new(),
        };
        for (node, boot, _) in running {
            let list = match self.given(node)?.filter(|given| given.boot == *boot) {
                Some(Given { digest: None, .. }) => &mut report.own,
                Some(given) if given.digest.as_deref() == Some(&digest) => &mut report.current,
                Some(given) if given.live => &mut report.behind,
                _ => &mut report.stale,
            };
            list.push(node.clone());
        }
        Ok(Some(report))
    }

    fn given(&self, node: &str) -> Result<Option<Given>, String> {
        let known = lock(&self.known.given);
        if let Some(given) = known.get(node) {
            return Ok(Some(given.clone()));
        }
        drop(known);
        let given = self.store.get(Table::Secrets, &secret_key(node, GIVEN_USERS));
        given.map_err(|e| format!("the users of {node}: {e}"))
    }

    /// passwd, group and shadow of a node with the image `root`.
    pub(super) fn users_of(&self, policy: &Users, root: &RootDir) -> Result<Merge, String> {
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
        let own = EtcFiles { passwd, group, shadow };
        let mut merged = merge(&own, &accounts.users, &accounts.groups);
        let lacking = lacking(&merged, &accounts.users, |path| root.exists(path));
        merged.conflicts.extend(lacking);
        let files = [
            (Some(merged.files.passwd), Some(passwd_file)),
            (Some(merged.files.group), Some(group_file)),
            (merged.files.shadow, shadow_file),
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
        Ok(Merge {
            files: files.collect(),
            given: GivenUsers {
                digest: self.for_nodes(&accounts)?.digest,
                added: merged.added,
            },
            conflicts: merged.conflicts,
        })
    }
}
