//! Makes text from outside safe for people: short, on one line, and without characters that control a terminal.

/// At most `most` bytes of `text`. Characters are not split.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Characters that show nothing, or reverse or break the text around them, besides control characters: `Default_Ignorable_Code_Point` and
/// `Bidi_Control` of Unicode 16 (DerivedCoreProperties.txt, PropList.txt), the separators U+2028 and U+2029, and the interlinear annotations
/// U+FFF9 to U+FFFB. In order.
const UNSEEN: [(char, char); 17] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{34f}', '\u{34f}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fffb}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Whether a person would read something else than the text says if the character went to a terminal: it controls the terminal, or hides,
/// reverses or breaks the text. The one table of all functions that make text from outside safe.
pub fn is_harmful(c: char) -> bool {
    c.is_control() || (!c.is_ascii() && UNSEEN.iter().any(|(first, last)| (*first..=*last).contains(&c)))
}

/// At most `most` bytes of `text` on one line, for storage and display. Each harmful character ([`is_harmful`]) becomes a space, because an
/// escape sequence in a host name must not act on an administrator's terminal, and a serial number must not reverse the rest of its row.
pub fn one_line(text: &str, most: usize) -> String {
    cut(text, most).replace(is_harmful, " ")
}

/// At most `most` characters of `text`, for a message that quotes it. Harmful characters ([`is_harmful`]) are escaped (`\n`, `\u{1b}`), so
/// that the reader sees them. `…` shows that the text was cut.
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
            c if is_harmful(c) && !c.is_control() => shown.extend(c.escape_unicode()),
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
    fn characters_that_hide_or_reverse_text_are_removed() {
        assert!(
            UNSEEN.windows(2).all(|pair| pair[0].1 < pair[1].0) && UNSEEN.iter().all(|(first, last)| first <= last)
        );
        // Right-to-left override and isolate, Arabic letter mark, zero-width space, soft hyphen, Hangul filler, line separator, tag.
        for c in "\u{202e}\u{2067}\u{61c}\u{200b}\u{ad}\u{3164}\u{2028}\u{e0041}".chars() {
            let text = format!("SN{c}1");
            assert_eq!(one_line(&text, 100), "SN 1", "{c:?}");
            assert_eq!(quoted(&text, 100), format!("SN{}1", c.escape_unicode()));
        }
        let plain = "Süd-Ost 東京 Москва שלום é ✓ \u{fffd}";
        assert_eq!(
            (one_line(plain, 100).as_str(), quoted(plain, 100).as_str()),
            (plain, plain)
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
            prop_assert!(line.len() <= most && !line.contains(is_harmful));
            let quoted = quoted(&text, most);
            prop_assert!(!quoted.contains(is_harmful));
            // The longest escape is \u{10ffff}.
            prop_assert!(quoted.chars().count() <= most * 10 + 1);
        }
    }
}
