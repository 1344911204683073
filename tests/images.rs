//! `rackstrap image`: on a small tree, beside a daemon, and in a whole Debian.

use crate::daemon::rackstrap;
use crate::{backup::Lab, terminal::Terminal};
use rackstrap_base::clock::Timestamp;
use rackstrap_model::decide::Current;
use rackstrap_registries::boots::Boots;
use rackstrap_store::{Batch, Store, Table};
use rackstrap_wire::testing::plan;
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use testbed::{
    Binaries, Result, Site,
    image::{Image, Kernel},
};

/// A state directory of its own, without a daemon.
struct Bench {
    dir: tempfile::TempDir,
    binaries: Binaries,
}

impl Bench {
    fn new() -> Result<Self> {
        let bench = Bench {
            dir: tempfile::tempdir()?,
            binaries: Binaries::get()?,
        };
        fs::create_dir(bench.path("state"))?;
        bench.site("debian")?;
        Ok(bench)
    }

    /// Writes a site file whose one profile names that image.
    fn site(&self, image: &str) -> Result {
        let mut site = Site::demo();
        site.default_profile().image = Some(image.to_owned());
        fs::write(self.path("site.toml"), site.to_toml(&self.path("state"))?)?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn images(&self) -> PathBuf {
        self.path("state/images")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = rackstrap(&self.path("site.toml"));
        command.arg("image").args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn complains(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn with_agent<'a>(&'a self, words: &[&'a str]) -> Vec<&'a str> {
        let agent = self.binaries.agent.to_str().unwrap();
        words.iter().copied().chain(["--agent", agent]).collect()
    }

    fn import_small(&self, times: usize) -> Result {
        if !self.path("tree").exists() {
            small_tree(&self.path("tree"))?;
        }
        let tree = self.path("tree");
        for _ in 0..times {
            self.says(&self.with_agent(&["import", "debian", "--from", tree.to_str().unwrap()]));
        }
        Ok(())
    }

    /// Mounts of this process that are below the state directory.
    fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.dir.path().to_str().unwrap();
        text.lines()
            .filter(|line| line.contains(ours))
            .map(str::to_owned)
            .collect()
    }
}

/// Creates the smallest tree that passes as bootable.
fn small_tree(at: &Path) -> Result {
    let release = "6.1.0-40-amd64";
    let modules = format!("usr/lib/modules/{release}");
    for dir in ["boot", "usr/sbin", "etc", "var/lib/dpkg", &modules] {
        fs::create_dir_all(at.join(dir))?;
    }
    symlink("usr/lib", at.join("lib"))?;
    symlink("usr/sbin", at.join("sbin"))?;
    fs::write(at.join("usr/sbin/init"), "#!/bin/sh\n")?;
    fs::set_permissions(at.join("usr/sbin/init"), fs::Permissions::from_mode(0o755))?;
    fs::write(at.join("boot").join(format!("vmlinuz-{release}")), "the kernel")?;
    fs::write(at.join("boot").join(format!("config-{release}")), "CONFIG_RD_ZSTD=y\n")?;
    let built_in = [
        "net/sunrpc/sunrpc",
        "fs/nfs/nfs",
        "fs/nfs/nfsv3",
        "fs/overlayfs/overlay",
    ];
    let built_in: String = built_in.iter().map(|module| format!("kernel/{module}.ko\n")).collect();
    fs::write(at.join(&modules).join("modules.builtin"), built_in)?;
    fs::write(at.join(&modules).join("modules.dep"), "")?;
    let status = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5\n";
    fs::write(at.join("var/lib/dpkg/status"), status)?;
    Ok(())
}

#[test]
fn from_a_clone_to_the_next_version() -> Result {
    let bench = Bench::new()?;
    bench.import_small(1)?;
    assert!(
        bench
            .says(&["clone", "debian"])
            .starts_with("debian-work: working copy of debian@1")
    );
    let root = bench.images().join(".work/debian-work/root");
    fs::write(root.join("etc/motd"), "hello\n")?;
    let status = fs::read_to_string(root.join("var/lib/dpkg/status"))?;
    fs::write(
        root.join("var/lib/dpkg/status"),
        status.replace("Version: 5", "Version: 6"),
    )?;
    let list = bench.says(&["list"]);
    assert!(
        list.contains("WORKING COPY") && list.contains("debian-work   debian@1"),
        "{list}"
    );
    let diff = bench.says(&["diff", "debian@1", "debian-work"]);
    let wanted = "packages (dpkg):\n~ bash 5 -> 6\nfiles:\n+ /etc/motd\n~ /var/lib/dpkg/status  content\n";
    assert_eq!(diff, wanted);
    let sealed = bench.says(&bench.with_agent(&["seal", "debian-work", "-m", "with a greeting"]));
    assert!(sealed.starts_with("debian@2: "), "{sealed}");
    let error = bench.complains(&bench.with_agent(&["seal", "debian-work"]));
    assert!(error.contains("it was sealed as debian@2"), "{error}");
    let show = bench.says(&["show", "debian"]);
    for part in [
        "debian@1",
        "with a greeting",
        "compared with debian@1: 1 changed",
        "blake3:",
    ] {
        assert!(show.contains(part), "{part}: {show}");
    }
    let lines = bench.says(&["diff", "debian@1", "debian@2", "--json"]);
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["package"], "bash");
    assert_eq!(
        (&lines[1]["file"], &lines[1]["became"]),
        (&"/etc/motd".into(), &"added".into())
    );
    assert_eq!(
        bench.says(&["diff", "debian@1", "debian@1", "--files"]),
        "files:\nno difference\n"
    );
    assert!(
        bench
            .says(&["verify", "debian@1", "debian@2"])
            .contains("debian@2: unchanged since it was sealed, ")
    );
    let verified: serde_json::Value = serde_json::from_str(&bench.says(&["verify", "debian@1", "--json"]))?;
    assert_eq!(
        (&verified[0]["image"], &verified[0]["differs"]),
        (&"debian@1".into(), &serde_json::json!([]))
    );
    fs::write(bench.images().join("debian/2/root/etc/motd"), "HELLO\n")?;
    let error = bench.complains(&["verify", "debian@1", "debian@2"]);
    assert!(
        error.contains("changed since it was sealed") && error.contains("debian@2: root: digest"),
        "{error}"
    );
    Ok(())
}

/// Pins a boot of `node` into `image`, as the daemon does. No daemon runs.
fn pin(bench: &Bench, node: &str, image: &str) -> Result {
    let boots = Boots::load(Store::open(&bench.path("state/store.redb"))?)?;
    let plan = plan(node).image(image).pinned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(boots.open(Timestamp(1), plan))?;
    Ok(())
}

#[test]
fn images_in_use_are_not_deleted() -> Result {
    let bench = Bench::new()?;
    bench.import_small(5)?;
    pin(&bench, "r01n01", "debian@2")?;
    let error = bench.complains(&["delete", "debian@[1-2]", "debian@5"]);
    assert!(error.contains("debian@2: r01n01 run it or are booting it"), "{error}");
    assert!(
        error.contains("debian@5: it is the current version of debian"),
        "{error}"
    );
    assert!(
        bench
            .complains(&["rename", "debian", "other"])
            .contains("name it; give these profiles another image there and reload")
    );
    assert!(
        bench
            .complains(&["delete", "debian"])
            .contains("is an image; name the versions")
    );
    assert!(
        bench
            .complains(&["delete", "nobody"])
            .contains("nobody is neither a working copy nor an image")
    );
    let plan = bench.says(&["gc", "--keep", "1", "--dry-run"]);
    assert!(plan.contains("would delete debian@1, debian@3, debian@4"), "{plan}");
    assert!(plan.contains("debian@2 stays: r01n01"), "{plan}");
    assert!(bench.complains(&["gc", "--keep", "1"]).contains("--yes"));
    assert!(
        bench
            .says(&["delete", "debian@1", "--dry-run"])
            .contains("would delete debian@1")
    );
    assert!(bench.says(&["delete", "debian@1"]).contains("deleted debian@1"));
    fs::create_dir_all(bench.images().join("debian/.incoming-x/root"))?;
    let done = bench.says(&["gc", "--keep", "1", "--yes"]);
    assert!(done.contains("deleted debian@3, debian@4 and 1 leftover"), "{done}");
    let left: Vec<_> = fs::read_dir(bench.images().join("debian"))?
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left.iter().filter(|name| *name != ".last").count(), 2, "{left:?}");
    // No node boots or runs it any more.
    bench.site("other")?;
    fs::remove_file(bench.path("state/store.redb"))?;
    // The current version stays current under the new name.
    let rows = |bench: &Bench| -> Result<Vec<(Vec<u8>, Current)>> {
        Ok(Store::open(&bench.path("state/store.redb"))?.scan(Table::Current, b"")?)
    };
    let by_hand = Current::first("debian@5".parse()?, "tests", Timestamp(1)).promoted(2, "tests", Timestamp(2));
    let batch = Batch::new().put(Table::Current, *b"debian", &by_hand);
    Store::open(&bench.path("state/store.redb"))?.commit_blocking(batch)?;
    assert_eq!(
        bench.says(&["rename", "debian", "renamed"]),
        "renamed debian to renamed\n"
    );
    let renamed = rows(&bench)?;
    assert_eq!(renamed.len(), 1);
    assert_eq!((&renamed[0].0[..], &renamed[0].1.before), (&b"renamed"[..], &vec![5]));
    assert_eq!(renamed[0].1.image, "renamed@2".parse()?);
    let list = bench.says(&["list"]);
    assert!(
        list.contains("renamed@2  yes") && !list.contains("renamed@5  yes"),
        "{list}"
    );
    let error = bench.complains(&["rename", "renamed", "No Name"]);
    assert!(error.contains("not a name for an image"), "{error}");
    assert_eq!(rows(&bench)?, renamed);
    assert!(bench.says(&["show", "renamed@5"]).contains("renamed@5"));
    assert_eq!(
        bench.says(&["gc", "--keep", "2", "--yes"]).lines().last(),
        Some("nothing to delete")
    );
    Ok(())
}

#[test]
fn changes_of_images_reach_the_daemon() -> Result {
    let lab = Lab::new()?;
    let bench = Bench::new()?;
    small_tree(&bench.path("tree"))?;
    lab.daemon.start(&lab.namespace)?;
    let (tree, agent) = (bench.path("tree"), bench.binaries.agent.clone());
    let import = [
        "image",
        "import",
        "debian",
        "--from",
        tree.to_str().unwrap(),
        "--agent",
        agent.to_str().unwrap(),
    ];
    for _ in 0..3 {
        lab.daemon.cli(&import)?;
    }
    let error = lab
        .daemon
        .cli(&["image", "delete", "debian@1"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("it is the current version of debian"), "{error}");
    lab.daemon.cli(&["image", "promote", "debian@3"])?;
    lab.daemon.cli(&["image", "delete", "debian@1"])?;
    let booted = |lab: &Lab| -> Result<String> {
        lab.daemon
            .cli(&["node", "add", "r01n01", "--hwaddr", "52:54:00:00:01:01"])
            .ok();
        lab.daemon.cli(&["explain", "r01n01"])
    };
    assert!(booted(&lab)?.contains("debian@3"));
    lab.daemon.cli(&["image", "clone", "debian@2"])?;
    lab.daemon
        .cli(&["image", "seal", "debian-work", "--agent", agent.to_str().unwrap()])?;
    // A sealed image is not current, and can be made current.
    assert!(booted(&lab)?.contains("debian@3"));
    lab.daemon.cli(&["image", "promote", "debian@4"])?;
    assert!(booted(&lab)?.contains("debian@4"));
    // An image that no profile names is renamed, and its current version stays current.
    let mut spare = import;
    spare[2] = "spare";
    for _ in 0..2 {
        lab.daemon.cli(&spare)?;
    }
    lab.daemon.cli(&["image", "rename", "spare", "kept"])?;
    lab.daemon.cli(&spare)?;
    let list: Vec<serde_json::Value> = serde_json::from_str(&lab.daemon.cli(&["image", "list", "--json"])?)?;
    let current: Vec<&str> = list
        .iter()
        .filter(|row| row["current"] == true)
        .filter_map(|row| row["image"].as_str())
        .collect();
    assert_eq!(current, ["debian@4", "kept@1", "spare@1"]);
    let error = lab
        .daemon
        .cli(&["image", "rename", "kept", "debian"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("the name debian is taken"), "{error}");
    let error = lab
        .daemon
        .cli(&["image", "rename", "debian", "x"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("name it; give these profiles"), "{error}");
    lab.daemon.stop()
}

/// A process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds a package whose script asks whether it may start its service.
fn package(dir: &Path) -> PathBuf {
    let control = "Package: rackstrap-hello\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
        Description: says hello\n";
    fs::create_dir_all(dir.join("hello/DEBIAN")).unwrap();
    fs::create_dir_all(dir.join("hello/usr/share/hello")).unwrap();
    fs::write(dir.join("hello/DEBIAN/control"), control).unwrap();
    fs::write(dir.join("hello/usr/share/hello/text"), "hello\n").unwrap();
    let postinst = "#!/bin/sh\n/usr/sbin/policy-rc.d hello start; echo $? > /var/lib/hello-policy\n";
    fs::write(dir.join("hello/DEBIAN/postinst"), postinst).unwrap();
    fs::set_permissions(dir.join("hello/DEBIAN/postinst"), fs::Permissions::from_mode(0o755)).unwrap();
    let file = dir.join("hello.deb");
    let mut build = Command::new("dpkg-deb");
    build
        .args(["--root-owner-group", "--build"])
        .arg(dir.join("hello"))
        .arg(&file);
    assert!(build.stdout(Stdio::null()).status().unwrap().success());
    file
}

/// A shell with job control: the terminal's keys reach it, and afterwards the terminal is the caller's again.
fn in_a_terminal(bench: &Bench) {
    let terminal = Terminal::open(120, 30);
    let (binary, site) = (env!("CARGO_BIN_EXE_rackstrap"), bench.path("site.toml"));
    terminal.type_line(&format!("{binary} --config {} image shell debian-work", site.display()));
    terminal.wait("prompt of the copy", |screen| {
        screen.contains("(debian-work)root@debian-work:~#")
    });
    terminal.type_line("tty; echo begun; sleep 1000");
    terminal.wait("output", |screen| screen.contains("/dev/console\nbegun\n"));
    terminal.key("C-c");
    terminal.type_line("echo interrupted $?");
    terminal.wait("end of the command", |screen| screen.contains("interrupted 130"));
    terminal.type_line("cat");
    terminal.key("C-z");
    terminal.wait("stopped job", |screen| screen.contains("Stopped"));
    // Bash warns once about stopped jobs; they end with the shell.
    terminal.type_line("exit 3");
    terminal.wait("warning", |screen| screen.contains("There are stopped jobs"));
    terminal.type_line("exit 3");
    terminal.wait("end of the shell", |screen| {
        screen.lines().rfind(|l| !l.is_empty()) == Some("prompt>")
    });
    terminal.type_line("echo code $?");
    terminal.wait("code", |screen| screen.contains("code 3"));
}

#[test]
fn working_in_a_debian() -> Result {
    let bench = Bench::new()?;
    Image::debian(&bench.binaries, Kernel::Cloud, &mut |line| eprintln!("{line}"))?.link_into(&bench.path("state"))?;
    bench.says(&["clone", "debian@1"]);
    let work = bench.images().join(".work/debian-work");
    let exec = |script: &str| bench.run(&["exec", "debian-work", "--", "sh", "-c", script]);
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();

    // Processes, host name, devices and name servers of the namespace.
    let output = exec(
        "echo $$; hostname; ls /proc | grep -c '^[0-9]'; head -c 4 /dev/zero | wc -c; echo x > /dev/null; \
        test -w /sys/kernel && touch /sys/kernel/x; ls /run; exit 7",
    );
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let lines = text(&output);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!((lines[0], lines[1], lines[3]), ("2", "debian-work", "4"), "{lines:?}");
    assert!(lines[2].parse::<u32>()? < 8, "{lines:?}");
    assert!(!Path::new("/sys/kernel/x").exists());
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolver = exec("cat /etc/resolv.conf; echo nameserver 192.0.2.1 > /etc/resolv.conf");
    assert_eq!(text(&resolver), host);
    assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), host);
    let environment = bench
        .command(&["exec", "debian-work", "--", "env"])
        .env("SECRET", "42")
        .env("LANG", "de_DE.UTF-8")
        .output()?;
    let environment = text(&environment);
    assert!(
        environment.contains("LANG=C.UTF-8") && environment.contains("HOME=/root"),
        "{environment}"
    );
    assert!(!environment.contains("SECRET"), "{environment}");

    // The hooks that a kernel's package calls: they make no initramfs, which rackstrap does not use.
    let hooks = exec(
        "kernel=$(ls /boot/vmlinuz-* | head -n 1); test -x /etc/kernel/postinst.d/initramfs-tools; \
         run-parts --exit-on-error --arg=${kernel#/boot/vmlinuz-} --arg=$kernel /etc/kernel/postinst.d; ls /boot",
    );
    let boot = text(&hooks);
    assert!(boot.contains("vmlinuz-") && !boot.contains("initrd"), "{hooks:?}");

    // The exit code is passed on.
    assert_eq!(exec("kill -TERM $$").status.code(), Some(128 + 15));
    assert_eq!(
        bench
            .run(&["exec", "debian-work", "--", "no-such-command"])
            .status
            .code(),
        Some(127)
    );
    assert_eq!(
        bench.run(&["exec", "debian-work", "--", "/etc/passwd"]).status.code(),
        Some(126)
    );

    // Packages are installed; a service that a package wants to start is not started.
    fs::copy(package(&bench.path("")), work.join("root/root/hello.deb"))?;
    let output = exec("dpkg -i /root/hello.deb && dpkg -r less && rm /root/hello.deb");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(fs::read_to_string(work.join("root/var/lib/hello-policy"))?, "101\n");
    assert!(!work.join("root/usr/sbin/policy-rc.d").exists());

    in_a_terminal(&bench);

    // While a session is open, the tree is neither sealed nor deleted; a second session may start.
    let mut child = bench.command(&[
        "exec",
        "debian-work",
        "--",
        "sh",
        "-c",
        "sleep 1000 & echo started; wait",
    ]);
    let mut child = Killed(child.stdout(Stdio::piped()).spawn()?);
    let mut out = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line)?;
    assert_eq!(line, "started\n");
    let pid = format!("pid {}", child.0.id());
    assert!(bench.says(&["list"]).contains(&pid));
    assert!(
        bench
            .complains(&bench.with_agent(&["seal", "debian-work"]))
            .contains(&pid)
    );
    assert!(bench.complains(&["delete", "debian-work"]).contains(&pid));
    assert!(exec("true").status.success());
    assert!(work.join("placeholders").exists(), "the first one is still in there");

    // When the first process is killed, all are: the pipe that they all hold is closed.
    child.0.kill()?;
    line.clear();
    assert_eq!(out.read_line(&mut line)?, 0);
    child.0.wait()?;
    assert_eq!(bench.mounts(), Vec::<String>::new());
    assert!(work.join("placeholders").exists(), "no process was left to remove them");
    // The session counts as ended once PID 1 of the namespace is gone. The kernel waits for all other processes before.
    while bench.says(&["list"]).contains("pid ") {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }

    let difference = bench.says(&["diff", "debian@1", "debian-work"]);
    for line in [
        "+ rackstrap-hello 1.0",
        "+ /usr/share/hello/text",
        "- less ",
        "- /usr/bin/less\n",
    ] {
        assert!(difference.contains(line), "{line}: {difference}");
    }
    assert!(
        !difference.contains("policy-rc.d"),
        "what only serves to enter is no difference: {difference}"
    );
    bench.says(&bench.with_agent(&["seal", "debian-work", "--as", "fresh"]));
    let root = bench.images().join("fresh/1/root");
    assert!(!root.join("usr/sbin/policy-rc.d").exists() && !bench.images().join("fresh/1/placeholders").exists());
    let show = bench.says(&["show", "fresh"]);
    assert!(show.contains("compared with debian@1: 1 added, 1 removed"), "{show}");
    assert!(
        bench
            .says(&["verify", "fresh"])
            .contains("fresh@1: unchanged since it was sealed, ")
    );
    Ok(())
}
