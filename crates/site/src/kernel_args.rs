//! Kernel arguments that every boot loader passes on as they are written (pure).
//!
//! The text goes through a script of iPXE, GRUB, PXELINUX or U-Boot, or through a Raspberry Pi's cmdline.txt, and then through the
//! kernel's own parser. What one of them would change is refused, because a node may be exchanged for a machine with another loader:
//!
//! - The kernel knows double quotes only, around a value or a whole argument, and no escapes (`next_arg` in lib/cmdline.c).
//! - iPXE has no quotes: it separates words at blanks and joins them with one blank, takes the words `||`, `&&` and `;` for
//!   operators, and `${` for a setting (`split_command` and `expand_command` in src/core/exec.c).
//! - GRUB gets words that the script quotes for it, and cannot keep a backslash (`grub_create_loader_cmdline` in
//!   grub-core/lib/cmdline.c).
//! - U-Boot removes single quotes and backslashes, and inserts variables at `$` (`cli_simple_process_macros` in
//!   common/cli_simple.c).

use super::{
    diagnostic::quote,
    vars::{compact, without_variables},
};
use rackstrap_wire::cmdline;

/// x86 kernels accept 2,048 bytes of command line (COMMAND_LINE_SIZE in asm/setup.h); half of it is reserved for rackstrap's
/// own arguments.
const LONGEST: usize = 1024;

type Problem = (String, String);

/// The words of kernel arguments, as the kernel separates them: a blank between double quotes belongs to its word.
pub fn words(text: &str) -> Vec<&str> {
    let mut inside = false;
    let separates = |c: char| {
        inside ^= c == '"';
        c == ' ' && !inside
    };
    text.split(separates).filter(|word| !word.is_empty()).collect()
}

/// The arguments with one blank between them. Variables stay.
pub(super) fn read(text: &str) -> Result<String, Problem> {
    check(&without_variables(text)?)?;
    Ok(words(&compact(text)?).join(" "))
}

/// Checks that all boot loaders pass on these arguments, in which all variables have their values.
///
/// # Errors
/// The argument that one of them would change, and its correction.
pub fn check(text: &str) -> Result<(), Problem> {
    let wrong = |message: String, help: &str| Err((message, help.to_owned()));
    if let Some(c) = text.chars().find(|c| !(' '..='~').contains(c) || "'`\\$".contains(*c)) {
        let message = format!("{} cannot be in kernel arguments here", quote(&c.to_string()));
        return wrong(
            message,
            "boot loaders change it: write words with single blanks between them, and \" around a value with blanks",
        );
    }
    if text.len() > LONGEST {
        let message = format!("the kernel arguments are {} bytes long, at most {LONGEST}", text.len());
        return wrong(
            message,
            "leave some out: the kernel silently truncates its command line",
        );
    }
    if text.matches('"').count() % 2 == 1 {
        return wrong(
            "the kernel arguments have a double quote without its second one".to_owned(),
            "write the second one, such as dyndbg=\"file x +p\"",
        );
    }
    for word in words(text) {
        if !is_quoted_well(word) {
            return wrong(
                format!("the quotes in {} are not around a whole value", quote(word)),
                "write KEY=\"VALUE\": the kernel takes other quotes for a part of the argument",
            );
        }
        if word.contains("  ") {
            return wrong(
                format!(
                    "{} has several blanks in a row, of which iPXE passes on one",
                    quote(word)
                ),
                "write one blank",
            );
        }
    }
    // Also what is between quotes: iPXE and the agent separate arguments at each blank.
    text.split_whitespace()
        .try_for_each(|arg| allowed(arg.trim_matches('"')))
}

