//! Tests of deleting, collecting and renaming versions.

use super::*;
use crate::keep_version;
use crate::{
    CloneRequest, ImportRequest, Quiet, clone_version, delete_working_copy, import,
    import::tests::{Bench, assert_clean},
};
use std::fs;

fn three() -> (Bench, ImportRequest) {
    let bench = Bench::new();
    let request = bench.request();
    for _ in 0..3 {
        import(&request, &mut Quiet).unwrap();
    }
    (bench, request)
}

fn names(images: &Path) -> Vec<String> {
    let (catalog, problems) = load_catalog(images);
    assert!(problems.is_empty(), "{problems:?}");
    catalog.iter().map(|v| v.manifest.image.to_string()).collect()
}

fn refs(names: &[&str]) -> Vec<ImageRef> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn a_rename_that_is_refused_at_the_last_check_changes_nothing() {
    let (_bench, request) = three();
    let images = &request.images_dir;
    let mut before = || Err("a rollout is on".to_owned());
    let error = rename_image(images, "test", "other", &mut before, &mut Quiet).unwrap_err();
    assert_eq!(error.to_string(), "a rollout is on");
    assert_eq!(names(images), ["test@1", "test@2", "test@3"]);
    assert!(!images.join("test/1/manifest.toml.new").exists());
    rename_image(images, "test", "other", &mut || Ok(()), &mut Quiet).unwrap();
    assert_eq!(names(images), ["other@1", "other@2", "other@3"]);
}

#[test]
fn versions_are_deleted_together_or_not_at_all() {
    let (_bench, request) = three();
    let images = &request.images_dir;
    let mut free = || Ok(());
    let error = delete_versions(images, &refs(&["test@1", "test@9"]), &mut free, &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("test@9 does not exist"), "{error}");
    assert_eq!(names(images), ["test@1", "test@2", "test@3"]);
    // A node took it at the last moment, when it was already hidden.
    let mut late = || {
        assert_eq!(names(images), ["test@1"]);
        Err("node r01n01 boots test@3".to_owned())
    };
    let error = delete_versions(images, &refs(&["test@2", "test@3"]), &mut late, &mut Quiet).unwrap_err();
    assert!(error.to_string().contains("r01n01"), "{error}");
    assert_eq!(names(images), ["test@1", "test@2", "test@3"]);
    delete_versions(images, &refs(&["test@2", "test@3"]), &mut free, &mut Quiet).unwrap();
    assert_eq!(names(images), ["test@1"]);
    assert_clean(images);
    // Its number is not used again.
    assert_eq!(import(&request, &mut Quiet).unwrap().version, 4);
}

#[test]
fn a_version_that_is_being_read_is_not_deleted() {
    let (_bench, request) = three();
    let images = &request.images_dir;
    let (catalog, _) = load_catalog(images);
    let kept = keep_version(catalog.newest("test").unwrap()).unwrap();
    let pid = format!("pid {}", std::process::id());
    let mut free = || Ok(());
    for error in [
        delete_versions(images, &refs(&["test@1", "test@3"]), &mut free, &mut Quiet).unwrap_err(),
        rename_image(images, "test", "other", &mut || Ok(()), &mut Quiet).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("is being read") && error.to_string().contains(&pid),
            "{error}"
        );
    }
    assert_eq!(names(images), ["test@1", "test@2", "test@3"]);
    drop(kept);
    delete_versions(images, &refs(&["test@1", "test@3"]), &mut free, &mut Quiet).unwrap();
    assert_eq!(names(images), ["test@2"]);
}

