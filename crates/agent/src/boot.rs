//! PID 1 of the initramfs: the phases in their order, and the restart of the machine when a phase fails for good.

use crate::{
    boot_bond::{self, BootBond},
    cmdline::{self, CommandLine},
    console::Console,
    disk::{self, device::FileDevice, esp, netloader},
    facts::{self, BootFacts},
    fail::{Doing, Failure, Res},
    firmware,
    guards::Guards,
    handover, hardware,
    http::Server,
    image_files,
    modules::Loader,
    netconsole, network,
    networks::{self, SetUp, watch::WatchedNetwork},
    new_root::{self, Built, LeftOut},
    overlay::Tree,
    pstore::{self, Crash},
    retry::{Policy, random_seed},
    root::{self, NEW_ROOT},
    sys,
    timeline::{Summary, Timeline},
    users,
};
use rackstrap_wire::{
    DiskState, DiskStatus, EspImage, Hardware, ImageList, OLDEST_WIRE, Overlay, OverlayContent, OverlayFile,
    OverlayRequest, Phase, Plan, SECRET_AUTHENTICATES, WIRE_VERSION, paths,
};
use std::{convert::Infallible, fs, path::Path, time::Duration};
use uuid::Uuid;

/// How long a phase that needs the server is retried before the machine restarts.
const PATIENCE: Policy = Policy::For(Duration::from_secs(600));
/// Longest wait for an answer through a new bond: a switch that speaks LACP takes up to 30 s to use a port (IEEE 802.1AX, slow periodic time).
const BOND_PATIENCE: Duration = Duration::from_secs(60);
/// For plans and overlays.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// The disk's file systems are mounted below this directory until the new root exists.
const DISK_MOUNTS: &str = "/disk";
/// Gives a person time to read the last lines before the machine restarts.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Boots the node. If that fails, the machine restarts and boots again.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        // The agent is PID 1: when it dies, a kernel without panic= stops for ever.
        Console::open().line(&format!("the agent crashed: {info}; restarting"));
        std::thread::sleep(LAST_WORDS);
        sys::restart();
    }));
    let mut timeline = Timeline::new(random_seed());
    let Err(failure) = boot(&mut timeline);
    timeline.print(&format!("giving up: {failure}; the machine restarts and boots again"));
    timeline.flush();
    std::thread::sleep(LAST_WORDS);
    let failure = sys::restart();
    timeline.print(&failure.to_string());
    // The exit of PID 1 is a kernel panic, and with panic=N a restart.
    std::process::exit(1)
}

fn boot(timeline: &mut Timeline) -> Res<Infallible> {
    timeline.run(Phase::EarlyMounts, Policy::Once, |t| {
        let done = handover::early_mounts()?;
        t.open_console();
        Ok(((), Summary::Done(done)))
    })?;
    let mut guards = Guards::set();
    let cmdline = timeline.run(Phase::CommandLine, Policy::Once, |_| {
        let text = fs::read_to_string("/proc/cmdline").doing(|| "reading /proc/cmdline".into())?;
        let c = cmdline::parse(&text)?;
        let done = format!("boot {} of {} from {}", c.plan, c.hwaddr, c.server);
        Ok((c, Summary::Done(done)))
    })?;
    let server = Server {
        base: cmdline.server.clone(),
        plan: cmdline.plan.clone(),
        token: cmdline.token.clone(),
    };
    // For modules that the kernel itself requests, it runs this program.
    let modprobe = fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let _ = fs::write("/proc/sys/kernel/modprobe", "/init");
    let modules = timeline.run(Phase::Modules, Policy::Once, |_| {
        let mut loader = Loader::open(&cmdline.all);
        let done = loader.load_for_devices();
        pstore::MODULES.iter().for_each(|module| loader.want(module));
        Ok((loader.needed(), Summary::Done(done)))
    })?;
    if let Some(text) = guards.watch(cmdline.hung_after) {
        timeline.step(&text);
    }
    timeline.run(Phase::Network, Policy::For(Duration::from_secs(180)), |t| {
        let (done, problem) = network::up(&cmdline)?;
        t.attach(server.clone());
        if let Some(problem) = problem {
            t.step(&problem);
        }
        Ok(((), Summary::Done(done)))
    })?;
    let mut crash = Crash::read();
    timeline.crashed(&crash.lines);
    let plan = timeline.run(Phase::Plan, PATIENCE, |_| fetch_plan(&server))?;
    let bond = match boot_bond::of(&plan.networks) {
        None => BootBond::default(),
        Some(_) => timeline.run(Phase::Network, Policy::For(Duration::from_secs(180)), |_| {
            boot_bond(&plan, &cmdline, &server)
        })?,
    };
    if let Some(port) = plan.netconsole {
        let on_bond = bond.name.clone().filter(|_| cmdline.vlan.is_none());
        let interface = on_bond.or_else(|| network::interface(&cmdline));
        match netconsole::start(&cmdline, port, interface.as_deref()) {
            Ok(done) => timeline.print(&format!("netconsole: {done}")),
            Err(failure) => timeline.step(&format!("netconsole: {failure}")),
        }
    }
    timeline.run(Phase::Root, PATIENCE, |_| {
        let source = root::mount_image(&plan)?;
        Ok(((), Summary::Done(format!("{source} is {}, read-only", plan.image))))
    })?;
    let list = fs::read(image_files::LIST).unwrap_or_default();
    let list = read_list(timeline, &list);
    let state = timeline.run(Phase::Disk, Policy::Once, |t| Ok(disk_phase(t, &plan, &cmdline, &list)))?;
    network_loader(timeline, &plan, &server, &state);
    efi_partition(timeline, &plan, &server, &state);
    let hardware = Hardware {
        modules,
        uefi: firmware::look(timeline, plan.network_first),
        ..hardware::describe()
    }
    .bounded();
    // The server gives secrets once a boot, so an overlay that was fetched is kept over attempts.
    let mut fetched = None;
    timeline.run(Phase::Overlay, PATIENCE, |t| {
        let done = overlay_phase(t, (&plan, &bond), &server, &state, &list, &hardware, &mut fetched);
        if let Some((overlay, _)) = &fetched {
            t.attach(reporting_server(&server, &plan, overlay));
        }
        Ok(((), done?))
    })?;
    if timeline.is_sent() {
        crash.remove();
    }
    if hardware.uefi.is_some() {
        firmware::forget_rounds();
    }
    let _ = fs::write("/proc/sys/kernel/modprobe", modprobe.trim());
    guards.end();
    hand_over(timeline, &plan, &cmdline)
}

