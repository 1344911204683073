//! A node's settings: its own values and those of its profiles, and where each comes from (pure).

use super::Node;
use rackstrap_site::{
    BMC_ADDRESS, BMC_PASSWORD_FILE, BMC_USER, Descriptor, HIDDEN, IPADDR, NETWORK_FIRST, NodeSettings, Profile,
    SETTINGS, Site, kernel_args,
    value::{Value, to_toml},
    vars::{Readable, Vars, expand, has_variables},
};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::Ipv4Addr,
};

/// The tree that makes a node of an image. It comes first, unless a profile places it elsewhere.
const BASE_TREE: &str = "base";

/// The sections with a node's settings: the one that wins is first, `default` is last.
pub struct Settings<'a> {
    chain: Vec<(Origin, Cow<'a, Profile>)>,
    /// The node's own settings, from which the first of `chain` is made; none if it has none.
    own: Option<&'a NodeSettings>,
    /// The node's own address, and the one that its name stands for, if it stands for another one.
    address: Option<(Ipv4Addr, Option<Ipv4Addr>)>,
    /// The variables of `[cluster.vars]`, below all others.
    cluster: &'a Vars,
}

/// Where a value is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// At the node itself.
    Node,
    /// In a profile of the site file.
    Profile(String),
    /// In `[cluster]` of the site file.
    Cluster,
    /// By the node's name, for its address.
    Name,
}

impl fmt::Display for Origin {
    /// `node`, `profile gpu`, `default`, `cluster`, `its name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Node => f.write_str("node"),
            Origin::Profile(name) if name == "default" => f.write_str("default"),
            Origin::Profile(name) => write!(f, "profile {name}"),
            Origin::Cluster => f.write_str("cluster"),
            Origin::Name => f.write_str("its name"),
        }
    }
}

/// One setting, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Key in the site file.
    pub key: String,
    /// Value, as text.
    pub value: String,
    /// Where the value comes from, without what the node adds.
    pub from: Origin,
    /// What the node itself adds to it; included in `value`.
    pub added: Option<String>,
    /// The values that this one wins over, the strongest first.
    pub hides: Vec<Hidden>,
}

/// A value that another one wins over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hidden {
    /// Where it is written.
    pub from: Origin,
    /// The value, as text.
    pub value: String,
}

impl<'a> Settings<'a> {
    /// The settings of a node with these profiles and none of its own. Profiles that are not in the site file are ignored, and
    /// passed to `missing`.
    pub fn of(site: &'a Site, profiles: &[String], mut missing: impl FnMut(&str)) -> Self {
        let mut chain = Vec::new();
        let all = profiles.iter().rev().map(String::as_str);
        for name in all.filter(|name| *name != "default").chain(["default"]) {
            match site.profiles.get(name) {
                Some(profile) => chain.push((Origin::Profile(name.to_owned()), Cow::Borrowed(profile))),
                None => missing(name),
            }
        }
        Settings {
            chain,
            own: None,
            address: None,
            cluster: &site.cluster.vars,
        }
    }

    /// The settings of a node: its own, and those of its profiles as [`Settings::of`] has them.
    pub fn of_node(site: &'a Site, node: &'a Node, missing: impl FnMut(&str)) -> Self {
        let mut settings = Settings::of(site, &node.profiles, missing);
        if node.settings.is_empty() {
            return settings;
        }
        let of_name = site.cluster.naming.name_to_address(&node.name).ok();
        let own = node.settings.ipaddr();
        settings.address = own.map(|own| (own, of_name.filter(|of_name| *of_name != own)));
        let added = node.settings.added();
        let mut own = Cow::Borrowed(node.settings.set());
        for Descriptor { shown, add, .. } in &SETTINGS {
            let Some(add) = add.filter(|_| shown(added).is_some()) else {
                continue;
            };
            if shown(&own).is_none()
                && let Some((_, base)) = settings.chain.iter().find(|(_, profile)| shown(profile).is_some())
            {
                add(own.to_mut(), base);
            }
            add(own.to_mut(), added);
        }
        settings.chain.insert(0, (Origin::Node, own));
        settings.own = Some(&node.settings);
        settings
    }

