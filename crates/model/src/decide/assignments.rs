//! Which version each node is given, as decisions read it: what every image has now, and what is different for single nodes.

use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::{Catalog, import_command};
use rackstrap_wire::{HwAddr, ImageRef};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Versions that were current before, remembered for `image rollback`.
const REMEMBERED: usize = 16;

/// The version that all nodes of an image boot, unless a profile pins one or a rollout says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The version.
    pub image: ImageRef,
    /// Numbers of those that were current before it, the last one last.
    #[serde(default)]
    pub before: Vec<u32>,
    /// Since when.
    pub since: Timestamp,
    /// Who made it so.
    pub by: String,
}

impl Current {
    /// The first one of its image.
    pub fn first(image: ImageRef, by: &str, now: Timestamp) -> Current {
        Current {
            image,
            before: Vec::new(),
            since: now,
            by: by.to_owned(),
        }
    }

    /// `version` from now on.
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

    /// The newest of those before it of which `there` is true; none if there is no such.
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

/// An image that is given another name, which takes three steps: the directory is renamed between the first one and the
/// last one. Ended in between, there is a row too many, of an image that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renaming {
    /// Its name until now.
    pub old: String,
    /// Its name from now on.
    pub new: String,
    /// How far that is.
    pub step: RenameStep,
}

/// How far the renaming of an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RenameStep {
    /// About to be done: the same version is current under both names.
    Begin,
    /// Done: the old name is nobody's.
    Done,
    /// Not done: the new name is nobody's.
    Failed,
}

/// Boots of one node into a version on which it was not ready yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The version.
    pub image: ImageRef,
    /// The last version on which the node was ready.
    pub good: ImageRef,
    /// Boots that took the version's kernel.
    pub boots: u32,
    /// Id of the last of them.
    pub last: String,
    /// Since when.
    pub since: Timestamp,
    /// What makes further boots needless: checks that failed, in the words of the node. Empty if nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
    /// When the node went back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back: Option<Timestamp>,
    /// The hardware that took the kernel last: another one is another matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hwaddr: Option<HwAddr>,
}

impl Trial {
    /// Before its first boot.
    pub fn begin(image: &ImageRef, good: &ImageRef, now: Timestamp) -> Trial {
        Trial {
            image: image.clone(),
            good: good.clone(),
            boots: 0,
            last: String::new(),
            since: now,
            problem: String::new(),
            back: None,
            hwaddr: None,
        }
    }

    /// True after as many boots as the site allows (0: any number), or if there is a problem.
    pub fn is_over(&self, limit: u32) -> bool {
        !self.problem.is_empty() || (limit > 0 && self.boots >= limit)
    }

    /// Why the node goes back: `debian@4 did not get ready in 3 boots`.
    pub fn verdict(&self) -> String {
        match (self.problem.is_empty(), self.boots) {
            (false, _) => format!("{} failed: {}", self.image, self.problem),
            (true, 1) => format!("{} did not get ready in a boot", self.image),
            (true, boots) => format!("{} did not get ready in {boots} boots", self.image),
        }
    }
}

/// What a rollout gives to its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// The version; none of a rollout that gives nothing.
    pub version: u32,
    /// How far the rollout is, for people: `canary`, `promoting`.
    pub stage: String,
    /// To whom.
    pub nodes: HashSet<String>,
}

/// Everything that decides about versions; immutable and cheap to clone, a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Assignments {
    /// By image name.
    pub current: Arc<BTreeMap<String, Current>>,
    /// Rollouts that are on, by image name.
    pub given: Arc<BTreeMap<String, Given>>,
    /// By node.
    pub trials: Arc<HashMap<String, Trial>>,
    /// Rollouts that have nodes restarted, on or over, by image name.
    pub restarting: Arc<BTreeMap<String, Restarting>>,
}

/// A rollout that has nodes restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restarting {
    /// Its version.
    pub version: u32,
    /// True if its nodes go back.
    pub taken_back: bool,
}

/// Who says which version a node is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Its profile.
    Profile,
    /// A rollout.
    Rollout,
    /// It is current.
    Current,
    /// Nobody yet: it is the newest one.
    Newest,
}

/// The version that a node boots, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What it boots.
    pub image: ImageRef,
    /// What it is to have. Different from `image` if the node has gone back.
    pub wanted: ImageRef,
    /// Who says so.
    pub source: Source,
    /// For people.
    pub why: String,
}

impl Assignments {
    /// The version for `node`, whose profiles say `setting`: a name, or a version. `limit` is the number of boots after which a
    /// node goes back to the last version on which it was ready.
    ///
    /// # Errors
    /// There is no such version, and what to do.
    pub fn choose(&self, node: &str, setting: &str, images: &Catalog, limit: u32) -> Result<Choice, String> {
        let choice = self.wanted(node, setting, images)?;
        let trial = self.trials.get(node).filter(|trial| trial.image == choice.wanted);
        let Some(trial) = trial.filter(|trial| trial.is_over(limit) && images.get(&trial.good).is_some()) else {
            return Ok(choice);
        };
        Ok(Choice {
            why: format!(
                "image {}: rolled back because {} (wanted: {}); to try it again: rackstrap rollout retry {node}",
                trial.good,
                trial.verdict(),
                choice.why
            ),
            image: trial.good.clone(),
            ..choice
        })
    }

    /// The image whose rollout has `node` leave `running` at once, for another version. `limit` as for [`Assignments::choose`].
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
        // Of a rollout: its nodes that do not run its version, or have to leave it. Of one that was ended: those that run it.
        let concerned = match restarting.taken_back {
            true => *running == image,
            false => choice.wanted == image,
        };
        (concerned && choice.image != *running).then_some(image.name)
    }

    /// The version that `node` is to have, however it fares on it.
    ///
    /// # Errors
    /// There is no such version, and what to do.
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
                    let why = format!("image {pinned}, pinned by the profile");
                    Ok(choice(pinned, Source::Profile, why))
                }
                None => Err(format!(
                    "image {pinned}, which its profile pins, does not exist; see: rackstrap image list"
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
            // A version that somebody took away by hand is no reason to have nothing at all.
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
