//! Problems of templates, shown like those of the site file: file, line, finding and correction.

use super::tree::Templates;
use minijinja::{Error, ErrorKind, Value};
use rackstrap_base::words::closest;
use rackstrap_site::{Diagnostic, excerpt, one_line};
use std::ops::Range;

/// A problem at bytes `at` of `text`, the text of `file`.
pub(super) fn at(file: &str, text: &str, at: Range<usize>, message: &str, help: &str) -> Diagnostic {
    let start = text.floor_char_boundary(at.start);
    let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[begin..].split('\n').next().unwrap_or_default();
    let column = text[begin..start].chars().count();
    let end = at.end.clamp(start, begin + line.len().max(start - begin));
    let length = text.get(start..end).map_or(1, |meant| meant.chars().count()).max(1);
    Diagnostic {
        file: file.to_owned(),
        line: text[..begin].matches('\n').count() + 1,
        column: column + 1,
        message: one_line(message),
        help: one_line(help),
        excerpt: Some(excerpt(line, column, length)),
    }
}

/// A problem of the whole file.
pub(super) fn whole(file: &str, message: &str, help: &str) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        line: 0,
        column: 0,
        message: one_line(message),
        help: one_line(help),
        excerpt: None,
    }
}

/// The error of minijinja in the template `name`. It contains no values of the facts, because there are private keys among
/// them.
pub(super) fn of_template(templates: &Templates, name: &str, source: &str, error: &Error, facts: &Value) -> Diagnostic {
    // The error of an included template names that template.
    let named = error
        .name()
        .filter(|other| *other != name)
        .and_then(|other| templates.source(other));
    let (file, text) = named.unwrap_or_else(|| (templates.file(name), source));
    let range = error.range().filter(|range| text.get(range.clone()).is_some());
    let range = range.unwrap_or_else(|| line_of(text, error.line().unwrap_or(1)));
    let (range, meant) = whole_name(text, range);
    let (message, help) = match error.kind() {
        ErrorKind::UndefinedError => undefined(text, meant, facts),
        ErrorKind::SyntaxError => (
            format!("this is not a template: {}", error.detail().unwrap_or("syntax error")),
            "{{ NAME }} stands for a value, {% if … %} … {% endif %} for a condition; a file that contains such braces itself \
             needs a name without .j2"
                .to_owned(),
        ),
        kind => {
            let detail = error.detail().map_or_else(|| kind.to_string(), |detail| format!("{kind}: {detail}"));
            (detail, "minijinja's filters, tests and functions are those of Jinja2".to_owned())
        }
    };
    at(&file, text, range, &message, &help)
}

/// The bytes of line `line`, from 1.
fn line_of(text: &str, line: usize) -> Range<usize> {
    let mut begin = 0;
    for (index, one) in text.split_inclusive('\n').enumerate() {
        if index + 1 == line {
            return begin..begin + one.trim_end().len();
        }
        begin += one.len();
    }
    0..0
}

/// minijinja reports only `.nmae` of `a.b.nmae`; people expect the whole name.
fn whole_name(text: &str, range: Range<usize>) -> (Range<usize>, &str) {
    let before = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
    let start = match text[range.clone()].starts_with('.') {
        true => text[..range.start].trim_end_matches(before).len(),
        false => range.start,
    };
    (start..range.end, text[start..range.end].trim())
}

fn undefined(text: &str, meant: &str, facts: &Value) -> (String, String) {
    let optional = "if it may be missing, write {% if NAME is defined %}, or {{ NAME | default('') }}";
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    if meant.is_empty() || !meant.chars().all(plain) {
        return (format!("'{meant}' is not defined"), optional.to_owned());
    }
    let first = meant.split('.').next().unwrap_or_default();
    // A name that the template defines itself.
    if ["for ", "set ", ", "]
        .iter()
        .any(|word| text.contains(&format!("{word}{first} ")))
    {
        return (format!("'{meant}' is not defined"), optional.to_owned());
    }
    // The longest prefix that exists: `node` for `node.nmae`.
    let (mut parent, mut known) = (facts.clone(), Vec::new());
    for part in meant.split('.') {
        match parent.get_attr(part).ok().filter(|value| !value.is_undefined()) {
            Some(value) => {
                parent = value;
                known.push(part);
            }
            None => {
                let names: Vec<String> = parent
                    .try_iter()
                    .into_iter()
                    .flatten()
                    .map(|key| key.to_string())
                    .collect();
                let wrong = [known.as_slice(), &[part]].concat().join(".");
                let whose = if known.is_empty() {
                    String::new()
                } else {
                    format!("{}.", known.join("."))
                };
                let help = match closest(part, names.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean {whose}{near}? {optional}"),
                    None if !known.is_empty() && !names.is_empty() => {
                        format!("{} has {}; {optional}", known.join("."), names.join(", "))
                    }
                    None if names.is_empty() => format!("{} has nothing yet; {optional}", known.join(".")),
                    None => format!("available: {}; {optional}", names.join(", ")),
                };
                return (format!("'{wrong}' is not defined"), help);
            }
        }
    }
    (
        format!("'{meant}' contains something that is not defined"),
        optional.to_owned(),
    )
}
