//! Compares kernel releases (`uname -r`), which name directories and files.

use std::cmp::Ordering;

/// Compares two kernel releases: digits by value, `~rc` before the end, the rest as text.
///
/// For kernel releases, this is the order of Debian's and RPM's comparison of versions:
/// `6.1.0-9-amd64 < 6.1.0-40-amd64`, `6.9~rc3-amd64 < 6.9-amd64 < 6.9.1-amd64`, `6.1.0-rc3 < 6.1.0-1`.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (text_a, rest_a) = split(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split(b, |c| !c.is_ascii_digit());
        let by_text = weigh(text_a).cmp(weigh(text_b));
        if by_text != Ordering::Equal {
            return by_text;
        }
        let (number_a, rest_a) = split(rest_a, |c| c.is_ascii_digit());
        let (number_b, rest_b) = split(rest_b, |c| c.is_ascii_digit());
        let by_number = compare_digits(number_a, number_b);
        if by_number != Ordering::Equal || (rest_a.is_empty() && rest_b.is_empty()) {
            return by_number;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn split(text: &[u8], inside: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|c| inside(**c)).count())
}

/// `~` sorts before the end, `-rc` like `~rc`, letters before other characters (deb-version(7)).
fn weigh(text: &[u8]) -> impl Iterator<Item = i32> + use<'_> {
    let candidate = text.starts_with(b"-rc") || text.starts_with(b"~rc");
    text.iter()
        .enumerate()
        .map(move |(i, c)| match *c {
            _ if candidate && i == 0 => -1,
            b'~' => -1,
            c if c.is_ascii_alphabetic() => c as i32,
            c => c as i32 + 256,
        })
        .chain(std::iter::once(0))
}

fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let (_, a) = split(a, |c| c == b'0');
    let (_, b) = split(b, |c| c == b'0');
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn newer_is_greater() {
        for (older, newer) in [
            ("6.1.0-9-amd64", "6.1.0-40-amd64"),
            ("6.1.0-40-amd64", "6.10.0-1-amd64"),
            ("5.14.0-362.8.1.el9_3.x86_64", "5.14.0-362.24.1.el9_3.x86_64"),
            ("6.9~rc3-amd64", "6.9-amd64"),
            ("6.9-amd64", "6.9.1-amd64"),
            ("6.1.0-rc3", "6.1.0"),
            ("6.1.0-rc3", "6.1.0-1"),
            ("6.1.0", "6.1.0-1"),
            ("99999999999999999998", "99999999999999999999"),
        ] {
            assert_eq!(compare(older, newer), Ordering::Less, "{older} {newer}");
            assert_eq!(compare(newer, older), Ordering::Greater, "{newer} {older}");
        }
        assert_eq!(compare("6.1.0-01", "6.1.0-1"), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn the_comparison_is_a_total_order(a in "[0-9a.~_-]{0,12}", b in "[0-9a.~_-]{0,12}", c in "[0-9a.~_-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b) != Ordering::Greater && compare(&b, &c) != Ordering::Greater {
                prop_assert_ne!(compare(&a, &c), Ordering::Greater);
            }
        }
    }
}