/// Makes the bond of the boot card. The server answers through it, or the card is alone again.
fn boot_bond(plan: &Plan, cmdline: &CommandLine, server: &Server) -> Res<(BootBond, Summary)> {
    let mut reached = || {
        let mut last = None;
        let answer = network::wait_for(BOND_PATIENCE, || {
            fetch_plan(server).map_err(|failure| last = Some(failure)).ok()
        });
        answer.map(drop).ok_or_else(|| {
            let why = last.map(|failure| failure.to_string()).unwrap_or_default();
            Failure::new(format!("the server does not answer through the bond: {why}"))
        })
    };
    let (bond, text) = boot_bond::set_up(plan, cmdline, &mut reached)?;
    let summary = match &bond.problem {
        None => Summary::Done(text),
        Some(problem) => Summary::Degraded(format!("{problem}; {text}")),
    };
    Ok((bond, summary))
}

fn fetch_plan(server: &Server) -> Res<(Plan, Summary)> {
    // Check the version first: a plan of another version may not be readable at all.
    let document: serde_json::Value = server.get(paths::PLAN, ASK_TIMEOUT)?;
    let wire = document.get("wire").and_then(serde_json::Value::as_u64);
    check_wire_version(wire)?;
    let plan: Plan = serde_json::from_value(document).doing(|| "reading the plan".into())?;
    let disk = match &plan.disk {
        Some(d) => format!("{} v{} on {}", d.layout.name, d.layout.version, d.device),
        None => "left alone".into(),
    };
    let done = format!("{} boots {}, disk {disk}", plan.node, plan.image);
    Ok((plan, Summary::Done(done)))
}

/// Checks that this agent understands an answer in version `wire` (pure). A server answers an older agent in the agent's version if it can.
fn check_wire_version(wire: Option<u64>) -> Res<()> {
    let (oldest, newest) = (u64::from(OLDEST_WIRE), u64::from(WIRE_VERSION));
    match wire {
        Some(wire) if (oldest..=newest).contains(&wire) => Ok(()),
        other => {
            let theirs = other.map_or("none".to_owned(), |wire| wire.to_string());
            Err(Failure::permanent(format!(
                "the server answers in wire version {theirs}; the agent of this image speaks {oldest} to {newest}; seal the image \
                 again with the server's release: rackstrap image clone, then rackstrap image seal"
            )))
        }
    }
}

/// Reads the image's list. An image without a readable list boots like images from before lists existed.
fn read_list<'a>(timeline: &mut Timeline, text: &'a [u8]) -> ImageList<'a> {
    if text.is_empty() {
        return ImageList::default();
    }
    ImageList::parse(text).unwrap_or_else(|error| {
        timeline.step(&format!(
            "the image's list of files cannot be read ({error}); seal the image again"
        ));
        ImageList::default()
    })
}

