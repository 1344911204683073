//! What GRUB's language needs: quoted text, and kernel arguments that reach the kernel as the site file has them (pure).

/// `text` as one word of GRUB's language. Between single quotes nothing has a meaning but the quote itself, which becomes a double one.
pub fn word(text: &str) -> String {
    let inside = text.chars().map(|c| match c {
        '\'' => '"',
        c if c.is_control() => ' ',
        c => c,
    });
    format!("'{}'", inside.collect::<String>())
}

/// The kernel arguments `line` as quoted words of GRUB's language.
///
/// GRUB puts the line together again from its words: it sets those with a space between double quotes, as the kernel reads them, and puts a
/// backslash before quotes and backslashes inside of words (grub_create_loader_cmdline in grub-core/lib/cmdline.c), which the kernel would
/// take for a part of the argument.
///
/// # Errors
/// An argument that GRUB would change.
pub fn arguments(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut current: Option<String> = None;
    let mut inside = false;
    for c in line.chars() {
        match c {
            '"' => {
                inside = !inside;
                current.get_or_insert_default();
            }
            ' ' | '\t' if !inside => words.extend(current.take()),
            '\'' | '\\' => {
                return Err(format!(
                    "GRUB changes {c} in kernel arguments; remove it from kernel-args"
                ));
            }
            c if c.is_control() => {
                return Err("kernel-args has a control character, which GRUB does not pass on".to_owned());
            }
            c => current.get_or_insert_default().push(c),
        }
    }
    if inside {
        return Err("kernel-args has a double quote without its second one".to_owned());
    }
    words.extend(current);
    Ok(words.iter().map(|text| word(text)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_arguments_become_words_that_grub_leaves_alone() {
        let all = arguments("quiet  a=$x;b|c  dyndbg=\"file a.c +p\" {d}").unwrap();
        assert_eq!(all, ["'quiet'", "'a=$x;b|c'", "'dyndbg=file a.c +p'", "'{d}'"]);
        assert_eq!(arguments("").unwrap(), [""; 0]);
        for (line, says) in [
            ("a='b'", "GRUB changes '"),
            ("a=\\b", "GRUB changes \\"),
            ("a=\"b", "without its second one"),
            ("a=b\nc", "control character"),
        ] {
            assert!(arguments(line).unwrap_err().contains(says), "{line}");
        }
        assert_eq!(word("it's\u{1b}[2J $x"), "'it\"s [2J $x'");
    }
}
