mod any_text;
mod bmc;
mod dhcp_options;
mod disk_rules;
mod esp;
mod loaders;
mod mounts;
mod naming;
mod networks;
mod partition_content;
mod subnets;
mod texts;

use super::*;

const EXAMPLE: &str = include_str!("../../../rackstrap.example.toml");
/// The smallest valid site file. [`messages`] changes or adds lines.
const SMALL: &str = r#"[cluster]
node-name = "r{rack:02}n{slot:02}"
node-address = "10.5.{rack}.{slot}"
reserved = ["10.5.0.0/24", "10.5.255.0/24"]

[[subnet]]
network = "10.5.0.0/16"
interface = "eth1"
server = "10.5.0.1"
"#;

fn check(text: &str) -> Result<(Site, Vec<Warning>), ConfigError> {
    parse(text, Path::new("/etc/rackstrap/site.toml"))
}

fn site(text: &str) -> Site {
    check(text).unwrap_or_else(|e| panic!("{e}")).0
}

/// All problems and warnings of a file.
fn said(text: &str) -> String {
    let list = |all: &[Diagnostic]| all.iter().map(|d| format!("warning: {d}\n\n")).collect::<String>();
    let said = match check(text) {
        Ok((_, warnings)) => format!("{}ok", list(&warnings)),
        Err(ConfigError::Invalid { ref warnings, .. }) if !warnings.is_empty() => {
            format!("{}{}", list(warnings), check(text).unwrap_err())
        }
        Err(error) => error.to_string(),
    };
    said.replace("/etc/rackstrap/", "")
}

#[test]
fn the_least_has_sensible_defaults() {
    let site = site(SMALL);
    insta::assert_debug_snapshot!(site);
}

