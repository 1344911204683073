//! What `check` finds, how it shows that, and its exit code.

use super::*;

fn check(text: &str) -> Result<(Site, Vec<Warning>), ConfigError> {
    rackstrap_site::parse(text, Path::new("site.toml"))
}

fn arguments(json: bool, file_only: bool) -> CheckArgs {
    CheckArgs {
        json,
        file_only,
        strict: false,
    }
}

#[test]
fn a_good_file_is_summed_up() {
    let result = check(include_str!("../../../rackstrap.example.toml"));
    let (site, warnings) = result.as_ref().unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    insta::assert_snapshot!(summary(site), @r"
    names     r{rack:02}n{slot:02} at 10.5.{rack}.{slot}, the first node is r01n01 at 10.5.1.1
    subnet    10.5.0.0/16 on eth1, server 10.5.0.1, pool 10.5.255.1-10.5.255.254
    profile   default: image debian, layout scratch
    layout    scratch v1 (gpt): swap 512MiB swap, tmp rest ext4 on /tmp
    ");
    let json = as_json(Path::new("site.toml"), &result, &[]);
    assert_eq!(json["ok"], true);
    assert_eq!(json["layouts"][0]["digest"], site.layouts["scratch"].digest);
    assert!(as_text(Path::new("site.toml"), &result, &[]).contains("site.toml: ok\n"));
}

#[cfg(feature = "dns")]
#[test]
fn a_name_server_is_summed_up() {
    let text = include_str!("../../../rackstrap.example.toml");
    for (forward, others) in [
        ("", "other names refused"),
        ("forward = [\"10.0.0.53\"]\n", "other names from 10.0.0.53:53"),
    ] {
        let result = check(&format!("{text}\n[dns]\n{forward}"));
        let said = as_text(Path::new("site.toml"), &result, &[]);
        let line = "  dns       cluster.example and its addresses by rackstrap.cluster.example, ";
        assert!(said.contains(&format!("{line}{others}\n")), "{said}");
        assert_eq!(
            as_json(Path::new("site.toml"), &result, &[])["dns"]["name"],
            "rackstrap"
        );
    }
}

#[test]
fn a_faulty_file_is_reported_with_its_line() {
    let text = include_str!("../../../rackstrap.example.toml").replace("http-port = 80", "http-prot = 80");
    let result = check(&text);
    insta::assert_snapshot!(as_text(Path::new("site.toml"), &result, &[]), @r"
    site.toml:35:1: [server] has no key 'http-prot'
       |
    35 | http-prot = 80
       | ^^^^^^^^^
       = did you mean 'http-port'?

    site.toml: 1 problem; nothing was changed
    ");
    let json = as_json(Path::new("site.toml"), &result, &[]);
    assert_eq!(json["ok"], false);
    assert_eq!(json["problems"][0]["line"], 35);
}

#[test]
fn the_exit_code_follows_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    let code = |json| {
        let (config, mut out) = (path.clone(), Vec::new());
        let code = write(&config, &arguments(json, true), &mut out).unwrap();
        (format!("{code:?}"), String::from_utf8(out).unwrap())
    };
    let (good, bad) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
    let (exit, out) = code(true);
    assert_eq!(exit, bad);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert!(
        json["problems"][0]["message"]
            .as_str()
            .unwrap()
            .contains("No such file")
    );
    std::fs::write(&path, include_str!("../../../rackstrap.example.toml")).unwrap();
    let (exit, out) = code(false);
    assert!(exit == good && out.contains("site.toml: ok\n"), "{out}");
    let here = arguments(false, false);
    let mut out = Vec::new();
    let exit = format!("{:?}", write(&path, &here, &mut out).unwrap());
    let out = String::from_utf8(out).unwrap();
    assert!(exit == bad, "this machine does not have the server's address: {out}");
    assert!(
        out.contains("error: server address 10.5.0.1 is not an address"),
        "{out}"
    );
    std::fs::write(&path, "name = 1\n").unwrap();
    let (exit, out) = code(false);
    assert!(
        exit == bad && out.ends_with("site.toml: 3 problems; nothing was changed\n"),
        "{out}"
    );
}

#[test]
fn ok_of_the_json_is_what_the_exit_code_says() {
    let dir = tempfile::tempdir().unwrap();
    let (path, state) = (dir.path().join("site.toml"), dir.path().join("state"));
    std::fs::create_dir_all(state.join("images")).unwrap();
    std::fs::write(dir.path().join("undionly.kpxe"), "x").unwrap();
    let said = |profiles: &str, strict| {
        let text = format!(
            "[cluster]\nname = \"c\"\nnode-name = \"n{{n:02}}\"\nnode-address = \"127.0.1.{{n}}\"\n\
             [server]\nstate-dir = \"{}\"\nsocket = \"{}\"\nloader-dirs = [\"{}\"]\n\
             [[subnet]]\nnetwork = \"127.0.0.0/16\"\ninterface = \"lo\"\nserver = \"127.0.0.1\"\n\
             [profile.default]\nlayout = \"\"\n{profiles}",
            state.display(),
            state.join("none").display(),
            dir.path().display(),
        );
        std::fs::write(&path, text).unwrap();
        let mut out = Vec::new();
        let wanted = CheckArgs {
            strict,
            ..arguments(true, false)
        };
        let code = write(&path, &wanted, &mut out).unwrap();
        let json: Value = serde_json::from_slice(&out).unwrap();
        let fatal = json["findings"].as_array().unwrap().iter();
        let fatal = fatal.filter(|finding| finding["fatal"] == true).count();
        let success = format!("{code:?}") == format!("{:?}", ExitCode::SUCCESS);
        assert_eq!(json["ok"], success, "{json:#}");
        (success, fatal)
    };
    let all = "image = \"early\"\n[profile.late]\nimage = \"late\"\n";
    assert_eq!(said(all, false), (false, 2), "no node can boot");
    let version = state.join("images/early/1");
    std::fs::create_dir_all(version.join("root")).unwrap();
    for file in ["kernel", "initramfs"] {
        std::fs::write(version.join(file), "x").unwrap();
    }
    let manifest = "image = \"early@1\"\ncreated = 5\nsource = \"x\"\nkernel-release = \"6\"\narch = \"x86_64\"\n\
                    init = \"systemd\"\nfiles = 1\nbytes = 2\n";
    std::fs::write(version.join("manifest.toml"), manifest).unwrap();
    assert_eq!(said(all, false), (true, 1), "one profile cannot boot");
    assert_eq!(said(all, true), (false, 1), "with --strict");
    assert_eq!(said("image = \"early\"\n", true), (true, 0));
}

#[test]
fn file_only_checks_nothing_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    let text = include_str!("../../../rackstrap.example.toml")
        .replace("eth1", "no-such-card")
        .replace("drain = []", "drain = [\"/nonexistent/drain\"]")
        .replace(
            "loader-dirs = []",
            "loader-dirs = [\"no-loaders\"]\ntemplates-dir = \"no-templates\"",
        )
        + "[users]\nuid = \"1000-1999\"\nfrom = \"/nonexistent\"\n";
    std::fs::write(&path, text).unwrap();
    let said = |json, file_only| {
        let mut out = Vec::new();
        let _ = write(&path, &arguments(json, file_only), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let here = said(false, false);
    for text in [
        "error: this machine has no network interface 'no-such-card'",
        "error: templates-dir: directory ",
        "no-templates does not exist; `rackstrap serve` cannot start",
        "error: image debian does not exist; nodes with [profile.default] cannot boot\n  help: make it: rackstrap image import debian --from images/debian.toml;",
        "warning: loader-dirs: directory ",
        "no-loaders does not exist\n  help: ",
        "warning: [hooks] drain: program /nonexistent/drain does not exist\n  help: put the program there and run: chmod +x /nonexistent/drain;",
        "warning: nodes do not get the server's users: reading /nonexistent/passwd",
    ] {
        assert_eq!(here.matches(text).count(), 1, "{text}: {here}");
    }
    let alone = said(false, true);
    assert!(!alone.contains("warning") && !alone.contains("error"), "{alone}");
    let json: Value = serde_json::from_str(&said(true, true)).unwrap();
    assert_eq!(
        json!([
            json["ok"],
            json["findings"],
            json["machine"],
            json["disks"],
            json["warnings"]
        ]),
        json!([true, [], [], [], []])
    );
}

#[test]
fn a_boot_script_that_the_daemon_would_refuse_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("node.ipxe.j2"), "{% if %}").unwrap();
    let (mut site, _) = check(include_str!("../../../rackstrap.example.toml")).unwrap();
    site.server.bootscripts_dir = Some(dir.path().to_owned());
    let all = own_files(&site, &Inventory::default());
    assert!(all.len() == 1 && all[0].message.starts_with("boot script"), "{all:?}");
}
