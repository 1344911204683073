//! Variables of a node, its profiles and the cluster: which one wins, and who gets to see it.

use super::*;
use crate::testing;
use proptest::prelude::*;
use rackstrap_site::{HIDDEN, value::Value, vars::Readable};
use std::collections::BTreeMap;

/// A variable of one section: the value, and whether it is secret. Values differ by section, so that the winner is known by its value.
type Written = Option<(String, bool)>;

/// The lines of a section: `key` is the path of its table.
fn section(key: &str, written: &[(char, Written)]) -> String {
    let lines = |secret: bool| -> String {
        let own = written
            .iter()
            .filter_map(|(name, written)| Some((name, written.as_ref()?)))
            .filter(|(_, (_, is))| *is == secret);
        own.map(|(name, (value, _))| format!("{name} = \"{value}\"\n"))
            .collect()
    };
    format!("[{key}.vars]\n{}[{key}.vars-secret]\n{}", lines(false), lines(true))
}

proptest! {
    /// The strongest section that has a variable decides about its value and about who sees it. A secret value is in nothing that is listed.
    #[test]
    fn the_strongest_section_has_the_value_and_says_whether_it_is_secret(
        all in prop::collection::vec(prop::collection::vec(prop::option::of(any::<bool>()), 3), 4)
    ) {
        // By section: cluster, default, gpu, node.
        let sections: Vec<Vec<(char, Written)>> = all.iter().enumerate().map(|(at, secret)| {
            let one = |(name, secret): (char, &Option<bool>)| (name, secret.map(|secret| {
                (format!("{}-{name}{at}", if secret { "s3cret" } else { "open" }), secret)
            }));
            ['a', 'b', 'c'].into_iter().zip(secret).map(one).collect()
        }).collect();
        let more = [
            section("cluster", &sections[0]), section("profile.default", &sections[1]), section("profile.gpu", &sections[2]),
        ];
        let site = testing::cluster(&more.concat());
        let own: BTreeMap<String, Value> = sections[3].iter().filter_map(|(name, written)| {
            let (value, secret) = written.as_ref()?;
            Some((format!("{}.{name}", if *secret { "vars-secret" } else { "vars" }), Value::from(value.as_str())))
        }).collect();
        let node = Node {
            profiles: vec!["gpu".to_owned()],
            settings: own.into(),
            ..testing::node("r01n01")
        };
        let settings = Settings::of_node(&site, &node, |_| ());
        let (plain, real, hidden) = (settings.plain_vars(), settings.vars(None), settings.vars(Some(HIDDEN)));
        for name in ["a", "b", "c"] {
            let at = sections[0].iter().position(|(key, _)| key.to_string() == name).unwrap();
            let winner = sections.iter().rev().find_map(|section| section[at].1.as_ref());
            let value = winner.map(|(value, _)| Value::from(value.as_str()));
            prop_assert_eq!(real.get(name), value.as_ref());
            match winner {
                None => prop_assert!(settings.variable(name).is_none() && !hidden.contains_key(name)),
                Some((_, true)) => {
                    prop_assert!(matches!(settings.variable(name), Some(Readable::Secret)));
                    prop_assert_eq!(&hidden[name], HIDDEN);
                    prop_assert!(!plain.contains_key(name));
                }
                Some((_, false)) => {
                    prop_assert!(matches!(settings.variable(name), Some(Readable::Plain(found)) if Some(found) == value.as_ref()));
                    prop_assert_eq!((Some(&hidden[name]), plain.get(name).copied()), (value.as_ref(), value.as_ref()));
                }
            }
        }
        let listed = serde_json::json!([settings.all(), plain, hidden, node.hide_secrets()]).to_string();
        prop_assert!(!listed.contains("s3cret"), "{}", listed);
    }
}
