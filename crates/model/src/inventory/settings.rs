//! A node's settings: the values of its profiles, and which profile each comes from.

use rackstrap_site::{Profile, SETTINGS, Site};
use serde::{Deserialize, Serialize};

/// The tree that makes a node of an image. It comes first, unless a profile places it elsewhere.
const BASE_TREE: &str = "base";

/// The profiles of a node: the one that wins is first, `default` is last.
pub struct Settings<'a>(Vec<(&'a str, &'a Profile)>);

/// One setting, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Key in the site file.
    pub key: String,
    /// Value, as text.
    pub value: String,
    /// The profile that the value comes from.
    pub profile: String,
}

impl<'a> Settings<'a> {
    /// The settings of a node with these profiles. Profiles that are not in the site file are ignored, and passed to
    /// `missing`.
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

    /// The value of the first profile that has one.
    pub fn get<T: ?Sized>(&self, field: impl Fn(&'a Profile) -> Option<&'a T>) -> Option<&'a T> {
        self.0.iter().find_map(|(_, profile)| field(profile))
    }

    /// The same for a text.
    pub fn text(&self, field: impl Fn(&'a Profile) -> &'a Option<String>) -> Option<&'a str> {
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

    /// All settings that a profile has, in the order of the documentation.
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