#[test]
fn the_example_is_right_and_explains_every_key() {
    let (site, warnings) = check(EXAMPLE).unwrap_or_else(|e| panic!("{e}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(site.layouts["scratch"].layout.partitions.len(), 2);

    // Every key is in the example, with its value or commented out.
    for (title, keys) in section::KEYS {
        for key in keys.iter().filter(|k| !["partition", "relayed", "naming"].contains(*k)) {
            let written = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
            assert!(EXAMPLE.lines().any(written), "{key} of {title} is not in the example");
        }
    }
    assert!(EXAMPLE.contains("relayed = true") && EXAMPLE.contains("[[layout.scratch.partition]]"));

    // Every block of keys has a comment above it, except a second partition.
    let mut explained = std::collections::BTreeSet::new();
    let (mut section, mut comment) = (String::new(), false);
    for line in EXAMPLE.lines() {
        let key = line.split(" = ").next().unwrap_or_default();
        match line {
            "" => comment = false,
            l if l.starts_with('[') => section = l.to_owned(),
            l if l.starts_with('#') && !l.contains(" = ") => comment = true,
            l if l.starts_with("# ") && !comment => panic!("{l}: nothing above explains it"),
            l if l.starts_with('#') => comment = true,
            _ if comment => {
                explained.insert((section.clone(), key.to_owned()));
            }
            _ => assert!(
                explained.contains(&(section.clone(), key.to_owned())),
                "{key}: nothing above explains it"
            ),
        }
    }

    // The values that are commented out are valid.
    let all: String = EXAMPLE
        .lines()
        .map(|l| match l.strip_prefix("# ") {
            Some(rest) if rest.starts_with("templates") || rest.starts_with("bootscripts") => format!("{rest}\n"),
            _ => format!("{l}\n"),
        })
        .collect();
    assert_eq!(
        check(&all).unwrap().0.server.templates_dir,
        Some("/etc/rackstrap/templates".into())
    );
}

#[test]
fn paths_are_taken_from_the_files_directory() {
    let text = format!(
        "{SMALL}\n[server]\nstate-dir = \"../state/./x\"\ntemplates-dir = \"t\"\nloader-dirs = [\"/l\", \"m\"]\n"
    );
    let server = site(&text).server;
    assert_eq!(server.state_dir, Path::new("/etc/state/x"));
    assert_eq!(server.templates_dir.as_deref(), Some(Path::new("/etc/rackstrap/t")));
    let loaders = ["/l", "/etc/rackstrap/m", "/usr/lib/ipxe", "/usr/share/ipxe"].map(std::path::PathBuf::from);
    assert_eq!(server.loader_dirs, loaders);
}

#[test]
fn names_that_no_node_can_have_are_refused() {
    let narrow = SMALL
        .replace("10.5.0.0/16", "10.5.0.0/22")
        .replace("\"10.5.255.0/24\"", "\"10.5.2.0/24\"");
    let site = site(&narrow);
    let say = |name: &str| site.address_of(name).map_or_else(|e| e.to_string(), |a| a.to_string());
    assert_eq!(say("r01n03"), "10.5.1.3");
    assert_eq!(
        say("r02n03"),
        "no node can be called r02n03: its address 10.5.2.3 is in the reserved range 10.5.2.0/24; \
         choose another position, or change 'reserved' in [cluster]"
    );
    assert_eq!(
        say("r04n03"),
        "no node can be called r04n03: its address 10.5.4.3 is in no [[subnet]] of the site file; \
         choose another position, or add the subnet"
    );
    assert_eq!(
        say("r1n3"),
        "'r1n3' is not a node name here: names follow r{rack:02}n{slot:02}; did you mean r01n03?"
    );
    let half = SMALL
        .replace("10.5.0.0/16", "10.5.1.0/25")
        .replace("10.5.0.1", "10.5.1.1")
        .replace("10.5.0.0/24", "10.5.1.1/32");
    let site = self::site(&half);
    assert_eq!(
        site.address_of("r01n127").unwrap_err().to_string(),
        "no node can be called r01n127: 10.5.1.127 is the broadcast address of 10.5.1.0/25; choose another position"
    );
}

#[test]
fn profiles_inherit_from_the_default_one() {
    let text =
        format!("{EXAMPLE}\n[profile.login]\nimage = \"debian@3\"\nlayout = \"\"\ntemplates = []\n[profile.empty]\n");
    let site = site(&text);
    let login = site.profile("login").unwrap();
    assert_eq!(login.image.as_deref(), Some("debian@3"));
    assert_eq!(login.layout.as_deref(), Some(""));
    assert_eq!(login.templates, Some(vec![]));
    assert_eq!(login.disk.as_deref(), Some("auto"));
    assert_eq!(login.kernel_args.as_deref(), Some("quiet"));
    assert_eq!(site.profile("empty"), site.profile("default"));
    assert_eq!(site.profile("default"), site.profiles.get("default").cloned());
    assert_eq!(site.profile("other"), None);
}

#[test]
fn the_digest_covers_only_what_is_on_the_disk() {
    let one = site(EXAMPLE).layouts["scratch"].clone();
    // Disks in use carry this digest: it may only change together with the "1" in the first text.
    let canonical = b"18:rackstrap layout 1,7:scratch,1:1,3:gpt,4:swap,9:536870912,4:swap,3:tmp,4:rest,4:ext4,";
    assert_eq!(one.digest, hex::encode(&blake3::hash(canonical).as_bytes()[..16]));
    assert_eq!(one.digest, "079e778dea85bf211164fd216d5cfeec");
    for (from, to, same) in [
        ("mount = \"/tmp\"", "mount = \"/scratch\"", true),
        ("noatime,nosuid,nodev", "noatime", true),
        ("wipe = \"ours\"", "wipe = \"always\"", true),
        ("version = 1", "version = 2", false),
        ("512MiB", "513MiB", false),
        ("table = \"gpt\"", "table = \"mbr\"", false),
        ("fs = \"ext4\"", "fs = \"xfs\"", false),
        ("name = \"tmp\"", "name = \"temp\"", false),
    ] {
        let text = EXAMPLE.replace(from, to);
        assert_ne!(text, EXAMPLE);
        assert_eq!(site(&text).layouts["scratch"].digest == one.digest, same, "{to}");
    }
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    let say = || {
        load(&path)
            .unwrap_err()
            .to_string()
            .replace(dir.path().to_str().unwrap(), "DIR")
    };
    assert_eq!(
        say(),
        "cannot read the site file DIR/site.toml: No such file or directory (os error 2); give its path with --config FILE"
    );
    std::fs::create_dir(&path).unwrap();
    assert_eq!(
        say(),
        "cannot read the site file DIR/site.toml: it is not a regular file"
    );
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
    assert!(say().contains("larger than 1 MiB"), "{}", say());
    std::fs::write(&path, b"[cluster]\nname = \"l\xff\"\n").unwrap();
    assert!(
        say().contains("site.toml:2:10: byte 0xff after this place is not UTF-8"),
        "{}",
        say()
    );
    std::fs::write(&path, format!("{SMALL}\n[server]\nstate-dir = \"state\"\n")).unwrap();
    assert_eq!(load(&path).unwrap().0.server.state_dir, dir.path().join("state"));
}

/// Compares with the file in `snapshots/` with the test's name.
macro_rules! golden {
    ($text:expr) => {
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($text) })
    };
}

