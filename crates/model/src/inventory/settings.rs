//! A node's settings: what its profiles say, and which of them said it.

use rackstrap_site::{Profile, SETTINGS, Site};
use serde::{Deserialize, Serialize};

/// The tree that makes a node of an image. It comes first, unless a profile puts it elsewhere.
const BASE_TREE: &str = "base";

/// The profiles of a node, the one that wins first and `default` last.
pub struct Settings<'a>(Vec<(&'a str, &'a Profile)>);

/// One setting, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Key in the site file.
    pub key: String,
    /// Value, as text.
    pub value: String,
    /// Profile that it is from.
    pub profile: String,
}

impl<'a> Settings<'a> {
    /// Of a node with these profiles. One that has left the site file is passed over; `missing` is told of it.
    pub fn of(site: &'a Site, profiles: &[String], mut missing: impl FnMut(&str)) -> Self {
        let mut chain: Vec<(&str, &Profile)> = Vec::new();
        let all = profiles.iter().rev().map(String::as_str);
        for name in all.filter(|name| *name != "default").chain(["default"]) {
            match site.profiles.get_key_value(name) {
                Some((name, profile)) => chain.push((name, profile)),
                None => missing(name),
            }
        }
        Settings(chain)
    }

    /// What the profile that wins says, among those that say something.
    pub fn get<T: ?Sized>(&self, field: impl Fn(&'a Profile) -> Option<&'a T>) -> Option<&'a T> {
        self.0.iter().find_map(|(_, profile)| field(profile))
    }

    /// The same of a text.
    pub fn text(&self, field: impl Fn(&'a Profile) -> &'a Option<String>) -> Option<&'a str> {
        self.get(|profile| field(profile).as_deref())
    }

    /// Trees of the node's own files, in order: the base tree, without which a node has no name and is never ready, and the profile's.
    pub fn templates(&self) -> Vec<String> {
        let named = self
            .get(|profile| profile.templates.as_ref())
            .cloned()
            .unwrap_or_default();
        let base = (!named.iter().any(|name| name == BASE_TREE)).then(|| BASE_TREE.to_owned());
        base.into_iter().chain(named).collect()
    }

    /// Every setting that some profile says something about, in the order of the documentation.
    pub fn all(&self) -> Vec<Setting> {
        let said = SETTINGS.iter().filter_map(|setting| {
            let (profile, value) =
                (self.0.iter()).find_map(|(name, profile)| Some((name, (setting.shown)(profile)?)))?;
            Some(Setting {
                key: setting.key.to_owned(),
                value,
                profile: (*profile).to_owned(),
            })
        });
        said.collect()
    }
}