#[test]
fn the_plan_keeps_the_newest_and_the_held() {
    let (_bench, request) = three();
    let (catalog, _) = load_catalog(&request.images_dir);
    let holder = |image: &ImageRef| (image.version == 1).then(|| "node r01n01 runs it".to_owned());
    let shown: Vec<String> = gc_plan(&catalog, 1, &holder)
        .into_iter()
        .map(|(image, verdict)| format!("{image} {verdict:?}"))
        .collect();
    assert_eq!(
        shown,
        [
            "test@1 Keep(\"node r01n01 runs it\")",
            "test@2 Delete",
            "test@3 Keep(\"one of the newest 1\")"
        ]
    );
    assert!(
        gc_plan(&catalog, 3, &|_| None)
            .iter()
            .all(|(_, verdict)| *verdict != Verdict::Delete)
    );
}

#[test]
fn leftovers_are_found_and_removed() {
    let (_bench, request) = three();
    let images = &request.images_dir;
    fs::create_dir_all(images.join("gone/.incoming-1/root/usr")).unwrap();
    fs::create_dir_all(images.join("test/.deleted-2/root")).unwrap();
    fs::create_dir_all(images.join(".work/.incoming-3")).unwrap();
    assert_eq!(collect_leftovers(images, true, &mut Quiet).unwrap().len(), 3);
    assert_eq!(collect_leftovers(images, false, &mut Quiet).unwrap().len(), 3);
    assert!(collect_leftovers(images, true, &mut Quiet).unwrap().is_empty());
    assert!(!images.join("gone").exists() && !images.join(".work").exists());
    assert!(
        collect_leftovers(Path::new("/nonexistent/images"), false, &mut Quiet)
            .unwrap()
            .is_empty()
    );
    assert_clean(images);
}

#[test]
fn an_image_is_renamed_with_all_its_versions() {
    let (_bench, request) = three();
    let images = &request.images_dir;
    let clone = CloneRequest {
        images_dir: images.clone(),
        parent: "test@1".parse().unwrap(),
        architecture: None,
        name: "w".into(),
        by: String::new(),
        now: rackstrap_base::clock::Timestamp(1),
    };
    clone_version(&clone, &mut Quiet).unwrap();
    let refused = |old: &str, new: &str| {
        rename_image(images, old, new, &mut || Ok(()), &mut Quiet)
            .unwrap_err()
            .to_string()
    };
    assert!(refused("test", "other").contains("w is a working copy of test@1"));
    assert!(refused("test", "w").contains("is taken"));
    assert!(refused("test", "test").contains("is taken"));
    assert!(refused("nobody", "other").contains("image nobody does not exist"));
    assert!(refused("test", "../x").contains("not a name for an image"));
    delete_working_copy(images, "w", &mut Quiet).unwrap();
    rename_image(images, "test", "other", &mut || Ok(()), &mut Quiet).unwrap();
    assert_eq!(names(images), ["other@1", "other@2", "other@3"]);
    assert_eq!(import(&request, &mut Quiet).unwrap().to_string(), "test@1");
}

#[test]
fn a_rename_that_is_interrupted_at_any_step_leaves_valid_versions() {
    let (_bench, request) = three();
    let images = &request.images_dir;
    struct DieAt(u32);
    impl Progress for DieAt {
        fn begin(&mut self, _step: Step, _bytes: Option<u64>) {}
        fn advance(&mut self, _files: u64, _bytes: u64) {}
        fn remark(&mut self, _text: &str) {}
        fn reached(&mut self, _point: &'static str) {
            self.0 -= 1;
            // No destructor undoes a part of a rename, so a panic ends it like a kill.
            assert!(self.0 > 0, "on purpose");
        }
    }
    for (step, now) in [(1, "test"), (2, "other"), (3, "other"), (4, "other")] {
        let died = std::panic::catch_unwind(|| rename_image(images, "test", "other", &mut || Ok(()), &mut DieAt(step)));
        assert!(died.is_err());
        assert_eq!(names(images), [1, 2, 3].map(|n| format!("{now}@{n}")), "{step}");
        if now == "other" {
            rename_image(images, "other", "test", &mut || Ok(()), &mut Quiet).unwrap();
        }
    }
    assert_eq!(names(images), ["test@1", "test@2", "test@3"]);
}
