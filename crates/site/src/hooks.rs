//! `[hooks]`: the site's own programs.

use super::{
    Hooks,
    diagnostic::{Report, quote},
    section::Section,
    server::read_path,
};
use std::path::Path;

pub(super) fn read(report: &mut Report<'_>, section: Option<&Section<'_>>, directory: &Path) -> Hooks {
    let mut hooks = Hooks {
        on_change: Vec::new(),
        drain: Vec::new(),
        resume: Vec::new(),
        timeout_secs: 60,
    };
    let Some(section) = section else { return hooks };
    hooks.timeout_secs = (section.seconds(report, "timeout", 1..=3600, "1m")).unwrap_or(hooks.timeout_secs);
    hooks.on_change = program(report, section, "on-change", directory);
    hooks.drain = program(report, section, "drain", directory);
    hooks.resume = program(report, section, "resume", directory);
    hooks
}

/// A program with its arguments; empty if none is named.
fn program(report: &mut Report<'_>, section: &Section<'_>, key: &str, directory: &Path) -> Vec<String> {
    let example = format!("[\"/etc/rackstrap/{key}\"]");
    let word = |text: &str| match text.contains('\0') {
        true => Err(("a program's argument has no NUL".to_owned(), "remove it".to_owned())),
        false => Ok(text.to_owned()),
    };
    let spanned = section.list(report, key, &example, word).unwrap_or_default();
    let mut words: Vec<String> = spanned.iter().map(|word| word.get_ref().clone()).collect();
    let Some(program) = spanned.first() else { return words };
    // The PATH of a service differs from the administrator's, so the program must be named by its full path.
    match program.get_ref() {
        text if text.contains(char::is_whitespace) && !text.starts_with('/') => report.error(
            program.span(),
            format!("{} is a command line, but no shell runs it", quote(text)),
            "write each word as a separate item, such as [\"/usr/bin/make\", \"-C\", \"/etc/slurm\"]; or the path of a script",
        ),
        text if !text.contains('/') => report.error(
            program.span(),
            format!("{} is not the path of a program", quote(text)),
            format!("write its whole path, such as {key} = {example}"),
        ),
        text => match read_path(text, directory) {
            Ok(path) => words[0] = path.to_string_lossy().into_owned(),
            Err((message, help)) => report.error(program.span(), message, help),
        },
    }
    words
}
