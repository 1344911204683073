//! Images made here, extracted from layouts, archives, and the outputs of `docker save`. These need root, as imports do.

use super::{
    choose::{Start, Wanted, choose},
    *,
};
use crate::image::{progress::Quiet, tree::nasty};
use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, symlink},
    },
};

/// Blobs by digest, and what a layout says of them.
#[derive(Clone, Default)]
pub(super) struct Images {
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    pub top: Vec<Value>,
}

/// An entry of a layer: type, name, link, content.
pub(super) type Entry<'a> = (u8, &'a str, &'a str, &'a [u8]);

pub(super) fn tar_of(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (kind, name, link, content) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(::tar::EntryType::new(*kind));
        header.set_mode(if *kind == b'5' { 0o755 } else { 0o644 });
        (header.set_uid(0), header.set_gid(0), header.set_mtime(1_700_000_000));
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

impl Images {
    pub fn blob(&mut self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, bytes.to_vec());
        json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub fn document(&mut self, kind: &str, value: &Value) -> Value {
        self.blob(kind, &serde_json::to_vec(value).unwrap())
    }

    /// A manifest of `layers`, which are tar archives; they are stored by turns plain, as gzip and as zstd.
    pub fn image(&mut self, arch: &str, layers: &[Vec<u8>]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({"os": "linux", "architecture": arch, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = self.document("application/vnd.oci.image.config.v1+json", &config);
        let layers: Vec<Value> = layers
            .iter()
            .enumerate()
            .map(|(i, layer)| match i % 3 {
                0 => self.blob("application/vnd.oci.image.layer.v1.tar", layer),
                1 => self.blob("application/vnd.docker.image.rootfs.diff.tar.gzip", &gzip(layer)),
                _ => self.blob(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    &zstd::encode_all(layer.as_slice(), 1).unwrap(),
                ),
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": spec::MANIFEST, "config": config, "layers": layers});
        self.document(spec::MANIFEST, &manifest)
    }

    /// An index of `entries`, each with its platform.
    pub fn index(&mut self, kind: &str, entries: &[(Value, &str)]) -> Value {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(entry, platform)| {
                let mut entry = entry.clone();
                if let Some((os, arch)) = platform.split_once('/') {
                    entry["platform"] = json!({"os": os, "architecture": arch});
                }
                entry
            })
            .collect();
        self.document(
            kind,
            &json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries}),
        )
    }

    pub fn write_layout(&self, at: &Path) {
        fs::create_dir_all(at.join("blobs/sha256")).unwrap();
        fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": self.top});
        fs::write(at.join("index.json"), index.to_string()).unwrap();
        for (digest, bytes) in &self.blobs {
            fs::write(at.join(blob_path(digest)), bytes).unwrap();
        }
    }
}

/// The native image of these layers alone in a layout.
fn layout_of(layers: &[&[Entry<'_>]]) -> Images {
    let mut images = Images::default();
    let layers: Vec<Vec<u8>> = layers.iter().map(|entries| tar_of(entries)).collect();
    let image = images.image(&Platform::native().architecture, &layers);
    images.top.push(image);
    images
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        Place { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn extract_with(&self, source: &str, options: &OciOptions) -> Result<String> {
        let open = |at: &Path| rustix::fs::open(at, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let (root, scratch) = (open(&self.at("root")), open(self.dir.path()));
        let mut space = SpaceGuard::new(root.as_fd(), self.dir.path(), None)?;
        let mut notes = Notes::default();
        let image = OciImage::parse(OsStr::new(source), options).unwrap()?;
        image.extract(root.as_fd(), scratch.as_fd(), &mut space, &mut notes, &mut Quiet)?;
        Ok(image.taken())
    }

    fn extract(&self, source: &str) -> Result<String> {
        self.extract_with(source, &OciOptions::default())
    }

    fn extract_images(&self, images: &Images) -> Result<String> {
        images.write_layout(&self.at("layout"));
        self.extract(&format!("oci:{}", self.at("layout").display()))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at("root").join(name)).unwrap()
    }

    /// All paths of the tree.
    fn paths(&self) -> Vec<String> {
        let root = self.at("root");
        let entries = walkdir::WalkDir::new(&root).min_depth(1).sort_by_file_name();
        let path = |e: walkdir::DirEntry| e.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        entries.into_iter().map(|e| path(e.unwrap())).collect()
    }
}

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

const D: &[u8] = b"";

#[test]
fn layers_are_applied_in_their_order() {
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
            // Through an absolute link, as a container sees it; names with a slash in front are the container's own.
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
fn whiteouts_hide_what_is_below() {
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
        // What is not there is not missed, nor made.
        (
            &[
                (b'0', "d/.wh.none", "", D),
                (b'0', "no/where/.wh.x", "", D),
                (b'0', "f/.wh.x", "", D),
            ],
            without(&[]),
        ),
        (&[(b'0', "no/.wh..wh..opq", "", D)], without(&[])),
        // Through a link to where it leads, as a container would.
        (&[(b'0', "lib/.wh.so", "", D)], without(&["usr/lib/so"])),
        // The name again in the same layer, behind and before its whiteout.
        (
            &[(b'0', ".wh.d", "", D), (b'5', "d", "", D), (b'0', "d/b", "", b"y")],
            without(&["d/a", "d/sub"]),
        ),
        (
            &[(b'5', "d", "", D), (b'0', "d/b", "", b"y"), (b'0', ".wh.d", "", D)],
            without(&["d/a", "d/sub"]),
        ),
        (&[(b'0', "f", "", b"y"), (b'0', ".wh.f", "", D)], without(&[])),
        // Opaque, before and behind what the layer has there itself.
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
        // AUFS's own notes.
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
    // In the lowest layer there is nothing to hide.
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
fn nothing_leaves_the_tree() {
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
        (&[(b'0', "d/.wh...", "", D)], "whiteout of no name"),
        (&[(b'0', "d/.wh..", "", D)], "whiteout of no name"),
        (&[(b'0', ".wh.", "", D)], "whiteout of no name"),
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
fn attributes_of_directories_are_the_highest_layers() {
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
fn an_end_mark_may_be_missing_but_no_byte() {
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
fn damage_is_found() {
    let images = layout_of(&[&[(b'0', "f", "", b"content")], &[(b'0', "g", "", &[7; 5000])]]);
    let digests: Vec<Digest> = images.blobs.keys().copied().collect();
    assert_eq!(digests.len(), 4);
    for digest in digests {
        let mut wrong = images.clone();
        let bytes = wrong.blobs.get_mut(&digest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let error = Place::new().extract_images(&wrong).unwrap_err().to_string();
        assert!(error.contains("not what its digest says"), "{error}");
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

/// A manifest of one layer with other words than [`Images::image`] finds.
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
fn odd_manifests_are_refused() {
    assert_eq!(odd(|_, _| ()), "fine");
    let diff = |config: &mut Value, digest: &Digest| config["rootfs"]["diff_ids"][0] = json!(digest.to_string());
    for (found, says) in [
        (
            odd(|_, c| diff(c, &Digest::of(b"other"))),
            "without its compression is not what its digest says",
        ),
        (
            odd(|_, c| c["rootfs"]["diff_ids"] = json!([])),
            "tells of 0 layers, the manifest of 1",
        ),
        (odd(|_, c| c["rootfs"] = json!(null)), "is damaged"),
        (
            odd(|m, _| m["layers"][0]["mediaType"] = json!("application/x+encrypted")),
            "of the kind 'application/x+encrypted'",
        ),
        (
            odd(|m, _| m["layers"][0]["digest"] = json!("sha256:../../x")),
            "is no digest",
        ),
        (
            odd(|m, _| m["layers"][0]["digest"] = json!("sha512:00")),
            "only sha256: is read",
        ),
        (odd(|m, _| m["layers"][0]["size"] = json!(-1)), "is damaged"),
        (odd(|m, _| m["layers"][0]["size"] = json!(1)), "more than the 1 bytes"),
        (
            odd(|m, _| m["layers"][0]["size"] = json!(1u64 << 50)),
            "but the manifest says",
        ),
        (odd(|m, _| m["manifests"] = json!([])), "nobody knows which is meant"),
        (
            odd(|m, _| m["mediaType"] = json!(spec::INDEX)),
            "nobody knows which is meant",
        ),
        (odd(|m, _| m["schemaVersion"] = json!(1)), "schema 1"),
        (
            odd(|m, _| m["layers"] = json!(vec![m["layers"][0].clone(); 10_000])),
            "10000 layers; at most 1000",
        ),
        (
            odd(|m, _| {
                m["config"] = json!({"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "x", "size": 1})
            }),
            "holds no container image",
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
        // The manifest's digest, not an index's.
        let manifest = &entries.iter().find(|(_, platform)| platform.ends_with(arch)).unwrap().0;
        assert!(taken.ends_with(manifest["digest"].as_str().unwrap()), "{taken}");
        fs::remove_file(place.at("root/arch")).unwrap();
    }
    let error = place
        .extract_with(&source, &options("linux/riscv64"))
        .unwrap_err()
        .to_string();
    let there =
        "is not there for linux/riscv64; it is there for linux/amd64, linux/arm64, linux/s390x; choose with --platform";
    assert!(error.contains(there), "{error}");
    assert!(
        place
            .extract_with(&source, &options("amd64"))
            .unwrap_err()
            .to_string()
            .contains("is no platform")
    );

    // Of one that says nothing of platforms, the configuration tells.
    let mut images = Images::default();
    let image = images.image("s390x", &[]);
    images.top.push(image);
    let error = Place::new().extract_images(&images).unwrap_err().to_string();
    assert!(error.contains("it is there for linux/s390x"), "{error}");
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
        error.contains("there is no '3'") && error.contains("there are 1, 2"),
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
fn indexes_that_lead_nowhere_are_refused() {
    // With digests that are right no cycle can be made; the search does not rely on that.
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
    // Ever deeper, and ever wider.
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
    assert!(error.unwrap_err().to_string().contains("holds no container image"));
}

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
fn archives_of_layouts() {
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
    assert!(error.contains("is no OCI layout"), "{error}");
    // Links in a layout do not lead out of it.
    symlink(place.at("layout/oci-layout"), place.at("root/oci-layout")).unwrap();
    assert!(place.extract(&format!("oci:{}", place.at("root").display())).is_err());
}

#[test]
fn archives_of_docker_save() {
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
        (archive(&good, &config, &layers[1]), ":13", "there are: node:12"),
        (
            archive(&two, &config, &layers[1]),
            "",
            "several images: node:12, other:1",
        ),
        (archive(&good, &config, &damaged), "", "layer 2 of 2"),
        (
            archive(&good, &config.replace("linux", "Linux"), &layers[1]),
            "",
            "not what its name says",
        ),
        (
            archive(&json!([{"Config": config_name, "Layers": ["x"]}]), &config, &layers[1]),
            "",
            "tells of 2 layers",
        ),
        (
            archive(
                &json!([{"Config": "../../etc/passwd", "Layers": []}]),
                &config,
                &layers[1],
            ),
            "",
            "has no ../../etc/passwd",
        ),
        (archive(&json!({}), &config, &layers[1]), "", "is damaged"),
    ] {
        let error = extract(&bytes, tag).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[test]
fn a_layer_that_unpacks_to_more_than_there_is_room() {
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
    let image = OciImage::parse(OsStr::new(&source), &OciOptions::default())
        .unwrap()
        .unwrap();
    let result = image.extract(
        root.as_fd(),
        root.as_fd(),
        &mut space,
        &mut Notes::default(),
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
