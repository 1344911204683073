//! A virtual machine that boots from the network.

use crate::{
    BootOrder, Bus, Cluster, Console, Disk, Firmware, Nic, Result,
    console::Typed,
    hardware::{FurtherCard, disk_arguments, hwaddr_of},
    monitor::Monitor,
    netns::BRIDGE,
    plain_rom::PlainRom,
    process,
    timeline::{self, Event},
};
use anyhow::{Context, bail, ensure};
use std::{
    cell::{Cell, RefCell},
    env,
    fmt::Write,
    fs::{self, File},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

/// Longest wait before a boot counts as failed. On two idle cores a boot takes under a minute. Loaders that wait for the daemon have a low
/// priority, and take longer beside other machines.
const PATIENCE: Duration = Duration::from_secs(900);

/// If this variable is set, the packets of each machine's card are in `card.pcap` of its directory. Use it with [`crate::paths::KEEP`].
const CAPTURE: &str = "RACKSTRAP_CAPTURE";

/// QEMU, with one of two kinds of reset: see [`Node::warm_resets`].
#[derive(Debug)]
enum Machine {
    Warm(process::Running),
    Cold(process::Repeating),
}

/// A node. It is switched off when dropped.
#[derive(Debug)]
pub struct Node<'c> {
    cluster: &'c Cluster,
    name: String,
    hwaddr: String,
    dir: PathBuf,
    tap: RefCell<Option<String>>,
    disks: RefCell<Vec<(Bus, Disk)>>,
    firmware: Firmware,
    nic: Nic,
    order: Cell<BootOrder>,
    /// Its cards after the first one.
    further_cards: Vec<FurtherCard>,
    second_card_first: Cell<bool>,
    empty_card: bool,
    plain_rom: RefCell<Option<PlainRom>>,
    processors: u8,
    console: Console,
    warm_resets: bool,
    crash_store: bool,
    watchdog: bool,
    machine: RefCell<Option<Machine>>,
    powered_on: Cell<u64>,
    logged_in: Cell<bool>,
    known: Cell<bool>,
}

impl<'c> Node<'c> {
    pub(crate) fn new(cluster: &'c Cluster, name: &str) -> Self {
        let dir = cluster.dir().join(name);
        Node {
            cluster,
            name: name.to_owned(),
            hwaddr: hwaddr_of(name),
            console: Console::new(&dir),
            dir,
            tap: RefCell::new(None),
            disks: RefCell::new(Vec::new()),
            firmware: Firmware::Bios,
            nic: Nic::Virtio,
            order: Cell::new(BootOrder::NetworkFirst),
            further_cards: Vec::new(),
            second_card_first: Cell::new(false),
            empty_card: false,
            plain_rom: RefCell::new(None),
            processors: 1,
            warm_resets: false,
            crash_store: false,
            watchdog: false,
            machine: RefCell::new(None),
            powered_on: Cell::new(0),
            logged_in: Cell::new(false),
            known: Cell::new(false),
        }
    }

    /// Adds a blank disk of that many bytes.
    pub fn blank_disk(self, bytes: u64) -> Result<Self> {
        fs::create_dir_all(&self.dir)?;
        let disk = Disk::blank(&self.dir.join("disk.raw"), bytes)?;
        self.insert_disk(Some(disk));
        Ok(self)
    }

