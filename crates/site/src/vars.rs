//! Variables: `[cluster.vars]`, `[profile.NAME.vars]`, those of single nodes, and the texts in which they are read.
//!
//! A name in `vars-secret` is read like the others, but its value is in no listing, and only a node's own files can have it.

use super::{
    diagnostic::{Report, quote, shown},
    section::{Section, article},
    value::{self, Value, of_toml},
};
use std::collections::BTreeMap;
use toml::de::DeValue;

/// Key of the table of variables.
pub(super) const VARS: &str = "vars";
/// Key of the table of secret variables.
pub(super) const SECRETS: &str = "vars-secret";
/// At most this many variables in one section.
const MOST: usize = 256;
/// Longest name, in bytes.
const NAME: usize = 64;
/// Longest text in a value, in bytes: a key or a certificate fits.
const TEXT: usize = 8192;

type Problem = (String, String);

/// Variables of one section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vars {
    /// The values of `vars`, by name.
    pub plain: BTreeMap<String, Value>,
    /// The values of `vars-secret`, by name. No name is in both.
    pub secret: BTreeMap<String, String>,
}

impl Vars {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.secret.is_empty()
    }
}

/// Reads `vars` and `vars-secret` of a section.
pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>) -> Vars {
    let mut vars = Vars::default();
    for key in [VARS, SECRETS] {
        let Some(written) = section.get(key) else { continue };
        let DeValue::Table(table) = written.get_ref() else {
            let message = format!("'{key}' is a table, not {}", article(written.get_ref()));
            report.error(written.span(), message, format!("write {key} = {{ NAME = \"VALUE\" }}"));
            continue;
        };
        if table.len() > MOST {
            let message = format!("there are {} variables, at most {MOST}", table.len());
            report.error(section.key_at(key), message, "join some of them to lists or tables");
            continue;
        }
        for (name, value) in table.iter() {
            let word = name.get_ref().as_ref();
            let read = check_name(word)
                .map_err(|problem| (name.span(), problem))
                .and_then(|()| {
                    let read = of_toml(value.get_ref());
                    let read = read.and_then(|value| check_value(word, key == SECRETS, value));
                    read.map_err(|problem| (value.span(), problem))
                });
            match read {
                Err((at, (message, help))) => report.error(at, message, help),
                Ok(_) if vars.plain.contains_key(word) => {
                    let message = format!("{word} is in {VARS} and in {SECRETS}");
                    report.error(name.span(), message, "remove one of the two");
                }
                Ok(Value::String(text)) if key == SECRETS => drop(vars.secret.insert(word.to_owned(), text)),
                Ok(value) => drop(vars.plain.insert(word.to_owned(), value)),
            }
        }
    }
    vars
}

/// Whether templates can read `vars.NAME`.
pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic());
    match first && name.len() <= NAME && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        true => Ok(()),
        false => Err((
            format!("{} is not the name of a variable", quote(name)),
            format!("write letters, digits and _, a letter first, at most {NAME} of them"),
        )),
    }
}

/// The value, if a variable can have it.
pub(super) fn check_value(name: &str, secret: bool, value: Value) -> Result<Value, Problem> {
    if secret && !value.is_string() {
        let message = format!("the secret variable {name} is {}, not a text", value::kind(&value));
        return Err((message, "write it in quotes".to_owned()));
    }
    match longest(&value) {
        length if length > TEXT => Err((
            format!("a text of the variable {name} has {length} bytes, at most {TEXT}"),
            "write what is longer into a template".to_owned(),
        )),
        _ => Ok(value),
    }
}

fn longest(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(longest).max().unwrap_or(0),
        Value::Object(table) => table
            .iter()
            .map(|(key, item)| key.len().max(longest(item)))
            .max()
            .unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// A part of a text with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<'t> {
    Text(&'t str),
    /// The path after `vars.`: `pages`, `disk.size`.
    Variable(&'t str),
}

/// The parts of a text in which `{{ vars.NAME }}` stands for a variable, as in templates.
fn parts(text: &str) -> Result<Vec<Part<'_>>, Problem> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let help = || "write {{ vars.NAME }}".to_owned();
        let Some((inside, after)) = after.split_once("}}") else {
            return Err((format!("{} has {{{{ without }}}}", quote(text)), help()));
        };
        let path = inside.trim().strip_prefix("vars.");
        let Some(path) = path.filter(|path| path.split('.').all(|name| check_name(name).is_ok())) else {
            return Err((format!("'{{{{{}}}}}' is not a variable", shown(inside)), help()));
        };
        parts.extend([Part::Text(before), Part::Variable(path)]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// Whether the text reads variables.
pub fn has_variables(text: &str) -> bool {
    text.contains("{{")
}

/// The text with `x` for each variable, for checks of all that is around them.
///
/// # Errors
/// `{{` does not begin a variable: (message, help).
pub(super) fn without_variables(text: &str) -> Result<String, Problem> {
    let all = parts(text)?.into_iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Variable(_) => "x",
    });
    Ok(all.collect())
}

/// The text with its variables written without blanks: `{{vars.NAME}}`.
pub(super) fn compact(text: &str) -> Result<String, Problem> {
    let all = parts(text)?.into_iter().map(|part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Variable(path) => format!("{{{{vars.{path}}}}}"),
    });
    Ok(all.collect())
}

