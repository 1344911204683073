//! Layouts in archives, and archives of `docker save`.

use super::*;
use crate::tree::nasty;
use std::os::unix::fs::symlink;

fn pack(dir: &Path, archive: &Path, args: &[&str]) {
    let mut tar = std::process::Command::new("tar");
    let status = tar
        .args(args)
        .arg("-cf")
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .arg(".")
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn archives_of_layouts_are_read() {
    let images = layout_of(&[
        &[(b'5', "d", "", D), (b'0', "d/f", "", b"x")],
        &[(b'0', "e/g", "", b"y")],
    ]);
    let place = Place::new();
    images.write_layout(&place.at("layout"));
    place.extract(&format!("oci:{}", place.at("layout").display())).unwrap();
    fs::rename(place.at("root"), place.at("first")).unwrap();
    for args in [&[][..], &["-z"], &["--zstd"]] {
        fs::create_dir(place.at("root")).unwrap();
        pack(&place.at("layout"), &place.at("a.tar"), args);
        let taken = place
            .extract(&format!("oci-archive:{}", place.at("a.tar").display()))
            .unwrap();
        assert!(taken.contains("/a.tar@sha256:"), "{taken}");
        nasty::assert_same(&place.at("first"), &place.at("root"));
        fs::remove_dir_all(place.at("root")).unwrap();
    }
    fs::create_dir(place.at("root")).unwrap();
    for (name, bytes, says) in [
        ("empty", &b""[..], "neither index.json nor manifest.json"),
        ("text", b"hello", "cut off"),
        ("tree", &tar_of(&[(b'0', "f", "", b"x")]), "without 'oci-archive:'"),
        (
            "version",
            &tar_of(&[
                (b'0', "index.json", "", b"{}"),
                (b'0', "oci-layout", "", b"{\"imageLayoutVersion\":\"9\"}"),
            ]),
            "version 9",
        ),
        (
            "index",
            &tar_of(&[(b'0', "index.json", "", b"{}")]),
            "neither an index nor",
        ),
        (
            "link",
            &tar_of(&[(b'2', "index.json", "index.json", D)]),
            "neither index.json nor",
        ),
        ("gz", &[0x1f, 0x8b, 8, 0, 0], "damaged"),
    ] {
        fs::write(place.at(name), bytes).unwrap();
        let error = place
            .extract(&format!("oci-archive:{}", place.at(name).display()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{name}: {error}");
    }
    let error = place
        .extract(&format!("oci:{}", place.at("root").display()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not an OCI layout"), "{error}");
    // Links in a layout are not followed out of it.
    symlink(place.at("layout/oci-layout"), place.at("root/oci-layout")).unwrap();
    assert!(place.extract(&format!("oci:{}", place.at("root").display())).is_err());
}

#[test]
fn archives_of_docker_save_are_read() {
    let layers = [
        tar_of(&[(b'0', "a", "", b"1"), (b'0', "b", "", b"1")]),
        tar_of(&[(b'0', ".wh.a", "", D), (b'0', "c", "", b"2")]),
    ];
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config =
        json!({"os": "linux", "architecture": Platform::native().architecture, "rootfs": {"diff_ids": diff_ids}})
            .to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest =
        |tags: Value| json!([{"Config": config_name, "RepoTags": tags, "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let archive = |manifest: &Value, config: &str, second: &[u8]| {
        let manifest = manifest.to_string();
        tar_of(&[
            (b'0', "0/layer.tar", "", &layers[0]),
            (b'2', "1/layer.tar", "../0/layer.tar", D),
            (b'0', "2/layer.tar", "", second),
            (b'0', &config_name, "", config.as_bytes()),
            (b'0', "manifest.json", "", manifest.as_bytes()),
        ])
    };
    let extract = |bytes: &[u8], tag: &str| {
        let place = Place::new();
        fs::write(place.at("saved.tar"), bytes).unwrap();
        let taken = place.extract(&format!("oci-archive:{}{tag}", place.at("saved.tar").display()));
        taken.map(|taken| (taken, place.paths())).map_err(|e| e.to_string())
    };
    let good = manifest(json!(["node:12"]));
    for tag in ["", ":12"] {
        let (taken, paths) = extract(&archive(&good, &config, &layers[1]), tag).unwrap();
        assert_eq!(paths, ["b", "c"]);
        assert!(
            taken.ends_with(&format!("{tag}@{}", Digest::of(config.as_bytes()))),
            "{taken}"
        );
    }
    let damaged = layers[1]
        .iter()
        .map(|b| if *b == b'2' { b'3' } else { *b })
        .collect::<Vec<u8>>();
    let two = json!([good[0], manifest(json!(["other:1"]))[0]]);
    for (bytes, tag, says) in [
        (archive(&good, &config, &layers[1]), ":13", "it contains: node:12"),
        (
            archive(&two, &config, &layers[1]),
            "",
            "several images: node:12, other:1",
        ),
        (archive(&good, &config, &damaged), "", "layer 2 of 2"),
        (
            archive(&good, &config.replace("linux", "Linux"), &layers[1]),
            "",
            "does not match its name",
        ),
        (
            archive(&json!([{"Config": config_name, "Layers": ["x"]}]), &config, &layers[1]),
            "",
            "lists 2 layers",
        ),
        (
            archive(
                &json!([{"Config": "../../etc/passwd", "Layers": []}]),
                &config,
                &layers[1],
            ),
            "",
            "does not contain ../../etc/passwd",
        ),
        (archive(&json!({}), &config, &layers[1]), "", "is damaged"),
    ] {
        let error = extract(&bytes, tag).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
}