/// Each case is the small file with one line added or changed. The golden file contains its diagnostics.
fn messages(cases: &[(&str, &str)]) -> String {
    let mut all = String::new();
    for (from, to) in cases {
        let text = match *from {
            "" => format!("{SMALL}\n{to}\n"),
            "only" => (*to).to_owned(),
            from => {
                assert!(SMALL.contains(from), "{from}");
                SMALL.replacen(from, to, 1)
            }
        };
        let case = to.replace('\n', " | ").replace(char::is_control, "?");
        let case: String = case.chars().take(150).collect();
        all.push_str(&format!("=== {case}\n{}\n\n", said(&text)));
    }
    all
}

#[test]
fn says_what_is_wrong_with_the_file() {
    golden!(messages(&[
        ("only", ""),
        ("only", "[cluster"),
        ("only", "[cluster]\nname = lab\nname = \"x\"\ndomain = 'a\n"),
        ("only", "[clutser]\nfoo = 1\n[[layuot]]\n[wolf]\n"),
        (
            "only",
            "cluster = 3\nsubnet = 4\nprofile = 5\nlayout = []\nserver = []\n"
        ),
        (
            "only",
            "http-port = 80\n[[cluster]]\nname = \"x\"\n[subnet]\nnetwork = \"10.5.0.0/16\"\n[profile]\nimage = \"debian\"\n"
        ),
        ("only", "subnet = []\n"),
        ("only", "[cluster]\n\tname = \"\u{1b}[31m\u{202e}evil\"\n"),
        (
            "",
            "[server]\nhttp_port = 80\nstatedir = \"/x\"\npool = \"x\"\nwhatever = 1\n"
        ),
        (
            "",
            "[limits]\ntimeline-events = 1\nunknown-machines = \"many\"\nheartbeat = \"1s\"\n"
        ),
        ("", "[limits]\nheartbeat = 30\n"),
        ("", "[limits]\nheartbeat = \"soon\"\n"),
        (
            "",
            "[hooks]\non-change = \"/bin/true\"\ntimeout = \"2h\"\non-changed = []\n"
        ),
        ("", "[hooks]\non-change = [\"make -C /etc\", 3]\n"),
        ("", "[hooks]\non-change = [\"make\", \"all\"]\n"),
        ("", "[backup]\nkeep = 5000\nat = \"3:00\"\ndir = \"~/x\"\nkept = 1\n"),
    ]));
}

