//! Indexes, manifests and configurations: which image is chosen, and what is refused.

use super::*;
use crate::oci::choose::{Start, Wanted, choose};

#[test]
fn damaged_documents_are_refused() {
    let images = layout_of(&[&[(b'0', "f", "", b"content")], &[(b'0', "g", "", &[7; 5000])]]);
    let digests: Vec<Digest> = images.blobs.keys().copied().collect();
    assert_eq!(digests.len(), 4);
    for digest in digests {
        let mut wrong = images.clone();
        let bytes = wrong.blobs.get_mut(&digest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let error = Place::new().extract_images(&wrong).unwrap_err().to_string();
        assert!(error.contains("does not match its digest"), "{error}");
        bytes_of(&mut wrong, &digest, |bytes| bytes[middle] ^= 1);
        bytes_of(&mut wrong, &digest, |bytes| bytes.push(0));
        let error = Place::new().extract_images(&wrong).unwrap_err().to_string();
        assert!(error.contains("has more than the"), "{error}");
        bytes_of(&mut wrong, &digest, |bytes| bytes.truncate(bytes.len() - 2));
        let error = Place::new().extract_images(&wrong).unwrap_err().to_string();
        assert!(error.contains("it was cut off or changed"), "{error}");
        wrong.blobs.remove(&digest);
        let error = Place::new().extract_images(&wrong).unwrap_err().to_string();
        assert!(
            error.contains(&digest.hex()) && error.contains("No such file"),
            "{error}"
        );
    }
}

fn bytes_of(images: &mut Images, digest: &Digest, change: impl FnOnce(&mut Vec<u8>)) {
    change(images.blobs.get_mut(digest).unwrap());
}

/// The error for a manifest of one layer that `change` has edited.
fn odd(change: impl Fn(&mut Value, &mut Value)) -> String {
    let mut images = Images::default();
    let layer = tar_of(&[(b'0', "f", "", b"x")]);
    let mut config = json!({
        "os": "linux", "architecture": Platform::native().architecture,
        "rootfs": {"diff_ids": [Digest::of(&layer).to_string()]},
    });
    let blob = images.blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let mut manifest = json!({"schemaVersion": 2, "layers": [blob]});
    change(&mut manifest, &mut config);
    if manifest.get("config").is_none() {
        manifest["config"] = images.document("application/vnd.oci.image.config.v1+json", &config);
    }
    let manifest = images.document(spec::MANIFEST, &manifest);
    images.top.push(manifest);
    match Place::new().extract_images(&images) {
        Ok(_) => "fine".to_owned(),
        Err(e) => e.to_string(),
    }
}

#[test]
fn malformed_manifests_are_refused() {
    assert_eq!(odd(|_, _| ()), "fine");
    let diff = |config: &mut Value, digest: &Digest| config["rootfs"]["diff_ids"][0] = json!(digest.to_string());
    for (found, says) in [
        (
            odd(|_, c| diff(c, &Digest::of(b"other"))),
            "without its compression does not match its digest",
        ),
        (
            odd(|_, c| c["rootfs"]["diff_ids"] = json!([])),
            "lists 0 layers, the manifest 1",
        ),
        (odd(|_, c| c["rootfs"] = json!(null)), "is damaged"),
        (
            odd(|m, _| m["layers"][0]["mediaType"] = json!("application/x+encrypted")),
            "of the kind 'application/x+encrypted'",
        ),
        (
            odd(|m, _| m["layers"][0]["digest"] = json!("sha256:../../x")),
            "is not a digest",
        ),
        (
            odd(|m, _| m["layers"][0]["digest"] = json!("sha512:00")),
            "only sha256: is supported",
        ),
        (odd(|m, _| m["layers"][0]["size"] = json!(-1)), "is damaged"),
        (odd(|m, _| m["layers"][0]["size"] = json!(1)), "more than the 1 bytes"),
        (
            odd(|m, _| m["layers"][0]["size"] = json!(1u64 << 50)),
            "but the manifest says",
        ),
        (odd(|m, _| m["manifests"] = json!([])), "so it is ambiguous"),
        (odd(|m, _| m["mediaType"] = json!(spec::INDEX)), "so it is ambiguous"),
        (odd(|m, _| m["schemaVersion"] = json!(1)), "schema 1"),
        (
            odd(|m, _| m["layers"] = json!(vec![m["layers"][0].clone(); 10_000])),
            "10000 layers; at most 1000",
        ),
        (
            odd(|m, _| {
                m["config"] = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "x", "size": 1})
            }),
            "does not contain a container image",
        ),
    ] {
        assert!(found.contains(says), "{says}: {found}");
    }
    let mut images = Images::default();
    images
        .top
        .push(json!({"mediaType": spec::MANIFEST, "digest": Digest::of(b"").to_string(), "size": 1u64 << 40}));
    let error = Place::new().extract_images(&images).unwrap_err().to_string();
    assert!(error.contains("are not read"), "{error}");
}

