//! Problems on the server are reported with the same text by `check`, the daemon's log and `status`, and only while they
//! exist.

use std::{fs, os::unix::fs::PermissionsExt};
use testbed::{Binaries, Cluster, Result, Site};

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
