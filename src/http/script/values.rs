//! Values of a node in the site's own boot scripts: without characters that the language would interpret (pure).

use super::{NodeScript, plain};
use minijinja::{
    Error, ErrorKind, Output, State, escape_formatter,
    value::{Serde, ValueKind},
};
use rackstrap_base::bootname::ScriptLanguage;
use rackstrap_site::value::Value;
use std::collections::BTreeMap;

/// Attributes of the node: templates of the site may use them anywhere.
pub(super) fn attributes<'a>(script: &NodeScript<'a>, language: ScriptLanguage) -> BTreeMap<&'a str, String> {
    let all = script.attributes.iter();
    all.map(|(name, value)| (name.as_str(), harmless(value, language)))
        .collect()
}

/// The same for variables.
pub(super) fn vars(script: &NodeScript<'_>, language: ScriptLanguage) -> minijinja::Value {
    let all = script.vars.iter();
    let all: BTreeMap<&str, Value> = all
        .map(|(name, value)| (*name, harmless_value(value, language)))
        .collect();
    Serde(all).into()
}

fn harmless_value(value: &Value, language: ScriptLanguage) -> Value {
    match value {
        Value::String(text) => Value::String(harmless(text, language)),
        Value::Array(items) => items.iter().map(|item| harmless_value(item, language)).collect(),
        Value::Object(table) => (table.iter())
            .map(|(key, item)| (harmless(key, language), harmless_value(item, language)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn harmless(text: &str, language: ScriptLanguage) -> String {
    let plain = |c: char| match language {
        ScriptLanguage::Ipxe => plain(c),
        ScriptLanguage::Grub if c.is_control() || "'\"\\$;&|<>{}#".contains(c) => ' ',
        ScriptLanguage::Pxelinux | ScriptLanguage::RaspberryPi if c.is_control() || "'\\$".contains(c) => ' ',
        ScriptLanguage::Grub | ScriptLanguage::Pxelinux | ScriptLanguage::RaspberryPi => c,
    };
    text.chars().map(plain).collect()
}

/// Prints a value, unless it is a table: no script wants Python's notation of one.
pub(super) fn format(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &minijinja::Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Map => Err(Error::new(
            ErrorKind::InvalidOperation,
            "this is a table, and a text is wanted here; write NAME.KEY",
        )),
        _ => escape_formatter(out, state, value),
    }
}