#[test]
fn says_what_is_wrong_with_cluster_and_server() {
    golden!(messages(&[
        ("node-name = \"r{rack:02}n{slot:02}\"\n", ""),
        ("r{rack:02}n{slot:02}", "r{rack}{slot}"),
        ("10.5.{rack}.{slot}", "10.5.{rack}.{slot}.{slot}"),
        ("\"r{rack:02}n{slot:02}\"", "'''\nR{rack}n{slot}'''"),
        (
            "reserved = [\"10.5.0.0/24\", ",
            "reserved = [\"10.5.0.1/24\", \"10.5.0.0/33\", 7, \"core\", "
        ),
        ("[cluster]", "[cluster]\nname = \"\"\ndomain = \"Cluster.Example.\""),
        ("[cluster]", "[cluster]\nname = 3\ndomain = \"a..b\""),
        ("", "[server]\nhttp-port = 0\nnfs-port = 65536\ntftp-port = \"69\"\n"),
        ("", "[server]\nhttp-port = 2049\n"),
        ("", "[server]\ntftp-port = 6969\nhttp-port = -1\n"),
        (
            "",
            "[server]\nstate-dir = \"\"\nsocket = \"/run/012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567\"\ntemplates-dir = \"~/t\"\nloader-dirs = \"/l\"\n"
        ),
    ]));
}

#[test]
fn says_what_is_wrong_with_subnets() {
    golden!(messages(&[
        ("network = \"10.5.0.0/16\"\n", ""),
        ("server = \"10.5.0.1\"\n", ""),
        ("10.5.0.0/16", "10.5.0.1/16"),
        ("10.5.0.0/16", "10.5.0.0/7"),
        ("10.5.0.0/16", "10.5.0.0"),
        ("10.5.0.0/16", "224.0.0.0/8"),
        ("\"10.5.0.1\"", "\"10.6.0.1\""),
        ("\"10.5.0.1\"", "\"10.5.255.255\""),
        ("\"10.5.0.1\"", "\"10.5.1.1\""),
        (
            "\"10.5.0.1\"",
            "\"10.5.0.1\"\nrouter = \"10.6.0.1\"\ndns = [\"10.5.1.1\", \"dns.example\", \"0.0.0.0\"]\nntp = 3"
        ),
        ("\"eth1\"", "\"a-very-long-name\""),
        ("\"eth1\"", "\"eth1\"\nrelayed = true"),
        ("interface = \"eth1\"\n", ""),
        ("interface = \"eth1\"", "relayed = false"),
        ("interface = \"eth1\"", "relayed = \"yes\""),
        (
            "",
            "pool = \"10.5.255.1-10.5.255.254\"\nlease-time = \"10s\"\npool-lease-time = \"2 minuets\""
        ),
        ("", "pool = \"10.5.255.254-10.5.255.1\""),
        ("", "pool = \"10.5.255.1\""),
        ("", "pool = \"10.5.255.1-10.6.0.1\""),
        ("", "pool = \"10.5.0.1-10.5.0.200\""),
        ("", "pool = \"10.5.254.200-10.5.255.200\""),
        (
            "",
            "[[subnet]]\nnetwork = \"10.5.128.0/17\"\ninterface = \"eth1\"\nserver = \"10.5.255.1\""
        ),
        (
            "",
            "[[subnet]]\nnetwork = \"10.5.0.0/16\"\ninterface = \"eth1\"\nserver = \"10.5.0.2\""
        ),
        (
            "",
            "[[subnet]]\nnetwork = \"10.6.0.0/16\"\ninterface = \"eth1\"\nserver = \"10.6.0.1\""
        ),
        (
            "",
            "[[subnet]]\nnetwork = \"10.6.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\""
        ),
        (
            "",
            "[[subnet]]\nnetwork = \"10.6.0.0/16\"\nrelayed = true\nserver = \"10.5.0.1\"\nrouter = \"10.6.0.1\""
        ),
        ("10.5.{rack}.{slot}", "10.7.{rack}.{slot}"),
        ("\"10.5.0.0/24\"", "\"10.5.0.0/16\""),
        ("10.5.0.0/16", "10.5.0.0/22"),
    ]));
}