    /// Sets the firmware.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Sets the network card.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nic = nic;
        self
    }

    /// Sets the boot order.
    pub fn boot_order(self, order: BootOrder) -> Self {
        self.change_boot_order(order);
        self
    }

    /// Sets the boot order for the next power-on.
    pub fn change_boot_order(&self, order: BootOrder) {
        self.order.set(order);
    }

    /// Adds a second network card, which is not in the inventory.
    pub fn second_card(self) -> Result<Self> {
        self.further_card(BRIDGE)
    }

    /// Adds a second or further network card, which is not in the inventory, to a bridge of the cluster's namespace.
    pub fn further_card(mut self, bridge: &str) -> Result<Self> {
        let tap = self.cluster.namespace.tap_on(bridge)?;
        let index = self.further_cards.len();
        self.further_cards.push(FurtherCard::new(&self.hwaddr, index, tap));
        Ok(self)
    }

    /// Plugs the cable of a card in, or pulls it out, while the machine runs. Unlike [`Node::cable`] the card itself learns of it. The first
    /// card has the index 0.
    pub fn link(&self, index: usize, plugged: bool) -> Result {
        let id = match index.checked_sub(1) {
            None => Some("net"),
            Some(further) => self.further_cards.get(further).map(|card| card.id.as_str()),
        };
        let id = id.with_context(|| format!("{} has no card {index}", self.name))?;
        self.monitor().set_link(id, plugged)
    }

    /// Sends a non-maskable interrupt to the processors, as the button of a server does.
    pub fn interrupt(&self) -> Result {
        self.monitor().interrupt()
    }

    fn monitor(&self) -> Monitor {
        Monitor::new(&self.dir)
    }

    /// Adds a card of the same model without a cable, in a slot before the node's own card.
    pub fn empty_card(mut self) -> Self {
        self.empty_card = true;
        self
    }

    /// Makes the firmware try the second card before the first one, from the next power-on.
    pub fn second_card_first(&self) {
        self.second_card_first.set(true);
    }

    /// Sets the number of processors. More than one is faster alone, and slower next to other machines.
    pub fn processors(mut self, processors: u8) -> Self {
        self.processors = processors;
        self
    }

    /// Keeps the memory over a reset, as hardware does. Without this, a reset ends QEMU and starts it again: QEMU 7.2 keeps the
    /// translated code of the old kernel, and discards it piece by piece while the next kernel is unpacked over it. After a Debian
    /// that took 70 of the 80 CPU seconds of a restart.
    pub fn warm_resets(mut self) -> Self {
        self.warm_resets = true;
        self
    }

    /// Adds a store for the last messages of a kernel that panics (ACPI ERST), as servers have it.
    pub fn crash_store(mut self) -> Self {
        self.crash_store = true;
        self
    }

    /// Adds a watchdog, Intel's 6300ESB, which resets the machine.
    pub fn watchdog(mut self) -> Self {
        self.watchdog = true;
        self
    }

    /// Plugs the cable of its card into the switch, or pulls it out. The card itself does not learn of it.
    pub fn cable(&self, plugged: bool) -> Result {
        let tap = self.tap.borrow().clone().context("the machine was never switched on")?;
        let state = if plugged { "up" } else { "down" };
        self.cluster.namespace.ip(&["link", "set", &tap, state]).map(drop)
    }

    /// Inserts another disk, or none, for the next power-on.
    pub fn insert_disk(&self, disk: Option<Disk>) {
        self.insert_disks(disk.map(|disk| (Bus::Virtio, disk)));
    }

    /// Inserts these disks in that order, for the next power-on.
    pub fn insert_disks(&self, disks: impl IntoIterator<Item = (Bus, Disk)>) {
        *self.disks.borrow_mut() = disks.into_iter().collect();
    }

    /// The first disk.
    pub fn disk(&self) -> Result<Disk> {
        self.disks
            .borrow()
            .first()
            .map(|(_, disk)| disk.clone())
            .with_context(|| format!("{} has no disk", self.name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hardware address of its network card.
    pub fn hwaddr(&self) -> &str {
        &self.hwaddr
    }

    /// Hardware address of the second card.
    pub fn second_hwaddr(&self) -> &str {
        self.further_cards.first().map_or("", |card| &card.hwaddr)
    }

    /// Its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Adds it to the inventory, once.
    pub fn add(&self) -> Result {
        if !self.known.replace(true) {
            self.cluster
                .daemon
                .cli(&["node", "add", &self.name, "--hwaddr", &self.hwaddr])?;
        }
        Ok(())
    }

    /// Adds it to the inventory if it is not there, and switches it on.
    pub fn power_on(&self) -> Result {
        self.add()?;
        self.plug_in()
    }

    /// Switches it on, even if it is not in the inventory, and even if the daemon is not running.
    ///
    /// Measured with QEMU 7.2 on two idle cores, Debian 12 to its login prompt from a local disk: q35 and two
    /// processors 14.5 s, q35 and one 20.2 s, pc (i440FX) and one 24.6 s; `-cpu max` was no faster than the default.
    /// Two at a time, as tests run: two scenarios of the suite took 110 s each with two processors, 76 and 80 s with one.
    pub fn plug_in(&self) -> Result {
        ensure!(self.machine.borrow().is_none(), "{} is switched on already", self.name);
        fs::create_dir_all(&self.dir)?;
        let tap = match self.tap.take() {
            Some(tap) => tap,
            None => self.cluster.namespace.tap()?,
        };
        let mut command = self.cluster.namespace.command(self.firmware.qemu());
        command.args(["-name", &self.name, "-nodefaults"]);
        command.args(["-no-user-config", "-nographic"]);
        command.args(["-monitor", "none"]);
        command.args(self.monitor().qemu_arguments());
        command.args([
            "-machine",
            self.firmware.machine(),
            "-accel",
            "tcg,thread=multi",
            "-smp",
            &self.processors.to_string(),
            "-m",
            "768",
        ]);
        if let Some(processor) = self.firmware.processor() {
            command.args(["-cpu", processor]);
        }
        let model = self.nic.model();
        if self.empty_card {
            command.args(["-netdev", "hubport,id=empty,hubid=0"]);
            command.args(["-device", &format!("{model},netdev=empty,romfile=")]);
        }
        // With this device, nothing waits for random numbers.
        command.args(["-device", "virtio-rng-pci"]);
        command.args(self.console.qemu_arguments());
        // virtio-net puts a header of its own before each frame, which filters and captures would see too.
        let capture = env::var_os(CAPTURE).is_some();
        let header = match self.firmware == Firmware::BiosPlainRom || capture {
            true => ",vnet_hdr=off",
            false => "",
        };
        command.args([
            "-netdev",
            &format!("tap,id=net,ifname={tap},script=no,downscript=no{header}"),
        ]);
        // Disks have boot index 2 and above.
        let order = self.order.get();
        let card = match order {
            BootOrder::NetworkFirst => ",bootindex=1",
            BootOrder::DiskFirst => ",bootindex=9",
            BootOrder::DiskAlone | BootOrder::AsStored => "",
        };
        // Without a ROM, OVMF uses its own network stack, and SeaBIOS cannot use the card.
        let rom = match self.firmware.uses_rom() && order != BootOrder::DiskAlone {
            true => "",
            false => ",romfile=",
        };
        command.args(["-device", &format!("{model},netdev=net,mac={}{card}{rom}", self.hwaddr)]);
        // The first filter sees the frames as the network does.
        if capture {
            let file = self.dir.join("card.pcap");
            let dump = format!("filter-dump,id=dump,netdev=net,file={}", file.display());
            command.args(["-object", &dump]);
        }
        if self.firmware == Firmware::BiosPlainRom {
            let plain_rom = PlainRom::start(&self.dir)?;
            command.args(plain_rom.qemu_arguments());
            *self.plain_rom.borrow_mut() = Some(plain_rom);
        }
        for (index, card) in self.further_cards.iter().enumerate() {
            let first = index == 0 && self.second_card_first.get();
            command.args(card.qemu_arguments(self.nic, first));
        }
        if self.watchdog {
            command.args(["-device", "i6300esb"]);
        }
        if self.crash_store {
            let file = self.dir.join("erst.bin");
            let memory = format!(
                "memory-backend-file,id=erst,mem-path={},size=128K,share=on",
                file.display()
            );
            command.args(["-object", &memory, "-device", "acpi-erst,memdev=erst"]);
        }
        for (index, (bus, disk)) in self.disks.borrow().iter().enumerate() {
            command.args(disk_arguments(index, *bus, disk, order != BootOrder::AsStored));
        }
        if self.firmware == Firmware::UBoot {
            command.args(["-bios", "/usr/lib/u-boot/qemu-x86/u-boot.rom"]);
        }
        if self.firmware == Firmware::UefiHttp {
            // OVMF tries PXE before HTTP boot, and IPv6 for minutes. These are settings of OvmfPkg in edk2.
            for name in ["IPv4PXESupport", "IPv6Support"] {
                command.args(["-fw_cfg", &format!("name=opt/org.tianocore/{name},string=no")]);
            }
        }
        if let Some((code, empty)) = self.firmware.flash() {
            let vars = self.dir.join("vars.fd");
            if !vars.exists() {
                fs::copy(empty, &vars).with_context(|| format!("copying {empty}"))?;
            }
            command.args(["-drive", &format!("if=pflash,format=raw,readonly=on,file={code}")]);
            command.args(["-drive", &format!("if=pflash,format=raw,file={}", vars.display())]);
        }
        if self.firmware == Firmware::SecureBoot {
            command.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
            // OVMF of 64 bits with SMM refuses to start with ACPI's S3 (S3Verification() in OvmfPkg/PlatformPei/Platform.c).
            command.args(["-global", "ICH9-LPC.disable_s3=1"]);
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.console.power_on();
        self.logged_in.set(false);
        self.powered_on.set(timeline::now_ms());
        let machine = match self.warm_resets {
            true => Machine::Warm(process::Running::start("QEMU", &mut command)?),
            false => {
                command.args(["-action", "reboot=shutdown"]);
                Machine::Cold(process::Repeating::start("QEMU", command)?)
            }
        };
        *self.machine.borrow_mut() = Some(machine);
        *self.tap.borrow_mut() = Some(tap);
        Ok(())
    }

    /// Cuts the power with SIGKILL, so that unwritten data of the machine is lost.
    pub fn pull_plug(&self) {
        drop(self.machine.take());
        drop(self.plain_rom.take());
    }

    /// Sets its nice(1) value. A loader that waits for an answer polls without pause.
    pub fn nice(&self, nice: u8) -> Result {
        match &*self.machine.borrow() {
            None => Ok(()),
            Some(Machine::Warm(running)) => running.nice(nice),
            Some(Machine::Cold(repeating)) => repeating.nice(nice),
        }
    }

    /// Records that it has restarted by itself and is up: commands go to the shell of its last boot.
    pub fn has_restarted(&self) {
        self.console.last_boot();
        self.logged_in.set(false);
    }

    /// Time of the last power-on, milliseconds since 1970.
    pub fn powered_on_at(&self) -> u64 {
        self.powered_on.get()
    }

    /// The timeline since the last power-on.
    pub fn events(&self) -> Result<Vec<Event>> {
        let mut timeline = self.cluster.daemon.json(&["timeline", &self.name])?;
        let events: Vec<Event> = serde_json::from_value(timeline["events"].take()).context("reading the timeline")?;
        Ok(events
            .into_iter()
            .filter(|event| event.at >= self.powered_on.get())
            .collect())
    }

    /// Waits until it reports ready, which a node with a degraded disk also does.
    pub fn wait_ready(&self) -> Result<Event> {
        self.wait_event("the operating system to be ready", |event| event.step == "ready")
    }

    /// Waits until the agent has reported the disk, and returns it as in `rackstrap status`:
    /// `/tmp and /var on vda (prepared: blank -> scratch v1)`.
    pub fn wait_disk(&self) -> Result<String> {
        self.wait_event("the end of the disk phase", |event| event.step == "overlay")?;
        self.status("disk")
    }

    /// A field of its row in `rackstrap status`.
    pub fn status(&self, field: &str) -> Result<String> {
        let row = self.cluster.status(&self.name)?;
        row[field]
            .as_str()
            .map(str::to_owned)
            .with_context(|| format!("no {field} in {row}"))
    }

    /// Waits until `rackstrap status` shows it in `state`.
    pub fn wait_state(&self, state: &str) -> Result {
        self.wait_until(&format!("the state {state}"), || {
            Ok((self.status("state")? == state).then_some(()))
        })
    }

    /// Waits for an event since the last power-on.
    pub fn wait_event(&self, what: &str, fits: impl Fn(&Event) -> bool) -> Result<Event> {
        self.wait_until(what, || Ok(self.events()?.into_iter().find(&fits)))
    }

    /// Waits until the console has shown `pattern` since the last power-on.
    pub fn wait_console(&self, pattern: &str) -> Result {
        self.wait_until(&format!("{pattern:?} on the console"), || {
            Ok(self.console.text().contains(pattern).then_some(()))
        })
    }

    /// Runs a command as root on its console.
    pub fn shell(&self, command: &str) -> Result<String> {
        let typed = self.begin_command(command)?;
        self.finish_command(typed)
    }

    /// Types a command as root on its console, without waiting.
    pub fn begin_command(&self, command: &str) -> Result<Typed<'_>> {
        if !self.logged_in.get() {
            self.wait_console(&format!("root@{}", self.name))?;
            // Keep the kernel's messages out of the output of commands.
            self.console
                .shell("dmesg -n 1", PATIENCE)
                .with_context(|| self.evidence())?;
            self.logged_in.set(true);
        }
        self.console.begin_command(command)
    }

    /// Waits for the end of a typed command.
    pub fn finish_command(&self, typed: Typed<'_>) -> Result<String> {
        typed.finish(PATIENCE).with_context(|| self.evidence())
    }

    /// Fails if the machine or the daemon has ended on its own.
    pub fn check_alive(&self) -> Result {
        self.cluster.daemon.check_alive()?;
        let ended = match self.machine.borrow_mut().as_mut() {
            None => None,
            Some(Machine::Warm(running)) => running.ended()?,
            Some(Machine::Cold(repeating)) => repeating.ended()?,
        };
        if let Some(status) = ended {
            bail!(
                "QEMU of {} ended on its own ({status}):\n{}",
                self.name,
                self.qemu_log()
            );
        }
        Ok(())
    }

    /// Waits until `look` returns something.
    pub fn wait_until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        // While the daemon is down, its command line fails; the wait continues.
        let mut last_error = None;
        let found = timeline::poll(PATIENCE, || {
            self.check_alive()?;
            Ok(look().unwrap_or_else(|error| {
                last_error = Some(error);
                None
            }))
        })?;
        found.with_context(|| {
            let mut message = format!("{} waited {} s for {what}", self.name, PATIENCE.as_secs());
            if let Some(error) = last_error {
                write!(message, "\nlast error: {error:#}").ok();
            }
            format!("{message}\n{}", self.evidence())
        })
    }

    /// Information for a failure: the timeline, and the ends of the console and of the daemon's log.
    pub fn evidence(&self) -> String {
        let mut text = format!("--- timeline of {}\n", self.name);
        match self.events() {
            Ok(events) => {
                for event in events {
                    writeln!(
                        text,
                        "{:>7} ms  {event}",
                        event.at.saturating_sub(self.powered_on.get())
                    )
                    .ok();
                }
            }
            Err(error) => writeln!(text, "{error:#}").unwrap_or_default(),
        }
        write!(text, "--- console\n{}\n", timeline::tail(&self.console.text(), 25)).ok();
        write!(text, "--- daemon\n{}\n", self.cluster.daemon.log_tail(15)).ok();
        write!(text, "--- QEMU\n{}", self.qemu_log()).ok();
        text
    }

    fn qemu_log(&self) -> String {
        timeline::tail(&fs::read_to_string(self.dir.join("qemu.log")).unwrap_or_default(), 10)
    }
}