#[test]
fn the_variant_for_the_nodes_is_chosen() {
    let mut images = Images::default();
    let mut entries = Vec::new();
    for arch in ["s390x", "arm64", "amd64"] {
        let image = images.image(arch, &[tar_of(&[(b'0', "arch", "", arch.as_bytes())])]);
        entries.push((image, format!("linux/{arch}")));
    }
    let attestation = images.document(spec::MANIFEST, &json!({"not": "read"}));
    let mut list: Vec<(Value, &str)> = vec![(attestation, "unknown/unknown")];
    list.extend(
        entries
            .iter()
            .map(|(image, platform)| (image.clone(), platform.as_str())),
    );
    let inner = images.index(spec::DOCKER_LIST, &list);
    let outer = images.index(spec::INDEX, &[(inner, "")]);
    images.top.push(outer);
    let place = Place::new();
    images.write_layout(&place.at("layout"));
    let source = format!("oci:{}", place.at("layout").display());
    let options = |platform: &str| OciOptions {
        platform: Some(platform.to_owned()),
        ..OciOptions::default()
    };
    for arch in ["arm64", "amd64"] {
        let taken = place.extract_with(&source, &options(&format!("linux/{arch}"))).unwrap();
        assert_eq!(place.read("arch"), arch);
        // The digest is that of the manifest, not of an index.
        let manifest = &entries.iter().find(|(_, platform)| platform.ends_with(arch)).unwrap().0;
        assert!(taken.ends_with(manifest["digest"].as_str().unwrap()), "{taken}");
        fs::remove_file(place.at("root/arch")).unwrap();
    }
    let error = place
        .extract_with(&source, &options("linux/riscv64"))
        .unwrap_err()
        .to_string();
    let there = "is not available for linux/riscv64; it is available for linux/amd64, linux/arm64, linux/s390x; choose with --platform";
    assert!(error.contains(there), "{error}");
    assert!(
        place
            .extract_with(&source, &options("amd64"))
            .unwrap_err()
            .to_string()
            .contains("is not a platform")
    );

    // Without a platform in the index, the configuration has it.
    let mut images = Images::default();
    let image = images.image("s390x", &[]);
    images.top.push(image);
    let error = Place::new().extract_images(&images).unwrap_err().to_string();
    assert!(error.contains("it is available for linux/s390x"), "{error}");
}

#[test]
fn several_images_in_a_layout_have_names() {
    let mut images = Images::default();
    for name in ["1", "2"] {
        let mut image = images.image(
            &Platform::native().architecture,
            &[tar_of(&[(b'0', "name", "", name.as_bytes())])],
        );
        image["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        images.top.push(image);
    }
    let place = Place::new();
    images.write_layout(&place.at("layout"));
    let source = format!("oci:{}", place.at("layout").display());
    let error = place.extract(&source).unwrap_err().to_string();
    assert!(error.contains("holds several images: 1, 2; choose one"), "{error}");
    let error = place.extract(&format!("{source}:3")).unwrap_err().to_string();
    assert!(
        error.contains("does not contain '3'") && error.contains("it contains 1, 2"),
        "{error}"
    );
    assert!(
        place
            .extract(&format!("{source}:2"))
            .unwrap()
            .contains("/layout:2@sha256:")
    );
    assert_eq!(place.read("name"), "2");
}

#[test]
fn indexes_without_an_end_are_refused() {
    // With correct digests a cycle is impossible; the search does not rely on that.
    let cycle = Digest::of(b"cycle");
    let to_itself =
        json!({"manifests": [{"mediaType": spec::INDEX, "digest": cycle.to_string(), "size": 1}]}).to_string();
    let start = |bytes: &str| Start {
        bytes: bytes.as_bytes().to_vec(),
        media_type: None,
        digest: None,
        name: "it".to_owned(),
    };
    let platform = Platform::native();
    let wanted = Wanted {
        platform: &platform,
        tag: None,
    };
    let mut reads = 0;
    let error = choose(&start(&to_itself), &wanted, &mut |_, _| {
        reads += 1;
        Ok(to_itself.clone().into_bytes())
    });
    assert!(error.unwrap_err().to_string().contains("leads to itself"));
    assert_eq!(reads, 1);
    // Indexes nested too deeply, and too many of them.
    let mut number = 0u32;
    let mut next = |count: usize| {
        let list: Vec<Value> = (0..count)
            .map(|_| {
                number += 1;
                json!({"mediaType": spec::INDEX, "digest": Digest::of(&number.to_le_bytes()).to_string(), "size": 1})
            })
            .collect();
        json!({"manifests": list}).to_string()
    };
    let error = choose(&start(&next(1)), &wanted, &mut |_, _| Ok(next(1).into_bytes()));
    assert!(error.unwrap_err().to_string().contains("deeper than 8"));
    let mut reads = 0;
    let wide = next(1000);
    let error = choose(&start(&wide), &wanted, &mut |_, _| {
        reads += 1;
        Ok(br#"{"manifests": []}"#.to_vec())
    });
    assert!(error.unwrap_err().to_string().contains("more than 200 documents"));
    assert_eq!(reads, 200);
    let error = choose(&start(r#"{"manifests": []}"#), &wanted, &mut |_, _| unreachable!());
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("does not contain a container image")
    );
}
