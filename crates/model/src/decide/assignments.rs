//! Which version each node is given, as decisions read it: the current version of each image, and the exceptions for single
//! nodes.

use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::{Catalog, import_command};
use rackstrap_wire::{HwAddr, ImageRef};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// How many earlier current versions are remembered for `image rollback`.
const REMEMBERED: usize = 16;

/// The version that all nodes of an image boot, unless a profile or the node itself pins one, or a rollout gives another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The version.
    pub image: ImageRef,
    /// Numbers of the versions that were current before, the most recent one last.
    #[serde(default)]
    pub before: Vec<u32>,
    /// Since when the version is current.
    pub since: Timestamp,
    /// The user who made it current.
    pub by: String,
}

impl Current {
    /// The first current version of an image.
    pub fn first(image: ImageRef, by: &str, now: Timestamp) -> Current {
        Current {
            image,
            before: Vec::new(),
            since: now,
            by: by.to_owned(),
        }
    }

    /// Makes `version` current.
    pub fn promoted(&self, version: u32, by: &str, now: Timestamp) -> Current {
        let mut before = self.before.clone();
        before.push(self.image.version);
        before.drain(..before.len().saturating_sub(REMEMBERED));
        Current {
            image: self.version(version),
            before,
            since: now,
            by: by.to_owned(),
        }
    }

    /// The most recent earlier version for which `there` is true; none if there is no such version.
    pub fn rolled_back(&self, there: impl Fn(&ImageRef) -> bool, by: &str, now: Timestamp) -> Option<Current> {
        let usable = |version: &u32| *version != self.image.version && there(&self.version(*version));
        let place = self.before.iter().rposition(usable)?;
        Some(Current {
            image: self.version(self.before[place]),
            before: self.before[..place].to_vec(),
            since: now,
            by: by.to_owned(),
        })
    }

    fn version(&self, version: u32) -> ImageRef {
        ImageRef {
            name: self.image.name.clone(),
            version,
        }
    }
}

/// An image that is being renamed. The directory is renamed between the first and the last step. If the command is killed in
/// between, one row is left of an image that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renaming {
    /// The name before.
    pub old: String,
    /// The new name.
    pub new: String,
    /// The current step.
    pub step: RenameStep,
}

/// The steps of renaming an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenameStep {
    /// Before the directory is renamed: the same version is current under both names.
    Begin,
    /// The directory was renamed: the row of the old name is deleted.
    Done,
    /// The directory was not renamed: the row of the new name is deleted.
    Failed,
}

/// The boots of one node into a version on which it was not ready yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The version.
    pub image: ImageRef,
    /// The last version on which the node was ready.
    #[serde(rename = "good")]
    pub last_known_good: ImageRef,
    /// Boots that took the version's kernel.
    pub boots: u32,
    /// Id of the last of these boots.
    pub last: String,
    /// Since when the trial runs.
    pub since: Timestamp,
    /// Why no further boots are needed: failed checks, as the node reported them. Empty if further boots may help.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// When the node rolled back; none if it did not.
    #[serde(rename = "back", default, skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<Timestamp>,
    /// The card that took the kernel last. With another card the trial starts again, because the hardware may differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hwaddr: Option<HwAddr>,
}

impl Trial {
    /// A trial before its first boot.
    pub fn begin(image: &ImageRef, last_known_good: &ImageRef, now: Timestamp) -> Trial {
        Trial {
            image: image.clone(),
            last_known_good: last_known_good.clone(),
            boots: 0,
            last: String::new(),
            since: now,
            problem: String::new(),
            rolled_back: None,
            hwaddr: None,
        }
    }

    /// Whether the trial failed: after as many boots as the site allows (0: no limit), or because of a problem.
    pub fn is_over(&self, limit: u32) -> bool {
        !self.problem.is_empty() || (limit > 0 && self.boots >= limit)
    }

    /// Why the node rolls back: `debian@4 did not get ready in 3 boots`.
    pub fn verdict(&self) -> String {
        match (self.problem.is_empty(), self.boots) {
            (false, _) => format!("{} failed: {}", self.image, self.problem),
            (true, 1) => format!("{} did not get ready in a boot", self.image),
            (true, boots) => format!("{} did not get ready in {boots} boots", self.image),
        }
    }
}

/// A rollout's versions for its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The version. A rollout that gives nothing has none.
    pub version: u32,
    /// The stage of the rollout, for people: `canary`, `promoting`.
    pub stage: String,
    /// The nodes that get the version.
    pub nodes: HashSet<String>,
}

/// All assignments of versions; immutable and cheap to clone. A change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Assignments {
    /// Current versions, by image name.
    pub current: Arc<BTreeMap<String, Current>>,
    /// What active rollouts give, by image name.
    pub given: Arc<BTreeMap<String, Given>>,
    /// Trials, by node.
    pub trials: Arc<HashMap<String, Trial>>,
    /// Rollouts that restart their nodes, active or ended, by image name.
    pub restarting: Arc<BTreeMap<String, Restarting>>,
}

