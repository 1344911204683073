//! YAML and JSON as a tree with places, bounded in depth and size.
//!
//! References (`*name`) are refused, because a few of them make a file of a few lines as large as memory.

use super::report::{Report, shown};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::{fmt, ops::Range};

/// Deepest nesting that is read: Warewulf's own files need seven levels.
const DEPTH: usize = 32;
/// At most this many values in one file.
const VALUES: usize = 1 << 20;

/// A value, and the bytes of the file where it begins.
#[derive(Debug)]
pub(super) struct Tree {
    pub at: Range<usize>,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// A text, number or flag as it is written; empty for null.
    Text(String),
    List(Vec<Tree>),
    /// In the order of the file.
    Map(Vec<Item>),
}

/// A key of a map with its value.
#[derive(Debug)]
pub(super) struct Item {
    /// The place of the key.
    pub at: Range<usize>,
    pub key: String,
    pub value: Tree,
}

impl Tree {
    /// The value of `key`; none if this is not a map, or lacks it.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.map().iter().find(|item| item.key == key).map(|item| &item.value)
    }

    /// The entries of a map; none of anything else.
    pub fn map(&self) -> &[Item] {
        match &self.value {
            Value::Map(all) => all,
            _ => &[],
        }
    }

    /// The values of a list; none of anything else.
    pub fn list(&self) -> &[Tree] {
        match &self.value {
            Value::List(all) => all,
            _ => &[],
        }
    }

    /// The text; none if it is empty, or another kind of value.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Whether it says nothing: an empty text, list or map.
    pub fn is_empty(&self) -> bool {
        match &self.value {
            Value::Text(text) => text.is_empty(),
            Value::List(all) => all.is_empty(),
            Value::Map(all) => all.is_empty(),
        }
    }
}

/// A list or map that is not finished.
struct Open {
    at: Range<usize>,
    value: Value,
    /// The key whose value comes next, in a map.
    key: Option<(Range<usize>, String)>,
}

/// The document of a file; none if a problem was reported.
pub(super) fn yaml(report: &mut Report<'_>) -> Option<Tree> {
    const HELP: &str = "correct the file, or leave out this part";
    let mut open: Vec<Open> = Vec::new();
    let mut values = 0;
    let text = report.text();
    let begins: Vec<(usize, &str)> = report.lines();
    // The parser counts characters, which are bytes on most lines; on others the place is the line's beginning, because counting again for
    // each value takes long on a line with thousands of them.
    let byte = |marker: &Marker| {
        let (begin, line) = begins
            .get(marker.line().saturating_sub(1))
            .copied()
            .unwrap_or((text.len(), ""));
        begin
            + if line.is_ascii() {
                marker.col().min(line.len())
            } else {
                0
            }
    };
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(read) => read,
            Err(error) => {
                let at = byte(error.marker());
                report.error(at..at + 1, format!("this is not YAML: {}", error.info()), HELP);
                return None;
            }
        };
        let at = byte(&span.start)..byte(&span.end);
        let mut refuse = |message: String| {
            report.error(at.clone(), message, HELP);
            None
        };
        let value = match event {
            Event::Alias(_) => {
                return refuse("this repeats another part of the file (*), which is not read".to_owned());
            }
            Event::Scalar(text, style, ..) => {
                let null = style == ScalarStyle::Plain && matches!(&*text, "~" | "null" | "Null" | "NULL");
                Value::Text(if null { String::new() } else { text.into_owned() })
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() == DEPTH => {
                return refuse(format!("more than {DEPTH} levels of nesting"));
            }
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let map = matches!(event, Event::MappingStart(..));
                open.push(Open {
                    at,
                    value: if map {
                        Value::Map(Vec::new())
                    } else {
                        Value::List(Vec::new())
                    },
                    key: None,
                });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(done) => {
                    let tree = Tree {
                        at: done.at,
                        value: done.value,
                    };
                    match place(&mut open, tree) {
                        Ok(None) => continue,
                        Ok(Some(document)) => return Some(document),
                        Err((at, message)) => {
                            report.error(at, message, HELP);
                            return None;
                        }
                    }
                }
                None => continue,
            },
            _ => continue,
        };
        values += 1;
        if values > VALUES {
            return refuse(format!("more than {VALUES} values"));
        }
        match place(&mut open, Tree { at, value }) {
            Ok(None) => {}
            Ok(Some(document)) => return Some(document),
            Err((at, message)) => {
                report.error(at, message, HELP);
                return None;
            }
        }
    }
    None
}