/// The text with the values of its variables. `value` is asked for the names after `vars.`.
///
/// # Errors
/// A variable is not defined, is a list or a table, or is secret.
pub fn expand<'v>(text: &str, value: impl Fn(&str) -> Option<Readable<'v>>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    for part in parts(text).map_err(|(message, help)| format!("{message}; {help}"))? {
        let path = match part {
            Part::Text(text) => {
                expanded.push_str(text);
                continue;
            }
            Part::Variable(path) => path,
        };
        let (name, below) = path
            .split_once('.')
            .map_or((path, None), |(name, below)| (name, Some(below)));
        let found = match value(name) {
            Some(Readable::Secret) => {
                return Err(format!(
                    "vars.{name} is secret, and this is no place for a secret: every user of a node can read it; only templates read secrets"
                ));
            }
            Some(Readable::Plain(value)) => below.map_or(Some(value), |below| {
                below.split('.').try_fold(value, |value, key| value.get(key))
            }),
            None => None,
        };
        match found {
            Some(Value::String(text)) => expanded.push_str(text),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => expanded.push_str(&value.to_string()),
            Some(other) => {
                return Err(format!(
                    "vars.{path} is {}, and a text is wanted here",
                    value::kind(other)
                ));
            }
            None => return Err(format!("vars.{path} is not defined")),
        }
    }
    Ok(expanded)
}

/// A variable, as a text outside of templates reads it.
#[derive(Clone, Copy, Debug)]
pub enum Readable<'v> {
    /// Its value.
    Plain(&'v Value),
    /// It is secret.
    Secret,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn expanded(text: &str) -> String {
        let all = json!({ "pages": 64, "on": true, "nas": "10.5.0.2", "disk": { "size": "2G" }, "nics": ["ib0"] });
        let read = expand(text, |name| match name {
            "password" => Some(Readable::Secret),
            name => all.get(name).map(Readable::Plain),
        });
        read.unwrap_or_else(|problem| problem)
    }

    #[test]
    fn variables_are_read_as_in_templates() {
        for (text, says) in [
            ("hugepages={{ vars.pages }} a={{vars.on}}", "hugepages=64 a=true"),
            ("{{ vars.nas }}:/home", "10.5.0.2:/home"),
            ("a={{ vars.disk.size }}", "a=2G"),
            ("{ }} {x", "{ }} {x"),
            ("a={{ vars.disk }}", "vars.disk is a table, and a text is wanted here"),
            ("a={{ vars.nics }}", "vars.nics is a list, and a text is wanted here"),
            ("a={{ vars.disk.sise }}", "vars.disk.sise is not defined"),
            ("a={{ vars.pgaes }}", "vars.pgaes is not defined"),
            ("a={{ vars.pages.x }}", "vars.pages.x is not defined"),
            (
                "a={{ node.name }}",
                "'{{ node.name }}' is not a variable; write {{ vars.NAME }}",
            ),
            (
                "a={{ vars.a-b }}",
                "'{{ vars.a-b }}' is not a variable; write {{ vars.NAME }}",
            ),
            ("a={{ vars.x", "'a={{ vars.x' has {{ without }}; write {{ vars.NAME }}"),
        ] {
            assert_eq!(expanded(text), says, "{text}");
        }
        assert!(expanded("a={{ vars.password }}").contains("vars.password is secret"));
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_or_refused(text in "[{}a. vrs]{0,40}|.{0,40}") {
            let read = expand(&text, |_| None);
            match has_variables(&text) {
                true => prop_assert!(read.is_err()),
                false => prop_assert_eq!(read, Ok(text)),
            }
        }
    }
}
