//! Orders for one boot of a node: what its next boot does instead of the usual one, and the life of such an order (pure).
//!
//! An order waits until a loader of the node asks for its script. From then on it is in use: what belongs to the same boot gets it
//! again, and the next boot does not. See [`BootOrder::at_script`] for what ends it.

use rackstrap_base::{bootname::ScriptLanguage, clock::Timestamp};
use rackstrap_wire::ImageRef;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The longest time that an order stays in use, in seconds. It is the time for which a boot window stays open: after it a boot
/// that has not begun its system is not the boot of the order any more.
pub const IN_USE_SECS: u64 = 1800;

/// What runs as init in `rescue` and `shell`, with [`RESCUE`] as its argument: agents look for init in the image before they fetch the node's
/// own files.
pub const RESCUE_INIT: &str = "/bin/sh";
/// The script that [`RESCUE_INIT`] runs. The daemon sends it with the node's own files.
pub const RESCUE: &str = "/usr/lib/rackstrap/rescue";

/// Longest name of a boot script of the site, in bytes.
const LONGEST_SCRIPT: usize = 64;

/// What a node does in one boot instead of its usual boot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum OnceBoot {
    /// A shell in RAM on the console and by ssh. No disk is touched.
    Rescue,
    /// A shell in RAM on the console. No disk is touched.
    Shell,
    /// The system on the node's own disk.
    Local,
    /// memtest86+.
    Memtest,
    /// A boot script of the site, by its name in `bootscripts-dir`.
    Script(String),
    /// Another image version.
    Image(ImageRef),
}

/// A text that names no [`OnceBoot`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is nothing that a node can boot once; write rescue, shell, local, memtest, script:FILE or image=NAME@VERSION"
)]
pub struct NotOnce(String);

impl OnceBoot {
    /// Whether an agent boots the node, so that the node reports how far it comes.
    pub fn has_agent(&self) -> bool {
        matches!(self, OnceBoot::Rescue | OnceBoot::Shell | OnceBoot::Image(_))
    }

    /// Whether it is a shell in RAM.
    pub fn is_shell(&self) -> bool {
        matches!(self, OnceBoot::Rescue | OnceBoot::Shell)
    }

    /// The kernel arguments of a boot by this order, from the usual ones: words after `--` are arguments of init.
    pub fn kernel_args(&self, usual: &str) -> String {
        if !self.is_shell() {
            return usual.to_owned();
        }
        let (mut at, mut kernel) = (0, usual.trim_end());
        for word in usual.split(' ') {
            if word == "--" {
                kernel = usual[..at].trim_end();
                break;
            }
            at += word.len() + 1;
        }
        format!("{kernel} -- {RESCUE}").trim_start().to_owned()
    }

    /// What the node does, for people: `boots debian@2`.
    pub fn describe(&self) -> String {
        match self {
            OnceBoot::Rescue => "starts a rescue shell on its console and by ssh".to_owned(),
            OnceBoot::Shell => "starts a shell on its console".to_owned(),
            OnceBoot::Local => "boots from its own disk".to_owned(),
            OnceBoot::Memtest => "tests its memory with memtest86+".to_owned(),
            OnceBoot::Script(file) => format!("runs the boot script {file}"),
            OnceBoot::Image(image) => format!("boots {image}"),
        }
    }

    /// Why a loader with that language cannot carry out the order; none if it can. `locked` is whether it starts signed programs only.
    pub fn refused_by(&self, language: ScriptLanguage, locked: bool) -> Option<String> {
        let loader = language.loader();
        match (self, language) {
            (OnceBoot::Memtest, _) if locked => Some(format!(
                "{self}: Secure Boot is on, and memtest86+ is not signed; turn Secure Boot off in the firmware's setup first"
            )),
            (OnceBoot::Local | OnceBoot::Memtest | OnceBoot::Script(_), ScriptLanguage::RaspberryPi) => Some(format!(
                "{self}: the firmware of a Raspberry Pi reads no script, so that it cannot be told to do this"
            )),
            (OnceBoot::Script(file), _) if script_language(file) != Some(language) => Some(format!(
                "{self}: {loader} reads files that end with .{}.j2",
                language.suffix()
            )),
            _ => None,
        }
    }
}

/// The language of a boot script of the site, by the end of its name: none if it is no name of a script.
fn script_language(file: &str) -> Option<ScriptLanguage> {
    let languages = [ScriptLanguage::Ipxe, ScriptLanguage::Grub, ScriptLanguage::Pxelinux];
    languages.into_iter().find(|language| {
        file.strip_suffix(".j2")
            .is_some_and(|file| file.ends_with(&format!(".{}", language.suffix())))
    })
}