fn disk_phase(
    timeline: &mut Timeline,
    plan: &Plan,
    cmdline: &CommandLine,
    list: &ImageList<'_>,
) -> (DiskState, Summary) {
    let timeline = std::cell::RefCell::new(timeline);
    let mut on_step = |name: &str| {
        let mut timeline = timeline.borrow_mut();
        timeline.step(&format!("step {name}"));
        if cmdline.hold.as_deref() == Some(name) {
            timeline.step(&format!("holding after {name}"));
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
    };
    let mut on_line = |text: &str| timeline.borrow_mut().step(text);
    let context = disk::phase::Context {
        node: &plan.node,
        image: Path::new(root::IMAGE),
        list,
        mounts: Path::new(DISK_MOUNTS),
        on_step: &mut on_step,
        on_line: &mut on_line,
    };
    let (state, text) = disk::phase::run(plan.disk.as_ref(), context);
    let summary = match state.status {
        DiskStatus::Degraded { .. } => Summary::Degraded(text),
        _ => Summary::Done(text),
    };
    (state, summary)
}

/// The server, for reports of a node that has its overlay: they carry the node's secret if the server requires it (pure).
fn reporting_server(server: &Server, plan: &Plan, overlay: &Overlay) -> Server {
    match &overlay.secret {
        Some(secret) if plan.wire >= SECRET_AUTHENTICATES => Server {
            token: secret.clone(),
            ..server.clone()
        },
        _ => server.clone(),
    }
}

/// Updates the network loader on the disk to the server's version. The node boots without it, so a failure is only reported.
fn network_loader(timeline: &mut Timeline, plan: &Plan, server: &Server, state: &DiskState) {
    let prepared = matches!(
        state.first_status(),
        DiskStatus::Kept { .. } | DiskStatus::Prepared { .. }
    );
    let Some(loader) = plan.disk.as_ref().and_then(|d| d.loader).filter(|_| prepared) else {
        return;
    };
    let disk = format!("/dev/{}", state.device);
    let mut fetch = || server.bytes(paths::DISK_LOADER, ASK_TIMEOUT);
    let installed = FileDevice::open(Path::new(&disk), true)
        .doing(|| format!("opening {disk}"))
        .and_then(|mut device| netloader::install(&mut device, loader, &mut fetch));
    match installed {
        Ok(true) => timeline.step(&format!("the network loader for BIOS was written to {disk}")),
        Ok(false) => {}
        Err(failure) => timeline.step(&format!(
            "the network loader for BIOS was not written to {disk}: {failure}"
        )),
    }
}

/// Updates the EFI system partition to the server's. As for the network loader, a failure is only reported.
fn efi_partition(timeline: &mut Timeline, plan: &Plan, server: &Server, state: &DiskState) {
    let prepared = matches!(
        state.first_status(),
        DiskStatus::Kept { .. } | DiskStatus::Prepared { .. }
    );
    let Some(wanted) = plan.disk.as_ref().filter(|_| prepared) else {
        return;
    };
    let disk = format!("/dev/{}", state.device);
    let of_layout = wanted.layout_esp.is_some();
    let mut fetch = |image: &EspImage| {
        let base = if of_layout { paths::LAYOUT_ESP } else { paths::ESP };
        let path = format!("{base}{}-{}/", image.arch, image.sector);
        server.bytes(&path, ASK_TIMEOUT)
    };
    let arch = std::env::consts::ARCH;
    let opened = FileDevice::open(Path::new(&disk), true).doing(|| format!("opening {disk}"));
    let installed = opened.and_then(|mut device| match of_layout {
        true => {
            let digest = disk::phase::digest(&wanted.digest)?;
            esp::install_in_layout(&mut device, wanted, digest, arch, &mut fetch)
        }
        false => esp::install(&mut device, &wanted.esp, arch, &mut Uuid::new_v4, &mut fetch),
    });
    match installed {
        Ok(esp::Installed::Written) => timeline.step(&format!("the network loader for UEFI was written to {disk}")),
        Ok(esp::Installed::Same | esp::Installed::NotFor) => {}
        Err(failure) => timeline.step(&format!(
            "the network loader for UEFI was not written to {disk}: {failure}"
        )),
    }
}

fn overlay_phase(
    timeline: &mut Timeline,
    (plan, bond): (&Plan, &BootBond),
    server: &Server,
    state: &DiskState,
    list: &ImageList<'_>,
    hardware: &Hardware,
    fetched: &mut Option<(Overlay, SetUp)>,
) -> Res<Summary> {
    let (overlay, networks) = match fetched {
        Some(fetched) => &*fetched,
        None => {
            let request = OverlayRequest {
                networks: true,
                token: server.token.clone(),
                disk: state.clone(),
                hardware: hardware.clone(),
            };
            let mut overlay: Overlay = server.post(paths::OVERLAY, &request, ASK_TIMEOUT)?;
            let mut networks = networks::set_up(plan, &overlay.files, bond);
            overlay.files.append(&mut networks.files);
            networks.done.iter().for_each(|line| timeline.step(line));
            &*fetched.insert((overlay, networks))
        }
    };
    let parts = new_root::Parts {
        list,
        partitions: &state.mounts,
        disk: Path::new(DISK_MOUNTS),
        files: &overlay.files,
    };
    let mut fresh = || {
        // Unmounting the overlay of a failed attempt must not unmount the disk too, so the disk is bound and not moved.
        root::mount_overlay(&plan.ram_size)?;
        let tree = Tree::open(Path::new(NEW_ROOT))?;
        new_root::bind(Path::new("/run"), &tree, "/run")?;
        Ok(tree)
    };
    let own = |left_out: &[LeftOut<'_>]| own_files(plan, server, state, (overlay, networks), left_out);
    let Built {
        given,
        problem,
        left_out,
    } = new_root::build(&parts, &mut fresh, &own)?;
    let mut text = format!(
        "{} files above the image, {} of RAM",
        overlay.files.len(),
        plan.ram_size
    );
    if given > 0 {
        text += &format!(", capabilities of {given} files");
    }
    let wrong = [new_root::describe_left_out(&left_out), problem.unwrap_or_default()];
    let wrong: Vec<&str> = wrong
        .iter()
        .chain(&networks.problems)
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    Ok(match wrong.is_empty() {
        true => Summary::Done(text),
        false => Summary::Degraded(format!("{text}; {}", wrong.join("; "))),
    })
}

/// The files that the agent itself puts into the new root.
fn own_files(
    plan: &Plan,
    server: &Server,
    state: &DiskState,
    (overlay, networks): (&Overlay, &SetUp),
    left_out: &[LeftOut<'_>],
) -> Res<Vec<(OverlayFile, Vec<u8>)>> {
    let mut mounts = state.mounts.clone();
    mounts.retain(|partition| !left_out.iter().any(|out| out.partition.name == partition.name));
    let facts = BootFacts {
        server: server.base.clone(),
        plan: server.plan.clone(),
        token: reporting_server(server, plan, overlay).token,
        node: plan.node.clone(),
        heartbeat_secs: plan.heartbeat_secs,
        mounts,
        left_out: new_root::describe_left_out(left_out),
        health: plan.health.clone(),
        secret: overlay.secret.clone(),
        address: Some(plan.net.ipaddr),
        networks: networks.watched.iter().map(WatchedNetwork::to_line).collect(),
    };
    let facts = serde_json::to_vec(&facts).doing(|| "writing boot.json".into())?;
    let own = |path: &str, mode| OverlayFile {
        path: path.to_owned(),
        mode,
        uid: 0,
        gid: 0,
        content: OverlayContent::Text(String::new()),
    };
    let mut files = vec![(own(facts::RUN, 0o600), facts.clone()), (own(facts::LIB, 0o600), facts)];
    if let Some(users) = &overlay.users {
        let users = serde_json::to_vec(users).doing(|| "writing users.json".into())?;
        files.push((own(users::GIVEN, 0o600), users));
    }
    let agent = fs::read("/proc/self/exe").doing(|| "reading the agent".into())?;
    files.push((own(facts::AGENT, 0o755), agent));
    Ok(files)
}

fn hand_over(timeline: &mut Timeline, plan: &Plan, cmdline: &CommandLine) -> Res<Infallible> {
    let systemd = root::is_systemd(Path::new(NEW_ROOT), &plan.init);
    timeline.run(Phase::SwitchRoot, Policy::Once, |t| {
        for mounted in fs::read_dir(DISK_MOUNTS).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(mounted.path(), rustix::mount::UnmountFlags::DETACH);
        }
        let _ = rustix::mount::unmount("/run", rustix::mount::UnmountFlags::DETACH);
        t.print(&format!("switch-root: starting {}", plan.init));
        handover::move_mounts()?;
        handover::switch()?;
        if !systemd {
            handover::start_reporter()?;
        }
        Ok(((), Summary::Done(format!("{} of {}", plan.init, plan.image))))
    })?;
    let failure = handover::exec(&plan.init, &cmdline.init_args);
    timeline.failed(&failure);
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_servers_are_understood_and_unknown_versions_are_refused_with_a_remedy() {
        assert_eq!(check_wire_version(Some(1)), Ok(()));
        assert_eq!(check_wire_version(Some(WIRE_VERSION.into())), Ok(()));
        for wire in [None, Some(0), Some(u64::from(WIRE_VERSION) + 1), Some(u64::MAX)] {
            let failure = check_wire_version(wire).unwrap_err();
            assert!(
                failure.permanent && failure.to_string().contains("rackstrap image seal"),
                "{failure}"
            );
        }
    }
}
