//! Wraps the text of `--help`.

use super::{output, screen};
use clap::Command;

/// The widest help, also without a terminal.
const WIDEST: usize = 100;

/// On a narrower terminal the texts of options would have no room.
const NARROWEST: usize = 40;

/// `command` with help that fits the terminal.
pub fn fitting(command: Command) -> Command {
    let columns = screen::any_columns().unwrap_or(WIDEST).clamp(NARROWEST, WIDEST);
    reflowed(command.term_width(columns), columns)
}

fn reflowed(command: Command, columns: usize) -> Command {
    let command = match command.get_after_help().map(|text| reflow(&text.to_string(), columns)) {
        Some(text) => command.after_help(text),
        None => command,
    };
    command.mut_subcommands(|sub| reflowed(sub, columns))
}

/// Wraps each paragraph of the text at `columns`, wherever its lines were broken before. Indented lines are examples or
/// tables, and stay lines of their own; if one is too wide, the text after its gap continues on the next line.
fn reflow(text: &str, columns: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut in_paragraph = false;
    for line in text.lines() {
        let of_paragraph = !line.is_empty() && !line.starts_with(' ');
        match lines.last_mut() {
            Some(last) if of_paragraph && in_paragraph => *last = format!("{last} {line}"),
            _ => lines.extend(split(line, columns)),
        }
        in_paragraph = of_paragraph && !line.ends_with(':');
    }
    let lines = lines.iter().map(|line| match line.starts_with(' ') {
        true => output::fit(line, Some(columns)),
        // A line that continues a paragraph is not indented.
        false => output::fill(line, columns),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The line; an indented line that is too wide is split at its gap.
fn split(line: &str, columns: usize) -> Vec<String> {
    const GAP: &str = "  ";
    let indent = line.len() - line.trim_start().len();
    match line[indent..].split_once(GAP) {
        Some((head, tail)) if indent > 0 && line.chars().count() > columns => {
            let below = " ".repeat(indent + 4);
            vec![
                format!("{}{head}", " ".repeat(indent)),
                format!("{below}{}", tail.trim_start()),
            ]
        }
        _ => vec![line.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_filled_and_examples_stay_lines() {
        let text = "One line of some words\nthat goes on here.\n\nExamples:\n  rackstrap status\n  rackstrap status --watch    (until Ctrl-C)";
        assert_eq!(
            reflow(text, 60),
            "One line of some words that goes on here.\n\nExamples:\n  rackstrap status\n  rackstrap status --watch    (until Ctrl-C)"
        );
        assert_eq!(
            reflow(text, 30),
            "One line of some words that\ngoes on here.\n\nExamples:\n  rackstrap status\n  rackstrap status --watch\n      (until Ctrl-C)"
        );
    }
}
