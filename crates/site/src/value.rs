//! Values of single nodes' settings and of variables: what TOML and JSON both have.

use super::{diagnostic::shown, section::article};
use serde_json::{Map, Number};
use std::fmt::Write;
use toml::de::{DeTable, DeValue};

pub use serde_json::Value;

/// Deeper values are refused.
const DEPTH: usize = 8;

/// `value` as TOML on one line.
pub fn to_toml(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value);
    text
}

fn write(text: &mut String, value: &Value) {
    match value {
        // No value is read as null; a row of the store could have one.
        Value::Null => text.push_str("\"\""),
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(text, "{value}");
        }
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                write(text, item);
            }
            text.push(']');
        }
        Value::Object(table) => {
            text.push('{');
            for (at, (key, item)) in table.iter().enumerate() {
                text.push_str(if at == 0 { " " } else { ", " });
                match !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
                    true => text.push_str(key),
                    false => write_string(text, key),
                }
                text.push_str(" = ");
                write(text, item);
            }
            text.push_str(if table.is_empty() { "}" } else { " }" });
        }
    }
}

/// A basic string on one line.
fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for c in string.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

/// A value of a TOML document.
///
/// # Errors
/// Its kind, if TOML has it and JSON does not, or if a number is too large: (message, help).
pub fn of_toml(value: &DeValue<'_>) -> Result<Value, (String, String)> {
    read(value, DEPTH)
}

fn read(value: &DeValue<'_>, depth: usize) -> Result<Value, (String, String)> {
    let wrong = |message: String, help: &str| Err((message, help.to_owned()));
    if depth == 0 {
        return wrong(
            format!("the value is more than {DEPTH} lists and tables deep"),
            "write it flatter",
        );
    }
    match value {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Boolean(yes) => Ok(Value::Bool(*yes)),
        DeValue::Integer(integer) => {
            let digits = integer.as_str();
            match i64::from_str_radix(digits.trim_start_matches('+'), integer.radix()) {
                Ok(number) => Ok(number.into()),
                Err(_) => wrong(
                    format!("the number {} is too large", shown(digits)),
                    "write a number of at most 63 bits, or a text in quotes",
                ),
            }
        }
        DeValue::Float(float) => match float.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => Ok(Value::Number(number)),
            None => wrong(
                format!("{} is not a finite number", shown(float.as_str())),
                "write a number, or a text in quotes",
            ),
        },
        DeValue::Datetime(_) => wrong(format!("this is {}", article(value)), "write it as a text in quotes"),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| read(item.get_ref(), depth - 1));
            items.collect::<Result<_, _>>().map(Value::Array)
        }
        DeValue::Table(table) => {
            let pairs = table
                .iter()
                .map(|(key, item)| Ok((key.get_ref().to_string(), read(item.get_ref(), depth - 1)?)));
            pairs.collect::<Result<Map<_, _>, _>>().map(Value::Object)
        }
    }
}

/// The value that `text` is in TOML; none if it is not TOML.
pub fn parse(text: &str) -> Option<Value> {
    let document = format!("v = {text}");
    let (document, errors) = DeTable::parse_recoverable(&document);
    if !errors.is_empty() || document.get_ref().len() != 1 {
        return None;
    }
    of_toml(document.get_ref().get("v")?.get_ref()).ok()
}

/// The word for the kind of a value, with its article: `a list`.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,6}", inner, 0..4)
                    .prop_map(|table| Value::Object(table.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_is_written_on_one_line_and_read_unchanged(value in values()) {
            let text = to_toml(&value);
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert_eq!(parse(&text), Some(value), "{}", text);
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        assert_eq!(parse("[\"ib0\", 1, true]"), Some(json!(["ib0", 1, true])));
        assert_eq!(
            parse("{ a = 0x10, b = { c = 1.5 } }"),
            Some(json!({ "a": 16, "b": { "c": 1.5 } }))
        );
        let deep = "[".repeat(9) + &"]".repeat(9);
        for text in [
            "pdu2",
            "1\nw = 2",
            "2020-01-01",
            "nan",
            "99999999999999999999",
            "",
            &deep,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