/// Puts a finished value where it belongs; returns it if it is the whole document.
fn place(open: &mut [Open], tree: Tree) -> Result<Option<Tree>, (Range<usize>, String)> {
    let Some(last) = open.last_mut() else {
        return Ok(Some(tree));
    };
    match (&mut last.value, last.key.take()) {
        (Value::List(all), _) => all.push(tree),
        (Value::Map(all), Some((at, key))) => all.push(Item { at, key, value: tree }),
        (Value::Map(all), None) => match tree.value {
            // Files have few keys in one map, except the map of nodes, whose names are compared later with all others.
            Value::Text(key) if all.len() < 64 && all.iter().any(|known| known.key == key) => {
                return Err((tree.at, format!("'{}' is here twice", shown(&key))));
            }
            Value::Text(key) => last.key = Some((tree.at, key)),
            _ => return Err((tree.at, "the key of a map is a list or map".to_owned())),
        },
        (Value::Text(_), _) => {}
    }
    Ok(None)
}

/// The same for JSON; none if a problem was reported. `text` is the text of the file, or as long.
pub(super) fn json(report: &mut Report<'_>, text: &str) -> Option<Tree> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let mut values = 0;
    let read = Json(&mut values)
        .deserialize(&mut reader)
        .and_then(|tree| reader.end().map(|()| tree));
    match read {
        Ok(mut tree) => {
            let mut from = 0;
            locate(&mut tree, text, &mut from);
            Some(tree)
        }
        Err(error) => {
            let at = report
                .lines()
                .get(error.line().saturating_sub(1))
                .map_or(0, |(begin, _)| begin + error.column());
            let at = at.min(text.len());
            report.error(
                at..at + 1,
                format!("this is not JSON: {error}"),
                "correct the file, or make it again",
            );
            None
        }
    }
}

/// How far behind the last value the next one is searched, in bytes.
const SEARCHED: usize = 1024;

/// Finds the places of texts, which serde_json does not report: they are in the order of the file.
fn locate(tree: &mut Tree, text: &str, from: &mut usize) {
    let mut find = |word: &str| {
        let mut end = (*from + SEARCHED).min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let at = text
            .get(*from..end)
            .and_then(|part| part.find(word))
            .map_or(*from, |at| *from + at);
        if text.get(at..).is_some_and(|rest| rest.starts_with(word)) {
            *from = at + word.len();
        }
        at..(at + word.len()).min(text.len())
    };
    match &mut tree.value {
        Value::Text(word) => tree.at = find(word),
        Value::List(all) => {
            for one in &mut *all {
                locate(one, text, from);
            }
            tree.at = all.first().map_or(*from..*from, |one| one.at.clone());
        }
        Value::Map(all) => {
            tree.at = *from..*from;
            for item in all {
                let mut key = Tree {
                    at: 0..0,
                    value: Value::Text(std::mem::take(&mut item.key)),
                };
                locate(&mut key, text, from);
                item.at = key.at;
                if let Value::Text(name) = key.value {
                    item.key = name;
                }
                locate(&mut item.value, text, from);
            }
        }
    }
}

/// Reads one value, and counts it.
struct Json<'c>(&'c mut usize);

impl<'de> DeserializeSeed<'de> for Json<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Tree, D::Error> {
        *self.0 += 1;
        if *self.0 > VALUES {
            return Err(D::Error::custom(format!("more than {VALUES} values")));
        }
        reader.deserialize_any(self)
    }
}

fn of(value: Value) -> Tree {
    Tree { at: 0..0, value }
}

fn text<E>(value: impl ToString) -> Result<Tree, E> {
    Ok(of(Value::Text(value.to_string())))
}

impl<'de> Visitor<'de> for Json<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        text(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        text(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        text(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        text(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        text(value)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        text("")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(value) = values.next_element_seed(Json(self.0))? {
            all.push(value);
        }
        Ok(of(Value::List(all)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut all = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(Json(self.0))?;
            all.push(Item { at: 0..0, key, value });
        }
        Ok(of(Value::Map(all)))
    }
}
