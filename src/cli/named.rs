//! A test: each command that a text of the project names exists, with its options.
//!
//! Messages name the command that mends something. A command that was renamed, or never was, is worse than none.

use super::Cli;
use clap::{Command, CommandFactory};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Words that follow the program's name in sentences.
const PROSE: &[&str] = &[
    "again",
    "agent",
    "answers",
    "as",
    "boots",
    "daemon",
    "did",
    "disk",
    "does",
    "finds",
    "goes",
    "has",
    "is",
    "itself",
    "keeps",
    "knows",
    "makes",
    "marker",
    "partition",
    "prepared",
    "promises",
    "reads",
    "server",
    "sets",
    "store",
    "that",
    "to",
    "tree",
    "wrote",
    "initramfs",
];

/// The commands of `cargo xtask`, which is another program: its own test has them.
const XTASK: &[&str] = &["bench", "demo", "test", "tidy"];

/// Files of the project that people read, below its root.
const READ: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "docs",
    "src",
    "templates",
    "bootscripts",
    "images",
    "systemd",
    "rackstrap.example.toml",
];

fn files(path: PathBuf, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            files(entry.unwrap().path(), found);
        }
    } else {
        found.push(path);
    }
}

/// What stands behind each `name ` in `text`, up to the end of what may belong to a command, and whether it is there to be typed
/// as it stands: with a remark in parentheses behind it.
fn snippets<'a>(text: &'a str, name: &str) -> Vec<(&'a str, bool)> {
    let behind = text.match_indices(name).filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "-_/.@".contains(c)))
    });
    let rest = behind.filter_map(|(at, _)| text[at + name.len()..].strip_prefix(' '));
    rest.map(|rest| {
        let end = rest.find(['\n', '`', '"', ';', '(', ')', ',', '\'', '|', '#', '\\']);
        let snippet = &rest[..end.unwrap_or(rest.len())];
        (snippet, rest[snippet.len()..].starts_with('('))
    })
    .collect()
}

/// True for a word that can only be a command: `{name}`, `NODE` and `r01n01` are arguments.
fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
}

fn knows_option(command: &Command, option: &str) -> bool {
    let own = command.get_arguments().any(|argument| {
        let longs = argument.get_long_and_visible_aliases().unwrap_or_default();
        longs.contains(&option)
    });
    own || ["help", "config", "version"].contains(&option)
}

/// What is wrong with `rackstrap SNIPPET`, if anything. One that is `whole` has what its command cannot do without.
fn problem(root: &Command, (snippet, whole): (&str, bool)) -> Option<String> {
    let mut command = root;
    let mut words = snippet.split_whitespace().peekable();
    while let Some(word) = words.peek() {
        let word = word.trim_end_matches(['.', ':']);
        let found = command
            .get_subcommands()
            .find(|sub| sub.get_name() == word || sub.get_all_aliases().any(|a| a == word));
        match found {
            Some(sub) => command = sub,
            None if !is_name(word) => break,
            None if std::ptr::eq(command, root) && PROSE.contains(&word) => return None,
            None if command.has_subcommands() => {
                return Some(format!("{} has no command {word}", command.get_name()));
            }
            None => break,
        }
        words.next();
    }
    if std::ptr::eq(command, root) {
        return None;
    }
    let words: Vec<&str> = words.collect();
    let lacks = |argument: &&clap::Arg| match argument.get_long() {
        Some(long) => !words.iter().any(|word| word.trim_start_matches("--") == long),
        None => words.iter().all(|word| word.starts_with('-')),
    };
    let lacking = command
        .get_arguments()
        .filter(|argument| argument.is_required_set())
        .find(lacks);
    if let Some(argument) = lacking.filter(|_| whole) {
        return Some(format!("{} needs {argument}", command.get_name()));
    }
    for word in words {
        let Some(option) = word.trim_start_matches('[').strip_prefix("--") else {
            continue;
        };
        let end = option.find(|c: char| !(c.is_ascii_lowercase() || c == '-'));
        let option = &option[..end.unwrap_or(option.len())];
        if !option.is_empty() && !knows_option(command, option) {
            return Some(format!("{} has no option --{option}", command.get_name()));
        }
    }
    None
}

#[test]
fn commands_that_texts_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in READ {
        files(root.join(path), &mut found);
    }
    let mut grammar = Cli::command();
    grammar.build();
    let (mut commands, mut wrong) = (0, BTreeSet::new());
    for path in found {
        // This file has wrong ones on purpose.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.ends_with("src/cli/named.rs") {
            continue;
        }
        // A literal that goes on in the next line is one text.
        let text = text.split("\\\n").map(str::trim_start).collect::<String>();
        let name = path.strip_prefix(root).unwrap().display();
        for snippet in snippets(&text, "rackstrap") {
            commands += 1;
            let (words, _) = snippet;
            wrong.extend(problem(&grammar, snippet).map(|why| format!("{name}: rackstrap {words}: {why}")));
        }
        for (snippet, _) in snippets(&text, "cargo xtask") {
            let word = snippet.split_whitespace().next().unwrap_or("");
            if is_name(word) && !XTASK.contains(&word) {
                wrong.insert(format!("{name}: cargo xtask {snippet}: there is no such command"));
            }
        }
    }
    assert!(commands > 400, "only {commands} were found");
    assert!(wrong.is_empty(), "{}", wrong.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn wrong_commands_are_found() {
    let mut grammar = Cli::command();
    grammar.build();
    let wrong = |text| {
        snippets(text, "rackstrap")
            .into_iter()
            .filter_map(|s| problem(&grammar, s))
            .count()
    };
    for good in [
        "rackstrap boots nodes; see: rackstrap node list --json",
        "run `rackstrap image import NAME --from DIR`, with rackstrap again",
        "/usr/bin/rackstrap frobs",
        "rackstrap node set {node} --hwaddr MAC",
    ] {
        assert_eq!(wrong(good), 0, "{good}");
    }
    for bad in [
        "see: rackstrap nodes list",
        "see: rackstrap node frobnicate r01n01",
        "`rackstrap node import FILE --format json`",
        "rackstrap lease release [--everything]",
        "rackstrap image import (as debian)",
        "make it: rackstrap image import debian (or look)",
    ] {
        assert_eq!(wrong(bad), 1, "{bad}");
    }
}
