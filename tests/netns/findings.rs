//! Problems on the server are reported with the same text by `check`, the daemon's log and `status`, and only while they
//! exist.

use std::{fs, os::unix::fs::PermissionsExt};
use testbed::{Binaries, Cluster, Result, Site, image::fake};

#[test]
fn a_hook_that_cannot_run_and_a_missing_image_are_reported_everywhere() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::with_images(&Binaries::get()?, &site, Vec::new())?;
    let hook = cluster.dir().join("drain");
    fs::write(&hook, "#!/bin/sh\n")?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o644))?;
    site.drain = vec![hook.display().to_string()];
    site.profiles.insert("gpu".to_owned(), Default::default());
    cluster.daemon.write_site(&site)?;
    cluster.start_daemon()?;

    let hook = hook.display();
    let found = [
        (
            "error",
            "image debian does not exist; nodes with [profile.default], [profile.gpu] cannot boot".to_owned(),
            "make it: rackstrap image import debian --from images/debian.toml".to_owned(),
        ),
        (
            "warning",
            format!("[hooks] drain: {hook} is not executable (mode 0644)"),
            format!("chmod +x {hook}"),
        ),
    ];
    let status = || cluster.daemon.cli(&["status", "--wide"]);
    // It runs in another namespace than the daemon and does not find the daemon's addresses.
    let checked = format!("{:#}", cluster.daemon.cli(&["check"]).unwrap_err());
    let (log, shown) = (cluster.daemon.log_tail(50), status()?);
    for (level, message, help) in &found {
        assert_eq!(
            checked.matches(&format!("{level}: {message}\n  help: {help}")).count(),
            1,
            "{checked}"
        );
        assert_eq!(
            shown.matches(&format!("{level}: {message}\nhelp: {help}")).count(),
            1,
            "{shown}"
        );
        let level = if *level == "error" { "ERROR" } else { "WARN" };
        let said = format!("{message}; {help}");
        assert!(
            log.lines().any(|line| line.contains(level) && line.contains(&said)),
            "{log}"
        );
    }
    let alone = cluster.daemon.cli(&["check", "--file-only"])?;
    assert!(!alone.contains("drain") && !alone.contains("error"), "{alone}");

    fs::set_permissions(&site.drain[0], fs::Permissions::from_mode(0o755))?;
    cluster.daemon.cli(&["reload"])?;
    let shown = status()?;
    assert!(shown.contains(&found[0].1) && !shown.contains("[hooks]"), "{shown}");
    Ok(())
}

#[test]
fn check_strict_fails_also_if_only_some_profiles_or_machines_cannot_boot() -> Result {
    let mut site = Site::demo();
    let cluster = Cluster::with_images(&Binaries::get()?, &site, Vec::new())?;
    fake(&cluster.daemon.state_dir().join("images"), "debian@1", 0)?;
    // In the daemon's namespace, where the server's addresses and interface exist.
    let check = |site: &Site, arguments: &[&str]| -> Result<(Option<i32>, String)> {
        cluster.daemon.write_site(site)?;
        let mut command = cluster.namespace.command(env!("CARGO_BIN_EXE_rackstrap"));
        command.arg("--config").arg(cluster.daemon.config()).arg("check");
        let done = command.args(arguments).output()?;
        Ok((done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned()))
    };
    for arguments in [&[][..], &["--strict"]] {
        let (code, said) = check(&site, arguments)?;
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("error:"), "{said}");
    }

    let gpu = site.profiles.entry("gpu".to_owned()).or_default();
    gpu.image = Some("cuda".to_owned());
    let of_profile = "error: image cuda does not exist; nodes with [profile.gpu] cannot boot";
    for (arguments, expected) in [(&[][..], 0), (&["--strict"], 1), (&["--strict", "--file-only"], 0)] {
        let (code, said) = check(&site, arguments)?;
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert_eq!(said.contains(of_profile), arguments.len() < 2, "{said}");
    }

    site.profiles.remove("gpu");
    site.more = "[loader.odd]\nfile = \"missing.efi\"\narch = [\"arm64-efi\"]\n".to_owned();
    for (arguments, expected) in [(&[][..], 0), (&["--strict"], 1)] {
        let (code, said) = check(&site, arguments)?;
        assert_eq!(code, Some(expected), "{arguments:?}: {said}");
        assert!(
            said.contains("[loader.odd]") && said.contains("its machines do not boot"),
            "{said}"
        );
    }

    // No profile is left that can boot: also without --strict.
    site.default_profile().image = Some("gone".to_owned());
    for arguments in [&[][..], &["--strict"]] {
        let (code, said) = check(&site, arguments)?;
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
    }
    Ok(())
}
