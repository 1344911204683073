//! Questions to the user, answered with yes or no.

use anyhow::{Result, bail};
use std::io::{BufRead, IsTerminal};

/// Asks `question`. Enter alone answers `default`.
///
/// # Errors
/// Standard input is not a terminal.
pub fn yes(question: &str, default: bool) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "{question} Standard input is not a terminal, so the question cannot be asked\nhelp: add --yes to answer yes"
        );
    }
    eprint!("{question} {} ", if default { "[Y/n]" } else { "[y/N]" });
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(match line.trim() {
        "" => default,
        answer => matches!(answer, "y" | "Y" | "yes"),
    })
}