impl fmt::Display for OnceBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnceBoot::Rescue => f.write_str("rescue"),
            OnceBoot::Shell => f.write_str("shell"),
            OnceBoot::Local => f.write_str("local"),
            OnceBoot::Memtest => f.write_str("memtest"),
            OnceBoot::Script(file) => write!(f, "script:{file}"),
            OnceBoot::Image(image) => write!(f, "image={image}"),
        }
    }
}

impl FromStr for OnceBoot {
    type Err = NotOnce;

    fn from_str(text: &str) -> Result<Self, NotOnce> {
        let unknown = || NotOnce(rackstrap_base::text::one_line(text, 80));
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        Ok(match text {
            "rescue" => OnceBoot::Rescue,
            "shell" => OnceBoot::Shell,
            "local" => OnceBoot::Local,
            "memtest" => OnceBoot::Memtest,
            _ => match (text.strip_prefix("script:"), text.strip_prefix("image=")) {
                // The name is looked up among the scripts that were read, and is no path.
                (Some(file), _)
                    if file.len() <= LONGEST_SCRIPT
                        && file.bytes().all(plain)
                        && !file.starts_with('.')
                        && script_language(file).is_some() =>
                {
                    OnceBoot::Script(file.to_owned())
                }
                (_, Some(image)) => OnceBoot::Image(image.parse().map_err(|_| unknown())?),
                _ => return Err(unknown()),
            },
        })
    }
}

impl TryFrom<String> for OnceBoot {
    type Error = NotOnce;

    fn try_from(text: String) -> Result<Self, NotOnce> {
        text.parse()
    }
}

impl From<OnceBoot> for String {
    fn from(what: OnceBoot) -> String {
        what.to_string()
    }
}

/// An order for the next boot of one node, as the store has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootOrder {
    /// Distinguishes this order from all others. A boot that carries it out names its id.
    pub id: u64,
    /// What the boot does.
    pub what: OnceBoot,
    /// The user who gave the order.
    pub by: String,
    /// When the order was given.
    pub at: Timestamp,
    /// When the first script with the order was sent; none while the order waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Timestamp>,
}

/// The order that a boot carries out, in the pinned boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The id of the order.
    pub id: u64,
    /// What the boot does.
    pub what: OnceBoot,
    /// The user who gave the order.
    pub by: String,
}

/// What becomes of an order when a loader asks for its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtScript {
    /// The boot carries the order out, as the first one.
    Begins,
    /// The loader tries the boot of the order again.
    Again,
    /// The boot of the order is over: the node boots as usual.
    Over,
}

impl BootOrder {
    /// A new order. No other order has its `id`.
    pub fn new(id: u64, what: OnceBoot, by: &str, at: Timestamp) -> BootOrder {
        BootOrder {
            id,
            what,
            by: by.to_owned(),
            at,
            used: None,
        }
    }

    /// The order as a boot carries it out.
    pub fn once(&self) -> Once {
        Once {
            id: self.id,
            what: self.what.clone(),
            by: self.by.clone(),
        }
    }

    /// What becomes of the order when a loader of the node asks for its script at `now`. `failed` is whether the loader says that it
    /// could not carry out the script before.
    ///
    /// An order in use ends half an hour after its first script. Before that, what ends it depends on who reports: an agent reports when
    /// it has the node's files, so that each script before that report is a further attempt of the same boot. Without an agent the loader is
    /// the last one to report: if it does not say that it failed, it asks in a later boot.
    pub fn at_script(&self, failed: bool, now: Timestamp) -> AtScript {
        match self.used {
            None => AtScript::Begins,
            Some(used) if !now.is_within(IN_USE_SECS * 1000, used) => AtScript::Over,
            Some(_) if self.what.has_agent() || failed => AtScript::Again,
            Some(_) => AtScript::Over,
        }
    }

    /// Whether a boot that carried out `once` ends this order when its agent has the node's files.
    pub fn is_ended_by(&self, once: Option<&Once>) -> bool {
        once.is_some_and(|once| once.id == self.id)
    }

    /// `rescue, by root: at its next boot` or `rescue, by root: in use`.
    pub fn describe(&self) -> String {
        let when = match self.used {
            None => "at its next boot",
            Some(_) => "in use",
        };
        format!("{}, by {}: {when}", self.what, self.by)
    }
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
