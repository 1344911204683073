use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// r01..r04 with n01..n04 each, in groups.
fn site() -> Membership {
    let mut site = Membership::default();
    for rack in 1..=4 {
        for slot in 1..=4 {
            let mut groups = vec![format!("rack{rack}")];
            groups.extend((slot == 1).then(|| "gpu".to_owned()));
            groups.push(format!("profile:{}", if rack == 4 { "login" } else { "compute" }));
            site.node(&format!("r{rack:02}n{slot:02}"), groups);
        }
    }
    site.define("front", "@rack[1-2]");
    site.define("front-gpu", "@front&@gpu");
    site.define("a", "@b");
    site.define("b", "r01n01,@c");
    site.define("c", "@a");
    site.define("broken", "r[1-2");
    site.define("nobody", " ");
    site
}

fn names(text: &str) -> Vec<String> {
    match expand(text, &site()) {
        Ok(set) => set.into_iter().collect(),
        Err(error) => panic!("{error}"),
    }
}

fn folded(text: &str) -> String {
    expand(text, &site()).map_or_else(|error| error.to_string(), |set| set.fold())
}

#[test]
fn expands_brackets() {
    assert_eq!(names("n1"), ["n1"]);
    assert_eq!(
        names("r[01-02]n[09-11]"),
        ["r01n09", "r01n10", "r01n11", "r02n09", "r02n10", "r02n11"]
    );
    assert_eq!(names("n[1-3,7,10-20/4]"), ["n1", "n2", "n3", "n7", "n10", "n14", "n18"]);
    assert_eq!(
        names("n[1-2]-ib.a[3,5]"),
        ["n1-ib.a3", "n1-ib.a5", "n2-ib.a3", "n2-ib.a5"]
    );
    assert_eq!(names("[1-2]"), ["1", "2"]);
    assert_eq!(names("n[0-1]"), ["n0", "n1"]);
}

#[test]
fn keeps_zeros() {
    assert_eq!(names("n[01,1,001]"), ["n1", "n01", "n001"]);
    assert_eq!(names("n[08-11]"), ["n08", "n09", "n10", "n11"]);
    assert_eq!(names("n[98-101]"), ["n98", "n99", "n100", "n101"]);
    // As in Slurm; ClusterShell refuses it.
    assert_eq!(names("n[098-1000/451]"), ["n098", "n549", "n1000"]);
    assert_eq!(names("n[00-01]"), ["n00", "n01"]);
}

#[test]
fn names_are_sorted_by_their_numbers() {
    assert_eq!(names("r10n1,r2n10,r2n9,r2n9,b,a"), ["a", "b", "r2n9", "r2n10", "r10n1"]);
    assert_eq!(names("n1 n01\tn2\nn"), ["n", "n1", "n01", "n2"]);
}

#[test]
fn operators_work_from_left_to_right() {
    assert_eq!(folded("n[1-9]!n[2-3],n2"), "n[1-2,4-9]");
    assert_eq!(folded("n[1-9] ! n[2-3] , n2"), "n[1-2,4-9]");
    assert_eq!(folded("n[1-9]&n[5-20]"), "n[5-9]");
    assert_eq!(folded("n[1-5]^n[4-7,4]"), "n[1-3,6-7]");
    assert_eq!(folded("n1!n1"), "");
    assert_eq!(folded("n1!n2"), "n1");
    assert_eq!(folded("a,b!b,c"), "a,c");
}

#[test]
fn arguments_are_joined() {
    let of = |texts: &[&str]| expand_all(texts, &site()).unwrap().fold();
    assert_eq!(
        of(&["r[01-02]n[01-04]", "!r01n05", "!r01n01"]),
        "r01n[02-04],r02n[01-04]"
    );
    assert_eq!(of(&["@rack1", "&@gpu"]), "r01n01");
    assert_eq!(of(&["n1", "n2"]), "n[1-2]");
    assert_eq!(of(&[]), "");
    // Empty, but something: an operator may follow.
    assert_eq!(of(&["n1!n1", "!n2"]), "");
}

#[test]
fn reads_lines() {
    let text = "# made by hand\r\nr01n01 r01n02 # two\r\n\r\n  # none\n!r01n01\n";
    assert_eq!(expand_all(lines(text), &NoGroups).unwrap().fold(), "r01n02");
    assert_eq!(lines("\n # only this\n").count(), 0);
    let error = expand_all(lines("n1\nn[2\n"), &NoGroups).unwrap_err();
    assert_eq!((error.text.as_str(), error.column), ("n[2", 2));
}

