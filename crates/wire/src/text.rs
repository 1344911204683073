//! Makes text from outside safe for people: short, on one line, and without characters that control a terminal.

/// At most `most` bytes of `text`. Characters are not split.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// At most `most` bytes of `text` on one line, for storage and display. Each control character becomes a space, because an escape
/// sequence in a host name must not act on an administrator's terminal.
pub fn one_line(text: &str, most: usize) -> String {
    cut(text, most).replace(char::is_control, " ")
}

/// At most `most` characters of `text`, for a message that quotes it. Control characters are escaped (`\n`, `\u{1b}`), so that the
/// reader sees them. `…` shows that the text was cut.
pub fn quoted(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for (number, c) in text.chars().enumerate() {
        if number == most {
            shown.push('…');
            break;
        }
        match c {
            // Quotes are harmless, and escaped ones are hard to read.
            '"' | '\'' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

/// Has a type that reads and shows itself as text ([`std::str::FromStr`], [`std::fmt::Display`]) be that text in JSON and in the store.
#[macro_export]
macro_rules! serde_as_text {
    ($kind:ty) => {
        impl ::serde::Serialize for $kind {
            fn serialize<S: ::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $kind {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(::serde::de::Error::custom)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn characters_are_not_split() {
        assert_eq!(cut("éé", 3), "é");
        assert_eq!(cut("éé", 4), "éé");
        assert_eq!(cut("é", 0), "");
    }

    #[test]
    fn control_characters_are_removed() {
        assert_eq!(one_line("a\u{1b}[2Jb\n", 100), "a [2Jb ");
        assert_eq!(one_line("a\nb\nc", 3), "a b");
        assert_eq!(quoted("a\u{1b}[2Jb\n", 100), r"a\u{1b}[2Jb\n");
        assert_eq!(
            quoted("a right-to-left \u{202e}mark", 100),
            r"a right-to-left \u{202e}mark"
        );
    }

    #[test]
    fn a_cut_is_shown() {
        assert_eq!(quoted("kernel", 6), "kernel");
        assert_eq!(quoted("kernels", 6), "kernel…");
        assert_eq!(quoted(&"ä".repeat(61), 60), "ä".repeat(60) + "…");
        assert_eq!(quoted(r#"it's "x" \"#, 60), r#"it's "x" \\"#);
    }

    proptest! {
        #[test]
        fn all_results_have_limits(text: String, most in 0usize..40) {
            prop_assert!(text.starts_with(cut(&text, most)) && cut(&text, most).len() <= most);
            let line = one_line(&text, most);
            prop_assert!(line.len() <= most && !line.contains(char::is_control));
            let quoted = quoted(&text, most);
            prop_assert!(!quoted.contains(char::is_control));
            // The longest escape is \u{10ffff}.
            prop_assert!(quoted.chars().count() <= most * 10 + 1);
        }
    }
}
