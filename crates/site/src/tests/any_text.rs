//! Whatever the text is: it is read or refused with places and help, and what is read is sound.

use super::*;
use proptest::prelude::*;

/// What all code that uses a checked site relies on.
fn sound(site: &Site) {
    for (i, subnet) in site.subnets.iter().enumerate() {
        assert!(
            site.subnets[..i]
                .iter()
                .all(|o| !o.network.contains(&subnet.network.network()))
        );
        assert!(subnet.interface.is_none() || subnet.network.contains(&subnet.server));
        let Some((first, last)) = subnet.pool else { continue };
        assert!(first <= last && subnet.network.contains(&first) && subnet.network.contains(&last));
        for address in ipnet::Ipv4AddrRange::new(first, last).take(1000) {
            let node = site.cluster.naming.address_to_name(address);
            assert!(node.is_none_or(|n| site.address_of(&n).is_err()), "{address}");
        }
    }
    for (name, layout) in &site.layouts {
        assert!(layout.digest.len() == 32 && *name == layout.layout.name && !layout.layout.partitions.is_empty());
    }
    assert!(site.profiles.contains_key("default") && !site.subnets.is_empty());
    for profile in site.profiles.values() {
        let layout = profile.layout.as_deref().unwrap_or_default();
        assert_eq!(site.layouts_of(layout).count(), layout.split_whitespace().count());
    }
}

#[test]
fn the_fuzzers_corpus_passes() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/site");
    let mut outcomes = [0, 0];
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        match check_bytes(&bytes, "x".to_owned(), Path::new("/")) {
            Ok((site, _)) => {
                sound(&site);
                outcomes[0] += 1;
            }
            Err(e) => {
                let shown = e.to_string();
                assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
                outcomes[1] += 1;
            }
        }
    }
    assert!(outcomes[0] >= 4 && outcomes[1] >= 4, "{outcomes:?}");
}

/// The place, the number of removed bytes, and the inserted text.
fn edits() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, String)>> {
    let text = "\\PC{0,6}|[\\[\\]{}=\"\n]{1,3}|[\u{1}\u{1b}\u{202e}]|\\\\u00[01][0-9a-f]";
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..40, text), 1..6)
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = check_bytes(&bytes, "x".to_owned(), Path::new("/"));
    }

    #[test]
    fn no_text_panics(text in "([\\[\\]{}=\"'#\n.é-]|cluster|subnet|layout|profile|name|[0-9]|\\PC){0,60}") {
        let _ = check(&text);
    }

    /// The example with pieces removed, moved and overwritten.
    #[test]
    fn no_mangled_example_panics(edits in edits()) {
        let mut text = EXAMPLE.to_owned();
        for (at, length, insert) in edits {
            let snap = |text: &str, mut i: usize| { while !text.is_char_boundary(i) { i -= 1; } i };
            let from = snap(&text, at.index(text.len() + 1));
            let to = snap(&text, (from + length).min(text.len()));
            text.replace_range(from..to.max(from), &insert);
        }
        match check(&text) {
            Ok((site, _)) => sound(&site),
            Err(ConfigError::Read { .. }) => panic!("nothing was to be read"),
            Err(ConfigError::Invalid { problems, .. }) => {
                prop_assert!(!problems.is_empty());
                for p in problems {
                    let shown = p.to_string();
                    prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{}", shown);
                    prop_assert!(p.line <= text.lines().count() + 1 && !p.message.is_empty() && !p.help.is_empty());
                }
            }
        }
    }
}
