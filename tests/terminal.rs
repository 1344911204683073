//! Output that is watched, in a terminal made by tmux: the tests compare the screen.

use crate::daemon::{Daemon, packet};
use rackstrap_base::clock::Timestamp;
use rackstrap_registries::timeline::{DhcpMessage, Event, EventKind, Level, Subject};
use rackstrap_wire::Phase;
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// The limit of every wait for the screen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal with a shell in it, closed when dropped.
pub(crate) struct Terminal {
    dir: tempfile::TempDir,
}

impl Terminal {
    pub(crate) fn open(columns: u16, rows: u16) -> Terminal {
        let terminal = Terminal {
            dir: tempfile::tempdir().unwrap(),
        };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // A shell without startup files and with a known prompt.
        let shell = "env -u ENV PS1='prompt> ' /bin/sh";
        terminal.tmux(&["new-session", "-d", "-x", &columns, "-y", &rows, shell]);
        terminal.wait("the prompt", |screen| screen.contains("prompt>"));
        terminal
    }

    /// Runs a tmux server of its own, without anyone's configuration.
    pub(crate) fn tmux(&self, arguments: &[&str]) -> String {
        let socket = self.dir.path().join("tmux");
        let output = Command::new("tmux")
            .arg("-S")
            .arg(socket)
            .args(["-f", "/dev/null"])
            .args(arguments)
            .output()
            .expect("tmux runs (Debian: apt install tmux)");
        assert!(output.status.success(), "tmux {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    pub(crate) fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// The lines on the screen.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The terminal's modes: alternate screen, cursor shown, autowrap.
    fn modes(&self) -> String {
        let format = "#{alternate_on} #{cursor_flag} #{wrap_flag}";
        self.tmux(&["display-message", "-p", format]).trim().to_owned()
    }

    pub(crate) fn wait(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let screen = self.screen();
            if fits(&screen) {
                return screen;
            }
            assert!(begun.elapsed() < PATIENCE, "no {what} on the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn wait_modes(&self, wanted: &str) {
        self.wait(&format!("modes {wanted}"), |_| self.modes() == wanted);
    }

    fn watch(&self, daemon: &Daemon) {
        let (binary, config) = (env!("CARGO_BIN_EXE_rackstrap"), daemon.config());
        self.type_line(&format!("{binary} --config {} status --watch", config.display()));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.dir.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

fn ready(daemon: &Daemon, node: &str) {
    let event = Event::new(Timestamp::now(), EventKind::Ready, Level::Ok, "up");
    daemon.recorder.record(Subject::Node(node.into()), event);
}

/// The line of a node.
fn line<'a>(screen: &'a str, node: &str) -> &'a str {
    screen.lines().find(|line| line.starts_with(node)).unwrap_or_default()
}

#[test]
fn watch_redraws_and_restores_the_terminal() {
    let daemon = Daemon::start();
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    let terminal = Terminal::open(100, 20);
    terminal.type_line("echo before");
    terminal.wait("echo", |screen| screen.lines().any(|line| line == "before"));
    let modes = terminal.modes();

    terminal.watch(&daemon);
    let screen = terminal.wait("table", |screen| line(screen, "r01n02").contains("absent"));
    assert!(screen.starts_with("2 nodes: 2 absent\n\nNODE"), "{screen}");
    assert!(!screen.contains("before"), "a screen of its own: {screen}");
    terminal.wait_modes("1 0 1");
    ready(&daemon, "r01n02");
    let screen = terminal.wait("new state", |screen| line(screen, "r01n02").contains("ready"));
    assert!(line(&screen, "r01n01").contains("absent"), "{screen}");
    assert_eq!(screen.matches("r01n02").count(), 1, "redrawn, not scrolled: {screen}");
    assert_eq!(screen.matches("NODE").count(), 1, "{screen}");

    terminal.key("C-c");
    let screen = terminal.wait("prompt", |screen| screen.trim_end().ends_with("prompt>"));
    assert!(
        screen.lines().any(|line| line == "before"),
        "what was there is back: {screen}"
    );
    assert!(!screen.contains("r01n02"), "{screen}");
    assert_eq!(terminal.modes(), modes, "alternate screen, cursor, autowrap");
    terminal.type_line("echo code $?");
    terminal.wait("exit code 0", |screen| screen.lines().any(|line| line == "code 0"));
}

#[test]
fn watch_fits_a_small_terminal() {
    let daemon = Daemon::start();
    for slot in 1..=9 {
        daemon.says(&format!(
            "node add r01n{slot:02} --hwaddr 52:54:00:01:01:{slot:02} --hwaddr 52:54:00:01:02:{slot:02}"
        ));
        if slot < 9 {
            ready(&daemon, &format!("r01n{slot:02}"));
        }
    }
    let stop = Event::new(
        Timestamp::now(),
        EventKind::Script,
        Level::Error,
        "no image ".repeat(40),
    );
    daemon.recorder.record(Subject::Node("r01n09".into()), stop);
    let terminal = Terminal::open(100, 20);
    terminal.watch(&daemon);
    // The long error is cut at the edge: each node has one line. The terminal may show a part of a screen that is being written.
    let rows = |screen: &str| screen.lines().filter(|line| line.starts_with("r01n")).count();
    let screen = terminal.wait("table", |screen| screen.contains("9 nodes:") && rows(screen) == 9);
    assert_eq!(
        screen.lines().next().unwrap_or_default().get(..8),
        Some("9 nodes:"),
        "{screen}"
    );

    terminal.tmux(&["resize-window", "-x", "40", "-y", "8"]);
    let screen = terminal.wait("smaller table", |screen| screen.contains("more: rackstrap"));
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[2].starts_with("NODE"), "the head stays: {screen}");
    assert!(lines[3].starts_with("r01n09"), "nodes with errors come first: {screen}");
    assert!(
        lines[7].starts_with("... and 5 more") && lines[0].starts_with("9 nodes:"),
        "{screen}"
    );
}

#[test]
fn a_terminated_watch_restores_the_terminal() {
    let daemon = Daemon::start();
    let terminal = Terminal::open(100, 20);
    let modes = terminal.modes();
    terminal.watch(&daemon);
    terminal.wait("text", |screen| screen.contains("the inventory has no nodes"));
    terminal.wait_modes("1 0 1");
    let shell = terminal.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let children = format!("/proc/{0}/task/{0}/children", shell.trim());
    let watch: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    let watch = rustix::process::Pid::from_raw(watch).unwrap();
    rustix::process::kill_process(watch, rustix::process::Signal::TERM).unwrap();
    terminal.wait_modes(&modes);
}

#[test]
fn watching_racking_with_keys_to_undo_and_confirm() {
    let daemon = Daemon::start();
    let terminal = Terminal::open(100, 20);
    let (binary, config) = (env!("CARGO_BIN_EXE_rackstrap"), daemon.config());
    terminal.type_line(&format!("{binary} --config {} discover start r03", config.display()));
    terminal.wait("next position", |screen| screen.contains("│ r03n01     │ <- next"));
    packet(&daemon, "52:54:00:00:00:01");
    // The line below the rack is drawn last: without it, the screen is incomplete.
    let next = "next: r03n02 · switch on the machine there";
    let screen = terminal.wait("first machine", |screen| {
        screen.contains("│ r03n02     │ <- next") && screen.contains(next)
    });
    let lines: Vec<&str> = screen.lines().collect();
    let at = |text: &str| lines.iter().position(|line| line.contains(text)).unwrap_or_default();
    assert!(
        at("r03n01     │ 52:54:00:00:00:01") > at("r03n02"),
        "from the bottom up:\n{screen}"
    );

    terminal.key("u");
    terminal.wait("undone", |screen| screen.contains("the next position is r03n01 again"));
    terminal.wait("a free position", |screen| screen.contains("│ r03n01     │ <- next"));
    terminal.key("q");
    terminal.wait("the prompt", |screen| {
        screen.contains("prompt>") && !screen.contains("next:")
    });
    // Racking continues without a watching terminal.
    packet(&daemon, "52:54:00:00:00:02");
    terminal.type_line(&format!("{binary} --config {} discover watch", config.display()));
    terminal.wait("the second machine", |screen| {
        screen.contains("r03n01     │ 52:54:00:00:00:02")
    });
    terminal.key("C-c");
    terminal.wait("the prompt", |screen| {
        screen.contains("prompt>") && !screen.contains("next:")
    });
    daemon.says("discover stop r03");

    terminal.type_line(&format!(
        "{binary} --config {} discover start r04 --confirm",
        config.display()
    ));
    // A machine that arrived before the start would not be racked.
    terminal.wait("next position", |screen| screen.contains("│ r04n01     │ <- next"));
    packet(&daemon, "52:54:00:00:00:05");
    terminal.wait("who asks", |screen| {
        screen.contains("52:54:00:00:00:05  waits for your confirmation")
    });
    terminal.key("y");
    terminal.wait("its place", |screen| screen.contains("r04n01     │ 52:54:00:00:00:05"));
    terminal.key("q");
}

/// A version of an image with long values in every column.
fn long_image(images: &std::path::Path) {
    let version = images.join("debian-13-with-a-long-name/1");
    std::fs::create_dir_all(version.join("root")).unwrap();
    for file in ["kernel", "initramfs"] {
        std::fs::write(version.join(file), file).unwrap();
    }
    let text = "image = 'debian-13-with-a-long-name@1'\ncreated = 1700000000000\nsource = '/srv/images/debian-13-of-the-institute'\n\
                message = 'the version with the drivers for the new network cards of rack three, as tried in the laboratory'\n\
                kernel-release = '6.12.43+deb13-cloud-amd64'\narch = 'x86_64'\ninit = 'systemd'\nfiles = 124000\nbytes = 3890216960\n\
                os = 'Debian GNU/Linux 13 (trixie), with the packages of the institute'\n";
    std::fs::write(version.join("manifest.toml"), text).unwrap();
}

#[test]
fn no_line_of_any_table_is_wider_than_the_terminal() {
    let daemon = Daemon::start_with(|dir, text| {
        long_image(&dir.join("images"));
        text.replace(
            "[profile.default]\n",
            &format!(
                "[profile.default]\nimage = \"debian-13-with-a-long-name\"\nkernel-args = \"{}\"\n",
                "console=ttyS0,115200 systemd.unified_cgroup_hierarchy=1 "
                    .repeat(4)
                    .trim_end()
            ),
        )
    });
    let groups = "gpu,bigmem,infiniband,chemistry,physics,biology,a-very-long-name-of-a-group";
    let groups: String = groups.split(',').map(|group| format!(" --group {group}")).collect();
    daemon.says(&format!(
        "node add r01n01 --hwaddr 52:54:00:01:01:01 --hwaddr 52:54:00:01:02:01{groups}"
    ));
    let detail = "vda holds an ext4 file system that rackstrap did not write; /tmp is in RAM; ".repeat(4);
    for (step, level) in [
        (EventKind::Dhcp(DhcpMessage::Discover), Level::Ok),
        (EventKind::Tftp, Level::Retry),
        (EventKind::Kernel, Level::Ok),
        (EventKind::Agent(Phase::Disk), Level::Degraded),
        (EventKind::Ready, Level::Ok),
    ] {
        let event =
            Event::new(Timestamp::now(), step, level, detail.clone()).of_boot("0123456789abcdef0123456789abcdef");
        daemon.recorder.record(Subject::Node("r01n01".into()), event);
    }
    packet(&daemon, "52:54:00:00:00:99");
    no_line_is_wider(
        &daemon,
        &[
            "status",
            "node show r01n01",
            "timeline r01n01",
            "explain r01n01",
            "explain 52:54:00:00:00:99",
            "discover list",
            "image list",
            "image show debian-13-with-a-long-name",
            "lease list",
            "rollout status",
            "layout list",
            "node list",
        ],
    );
}

/// Checks that no output line of `commands` is wider than a terminal of 80 or 100 columns.
pub(crate) fn no_line_is_wider(daemon: &Daemon, commands: &[&str]) {
    for columns in [80, 100] {
        let terminal = Terminal::open(columns, 50);
        let (binary, config) = (env!("CARGO_BIN_EXE_rackstrap"), daemon.config());
        terminal.type_line(&format!("r() {{ {binary} --config {} \"$@\"; }}", config.display()));
        for (number, command) in commands.iter().enumerate() {
            let end = format!("end of {number}");
            terminal.type_line(&format!(
                "clear; echo begin o''f {number}; r {command}; echo end o''f {number}"
            ));
            terminal.wait(command, |screen| screen.lines().any(|line| line == end));
            // Lines that the terminal wrapped are joined again.
            let shown = terminal.tmux(&["capture-pane", "-p", "-J", "-S", "-"]);
            let begin = format!("begin of {number}");
            let (_, shown) = shown.rsplit_once(begin.as_str()).unwrap_or_default();
            assert!(shown.lines().count() > 2, "{command}: {shown}");
            for line in shown.lines() {
                let width = line.trim_end().chars().count();
                assert!(
                    width <= usize::from(columns),
                    "{command} at {columns}: {width} columns\n{shown}"
                );
            }
        }
    }
}