    /// The value of the first section that has one.
    pub fn get<'s, T: ?Sized>(&'s self, field: impl Fn(&'s Profile) -> Option<&'s T>) -> Option<&'s T> {
        self.chain.iter().find_map(|(_, profile)| field(profile))
    }

    /// The same for a text.
    pub fn text<'s>(&'s self, field: impl Fn(&'s Profile) -> &'s Option<String>) -> Option<&'s str> {
        self.get(|profile| field(profile).as_deref())
    }

    /// Trees of the node's own files, in order: the base tree, without which a node has no name and is never ready, and those
    /// of its profiles.
    pub fn templates(&self) -> Vec<String> {
        let named = self
            .get(|profile| profile.templates.as_ref())
            .cloned()
            .unwrap_or_default();
        let base = (!named.iter().any(|name| name == BASE_TREE)).then(|| BASE_TREE.to_owned());
        base.into_iter().chain(named).collect()
    }

    /// Whether the node's UEFI firmware is to try the network before all else.
    pub fn network_first(&self) -> bool {
        self.text(|profile| &profile.firmware) == Some(NETWORK_FIRST)
    }

    /// The kernel arguments, with the values of their variables. Without a setting they are an empty text.
    ///
    /// # Errors
    /// A variable is not defined, or has a value that cannot be in kernel arguments.
    pub fn kernel_args(&self) -> Result<String, String> {
        let text = self.text(|p| &p.kernel_args).unwrap_or_default();
        if !has_variables(text) {
            return Ok(text.to_owned());
        }
        let expanded = expand(text, |name| self.variable(name))?;
        match kernel_args::check(&expanded) {
            Ok(()) => Ok(expanded),
            Err((message, help)) => Err(format!("{message}; {help}")),
        }
    }

    /// Where the text of the kernel arguments is written, what the node adds before the rest. None without a setting.
    pub fn kernel_args_from(&self) -> Option<String> {
        let added = self
            .own
            .is_some_and(|own| own.added().kernel_args.as_deref().is_some_and(has_variables));
        let all = self.all();
        let setting = all.iter().find(|setting| setting.key == "kernel-args")?;
        Some(match (&setting.from, added) {
            (_, true) => Origin::Node.to_string(),
            (Origin::Profile(name), false) => format!("profile {name}"),
            (from, false) => from.to_string(),
        })
    }

    /// The variables of each section, the strongest first.
    fn sections(&self) -> impl DoubleEndedIterator<Item = (Origin, &Vars)> {
        let chain = self.chain.iter().map(|(from, profile)| (from.clone(), &profile.vars));
        chain.chain([(Origin::Cluster, self.cluster)])
    }

    /// A variable, as a text reads it that every user of a node can see.
    pub fn variable(&self, name: &str) -> Option<Readable<'_>> {
        self.sections().find_map(|(_, vars)| match vars.plain.get(name) {
            Some(value) => Some(Readable::Plain(value)),
            None => vars.secret.contains_key(name).then_some(Readable::Secret),
        })
    }

    /// All variables that are not secret, by name.
    pub fn plain_vars(&self) -> BTreeMap<&str, &Value> {
        let mut all = BTreeMap::new();
        for (_, vars) in self.sections().rev() {
            all.extend(vars.plain.iter().map(|(name, value)| (name.as_str(), value)));
            all.retain(|name, _| !vars.secret.contains_key(*name));
        }
        all
    }

    /// All variables by name. Instead of each secret value, `hidden`; none = the secret value.
    pub fn vars(&self, hidden: Option<&str>) -> BTreeMap<String, Value> {
        let mut all = BTreeMap::new();
        for (_, vars) in self.sections().rev() {
            all.extend(vars.plain.clone());
            let secret = vars.secret.iter();
            all.extend(secret.map(|(name, text)| (name.clone(), Value::from(hidden.unwrap_or(text)))));
        }
        all
    }

    /// The node's own address, all settings that the node or a profile has, in the order of the documentation, and then all variables. Secret values are
    /// hidden.
    pub fn all(&self) -> Vec<Setting> {
        let settings = SETTINGS.iter().filter_map(|setting| self.one(setting));
        let names: BTreeSet<&String> = (self
            .sections()
            .flat_map(|(_, vars)| vars.plain.keys().chain(vars.secret.keys())))
        .collect();
        let variables = names.into_iter().filter_map(|name| {
            let mut all: Vec<(bool, Hidden)> = (self.sections())
                .filter_map(|(from, vars)| {
                    let secret = vars.secret.contains_key(name);
                    let value = match secret {
                        true => HIDDEN.to_owned(),
                        false => to_toml(vars.plain.get(name)?),
                    };
                    Some((secret, Hidden { from, value }))
                })
                .collect();
            let (secret, Hidden { from, value }) = (!all.is_empty()).then(|| all.remove(0))?;
            Some(Setting {
                key: format!("{}.{name}", if secret { "vars-secret" } else { "vars" }),
                value,
                from,
                added: None,
                hides: all.into_iter().map(|(_, hidden)| hidden).collect(),
            })
        });
        let address = self.address.map(|(own, of_name)| Setting {
            key: IPADDR.to_owned(),
            value: own.to_string(),
            from: Origin::Node,
            added: None,
            hides: Vec::from_iter(of_name.map(|of_name| Hidden {
                from: Origin::Name,
                value: of_name.to_string(),
            })),
        });
        address.into_iter().chain(settings).chain(variables).collect()
    }

    /// Stands for all values: two nodes with the same settings have the same one, in every release that knows the same settings.
    pub fn digest(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher
                .update(&(text.len() as u64).to_le_bytes())
                .update(text.as_bytes());
        };
        // How a node is switched on changes nothing of what it boots.
        let boots = |setting: &Setting| ![BMC_ADDRESS, BMC_USER, BMC_PASSWORD_FILE].contains(&setting.key.as_str());
        for Setting { key, value, .. } in self.all().into_iter().filter(boots) {
            add(&key);
            add(&value);
        }
        // Secrets are hidden, and keys are shown by their number only.
        for (name, value) in self.vars(None) {
            add(&name);
            add(&to_toml(&value));
        }
        for key in self
            .get(|profile| profile.authorized_keys.as_ref())
            .into_iter()
            .flatten()
        {
            add(key);
        }
        let mut digest = [0; 8];
        hasher.finalize_xof().fill(&mut digest);
        u64::from_le_bytes(digest)
    }

    fn one(&self, setting: &Descriptor) -> Option<Setting> {
        let shown = setting.shown;
        let all = self
            .chain
            .iter()
            .filter_map(|(from, profile)| Some((from, shown(profile)?)));
        let mut all: Vec<Hidden> = all
            .map(|(from, value)| Hidden {
                from: from.clone(),
                value,
            })
            .collect();
        if all.is_empty() {
            return None;
        }
        let Hidden { mut from, value } = all.remove(0);
        let added = self.own.and_then(|own| shown(own.added()));
        // The node adds to the strongest of its profiles' values, which is not hidden then.
        let replaces = self.own.is_some_and(|own| shown(own.set()).is_some());
        if added.is_some() && !replaces && !all.is_empty() {
            from = all.remove(0).from;
        }
        Some(Setting {
            key: setting.key.to_owned(),
            value,
            from,
            added,
            hides: all,
        })
    }
}
