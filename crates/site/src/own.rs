//! Settings of one node, which win over those of its profiles.
//!
//! They have the keys, the values and the messages of `[profile.NAME]`, because the same table reads them
//! ([`SETTINGS`](super::SETTINGS)). `KEY+` adds its value to what the node's profiles have, also after the profiles have changed.

use super::{
    Profile, Site,
    diagnostic::{Report, one_line, shown},
    kernel_args::words,
    layouts::Known,
    profile::{Descriptor, Form, KEYS, SETTINGS, add_texts, setting, values},
    section::Section,
    value::{self, Value, to_toml},
    vars::{self, Vars},
};
use rackstrap_base::words::closest;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Shown instead of the value of a secret variable.
pub const HIDDEN: &str = "(hidden)";

/// The settings of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Value>", into = "BTreeMap<String, Value>")]
pub struct NodeSettings {
    written: BTreeMap<String, Value>,
    /// The values that were read: those that replace, and those that add.
    read: Arc<(Profile, Profile)>,
}

/// The key of a node's own address, which no profile has.
pub const IPADDR: &str = "ipaddr";
/// Prefix of the key of a variable.
const VAR: &str = "vars.";
/// Prefix of the key of a secret variable.
const SECRET: &str = "vars-secret.";

/// Why a setting of a node is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingProblem {
    /// The key, with `+` if it adds.
    pub key: String,
    /// The value as TOML, shortened.
    pub value: String,
    /// The problem.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SettingProblem {
            key,
            value,
            message,
            help,
        } = self;
        let key = one_line(key);
        match value.as_str() {
            "" => write!(f, "{key}: {message}; {help}"),
            _ => write!(f, "{key} = {value}: {message}; {help}"),
        }
    }
}

impl From<BTreeMap<String, Value>> for NodeSettings {
    /// Settings that cannot be read have no effect; [`NodeSettings::problems`] names them.
    fn from(written: BTreeMap<String, Value>) -> Self {
        let mut problems = Vec::new();
        let set = Profile {
            vars: variables(&written, &mut problems),
            ..read(&written, "", None, &mut problems)
        };
        let added = read(&written, "+", None, &mut problems);
        NodeSettings {
            written,
            read: Arc::new((set, added)),
        }
    }
}

impl From<NodeSettings> for BTreeMap<String, Value> {
    fn from(settings: NodeSettings) -> Self {
        settings.written
    }
}

impl NodeSettings {
    /// Whether the node has none.
    pub fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    /// All of them, by key: `KEY+` adds, `vars.NAME` and `vars-secret.NAME` are variables.
    pub fn written(&self) -> &BTreeMap<String, Value> {
        &self.written
    }

    /// The node's own address, which wins over the one of its name; none if it has none, or a text that is no address.
    pub fn ipaddr(&self) -> Option<Ipv4Addr> {
        self.written.get(IPADDR).and_then(|value| address(value).ok())
    }

    /// The values that replace those of profiles.
    pub fn set(&self) -> &Profile {
        &self.read.0
    }

    /// The values that are added to those of profiles.
    pub fn added(&self) -> &Profile {
        &self.read.1
    }

    /// The settings that `site` does not allow, in the order of their keys.
    pub fn problems(&self, site: &Site) -> Vec<SettingProblem> {
        let mut problems = Vec::new();
        let layouts: Known<'_> = site
            .layouts
            .iter()
            .map(|(name, policy)| (name.as_str(), Some(policy)))
            .collect();
        variables(&self.written, &mut problems);
        for key in self.written.keys().filter(|key| variable(key).is_none()) {
            let (name, adds) = split(key);
            let wrong = match setting(name) {
                None if name == IPADDR && adds => Some(one_value(name)),
                None if name == IPADDR => self.written.get(key).and_then(|value| address(value).err()),
                None => Some(unknown(name)),
                Some(Descriptor { add: None, .. }) if adds => Some(one_value(name)),
                Some(_) => None,
            };
            problems.extend(wrong.map(|(message, help)| {
                SettingProblem {
                    key: key.clone(),
                    value: match name {
                        IPADDR => self
                            .written
                            .get(key)
                            .map(|value| shown_value(key, value))
                            .unwrap_or_default(),
                        _ => String::new(),
                    },
                    message,
                    help,
                }
            }));
        }
        read(&self.written, "", Some(&layouts), &mut problems);
        read(&self.written, "+", Some(&layouts), &mut problems);
        problems.sort_by(|a, b| a.key.cmp(&b.key));
        problems
    }

