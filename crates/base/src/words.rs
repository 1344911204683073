//! Words that fit their number.

/// `1 node`, `2 nodes`; `1 address`, `2 addresses`.
pub fn count(number: usize, one: &str) -> String {
    let plural = match (number, one.ends_with("ss")) {
        (1, _) => "",
        (_, true) => "es",
        _ => "s",
    };
    format!("{number} {one}{plural}")
}

/// No name and no word of a file's language is longer, bytes.
const LONGEST: usize = 64;

/// The one of `candidates` that `text` was probably meant to be, if it looks like a slip of the pen for it. For names of nodes, images
/// and the like, in which another number is another place ([`slips`]).
pub fn meant<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    nearest(candidates, |candidate| slips(text, candidate))
}

/// The same for keys, options and other words of a language, in which a number means nothing by itself: `ext3` is a slip for `ext4`.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase().replace('_', "-");
    let length = word.chars().count();
    nearest(candidates, |candidate| {
        let slips = strsim::damerau_levenshtein(&word, candidate);
        (slips <= 1.max(length.min(candidate.len()) / 3)).then_some(slips)
    })
}

/// The candidate with the fewest slips; of several the first.
fn nearest<'c>(
    candidates: impl IntoIterator<Item = &'c str>,
    slips: impl Fn(&str) -> Option<usize>,
) -> Option<&'c str> {
    let near = candidates.into_iter().filter_map(|c| Some((slips(c)?, c)));
    near.min_by_key(|(slips, _)| *slips).map(|(_, candidate)| candidate)
}

/// How many slips make `text` of `candidate`; none if it is something else. Letters are mistyped, and zeros are left out, but another
/// number is another place: `r99n01` is no slip for `r01n01`, and `r1n01` is one.
pub fn slips(text: &str, candidate: &str) -> Option<usize> {
    let shortest = text.len().min(candidate.len());
    if shortest == 0 || text.len() > LONGEST || candidate.len() > LONGEST {
        return None;
    }
    let (letters, numbers) = parts(text);
    let (wanted, theirs) = parts(candidate);
    let slips = strsim::damerau_levenshtein(&letters, &wanted);
    (numbers == theirs && slips <= (shortest / 3).max(1) && slips < shortest).then_some(slips)
}

/// The letters, with a mark for each number, and the numbers without leading zeros.
fn parts(text: &str) -> (String, Vec<String>) {
    let (mut letters, mut numbers) = (String::new(), Vec::<String>::new());
    let mut in_number = false;
    for c in text.to_lowercase().chars() {
        match (c.is_ascii_digit(), in_number) {
            (true, true) => numbers.last_mut().into_iter().for_each(|number| number.push(c)),
            (true, false) => {
                letters.push('#');
                numbers.push(c.to_string());
            }
            (false, _) => letters.push(c),
        }
        in_number = c.is_ascii_digit();
    }
    let bare = |number: String| number.trim_start_matches('0').to_owned();
    (letters, numbers.into_iter().map(bare).collect())
}

#[cfg(test)]
mod tests {
    use super::{closest, count, meant};

    #[test]
    fn a_slip_of_the_pen_is_told_from_another_place() {
        let names = ["r01n01", "r01n03", "gpu", "bigmem", "rack:r01", "debian-12"];
        for (text, wanted) in [
            ("r1n03", Some("r01n03")),
            ("R01N03", Some("r01n03")),
            ("r01no3", Some("r01n03")),
            ("x01n01", Some("r01n01")),
            ("gpus", Some("gpu")),
            ("bigmen", Some("bigmem")),
            ("debain-12", Some("debian-12")),
            ("rack:r1", Some("rack:r01")),
            // Names that are well formed, of what is not there.
            ("r99n01", None),
            ("r01n02", None),
            ("r01n1000", None),
            ("rack:r02", None),
            ("debian-13", None),
            ("storage", None),
            ("gqo", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(meant(text, names), wanted, "{text}");
        }
    }

    #[test]
    fn numbers_tell_places_apart_and_not_words() {
        assert_eq!(closest("ext3", ["xfs", "ext4"]), Some("ext4"));
        assert_eq!(meant("ext3", ["xfs", "ext4"]), None);
        assert_eq!(closest("Listen_Port", ["listen-port", "listen"]), Some("listen-port"));
        assert_eq!(closest("frobnicate", ["listen-port", "listen"]), None);
        assert_eq!(closest(&"a".repeat(65), [&*"a".repeat(64)]), None);
    }

    #[test]
    fn plurals_are_right() {
        for (number, one, said) in [
            (0, "node", "0 nodes"),
            (1, "node", "1 node"),
            (2, "node", "2 nodes"),
            (1, "hardware address", "1 hardware address"),
            (2, "hardware address", "2 hardware addresses"),
        ] {
            assert_eq!(count(number, one), said);
        }
    }
}