/// A rollout that restarts its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarting {
    /// Its version.
    pub version: u32,
    /// Whether its nodes go back to the current version.
    pub taken_back: bool,
}

/// What determines the version of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The node itself or its profile pins it.
    Profile,
    /// A rollout gives it.
    Rollout,
    /// It is the current version.
    Current,
    /// It is the newest version, because none is current yet.
    Newest,
}

/// The version that a node boots, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The version that it boots.
    pub image: ImageRef,
    /// The version that it is assigned. Different from `image` if the node has rolled back.
    pub wanted: ImageRef,
    /// What determined `wanted`.
    pub source: Source,
    /// The explanation, for people.
    pub why: String,
}

impl Assignments {
    /// The version for `node`, which has the image setting `setting`: a name, or a pinned version. `limit` is the
    /// number of failed boots after which a node rolls back to its last known good version.
    ///
    /// # Errors
    /// The version does not exist; the text says what to do.
    pub fn choose(&self, node: &str, setting: &str, images: &Catalog, limit: u32) -> Result<Choice, String> {
        let choice = self.wanted(node, setting, images)?;
        let trial = self.trials.get(node).filter(|trial| trial.image == choice.wanted);
        let Some(trial) = trial.filter(|trial| trial.is_over(limit) && images.get(&trial.last_known_good).is_some())
        else {
            return Ok(choice);
        };
        Ok(Choice {
            why: format!(
                "image {}: rolled back because {} (wanted: {}); to try it again: rackstrap rollout retry {node}",
                trial.last_known_good,
                trial.verdict(),
                choice.why
            ),
            image: trial.last_known_good.clone(),
            ..choice
        })
    }

    /// The image whose rollout makes `node` leave `running` now, for another version. `limit` is that of
    /// [`Assignments::choose`].
    pub fn leaves(
        &self,
        node: &str,
        setting: &str,
        running: &ImageRef,
        images: &Catalog,
        limit: u32,
    ) -> Option<String> {
        let choice = self.choose(node, setting, images, limit).ok()?;
        let restarting = self.restarting.get(&choice.wanted.name)?;
        let image = ImageRef {
            name: choice.wanted.name.clone(),
            version: restarting.version,
        };
        // An active rollout restarts its nodes that do not run its version or have to leave it; an ended one restarts those
        // that run it.
        let concerned = match restarting.taken_back {
            true => *running == image,
            false => choice.wanted == image,
        };
        (concerned && choice.image != *running).then_some(image.name)
    }

    /// The version that `node` is assigned, whether or not it has rolled back from it.
    ///
    /// # Errors
    /// The version does not exist; the text says what to do.
    pub fn wanted(&self, node: &str, setting: &str, images: &Catalog) -> Result<Choice, String> {
        let choice = |image: ImageRef, source, why: String| Choice {
            image: image.clone(),
            wanted: image,
            source,
            why,
        };
        if let Ok(pinned) = setting.parse::<ImageRef>() {
            return match images.get(&pinned) {
                Some(_) => {
                    let why = format!("image {pinned}, pinned by its settings");
                    Ok(choice(pinned, Source::Profile, why))
                }
                None => Err(format!(
                    "image {pinned}, which its settings pin, does not exist; see: rackstrap image list"
                )),
            };
        }
        let version = |version| ImageRef {
            name: setting.to_owned(),
            version,
        };
        let given = self.given.get(setting).filter(|given| given.nodes.contains(node));
        if let Some(given) = given {
            let image = version(given.version);
            // If an administrator deleted the version's directory by hand, the node still boots the current one.
            if images.get(&image).is_some() {
                let why = format!("image {image}, by the rollout of {image} ({})", given.stage);
                return Ok(choice(image, Source::Rollout, why));
            }
        }
        match (self.current.get(setting), images.newest(setting)) {
            (_, None) => Err(format!(
                "image {setting} has no version yet; make one with: {}",
                import_command(setting)
            )),
            (Some(current), Some(newest)) => match images.get(&current.image) {
                Some(_) => {
                    let why = format!("image {}, the current version of {setting}", current.image);
                    Ok(choice(current.image.clone(), Source::Current, why))
                }
                None => Err(format!(
                    "image {}, the current version of {setting}, no longer exists; to make another one current: rackstrap \
                     image promote {}",
                    current.image, newest.manifest.image
                )),
            },
            (None, Some(newest)) => {
                let image = newest.manifest.image.clone();
                let why = format!("image {image}, the newest version, as none is current yet");
                Ok(choice(image, Source::Newest, why))
            }
        }
    }
}