    /// Changes `key` of a node's own settings: `KEY` replaces, `KEY+` adds, `KEY-` takes away what was added or set.
    ///
    /// # Errors
    /// The problem and its correction.
    pub fn change(&mut self, key: &str, value: &Value) -> Result<(), SettingProblem> {
        let (name, takes) = match key.strip_suffix('-') {
            Some(name) => (name, true),
            None => (split(key).0, false),
        };
        let wrong = |(message, help)| SettingProblem {
            key: key.to_owned(),
            value: shown_value(key, value),
            message,
            help,
        };
        if let Some((variable, secret)) = variable(name) {
            if key != name {
                let message = format!("{name} is a variable, to which nothing can be added");
                return Err(wrong((message, format!("write {name}=VALUE"))));
            }
            // A variable is secret or it is not.
            let other = if secret { VAR } else { SECRET };
            self.written.remove(&format!("{other}{variable}"));
            self.written.insert(name.to_owned(), value.clone());
            *self = NodeSettings::from(std::mem::take(&mut self.written));
            return Ok(());
        }
        if name == IPADDR {
            if key != name {
                return Err(wrong(one_value(name)));
            }
            self.written.insert(name.to_owned(), value.clone());
            return Ok(());
        }
        let Some(descriptor) = setting(name) else {
            return Err(wrong(unknown(name)));
        };
        let added = format!("{name}+");
        if key == name {
            self.written.remove(&added);
            self.written.insert(name.to_owned(), value.clone());
        } else if descriptor.add.is_none() {
            return Err(wrong(one_value(name)));
        } else if takes {
            let place = [&added, name]
                .into_iter()
                .find_map(|key| self.written.get_key_value(key));
            let left = place.and_then(|(place, now)| Some((place.clone(), without(now, value)?)));
            match left {
                Some((place, left)) if place == added && is_nothing(&left) => drop(self.written.remove(&place)),
                Some((place, left)) => drop(self.written.insert(place, left)),
                None => {
                    let message = format!("the node itself does not have this in {name}");
                    let help = format!(
                        "-= takes away only what the node itself has; {name}=VALUE replaces what its profiles have"
                    );
                    return Err(wrong((message, help)));
                }
            }
        } else {
            let place = if self.written.contains_key(name) {
                name.to_owned()
            } else {
                added
            };
            let both = match self.written.get(&place) {
                Some(now) => joined(now, value),
                None => value.clone(),
            };
            self.written.insert(place, both);
        }
        *self = NodeSettings::from(std::mem::take(&mut self.written));
        Ok(())
    }

    /// Removes `key` and what the node adds to it. Returns whether the node had it.
    pub fn remove(&mut self, key: &str) -> bool {
        let mut removed = false;
        for key in [key, &format!("{key}+")] {
            removed |= self.written.remove(key).is_some();
        }
        if removed {
            *self = NodeSettings::from(std::mem::take(&mut self.written));
        }
        removed
    }
}

/// The name of the variable that a key stands for, and whether it is secret; none for a setting.
pub fn variable(key: &str) -> Option<(&str, bool)> {
    let secret = key.strip_prefix(SECRET).map(|name| (name, true));
    secret.or_else(|| Some((key.strip_prefix(VAR)?, false)))
}

/// The key without its `+`, and whether it had one.
pub fn split(key: &str) -> (&str, bool) {
    key.strip_suffix('+').map_or((key, false), |key| (key, true))
}

/// The value that a user means by `text` on the command line. What cannot be meant stays a text, which is refused with the
/// message of the site file.
pub fn meant(key: &str, text: &str) -> Value {
    let name = split(key).0;
    let name = name.strip_suffix('-').unwrap_or(name);
    match variable(name) {
        Some((_, true)) => return Value::from(text),
        Some((_, false)) => return value::parse(text).unwrap_or_else(|| Value::from(text)),
        None => {}
    }
    let listed = || value::parse(text).filter(|value| text.starts_with('[') && value.is_array());
    let quoted = || value::parse(text).filter(|value| text.starts_with('"') && value.is_string());
    let string = || quoted().unwrap_or_else(|| Value::from(text));
    match setting(name).map(|setting| setting.form) {
        // Any other text is left to the reader of the key, whose message names what it wants.
        Some(Form::Number) => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        Some(Form::Flag) => match text {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::from(text),
        },
        Some(Form::List) if text.is_empty() => Value::Array(Vec::new()),
        Some(Form::List) => listed().unwrap_or_else(|| Value::Array(vec![string()])),
        Some(Form::TextOrList) => listed().unwrap_or_else(string),
        Some(Form::TextOrTable) => {
            let table = value::parse(text).filter(|value| text.starts_with('{') && value.is_object());
            table.unwrap_or_else(|| Value::from(text))
        }
        // Kernel arguments may begin with a quote that is theirs.
        Some(Form::Text) | None => Value::from(text),
    }
}

/// The keys of all settings that a node can have, without variables.
pub fn own_keys() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().chain([IPADDR])
}

/// An address that a host can have.
fn address(value: &Value) -> Result<Ipv4Addr, (String, String)> {
    let help = || "write an address such as 10.5.200.4".to_owned();
    let Some(text) = value.as_str() else {
        return Err((format!("'{IPADDR}' is a string"), help()));
    };
    let read: Option<Ipv4Addr> = text.parse().ok();
    read.ok_or_else(|| (format!("'{}' is not an IPv4 address", shown(text)), help()))
}