#[test]
fn says_what_is_wrong_with_profiles() {
    golden!(messages(&[
        ("", "[profile.GPU]\nimage = \"Debian\"\nlayout = \"scratch\""),
        (
            "",
            "[profile.a]\nimage = \"debian@0\"\n[profile.b]\nimage = \"debian@3\"\n[profile.c]\nimage = \"../x\"\nlayout = \"\""
        ),
        (
            "",
            "[layout.scratch]\nversion = 1\npartition = [{ name = \"a\", size = \"rest\", fs = \"raw\" }]\n[profile.a]\nlayout = \"scrach\"\n[profile.b]\nlayout = \"big\""
        ),
        (
            "",
            "[profile.default]\ndisk = \"/dev/sda\"\nconsole = \"/dev/ttyS0\"\ninit = \"sbin/init\"\nram-size = \"2GiB\""
        ),
        (
            "",
            "[profile.default]\ndisk = \"sda1\"\nconsole = \"ttyS0,fast\"\ninit = \"/sbin/init -v\"\nram-size = \"1m\""
        ),
        ("", "[profile.default]\ndisk = \"nvme0n1p2\"\nram-size = \"101%\""),
        (
            "",
            "[profile.default]\ndisk = \"nvme0n1\"\nconsole = \"ttyAMA0,115200n8r\"\nram-size = \"75%\""
        ),
        (
            "",
            "[profile.default]\ndisk = \"the first\"\nram-size = \"lots\"\nconsole = 0"
        ),
        ("", "[profile.default]\nkernel-args = \"a='b c'\""),
        (
            "",
            "[profile.default]\nchecks = [\"unit sshd\", \"mount scratch\", \"command true\", \"unit a.service\", \"unit  a.service\", \"ping x\"]"
        ),
        ("", "[profile.default]\nchecks = \"unit sshd.service\""),
        ("", "[profile.default]\ncheck-login = \"no\"\ncheck-logins = true"),
        (
            "",
            "[profile.default]\nchecks = []\n[limits]\nchecks-within = \"0s\"\ncheck-timeout = \"1h\""
        ),
        ("", "[profile.default]\nkernel-args = \"x=${net0/mac}\""),
        ("", "[profile.default]\nkernel-args = \"\"\"quiet\nsplash\"\"\""),
        ("", "[profile.default]\nkernel-args = \"quiet rackstrap.token=1\""),
        ("", "[profile.default]\nkernel-args = \"quiet -- single\""),
        ("", "[profile.default]\nkernel-args = \"initrd=x\""),
        (
            "",
            "[profile.default]\nkernel-args = \"root=/dev/sda1 init=/bin/sh panic=0 ip=dhcp\""
        ),
        (
            "",
            "[profile.default]\ntemplates = [\"site\", \"../etc\", \"a/b\", \"site\", \"\"]"
        ),
        (
            "",
            "[profile.default]\nauthorized-keys = [\"~/.ssh/id.pub\", \"-----BEGIN OPENSSH PRIVATE KEY-----\", \"ssh-ed25519 AAAA\", \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti a@b\"]"
        ),
    ]));
}

