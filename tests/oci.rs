//! Container images of Debian's docker-registry on loopback, imported with the real command.

use crate::daemon::rackstrap;
use rackstrap_image::load_catalog;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};
use testbed::process::Running;

const RELEASE: &str = "6.1.0-40-amd64";
/// The line of `htpasswd -B` for bob:builder.
const HTPASSWD: &str = "bob:$2y$05$abcdefghijklmnopqrstuu3wiKDIdUrAhSFkvcAcWHGTjN7vc525q\n";
const BOB: &str = "Ym9iOmJ1aWxkZXI=";

struct Bench {
    dir: tempfile::TempDir,
}

/// A registry that is stopped when this is dropped.
struct Registry {
    _running: Running,
    port: u16,
}

fn hex_digest(bytes: &[u8]) -> String {
    let hex: String = digest(&SHA256, bytes)
        .as_ref()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench {
            dir: tempfile::tempdir().unwrap(),
        };
        // A program of this architecture that needs no dynamic loader: an ELF header and nothing else.
        let mut elf = fs::read(std::env::current_exe().unwrap()).unwrap();
        elf.truncate(64);
        elf[32..64].fill(0);
        fs::write(bench.at("agent"), &elf).unwrap();
        let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rackstrap.example.toml")).unwrap();
        let site = example.replacen("/var/lib/rackstrap", bench.at("state").to_str().unwrap(), 1);
        assert_ne!(site, example);
        fs::write(bench.at("rackstrap.toml"), site).unwrap();
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A registry with the storage that this bench's registries share; `more` is added to its configuration.
    fn registry(&self, more: &str) -> Registry {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = self.at(&format!("registry-{port}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n{more}",
            self.at("storage").display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(self.at("registry.log")).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let mut running = Running::start("docker-registry", &mut command).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(self.at("registry.log")).unwrap_or_default();
            assert!(
                running.ended().unwrap().is_none() && Instant::now() < deadline,
                "{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Registry {
            _running: running,
            port,
        }
    }

    /// Runs `rackstrap image import test --from SOURCE …`, with no credentials but the given ones.
    fn import(&self, words: &[&str], environment: &[(&str, &Path)]) -> Output {
        let mut command = rackstrap(&self.at("rackstrap.toml"));
        command
            .args(["image", "import", "test", "--agent"])
            .arg(self.at("agent"))
            .arg("--from")
            .args(words)
            .env("DOCKER_CONFIG", self.at("nowhere"))
            .envs(environment.iter().copied());
        command.output().unwrap()
    }

    fn fails(&self, words: &[&str], environment: &[(&str, &Path)]) -> String {
        let done = self.import(words, environment);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(!done.status.success(), "{said}");
        // A failed import leaves nothing; earlier complete versions stay.
        let images = self.at("state/images");
        for entry in fs::read_dir(images.join("test")).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name.parse::<u32>().is_ok(), "{name} is left");
        }
        said
    }

    fn works(&self, words: &[&str], environment: &[(&str, &Path)]) -> String {
        let done = self.import(words, environment);
        let said = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{said}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// The tar of a directory and its compressed form, by `packer`: a layer.
    fn layer(&self, name: &str, packer: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let tar = tar_of(&self.at(name));
        let mut pack = Command::new(packer[0]);
        pack.args(&packer[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pack.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let bytes = tar.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
        let packed = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        (tar, packed)
    }
}

/// The tar of a directory, with all attributes that an archive can hold.
fn tar_of(dir: &Path) -> Vec<u8> {
    let done = Command::new("tar")
        .args([
            "--format=pax",
            "--pax-option=delete=atime,delete=ctime",
            "--sort=name",
            "--numeric-owner",
            "--xattrs",
        ])
        .args(["--xattrs-include=*", "-c", "-C"])
        .arg(dir)
        .arg(".")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

impl Registry {
    /// Pushes a blob (OCI distribution specification, "Pushing Blobs": POST then PUT).
    fn push_blob(&self, repository: &str, kind: &str, bytes: &[u8]) -> Value {
        let digest = hex_digest(bytes);
        let uploads = format!("http://127.0.0.1:{}/v2/{repository}/blobs/uploads/", self.port);
        let begun = ureq::post(&uploads).send_empty().unwrap();
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        let put = ureq::put(&place)
            .query("digest", &digest)
            .content_type("application/octet-stream");
        assert_eq!(put.send(bytes).unwrap().status(), 201);
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    }

    fn push_manifest(&self, repository: &str, name: &str, manifest: &Value) -> Value {
        let bytes = serde_json::to_vec(manifest).unwrap();
        let kind = manifest["mediaType"].as_str().unwrap();
        let url = format!("http://127.0.0.1:{}/v2/{repository}/manifests/{name}", self.port);
        assert_eq!(
            ureq::put(&url).content_type(kind).send(&bytes[..]).unwrap().status(),
            201
        );
        json!({"mediaType": kind, "digest": hex_digest(&bytes), "size": bytes.len()})
    }

    fn push_image(&self, repository: &str, arch: &str, layers: &[(Vec<u8>, Vec<u8>)]) -> Value {
        let diff_ids: Vec<String> = layers.iter().map(|(plain, _)| hex_digest(plain)).collect();
        let config = json!({"os": "linux", "architecture": arch, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let kind = "application/vnd.docker.container.image.v1+json";
        let config = self.push_blob(repository, kind, config.to_string().as_bytes());
        let kind = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        let layers: Vec<Value> = layers
            .iter()
            .map(|(_, packed)| self.push_blob(repository, kind, packed))
            .collect();
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
        let name = hex_digest(&serde_json::to_vec(&manifest).unwrap());
        self.push_manifest(repository, &name, &manifest)
    }

    fn push_list(&self, repository: &str, tag: &str, images: &[(&str, &Value)]) {
        let entries: Vec<Value> = images
            .iter()
            .map(|(arch, image)| {
                let mut entry = (*image).clone();
                entry["platform"] = json!({"os": "linux", "architecture": arch});
                entry
            })
            .collect();
        let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
        let list = json!({"schemaVersion": 2, "mediaType": kind, "manifests": entries});
        self.push_manifest(repository, tag, &list);
    }

    fn source(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }
}

/// Creates a tree that a node can boot, in two layers: the upper one changes the lower one as container builders do.
/// `expected` is the resulting tree.
fn trees(bench: &Bench) {
    let modules = format!("usr/lib/modules/{RELEASE}");
    let write = |name: &str, content: &[u8]| {
        let path = bench.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write("base/usr/lib/systemd/systemd", &fs::read(bench.at("agent")).unwrap());
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(bench.at("base/usr/lib/systemd/systemd"), executable).unwrap();
    fs::create_dir_all(bench.at("base/usr/sbin")).unwrap();
    symlink("usr/lib", bench.at("base/lib")).unwrap();
    symlink("usr/sbin", bench.at("base/sbin")).unwrap();
    symlink("/lib/systemd/systemd", bench.at("base/usr/sbin/init")).unwrap();
    write(&format!("base/boot/vmlinuz-{RELEASE}"), b"the kernel");
    write(&format!("base/boot/config-{RELEASE}"), b"CONFIG_RD_ZSTD=y\n");
    let names = [
        "net/sunrpc/sunrpc",
        "fs/nfs/nfs",
        "fs/nfs/nfsv3",
        "fs/overlayfs/overlay",
    ];
    let mut dep = String::new();
    for name in names {
        write(&format!("base/{modules}/kernel/{name}.ko"), name.as_bytes());
        dep += &format!("kernel/{name}.ko:\n");
    }
    write(&format!("base/{modules}/modules.dep"), dep.as_bytes());
    write(&format!("base/{modules}/modules.builtin"), b"");
    write("base/etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    write("base/etc/gone", b"x");
    write("base/var/cache/apt/a", b"x");
    write("base/var/cache/apt/b", b"x");
    write("base/opt/dir/inner/x", b"x");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(bench.at("base"))
        .arg(bench.at("expected"))
        .status();
    assert!(copied.unwrap().success());

    write("upper/etc/.wh.gone", b"");
    write("upper/etc/hostname", b"node\n");
    write("upper/var/cache/apt/.wh..wh..opq", b"");
    write("upper/var/cache/apt/b", b"again");
    write("upper/opt/dir", b"a file");
    fs::hard_link(bench.at("upper/etc/hostname"), bench.at("upper/etc/mailname")).unwrap();
    rustix::fs::setxattr(
        bench.at("upper/opt/dir"),
        "user.note",
        b"kept",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();

    fs::remove_file(bench.at("expected/etc/gone")).unwrap();
    fs::remove_dir_all(bench.at("expected/var/cache/apt")).unwrap();
    fs::remove_dir_all(bench.at("expected/opt/dir")).unwrap();
    let copied = Command::new("cp")
        .arg("-a")
        .arg(bench.at("upper/."))
        .arg(bench.at("expected"))
        .status();
    assert!(copied.unwrap().success());
    fs::remove_file(bench.at("expected/etc/.wh.gone")).unwrap();
    fs::remove_file(bench.at("expected/var/cache/apt/.wh..wh..opq")).unwrap();
    // Directories of the upper layer have its times.
    for name in ["", "etc", "var", "var/cache", "var/cache/apt", "opt"] {
        let from = bench.at("upper").join(name);
        let status = Command::new("touch")
            .arg("-r")
            .arg(from)
            .arg(bench.at("expected").join(name))
            .status();
        assert!(status.unwrap().success());
    }
}

/// The catalog's record of a version's source.
fn source_of(bench: &Bench, version: u32) -> String {
    let (catalog, problems) = load_catalog(&bench.at("state/images"));
    assert!(problems.is_empty(), "{problems:?}");
    let found = catalog
        .iter()
        .find(|image| image.manifest.image.version == version)
        .unwrap();
    found.manifest.source.clone()
}

#[test]
fn an_image_from_a_registry_becomes_a_version() {
    let bench = Bench::new();
    trees(&bench);
    let registry = bench.registry("");
    let layers = [
        bench.layer("base", &["gzip", "-c"]),
        bench.layer("upper", &["zstd", "-c"]),
    ];
    let image = registry.push_image("team/node", native(), &layers);
    let other = registry.push_image("team/node", "s390x", &layers[..1]);
    registry.push_list("team/node", "12", &[("s390x", &other), (native(), &image)]);
    let digest = image["digest"].as_str().unwrap();

    let source = registry.source("team/node:12");
    assert!(bench.works(&[&source], &[]).starts_with("test@1: "));
    assert!(
        tar_of(&bench.at("state/images/test/1/root")) == tar_of(&bench.at("expected")),
        "the trees differ"
    );
    let taken = format!("{source}@{digest}");
    assert_eq!(source_of(&bench, 1), taken);
    // The printed source, used again, gives the same image.
    assert!(bench.works(&[&taken], &[]).starts_with("test@2: "));
    assert!(tar_of(&bench.at("state/images/test/2/root")) == tar_of(&bench.at("expected")));
    assert_eq!(source_of(&bench, 2), taken);

    let said = bench.fails(&[&source, "--platform", "linux/riscv64"], &[]);
    assert!(
        said.contains(&format!("it is available for linux/{}, linux/s390x", native())),
        "{said}"
    );
    let said = bench.fails(&[&registry.source("team/node:13")], &[]);
    assert!(said.contains("manifest team/node:13 does not exist at"), "{said}");
    let said = bench.fails(&[bench.at("base").to_str().unwrap(), "--platform", "linux/arm64"], &[]);
    assert!(said.contains("--platform is for container images"), "{said}");

    // A usual container image, which cannot boot.
    fs::create_dir_all(bench.at("plain/etc")).unwrap();
    let plain = registry.push_image("team/plain", native(), &[bench.layer("plain", &["cat"])]);
    registry.push_list("team/plain", "latest", &[(native(), &plain)]);
    let said = bench.fails(&[&registry.source("team/plain")], &[]);
    for part in [
        "no init",
        "no kernel",
        "FROM debian:12",
        "linux-image-amd64",
        "systemd-sysv",
    ] {
        assert!(said.contains(part), "{said}");
    }

    // A corrupted disk: one byte of the upper layer has changed.
    let hex = hex_digest(&layers[1].1).trim_start_matches("sha256:").to_owned();
    let blob = bench
        .at("storage/docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(&hex)
        .join("data");
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let said = bench.fails(&[&source], &[]);
    assert!(
        said.contains("layer 2 of 2") && said.contains("does not match its digest"),
        "{said}"
    );
}

/// A registry with the image `node` and without passwords.
fn with_an_image() -> (Bench, Registry) {
    let bench = Bench::new();
    trees(&bench);
    let layers = [bench.layer("base", &["gzip", "-c"])];
    let open = bench.registry("");
    let image = open.push_image("node", native(), &layers);
    open.push_list("node", "latest", &[(native(), &image)]);
    (bench, open)
}

#[test]
fn a_registry_with_passwords() {
    let (bench, _open) = with_an_image();
    fs::write(bench.at("htpasswd"), HTPASSWD).unwrap();
    let auth = format!(
        "auth: {{htpasswd: {{realm: lab, path: {}}}}}\n",
        bench.at("htpasswd").display()
    );
    let closed = bench.registry(&auth);
    let source = closed.source("node");

    let said = bench.fails(&[&source], &[]);
    assert!(
        said.contains("401 Unauthorized") && said.contains("`docker login`"),
        "{said}"
    );
    let credentials = |name: &str, auth: &str| {
        let text = json!({"auths": {format!("127.0.0.1:{}", closed.port): {"auth": auth}}});
        fs::create_dir_all(bench.at(name)).unwrap();
        fs::write(bench.at(name).join("config.json"), text.to_string()).unwrap();
        bench.at(name)
    };
    // bob:secret
    let wrong = credentials("wrong", "Ym9iOnNlY3JldA==");
    let said = bench.fails(&[&source], &[("DOCKER_CONFIG", &wrong)]);
    assert!(said.contains("the credentials are wrong"), "{said}");
    assert!(!said.contains("secret") && !said.contains("Ym9iOnNlY3JldA"), "{said}");
    let right = credentials("right", BOB);
    assert!(
        bench
            .works(&[&source], &[("DOCKER_CONFIG", &right)])
            .starts_with("test@1: ")
    );
    let file = right.join("config.json");
    let done = bench.import(&[&source, "--credentials", file.to_str().unwrap()], &[]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(
        done.status.success() && !said.contains("builder") && !said.contains(BOB),
        "{said}"
    );
    let said = bench.fails(&[&source, "--credentials", "/nonexistent"], &[]);
    assert!(said.contains("reading the credentials in /nonexistent"), "{said}");
}

#[test]
fn a_registry_with_a_certificate_of_its_own() {
    let (bench, _open) = with_an_image();
    let openssl = |words: &[&str]| {
        let done = Command::new("openssl")
            .args(words)
            .current_dir(bench.dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let new_key = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ];
    let ca = ["-subj", "/CN=lab CA", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(&[&new_key[..], &ca].concat());
    let leaf = [
        "-subj",
        "/CN=registry",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ];
    openssl(&[&new_key[..], &leaf].concat());
    let (cert, key) = (bench.at("cert.pem"), bench.at("key.pem"));
    let tls = bench.registry(&format!(
        "  tls: {{certificate: {}, key: {}}}\n",
        cert.display(),
        key.display()
    ));
    let source = tls.source("node");
    let said = bench.fails(&[&source], &[]);
    assert!(
        said.contains("UnknownIssuer") && said.contains("update-ca-certificates"),
        "{said}"
    );
    assert!(
        bench
            .works(&[&source], &[("SSL_CERT_FILE", &bench.at("ca.pem"))])
            .starts_with("test@1: ")
    );
}
