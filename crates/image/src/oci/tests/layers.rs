//! Layers over layers: order, whiteouts, and paths that lead out of the tree.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::MetadataExt;

/// The paths of these layers, extracted.
fn paths_of(layers: &[&[Entry<'_>]]) -> Vec<String> {
    let place = Place::new();
    place.extract_images(&layout_of(layers)).unwrap();
    place.paths()
}

fn error_of(layers: &[&[Entry<'_>]]) -> String {
    let place = Place::new();
    fs::write(place.at("outside"), "kept").unwrap();
    let error = place
        .extract_images(&layout_of(layers))
        .expect_err("refused")
        .to_string();
    assert_eq!(fs::read_to_string(place.at("outside")).unwrap(), "kept");
    error
}

#[test]
fn layers_are_applied_in_order() {
    let place = Place::new();
    let taken = place
        .extract_images(&layout_of(&[
            &[
                (b'5', "etc", "", D),
                (b'0', "etc/a", "", b"one"),
                (b'0', "etc/b", "", b"one"),
                (b'2', "run", "/var/run", D),
            ],
            &[
                (b'0', "etc/a", "", b"two"),
                (b'1', "etc/hard", "etc/b", D),
                (b'5', "var/run", "", D),
            ],
            // Through an absolute link, which starts at the container's root, as names with a leading slash do.
            &[
                (b'0', "run/pid", "", b"1"),
                (b'0', "/etc/c", "", b"three"),
                (b'1', "etc/d", "/etc/c", D),
            ],
        ]))
        .unwrap();
    assert_eq!((place.read("etc/a"), place.read("etc/b")), ("two".into(), "one".into()));
    assert_eq!(
        (place.read("var/run/pid"), place.read("etc/d")),
        ("1".into(), "three".into())
    );
    let (hard, b) = (
        place.at("root/etc/hard").metadata().unwrap(),
        place.at("root/etc/b").metadata().unwrap(),
    );
    assert_eq!((hard.ino(), b.nlink()), (b.ino(), 2));
    assert_eq!(place.at("root/etc").metadata().unwrap().mtime(), 1_700_000_000);
    assert!(taken.contains("/layout@sha256:"), "{taken}");
}

#[test]
fn whiteouts_hide_files_of_lower_layers() {
    let base: &[Entry<'_>] = &[
        (b'5', "d", "", D),
        (b'0', "d/a", "", b"x"),
        (b'0', "d/b", "", b"x"),
        (b'5', "d/sub", "", D),
        (b'0', "d/sub/x", "", b"x"),
        (b'0', "f", "", b"x"),
        (b'5', "usr/lib", "", D),
        (b'2', "lib", "usr/lib", D),
        (b'0', "usr/lib/so", "", b"x"),
    ];
    let all = [
        "d",
        "d/a",
        "d/b",
        "d/sub",
        "d/sub/x",
        "f",
        "lib",
        "usr",
        "usr/lib",
        "usr/lib/so",
    ];
    let without = |gone: &[&str]| -> Vec<String> {
        let kept = all
            .iter()
            .filter(|p| !gone.iter().any(|g| *p == g || p.starts_with(&format!("{g}/"))));
        kept.map(|p| (*p).to_owned()).collect()
    };
    let cases: &[(&[Entry<'_>], Vec<String>)] = &[
        (&[(b'0', "d/.wh.a", "", D)], without(&["d/a"])),
        (&[(b'0', ".wh.d", "", D)], without(&["d"])),
        (
            &[(b'0', "d/.wh.sub", "", D), (b'0', ".wh.f", "", D)],
            without(&["d/sub", "f"]),
        ),
        // A whiteout of a missing file has no effect.
        (
            &[
                (b'0', "d/.wh.none", "", D),
                (b'0', "no/where/.wh.x", "", D),
                (b'0', "f/.wh.x", "", D),
            ],
            without(&[]),
        ),
        (&[(b'0', "no/.wh..wh..opq", "", D)], without(&[])),
        // Through a link to its target, as in a container.
        (&[(b'0', "lib/.wh.so", "", D)], without(&["usr/lib/so"])),
        // The name comes again in the same layer, after and before its whiteout.
        (
            &[(b'0', ".wh.d", "", D), (b'5', "d", "", D), (b'0', "d/b", "", b"y")],
            without(&["d/a", "d/sub"]),
        ),
        (
            &[(b'5', "d", "", D), (b'0', "d/b", "", b"y"), (b'0', ".wh.d", "", D)],
            without(&["d/a", "d/sub"]),
        ),
        (&[(b'0', "f", "", b"y"), (b'0', ".wh.f", "", D)], without(&[])),
        // An opaque whiteout before and after the layer's own files.
        (
            &[(b'0', "d/.wh..wh..opq", "", D), (b'0', "d/b", "", b"y")],
            without(&["d/a", "d/sub"]),
        ),
        (
            &[(b'0', "d/b", "", b"y"), (b'0', "d/.wh..wh..opq", "", D)],
            without(&["d/a", "d/sub"]),
        ),
        (
            &[(b'0', "d/sub/x", "", b"y"), (b'0', "d/.wh..wh..opq", "", D)],
            without(&["d/a", "d/b"]),
        ),
        (
            &[(b'5', "d/sub", "", D), (b'0', "d/.wh..wh..opq", "", D)],
            without(&["d/a", "d/b", "d/sub/x"]),
        ),
        (
            &[(b'0', ".wh..wh..opq", "", D), (b'0', "f", "", b"y")],
            vec!["f".to_owned()],
        ),
        // Files of AUFS itself.
        (
            &[(b'0', ".wh..wh.aufs", "", D), (b'0', ".wh..wh.plnk/1.2", "", b"x")],
            without(&[]),
        ),
        // A directory becomes a file, and a link a directory.
        (&[(b'0', "d", "", b"a file")], without(&["d/a", "d/b", "d/sub"])),
        (&[(b'2', "d", "usr", D)], without(&["d/a", "d/b", "d/sub"])),
        (&[(b'5', "lib", "", D), (b'0', "lib/.wh.so", "", D)], without(&[])),
    ];
    for (layer, expected) in cases {
        assert_eq!(&paths_of(&[base, layer]), expected, "{layer:?}");
    }
    // The lowest layer has nothing to hide.
    assert_eq!(
        paths_of(&[&[
            (b'0', "f", "", b"x"),
            (b'0', ".wh.f", "", D),
            (b'0', ".wh..wh..opq", "", D)
        ]]),
        ["f"]
    );
    // A whiteout and the name again, two layers later.
    let later: &[&[Entry<'_>]] = &[base, &[(b'0', ".wh.d", "", D)], &[(b'0', "d/new", "", b"x")]];
    assert!(paths_of(later).contains(&"d/new".to_owned()) && !paths_of(later).contains(&"d/a".to_owned()));
}

#[test]
fn nothing_is_written_outside_of_the_tree() {
    let link: &[Entry<'_>] = &[
        (b'2', "up", "../..", D),
        (b'2', "abs", "/", D),
        (b'0', "kept", "", b"x"),
    ];
    for (layer, says) in [
        (&[(b'0', "../outside", "", &b"x"[..])][..], "out of the tree"),
        (&[(b'0', "a/../../outside", "", b"x")], "out of the tree"),
        (&[(b'1', "a", "../outside", D)], "out of the tree"),
        (&[(b'0', "../.wh.outside", "", D)], "out of the tree"),
        (&[(b'0', "../.wh..wh..opq", "", D)], "out of the tree"),
        (&[(b'0', "d/.wh...", "", D)], "whiteout without a name"),
        (&[(b'0', "d/.wh..", "", D)], "whiteout without a name"),
        (&[(b'0', ".wh.", "", D)], "whiteout without a name"),
        (&[(b'0', ".wh.d/x", "", b"x")], "below a name that is a whiteout"),
        (&[(b'1', "a", "up/outside", D)], "not in the archive"),
    ] {
        let error = error_of(&[link, layer]);
        assert!(
            error.contains(says) && error.contains("layer 2 of 2"),
            "{says}: {error}"
        );
    }
    // Links that lead out of a container lead to its own root.
    let place = Place::new();
    fs::write(place.at("outside"), "kept").unwrap();
    let images = layout_of(&[
        link,
        &[
            (b'0', "up/outside", "", b"inside"),
            (b'0', "abs/kept2", "", b"x"),
            (b'0', "up/../.wh.outside", "", D),
        ],
    ]);
    assert!(place.extract_images(&images).is_err());
    let place = Place::new();
    fs::write(place.at("outside"), "kept").unwrap();
    let images = layout_of(&[
        link,
        &[(b'0', "up/outside", "", b"inside"), (b'0', "abs/kept2", "", b"x")],
        &[(b'0', "up/.wh.outside", "", D), (b'0', "abs/.wh.kept", "", D)],
    ]);
    place.extract_images(&images).unwrap();
    assert_eq!(place.paths(), ["abs", "kept2", "up"]);
    assert_eq!(fs::read_to_string(place.at("outside")).unwrap(), "kept");
}

#[test]
fn directories_have_the_attributes_of_the_highest_layer() {
    let record = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let len = (rest.len()..)
            .find(|len| len.to_string().len() + rest.len() == *len)
            .unwrap();
        format!("{len}{rest}").into_bytes()
    };
    let one = record("SCHILY.xattr.user.one", "1");
    let place = Place::new();
    place
        .extract_images(&layout_of(&[
            &[(b'x', "p", "", &one), (b'5', "d", "", D), (b'5', "e", "", D)],
            &[(b'5', "d", "", D), (b'0', "d/f", "", b"x"), (b'0', "e/f", "", b"x")],
        ]))
        .unwrap();
    let mut names = [0; 64];
    assert_eq!(rustix::fs::listxattr(place.at("root/d"), &mut names[..]), Ok(0));
    assert_eq!(place.at("root/d").metadata().unwrap().mtime(), 1_700_000_000);
}

#[test]
fn a_missing_end_mark_is_accepted_and_a_cut_layer_is_refused() {
    let mut layer = tar_of(&[(b'0', "f", "", b"content")]);
    layer.truncate(1024);
    let mut images = Images::default();
    let image = images.image(&Platform::native().architecture, &[layer.clone(), Vec::new()]);
    images.top.push(image);
    let place = Place::new();
    place.extract_images(&images).unwrap();
    assert_eq!(place.read("f"), "content");
    layer.truncate(1000);
    let mut images = Images::default();
    let image = images.image(&Platform::native().architecture, &[layer]);
    images.top.push(image);
    assert!(
        Place::new()
            .extract_images(&images)
            .unwrap_err()
            .to_string()
            .contains("cut off")
    );
}

#[test]
fn a_layer_that_does_not_fit_onto_the_disk_is_refused() {
    let place = Place::new();
    let small = place.at("small");
    fs::create_dir(&small).unwrap();
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "none"])
        .arg(&small)
        .status();
    assert!(mount.unwrap().success());
    let zeros = vec![0; 64 << 20];
    let mut images = Images::default();
    let bomb = tar_of(&[(b'0', "bomb", "", &zeros)]);
    let image = images.image(
        &Platform::native().architecture,
        &[tar_of(&[(b'0', "f", "", b"x")]), bomb],
    );
    images.top.push(image);
    images.write_layout(&place.at("layout"));
    assert!(fs::metadata(place.at("layout")).unwrap().len() < 1 << 20);
    let open = |at: &Path| rustix::fs::open(at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = open(&small);
    let mut space = SpaceGuard::new(root.as_fd(), &small, None).unwrap();
    let source = format!("oci:{}", place.at("layout").display());
    let image = OciImage::parse(OsStr::new(&source), &OciOptions::default(), None)
        .unwrap()
        .unwrap();
    let result = image.extract(
        root.as_fd(),
        root.as_fd(),
        &mut space,
        &mut Remarks::default(),
        &mut Quiet,
    );
    let error = result.unwrap_err();
    drop((root, space));
    assert!(
        std::process::Command::new("umount")
            .arg(&small)
            .status()
            .unwrap()
            .success()
    );
    assert!(error.is_full(), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Whatever layers contain, nothing outside the tree changes, and whatever was extracted can be removed.
    #[test]
    fn hostile_layers_do_no_harm(
        layers in proptest::collection::vec(
            proptest::collection::vec(
                (
                    prop_oneof![Just(b'0'), Just(b'5'), Just(b'2'), Just(b'1'), Just(b'3'), Just(b'6')],
                    "/?((a|b|up|abs|\\.wh\\.a|\\.|\\.\\.)/){0,3}(a|b|up|abs|\\.wh\\.(a|b|up|\\.|\\.\\.)?|\\.wh\\.\\.wh\\.(opq|x)|\\.\\.)",
                    prop_oneof![Just(""), Just("../.."), Just("/"), Just("a"), Just("b/a"), Just("/a/b"), Just("up/outside"), Just("..")],
                ),
                0..12,
            ),
            1..4,
        )
    ) {
        let place = Place::new();
        fs::write(place.at("outside"), "kept").unwrap();
        let mut images = Images::default();
        let tars: Vec<Vec<u8>> = layers
            .iter()
            .map(|layer| {
                let entries: Vec<Entry<'_>> =
                    layer.iter().map(|(kind, name, link)| (*kind, name.as_str(), *link, &b""[..])).collect();
                tar_of(&entries)
            })
            .collect();
        let image = images.image(&Platform::native().architecture, &tars);
        images.top.push(image);
        let result = place.extract_images(&images);
        if let Err(e) = &result {
            prop_assert!(!e.to_string().is_empty());
        }
        prop_assert_eq!(fs::read_to_string(place.at("outside")).unwrap(), "kept");
        let mut beside: Vec<String> = fs::read_dir(place.at("")).unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        beside.sort();
        prop_assert_eq!(beside, ["layout", "outside", "root"]);
        // A whiteout is never extracted as a file.
        prop_assert!(place.paths().iter().all(|path| !path.contains(".wh.")));
    }
}