#[test]
fn says_what_is_wrong_with_layouts() {
    let part = |rest: &str| {
        format!(
            "[layout.s]\nversion = 1\n[[layout.s.partition]]\nname = \"a\"\n{rest}\n[profile.default]\nlayout = \"s\""
        )
    };
    let many = |count: usize, table: &str| {
        let all: String = (0..count)
            .map(|i| format!("[[layout.s.partition]]\nname = \"p{i}\"\nsize = \"1TiB\"\nfs = \"raw\"\n"))
            .collect();
        format!("[layout.s]\nversion = 1\ntable = \"{table}\"\n{all}[profile.default]\nlayout = \"s\"")
    };
    let second = "[[layout.s.partition]]\nname = \"a\"\nsize = \"rest\"\nfs = \"ext4\"\nmount = \"/tmp\"";
    let texts = [
        "[layout.Scratch_1]\nversion = 0\ntable = \"GPT\"\nwipe = \"never\"\n".to_owned(),
        "[layout.s]\npartition = 3\n".to_owned(),
        "[layout.s]\nversion = 1\n[layout.s.partition]\nname = \"a\"\n".to_owned(),
        "[layout.s]\nversion = 1\nwipe = \"always\"\n[[layout.s.partition]]\n".to_owned(),
        part("size = \"100MB\"\nfs = \"ext3\"\nmount = \"tmp\""),
        part("size = \"100MiB\"\nfs = \"xfs\"\nmount = \"/tmp\""),
        part("size = \"4MiB\"\nfs = \"ext4\"\nmount = \"/\""),
        part("size = \"rest\"\nfs = \"ext4\"\nmount = \"/usr\""),
        part("size = \"rest\"\nfs = \"ext4\"\nmount = \"/etc/foo\""),
        part("size = \"rest\"\nfs = \"ext4\"\nmount = \"/run/x\""),
        part("size = \"rest\"\nfs = \"ext4\"\nmount = \"/usr/local\""),
        part("size = \"rest\"\nfs = \"ext4\"\nmount = \"/var/../etc/\""),
        part("size = \"1.5GiB\"\nfs = \"ext4\"\nmount = \"//var/./tmp/\""),
        part("size = \"rest\"\nfs = \"ext4\"\nmount = \"/my data\"\noptions = \"no atime\""),
        part("size = \"rest\"\nfs = \"ext4\""),
        part("size = \"rest\"\nfs = \"swap\"\nmount = \"/tmp\""),
        part("size = \"rest\"\nfs = \"raw\"\noptions = \"ro\""),
        part(&format!("size = \"rest\"\nfs = \"ext4\"\nmount = \"/tmp\"\n{second}")),
        part(&format!(
            "size = \"1GiB\"\nfs = \"ext4\"\nmount = \"/tmp/x\"\n{}",
            second.replace("\"a\"", "\"b\"")
        )),
        part(
            "size = \"1GiB\"\nfs = \"raw\"\n[[layout.s.partition]]\nname = \"rackstrap-b\"\nsize = \"1GiB\"\nfs = \"raw\"",
        ),
        part(
            "size = \"1GiB\"\nfs = \"raw\"\n[[layout.s.partition]]\nname = \"thirteenchars\"\nsize = \"1GiB\"\nfs = \"raw\"",
        ),
        many(4, "mbr"),
        many(3, "mbr"),
        many(2, "mbr"),
        many(33, "gpt"),
        part(
            "size = \"16777215TiB\"\nfs = \"raw\"\n[[layout.s.partition]]\nname = \"b\"\nsize = \"1TiB\"\nfs = \"raw\"",
        ),
    ];
    let cases: Vec<(&str, &str)> = texts.iter().map(|t| ("", t.as_str())).collect();
    golden!(messages(&cases));
}

#[test]
fn many_problems_are_counted() {
    let many: String = (0..200).map(|i| format!("key-{i} = 1\n")).collect();
    let text = check(&format!("{SMALL}\n[server]\n{many}")).unwrap_err().to_string();
    assert!(
        text.ends_with("site.toml: 200 problems, 150 not shown; nothing was changed"),
        "{text}"
    );
    let long = format!("[cluster]\nname = {}\nfoo = 1\n", "[".repeat(500_000));
    assert!(check(&long).is_err());
    for piece in [
        "[",
        "]",
        "=",
        "\"",
        "a=1\n",
        "[[a]]\n",
        "a.",
        "{",
        "\n",
        "é",
        "#\u{1}",
        "[layout.s]\n",
        "a.b.c=1\n",
    ] {
        let text = piece.repeat((32 << 10) / piece.len());
        let error = check(&text).unwrap_err().to_string();
        assert!(error.len() < 100_000, "{piece}");
    }
    let line = check(&format!("[cluster]\n{}x = 1", "\"a\".".repeat(60)))
        .unwrap_err()
        .to_string();
    assert!(line.lines().all(|l| l.chars().count() < 200), "{line}");
}
