//! Tests of the versions that nodes are assigned.

mod edges;
mod ledger;
mod reboots;

use rackstrap_base::clock::Timestamp;
use rackstrap_catalog::{Catalog, ImageVersion, Manifest};
use rackstrap_model::decide::{Assignments, Current, Given, Source, Trial};
use rackstrap_wire::ImageRef;
use std::{path::PathBuf, sync::Arc};

pub(super) fn image(text: &str) -> ImageRef {
    text.parse().unwrap()
}

pub(super) fn catalog(versions: &[&str]) -> Catalog {
    Catalog::new(
        versions
            .iter()
            .map(|version| ImageVersion::new(Manifest::bare(image(version)), PathBuf::from("/images").join(version))),
    )
}

fn assignments(current: &str) -> Assignments {
    let current = Current::first(image(current), "tests", Timestamp(1));
    Assignments {
        current: Arc::new([(current.image.name.clone(), current)].into()),
        ..Assignments::default()
    }
}

fn trial(boots: u32, problem: &str) -> Trial {
    Trial {
        image: image("debian@4"),
        last_known_good: image("debian@3"),
        boots,
        last: "x".into(),
        since: Timestamp(0),
        problem: problem.into(),
        rolled_back: None,
        hwaddr: None,
    }
}

#[test]
fn the_current_version_is_for_all_and_the_newest_one_for_nobody() {
    let images = catalog(&["debian@2", "debian@3", "debian@4"]);
    let all = assignments("debian@3");
    let choice = all.choose("r01n01", "debian", &images, 3).unwrap();
    assert_eq!((choice.image, choice.source), (image("debian@3"), Source::Current));
    let pinned = all.choose("r01n01", "debian@2", &images, 3).unwrap();
    assert_eq!((pinned.image, pinned.source), (image("debian@2"), Source::Profile));
    let newest = Assignments::default().choose("r01n01", "debian", &images, 3).unwrap();
    assert_eq!((newest.image, newest.source), (image("debian@4"), Source::Newest));
}

#[test]
fn what_is_not_there_is_said() {
    let images = catalog(&["debian@4"]);
    let all = assignments("debian@3");
    for (setting, says) in [
        ("debian", "rackstrap image promote debian@4"),
        ("debian@9", "debian@9, which its settings pin, does not exist"),
        ("rocky", "rackstrap image import rocky --from images/rocky.toml"),
    ] {
        let error = all.choose("r01n01", setting, &images, 3).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_rollout_is_for_its_nodes_only() {
    let images = catalog(&["debian@3", "debian@4"]);
    let mut all = assignments("debian@3");
    let given = Given {
        version: 4,
        stage: "canary".into(),
        nodes: ["r01n01".to_owned()].into(),
    };
    all.given = Arc::new([("debian".to_owned(), given)].into());
    let choice = |node, setting| all.choose(node, setting, &images, 3).unwrap();
    assert_eq!(
        choice("r01n01", "debian").why,
        "image debian@4, by the rollout of debian@4 (canary)"
    );
    assert_eq!(choice("r01n02", "debian").image, image("debian@3"));
    assert_eq!(choice("r01n01", "debian@3").source, Source::Profile);
    let gone = catalog(&["debian@3"]);
    assert_eq!(
        all.choose("r01n01", "debian", &gone, 3).unwrap().image,
        image("debian@3")
    );
}

#[test]
fn a_node_goes_back_to_the_version_on_which_it_was_ready() {
    let images = catalog(&["debian@3", "debian@4"]);
    let mut all = assignments("debian@4");
    let mut choose = |trial: Trial, limit| {
        all.trials = Arc::new([("r01n01".to_owned(), trial)].into());
        all.choose("r01n01", "debian", &images, limit).unwrap()
    };
    assert_eq!(choose(trial(2, ""), 3).image, image("debian@4"));
    let back = choose(trial(3, ""), 3);
    assert_ne!(back.image, back.wanted);
    assert_eq!((back.image, back.wanted), (image("debian@3"), image("debian@4")));
    assert!(
        back.why
            .starts_with("image debian@3: rolled back because debian@4 did not get ready in 3 boots (wanted: "),
        "{}",
        back.why
    );
    assert_eq!(
        choose(trial(300, ""), 0).image,
        image("debian@4"),
        "the site has turned it off"
    );
    assert_eq!(choose(trial(1, "sshd is not active"), 3).image, image("debian@3"));
    let mut gone = trial(3, "");
    gone.last_known_good = image("debian@2");
    assert_eq!(
        choose(gone, 3).image,
        image("debian@4"),
        "there is nothing to go back to"
    );
    let mut other = trial(3, "");
    other.image = image("debian@5");
    assert_eq!(
        choose(other, 3).image,
        image("debian@4"),
        "another version is another matter"
    );
}

#[test]
fn rolling_back_goes_the_way_that_promotions_came() {
    let now = Timestamp(5);
    let mut current = Current::first(image("debian@1"), "a", now);
    for version in [2, 5, 4] {
        current = current.promoted(version, "b", now);
    }
    let there = |gone: u32| move |image: &ImageRef| image.version != gone;
    let back = current.rolled_back(there(0), "c", now).unwrap();
    assert_eq!((back.image.version, &back.before[..]), (5, &[1, 2][..]));
    let back = current.rolled_back(there(5), "c", now).unwrap();
    assert_eq!((back.image.version, &back.before[..]), (2, &[1][..]));
    let back = back.rolled_back(there(0), "c", now).unwrap();
    assert_eq!(back.rolled_back(there(0), "c", now), None);
    for version in 0..100 {
        current = current.promoted(version, "d", now);
    }
    assert_eq!(current.before.len(), 16);
}