fn allowed(arg: &str) -> Result<(), Problem> {
    let wrong = |message: String, help: &str| Err((message, help.to_owned()));
    let own = cmdline::SERVER
        .split_once('.')
        .map_or("rackstrap", |(prefix, _)| prefix);
    let key = arg.split_once('=').map_or(arg, |(key, _)| key);
    // An administrator may set these two of rackstrap's arguments: one for debugging, and the time after which a hung kernel restarts.
    if ![cmdline::HOLD, cmdline::HUNG_AFTER].contains(&key)
        && key.strip_prefix(own).is_some_and(|rest| rest.starts_with('.'))
    {
        return wrong(format!("only rackstrap may set '{arg}'"), "remove it");
    }
    match arg {
        "||" | "&&" | ";" => {
            return wrong(
                format!("iPXE takes '{arg}' for the end of its command"),
                "remove it, or write it without blanks around it",
            );
        }
        _ => {}
    }
    match key {
        "--" => wrong(
            "'--' would end the kernel's arguments".to_owned(),
            "remove it: configure init by its own files",
        ),
        "initrd" => wrong(format!("only the boot script may set '{arg}'"), "remove it"),
        "rdinit" => wrong(
            format!("'{arg}' would start another program instead of rackstrap's agent"),
            "remove it; init = \"…\" in the profile names the program that runs after the agent",
        ),
        "console" if arg.contains(',') && arg.len() > 64 => wrong(
            "this console is too long".to_owned(),
            "write console = \"ttyS0,115200\" in the profile",
        ),
        _ => Ok(()),
    }
}

/// Whether a word has no quotes, or one pair: around the whole word, or around the whole value after its first `=`.
fn is_quoted_well(word: &str) -> bool {
    let inside = |text: &str| {
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        text.is_some_and(|text| !text.contains('"'))
    };
    let value = |(key, value): (&str, &str)| !key.is_empty() && !key.contains('"') && inside(value);
    !word.contains('"') || word.len() > 2 && inside(word) || word.split_once('=').is_some_and(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_allowed_where_the_kernel_takes_them() {
        for text in [
            "quiet",
            "dyndbg=\"file x +p\"",
            "\"dyndbg=file x +p\" a",
            "a=\"\" b=\"c\"",
            "dyndbg=\"file drivers/usb/* +p; module nfs +p\"",
            "x=\"a||b\" y=a;b",
        ] {
            assert_eq!(read(text).as_deref(), Ok(text));
        }
        assert_eq!(read("  a   b=\"c d\"  ").as_deref(), Ok("a b=\"c d\""));
        assert_eq!(
            read("a={{  vars.x }}  b=\"{{ vars.y }} z\"").as_deref(),
            Ok("a={{vars.x}} b=\"{{vars.y}} z\"")
        );
        for (text, says) in [
            ("a=\"b", "without its second one"),
            ("a=\"b\"c", "not around a whole value"),
            ("a=b\"c d\"", "not around a whole value"),
            ("a\"b=c\"", "not around a whole value"),
            ("\"a=\"b\"\"", "not around a whole value"),
            ("\"\"", "not around a whole value"),
            ("a=\"b  c\"", "several blanks in a row"),
            ("a=\"b && c\"", "iPXE takes '&&' for the end of its command"),
            ("a ; b", "iPXE takes ';'"),
            ("a='b'", "cannot be in kernel arguments"),
            ("a=$b", "'$' cannot be"),
            (
                "a=\"b rackstrap.token=1\"",
                "only rackstrap may set 'rackstrap.token=1'",
            ),
            ("\"rdinit=/bin/sh\"", "would start another program"),
            ("a={{ x }}", "is not a variable"),
        ] {
            let (message, _) = read(text).unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
        }
    }

    /// An argument as `next_arg` (lib/cmdline.c of Linux) divides it into key and value.
    fn divided(word: &str) -> (String, Option<String>) {
        let bare = |text: &str| {
            let rest = text.strip_prefix('"');
            rest.map_or(text, |rest| rest.strip_suffix('"').unwrap_or(rest))
                .to_owned()
        };
        match bare(word).split_once('=') {
            None => (bare(word), None),
            Some((key, value)) => (key.to_owned(), Some(bare(value))),
        }
    }

    proptest! {
        /// iPXE separates at blanks and joins with one; GRUB removes quotes, and puts them around whole words with blanks. The kernel
        /// gets the same arguments from both.
        #[test]
        fn loaders_and_kernel_agree_on_what_is_accepted(text in "([a-c=\";&|-]{1,4} {0,2}){0,6}") {
            prop_assume!(check(&text).is_ok());
            let of = |line: &str| words(line).into_iter().map(divided).collect::<Vec<_>>();
            let by_ipxe: Vec<&str> = text.split_whitespace().collect();
            prop_assert_eq!(of(&by_ipxe.join(" ")), of(&text));
            let by_grub = words(&text).into_iter().map(|word| {
                let bare = word.replace('"', "");
                if bare.contains(' ') { format!("\"{bare}\"") } else { bare }
            });
            prop_assert_eq!(of(&by_grub.collect::<Vec<_>>().join(" ")), of(&text));
        }
    }
}