fn unknown(name: &str) -> (String, String) {
    let help = match closest(name, own_keys()) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!(
            "the settings are {}, {IPADDR}, and vars.NAME for a variable",
            KEYS.join(", ")
        ),
    };
    (format!("a node has no setting '{}'", shown(name)), help)
}

fn one_value(name: &str) -> (String, String) {
    let several = SETTINGS.iter().filter(|setting| setting.add.is_some());
    let several: Vec<&str> = several.map(|setting| setting.key).collect();
    let message = format!("{name} has one value, to which nothing can be added");
    (
        message,
        format!("write {name}=VALUE; += and -= are for {}", several.join(", ")),
    )
}

fn shown_value(key: &str, value: &Value) -> String {
    match variable(key) {
        Some((_, true)) => HIDDEN.to_owned(),
        _ => shown(&to_toml(value)),
    }
}

/// The variables of a node.
fn variables(written: &BTreeMap<String, Value>, problems: &mut Vec<SettingProblem>) -> Vars {
    let mut all = Vars::default();
    for (key, value) in written {
        let Some((name, secret)) = variable(key) else { continue };
        let read = vars::check_name(name).and_then(|()| vars::check_value(name, secret, value.clone()));
        match read {
            Ok(Value::String(text)) if secret => drop(all.secret.insert(name.to_owned(), text)),
            Ok(value) => drop(all.plain.insert(name.to_owned(), value)),
            Err((message, help)) => problems.push(SettingProblem {
                key: key.clone(),
                value: shown_value(key, value),
                message,
                help,
            }),
        }
    }
    // Of a name that is in both, the secret one counts.
    all.plain.retain(|name, _| !all.secret.contains_key(name));
    all
}

/// Reads the settings whose keys end with `suffix`.
fn read(
    written: &BTreeMap<String, Value>,
    suffix: &str,
    layouts: Option<&Known<'_>>,
    problems: &mut Vec<SettingProblem>,
) -> Profile {
    let known = written.iter().filter_map(|(key, value)| {
        let name = key.strip_suffix(suffix)?;
        let setting = setting(name)?;
        (suffix.is_empty() || setting.add.is_some()).then_some((key, name, value))
    });
    let known: Vec<(&String, &str, &Value)> = known.collect();
    if known.is_empty() {
        return Profile::default();
    }
    // One line for each, so that the line of a problem says which one it is.
    let text: String = known
        .iter()
        .map(|(_, name, value)| format!("{name} = {}\n", to_toml(value)))
        .collect();
    let mut report = Report::new(&text, String::new());
    let (document, errors) = DeTable::parse_recoverable(&text);
    for error in errors {
        report.error(
            error.span().unwrap_or_default(),
            error.message().to_owned(),
            "write another value",
        );
    }
    let table = Spanned::new(0..0, DeValue::Table(document.into_inner()));
    let section = Section::new(&mut report, "[profile.NAME]", "a node".to_owned(), 0..0, &table);
    let read = section.map(|section| values(&mut report, &section, layouts));
    if let Err(super::ConfigError::Invalid { problems: found, .. }) = report.finish() {
        problems.extend(found.into_iter().map(|problem| {
            let at = known.get(problem.line.saturating_sub(1));
            SettingProblem {
                key: at.map(|(key, ..)| (*key).clone()).unwrap_or_default(),
                value: at.map(|(key, _, value)| shown_value(key, value)).unwrap_or_default(),
                message: problem.message,
                help: problem.help,
            }
        }));
    }
    read.unwrap_or_default()
}

/// Both values, without repetitions. Values of the wrong kind are refused when the settings are checked.
fn joined(now: &Value, more: &Value) -> Value {
    match (now, more) {
        (Value::Array(now), Value::Array(more)) => {
            let new = more.iter().filter(|item| !now.contains(item));
            Value::Array(now.iter().chain(new).cloned().collect())
        }
        (Value::String(now), Value::String(more)) => {
            let mut all = now.clone();
            add_texts(&mut all, more);
            Value::String(all)
        }
        (_, more) => more.clone(),
    }
}

/// `now` without the parts of `less`; none if it does not have all of them.
fn without(now: &Value, less: &Value) -> Option<Value> {
    match (now, less) {
        (Value::Array(now), Value::Array(less)) => {
            let all = less.iter().all(|item| now.contains(item));
            let left = now.iter().filter(|item| !less.contains(item)).cloned();
            all.then(|| Value::Array(left.collect()))
        }
        (Value::String(now), Value::String(less)) => {
            let (now, less) = (words(now), words(less));
            let all = less.iter().all(|word| now.contains(word));
            let left: Vec<&str> = now.into_iter().filter(|word| !less.contains(word)).collect();
            all.then(|| Value::String(left.join(" ")))
        }
        _ => None,
    }
}

fn is_nothing(value: &Value) -> bool {
    value.as_str().is_some_and(str::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
