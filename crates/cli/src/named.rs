//! A test: each command that a text of the project names exists, with its options.
//!
//! Messages name the command that corrects a problem. A command that does not exist would make them worse than no command.

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
    "initramfs",
    "is",
    "itself",
    "keeps",
    "knows",
    "left",
    "made",
    "makes",
    "marker",
    "may",
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
    "used",
    "without",
    "wrote",
];

/// The commands of `cargo xtask`. A test of that program checks them.
const XTASK: &[&str] = &["bench", "demo", "dist", "docs", "efi", "test", "tidy"];

/// Files of the project that people read, relative to its root.
const READ: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs",
    "src",
    "crates",
    "templates",
    "bootscripts",
    "images",
    "systemd",
    "rackstrap.example.toml",
];

pub(super) fn files(path: PathBuf, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            files(entry.unwrap().path(), found);
        }
    } else {
        found.push(path);
    }
}

/// The text after each `name ` in `text`, up to the end of a possible command, and whether it can be typed as it is: then a
/// remark in parentheses follows.
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

/// Whether the word can only be a command: `{name}`, `NODE` and `r01n01` are arguments.
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

/// The problem of `rackstrap SNIPPET`; none if it is correct. A snippet that is `whole` must have all required arguments.
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

/// The words of a command line, up to its end: another command, a remark after a gap, or a comment.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (' ', None) => {
                words.extend(word.take());
                if matches!(letters.peek(), Some(' ' | '#') | None) {
                    break;
                }
            }
            ('|' | ';' | '&' | '>' | '<', None) => break,
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The lines of a help text or a page that are commands by themselves.
fn command_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| line.starts_with("rackstrap "))
}

/// The text inside of Markdown's code blocks, and the text outside of them.
pub(super) fn code_and_prose(text: &str) -> (String, String) {
    let (mut code, mut prose, mut inside) = (String::new(), String::new(), false);
    for line in text.lines() {
        match line.trim_start().starts_with("```") {
            true => {
                inside = !inside;
                prose.push('\n');
            }
            false if inside => code += &format!("{line}\n"),
            false => prose += &format!("{line}\n"),
        }
    }
    (code, prose)
}

/// The project's top folder, two above this package's.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The paths and texts of the pages that people read.
pub(super) fn documents() -> Vec<(String, String)> {
    let root = root();
    let mut found: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(|name| root.join(name))
        .to_vec();
    files(root.join("docs"), &mut found);
    // The directory also has book.toml.
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).unwrap());
    found.into_iter().map(read).collect()
}

#[test]
fn examples_are_command_lines_that_are_accepted() {
    fn walk(command: &Command, texts: &mut Vec<(String, String)>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        texts.push((format!("help of {}", command.get_name()), help));
        command.get_subcommands().for_each(|sub| walk(sub, texts));
    }
    let mut texts: Vec<(String, String)> = documents()
        .into_iter()
        .map(|(name, text)| (name, code_and_prose(&text).0))
        .collect();
    walk(&Cli::command(), &mut texts);
    let (mut lines, mut wrong) = (0, Vec::new());
    for (name, text) in texts {
        for line in command_lines(&text) {
            lines += 1;
            let words = shell_words(line);
            // Placeholders are replaced by values.
            let words = words.iter().map(|word| match word.as_str() {
                "IMAGE@VERSION" => "debian@1",
                "MAC" => "52:54:00:00:00:01",
                "..." => "/srv/root",
                word => word,
            });
            if let Err(error) = Cli::command().try_get_matches_from(words)
                && error.exit_code() != 0
            {
                let why = error.to_string();
                wrong.push(format!("{name}: {line}: {}", why.lines().next().unwrap_or_default()));
            }
        }
    }
    assert!(lines > 150, "only {lines} were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The texts between backquotes in a sentence.
pub(super) fn quoted(sentence: &str) -> impl Iterator<Item = &str> {
    sentence.split('`').skip(1).step_by(2)
}

/// The command with which `text` begins, such as `node set r01n01`; none if it is not a command.
fn command_of<'c>(root: &'c Command, text: &str) -> Option<&'c Command> {
    let mut words = text.strip_prefix("rackstrap ").unwrap_or(text).split_whitespace();
    let group = root.find_subcommand(words.next()?)?;
    match (group.has_subcommands(), words.next()) {
        (true, Some(word)) => group.find_subcommand(word),
        (true, None) => None,
        // `status` alone may be an ordinary word; with more words it is a command.
        (false, more) => (more.is_some() || text.starts_with("rackstrap ")).then_some(group),
    }
}

/// Options that `prose` names and that do not exist. If a sentence follows several commands, the option must exist in each of
/// them.
fn broken_promises(root: &Command, prose: &str) -> (usize, Vec<String>) {
    let (mut promises, mut wrong) = (0, Vec::new());
    let paragraphs = prose.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    for paragraph in paragraphs.filter(|paragraph| !paragraph.contains("cargo xtask")) {
        for sentence in paragraph.split(". ") {
            let mut commands: Vec<&Command> = Vec::new();
            for text in quoted(sentence) {
                if let Some(command) = command_of(root, text) {
                    commands.push(command);
                    promises += 1;
                    let text = text.strip_prefix("rackstrap ").unwrap_or(text);
                    wrong.extend(problem(root, (text, false)).map(|why| format!("{text}: {why}")));
                }
                let Some(option) = text.strip_prefix("--").and_then(|text| text.split([' ', '=']).next()) else {
                    continue;
                };
                if commands.len() > 1 && sentence.contains("each") {
                    promises += commands.len();
                    let without = commands.iter().filter(|command| !knows_option(command, option));
                    wrong.extend(
                        without.map(|command| format!("{} has no option --{option}: {sentence}", command.get_name())),
                    );
                }
            }
        }
    }
    (promises, wrong)
}

#[test]
fn options_that_documents_promise_exist() {
    let mut grammar = Cli::command();
    grammar.build();
    let (mut promises, mut wrong) = (0, Vec::new());
    for (name, text) in documents() {
        let (some, found) = broken_promises(&grammar, &code_and_prose(&text).1);
        promises += some;
        wrong.extend(found.into_iter().map(|what| format!("{name}: {what}")));
    }
    assert!(promises > 30, "only {promises} were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let promise = "`node set` changes nodes and `node history` shows them; each is one transaction, `--dry-run` says what it would do.";
    assert_eq!(broken_promises(&grammar, promise).1.len(), 1);
    assert_eq!(broken_promises(&grammar, "Then `node set --frob` does it.").1.len(), 1);
}

#[test]
fn commands_that_texts_name_exist() {
    let root = root();
    let mut found = Vec::new();
    for path in READ {
        files(root.join(path), &mut found);
    }
    let mut grammar = Cli::command();
    grammar.build();
    let (mut commands, mut wrong) = (0, BTreeSet::new());
    for path in found {
        // This file contains wrong commands on purpose.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.ends_with("crates/cli/src/named.rs") {
            continue;
        }
        // A string literal that continues on the next line is one text.
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