#[test]
fn knows_groups() {
    assert_eq!(folded("@gpu"), "r[01-04]n01");
    assert_eq!(folded("@profile:login"), "r04n[01-04]");
    assert_eq!(folded("@rack[1-2,4]"), "r[01-02,04]n[01-04]");
    assert_eq!(folded("@front-gpu,x"), "r[01-02]n01,x");
    assert_eq!(folded("@nobody"), "");
    assert_eq!(folded("@*!@profile:compute"), "r04n[01-04]");
}

#[test]
fn knows_wildcards() {
    assert_eq!(folded("*"), "r[01-04]n[01-04]");
    assert_eq!(folded("*"), folded("@*"));
    assert_eq!(folded("r01*"), "r01n[01-04]");
    assert_eq!(folded("r0?n01,*4"), "r[01-04]n[01,04]");
    assert_eq!(folded("r[01-02]*"), "r[01-02]n[01-04]");
    assert_eq!(folded("x*"), "");
    assert_eq!(folded("*n01*"), "r[01-04]n01");
}

#[test]
fn errors_name_the_mistake_and_the_right_form() {
    let site = site();
    let wrong = [
        ",",
        "n1,",
        "n1,,n2",
        "n1!",
        "n1!&n2",
        "!r01n05",
        "&n1",
        "r[01-04",
        "r[",
        "r[1-3,n1",
        "n[1[2]]",
        "n1]",
        "n[]",
        "n[1,]",
        "n[1-]",
        "n[-3]",
        "n[1-2-3]",
        "n[a-c]",
        "n[1 2]",
        "n[9-1]",
        "n[1-9/0]",
        "n[1-9/]",
        "n[1-9/x]",
        "n[01-9]",
        "n[1-09]",
        "n[1-010]",
        "n[001-10]",
        "n[1-1234567890123456]",
        "n{1..3}",
        "(n1)",
        "n1@gpu",
        "n1:2",
        "n1/2",
        "n1|n2",
        "n1~n2",
        "-",
        "-n1",
        ".n1",
        "né[1]",
        "n\u{7}",
        "@",
        "@gp",
        "@compute",
        "@profile:comptue",
        "@storage",
        "@rack*",
        "@rack[1-9]",
        "@a",
        "n1 @b",
        "@broken",
        "n[1-65536],m",
        "n[1-65537]",
        "n[1-9999999999][1-9999999]",
        "n[1-99999][1-99999][1-99999][1-99999][1-99999]",
        "a[1][2][3][4][5][6][7][8][9]",
        "r[1-257]*",
    ];
    let mut table = String::new();
    for text in wrong {
        let error = expand(text, &site).unwrap_err();
        table.push_str(&format!("{text:?}\n    {error}\n"));
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_long_text_is_shown_around_its_place() {
    let text = format!("{}n[3{}", "n1,".repeat(100), ",4".repeat(100));
    let error = expand(&text, &NoGroups).unwrap_err();
    assert_eq!(error.column, 302);
    assert!(error.to_string().len() < 200, "{error}");
    assert!(error.text.starts_with("…n1,") || error.text.starts_with("…"), "{error}");
    assert!(error.text.contains("n[3,4,4"), "{error}");
    let error = expand("n\u{1b}[2J\u{202e}", &NoGroups).unwrap_err();
    assert!(!error.to_string().contains(['\u{1b}', '\u{202e}']), "{error}");
}

#[test]
fn expressions_that_grow_without_bound_are_refused() {
    let mut site = Membership::default();
    site.define("g0", "n[1-10000]");
    for level in 1..MAX_DEPTH {
        let below = format!("@g{}", level - 1);
        site.define(&format!("g{level}"), &[below.as_str(); 20].join(","));
    }
    let error = expand(&format!("@g{}", MAX_DEPTH - 1), &site).unwrap_err();
    assert!(error.found.contains("names in all"), "{error}");

    let mut deep = Membership::default();
    for level in 0..=MAX_DEPTH {
        deep.define(&format!("g{level}"), &format!("@g{}", level + 1));
    }
    let error = expand("@g0", &deep).unwrap_err();
    assert!(error.found.contains("more than 16 deep"), "{error}");

    let long = format!("{}[1-9]", "n".repeat(MAX_NAME));
    assert!(expand(&long, &NoGroups).unwrap_err().found.contains("254 characters"));
    let text = "n1 ".repeat(MAX_TEXT / 3 + 1);
    assert!(expand(&text, &NoGroups).unwrap_err().found.contains("bytes"));
    let often = format!("n1{}", "&n[1-60000]".repeat(20));
    assert!(expand(&often, &NoGroups).unwrap_err().found.contains("names in all"));
    assert_eq!(expand("n[1-65536]", &NoGroups).unwrap().len(), MAX_NAMES);
}

#[test]
fn a_large_cluster_is_named_at_once() {
    let mut site = Membership::default();
    for rack in 1..=100 {
        for slot in 1..=100 {
            site.node(&format!("r{rack:03}n{slot:03}"), ["all"]);
        }
    }
    assert_eq!(folded_by("*", &site), "r[001-100]n[001-100]");
    assert_eq!(
        folded_by("r[001-100]*&@all!r050*", &site),
        "r[001-049,051-100]n[001-100]"
    );
}

fn folded_by(text: &str, site: &Membership) -> String {
    expand(text, site).map_or_else(|error| error.to_string(), |set| set.fold())
}

fn fold(names: &[&str]) -> String {
    names.iter().copied().collect::<NodeSet>().fold()
}

#[test]
fn folds() {
    assert_eq!(fold(&[]), "");
    assert_eq!(fold(&["login"]), "login");
    assert_eq!(fold(&["n3", "n1", "n2", "n1"]), "n[1-3]");
    assert_eq!(fold(&["r01", "r99", "r100", "r101", "r1"]), "r[1,01,99-101]");
    assert_eq!(fold(&["n08", "n09", "n10", "n99", "n100"]), "n[08-10,99-100]");
    assert_eq!(fold(&["n98", "n099", "n100"]), "n[98,099-100]");
    assert_eq!(fold(&["n9", "n10"]), "n[9-10]");
    assert_eq!(fold(&["n09", "n10", "n11"]), "n[09-11]");
    assert_eq!(fold(&["n0", "n00", "n1"]), "n[0-1,00]");
    assert_eq!(fold(&["a15", "a25", "b"]), "a[15,25],b");
    assert_eq!(fold(&["r1n1", "r1n2", "r2n1"]), "r1n[1-2],r2n1");
    assert_eq!(fold(&["n1-ib", "n2-ib", "n1"]), "n1,n[1-2]-ib");
    assert_eq!(fold(&["n12345678901234567890", "n1"]), "n1,n12345678901234567890");
    let whole = expand("r[01-02]n[01-32]", &NoGroups).unwrap();
    assert_eq!(whole.to_string(), "r[01-02]n[01-32]");
    assert_eq!(format!("{whole:?}"), "NodeSet(r[01-02]n[01-32])");
    assert_eq!(folded("r[1-3]n[1-2],r3n3,r4n[1-3]"), "r[1-4]n[1-2],r[3-4]n3");
    // A missing column is shorter than missing rows.
    assert_eq!(folded("r[1-9]n[1-2],r[1,3,5]n3"), "r[1-9]n[1-2],r[1,3,5]n3");
    assert_eq!(folded("c[1-2]r[1-3]n[1-4]"), "c[1-2]r[1-3]n[1-4]");
}

#[test]
fn the_empty_set_is_the_empty_text() {
    let all = site();
    for nobody in ["x*", "r01?", "@nobody", "n1!n1", "@gpu&x", "", "  "] {
        for dialect in DIALECTS {
            let text = expand(nobody, &all).unwrap().fold_as(dialect);
            assert_eq!(text, "", "{nobody}");
            assert!(expand(&text, &all).unwrap().is_empty(), "{nobody}");
        }
    }
    // Still no left side for an operator.
    assert!(expand("!n1", &all).is_err());
}

const DIALECTS: [Dialect; 2] = [Dialect::Short, Dialect::Slurm];

#[test]
fn slurm_wants_a_bracket_at_the_end() {
    let slurm = |names: &[&str]| names.iter().copied().collect::<NodeSet>().fold_as(Dialect::Slurm);
    assert_eq!(slurm(&[]), "");
    assert_eq!(slurm(&["r01n01", "r02n01"]), "r[01-02]n[01]");
    assert_eq!(slurm(&["r01n01", "r01n02"]), "r01n[01-02]");
    assert_eq!(slurm(&["r01n01"]), "r01n01");
    assert_eq!(slurm(&["c1r1n1", "c1r2n1"]), "c1r[1-2]n[1]");
    assert_eq!(slurm(&["n1-ib", "n2-ib", "n1"]), "n1,n1-ib,n2-ib");
    assert_eq!(slurm(&["login", "n1", "n2"]), "login,n[1-2]");
    assert_eq!(
        slurm(&["n1x1234567890123456", "n2x1234567890123456"]),
        "n1x1234567890123456,n2x1234567890123456"
    );
    let holes = expand("r[1-9]n[1-2],r[1,3,5]n3", &NoGroups).unwrap();
    assert_eq!(holes.fold_as(Dialect::Slurm), "r[1-9]n[1-2],r[1,3,5]n[3]");
}

/// What Slurm 22.05 reads, by experiment: numbers in brackets, and nothing behind the last one of a name.
fn is_slurm(list: &str) -> bool {
    let mut inside = false;
    let terms = list.split(|c| {
        inside = (inside || c == '[') && c != ']';
        c == ',' && !inside
    });
    terms.into_iter().all(|term| !term.contains('[') || term.ends_with(']'))
}

fn any_name() -> impl Strategy<Value = String> {
    // Few digits and letters, so that names are often neighbours; and now and then anything that a name may be.
    prop_oneof![
        6 => "r[0-2]{1,2}n[0-9]{1,3}",
        3 => "n[0-9]{1,2}",
        1 => "n[0-9]{1,2}(-ib|[a-z][0-9])",
        1 => "[a-z0-9]([a-z0-9_.-]{0,20}[0-9]{0,22}){0,3}",
    ]
}

proptest! {
    #[test]
    fn expanding_undoes_folding(names in proptest::collection::btree_set(any_name(), 0..200)) {
        let set: NodeSet = names.iter().map(String::as_str).collect();
        prop_assert_eq!(set.len(), names.len());
        for dialect in DIALECTS {
            let folded = set.fold_as(dialect);
            let again = expand(&folded, &NoGroups).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&again, &set);
            prop_assert!(dialect == Dialect::Short || is_slurm(&folded), "{}", folded);
            prop_assert_eq!(again.fold_as(dialect), folded);
        }
        let again: BTreeSet<String> = set.into_iter().collect();
        prop_assert_eq!(again, names);
    }

    #[test]
    fn boxes_fold_to_one_term(racks in 1u32..40, from in 0u32..120, slots in 2u32..40) {
        let text = format!("r[1-{}]n[{from:02}-{:02}]x", racks + 1, from + slots);
        let set = expand(&text, &NoGroups).unwrap();
        prop_assert_eq!(set.len() as u32, (racks + 1) * (slots + 1));
        let folded = set.fold();
        // Where the padding ends there are two ranges, still in one bracket.
        prop_assert_eq!(folded.matches('r').count(), 1, "{}", folded);
    }

    #[test]
    fn operators_give_the_results_of_sets(a in "n\\[[1-4]-[5-9]\\]", b in "n\\[[1-4]-[5-9]\\]") {
        let set = |text: &str| -> BTreeSet<String> { expand(text, &NoGroups).unwrap().into_iter().collect() };
        let (x, y) = (set(&a), set(&b));
        prop_assert_eq!(set(&format!("{a},{b}")), &x | &y);
        prop_assert_eq!(set(&format!("{a}!{b}")), &x - &y);
        prop_assert_eq!(set(&format!("{a}&{b}")), &x & &y);
        prop_assert_eq!(set(&format!("{a}^{b}")), &x ^ &y);
    }

    #[test]
    fn anything_ends_in_names_or_in_an_error(text in "[\\]\\[rn019,!&^@*?/ :.g-]{0,40}|\\PC{0,40}") {
        match expand(&text, &site()) {
            Ok(set) => {
                prop_assert!(set.len() <= MAX_NAMES && set.iter().all(|name| !name.is_empty()));
                for dialect in DIALECTS {
                    let again = expand(&set.fold_as(dialect), &site());
                    prop_assert_eq!(again.as_ref(), Ok(&set));
                }
            }
            Err(error) => {
                prop_assert!(error.column >= 1 && error.column <= text.chars().count().max(1) + 1);
                prop_assert!(error.to_string().len() < 1000);
            }
        }
    }

    #[test]
    fn the_order_is_total(a in any_name(), b in any_name(), c in any_name()) {
        prop_assert_eq!(natural_cmp(&a, &b), natural_cmp(&b, &a).reverse());
        prop_assert_eq!(natural_cmp(&a, &b).is_eq(), a == b);
        let mut sorted = [a, b, c];
        sorted.sort_by(|x, y| natural_cmp(x, y));
        prop_assert!(natural_cmp(&sorted[0], &sorted[2]).is_le());
    }

    #[test]
    fn wildcards_match_as_the_slow_way_does(glob in "[ab*?]{0,6}", name in "[ab]{0,6}") {
        fn matches_by_definition(glob: &[u8], name: &[u8]) -> bool {
            match glob.split_first() {
                None => name.is_empty(),
                Some((b'*', rest)) => (0..=name.len()).any(|skip| matches_by_definition(rest, &name[skip..])),
                Some((byte, rest)) => {
                    name.first().is_some_and(|n| byte == n || *byte == b'?') && matches_by_definition(rest, &name[1..])
                }
            }
        }
        prop_assert_eq!(pattern::matches(&glob, &name), matches_by_definition(glob.as_bytes(), name.as_bytes()));
    }
}
