//! The disk phase: from the plan to a [`DiskState`]. No failure here stops a boot: the node then runs without its disk and
//! reports why.

use super::{
    boot_key,
    candidate::{self, Candidate},
    choose::{self, InspectedDisk, NoChoice},
    device::{BlockDevice, FileDevice},
    geometry::{self, partition_number},
    image_modules,
    inspect::{self, Action, Finding},
    machine::{self, RealMachine},
    marker::Record,
    options, prepare,
    remake::remake,
    several, signature,
};
use crate::fail::{Doing, Failure, Res};
use rackstrap_wire::{
    DiskFacts, DiskMarker, DiskPlan, DiskProblem, DiskRule, DiskState, DiskStatus, FileSystem, ImageList, MOST_UNUSED,
    MountedPartition, UnusedDisk,
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Longest wait for a disk that the plan names, or that the last boot had. Slow controllers need most of it.
const NAMED_WAIT: Duration = Duration::from_secs(15);
/// Otherwise a disk is chosen when none has appeared for this long: this may be the first boot.
const QUIET: Duration = Duration::from_secs(1);
/// Longest wait for any disk. A node may have none: fast disks were found while modules and root were loaded.
const AUTO_WAIT: Duration = Duration::from_secs(5);

/// The surroundings of the phase.
pub struct Context<'a> {
    /// The node's name, for commands in messages; with the option for the layout if the node has several.
    pub node: &'a str,
    /// The image's root, mounted read-only.
    pub image: &'a Path,
    /// The image's list of files.
    pub list: &'a ImageList<'a>,
    /// The disk's file systems are mounted below this directory, and later moved into the new root.
    pub mounts: &'a Path,
    /// Called after each step of preparation; may never return.
    pub on_step: &'a mut dyn FnMut(&str),
    /// Called with each line for people.
    pub on_line: &'a mut dyn FnMut(&str),
}

/// The result of the phase: the state, and a sentence about it for people.
pub type Outcome = (DiskState, String);

/// Does what the plan says with the disk.
pub fn run(plan: Option<&DiskPlan>, context: Context<'_>) -> Outcome {
    let Some(plan) = plan else {
        return (DiskState::default(), "left alone: the plan has no layout".to_owned());
    };
    let present = || candidate::candidates(Path::new("/sys/block"));
    // In these, what is made at each boot is no file system.
    let kept = |plan: &DiskPlan| DiskPlan {
        layout: plan.kept_layout(),
        ..plan.clone()
    };
    let mut plan = kept(plan);
    plan.more = plan.more.iter().map(kept).collect();
    match plan.more.is_empty() {
        true => run_among(&plan, &present, &|_| false, context),
        false => several::run_all(&plan, &present, context),
    }
}

/// Like [`run`], but for one layout, among the disks that `present` lists and that are not `reserved` for another layout.
pub(super) fn run_among(
    plan: &DiskPlan,
    present: &dyn Fn() -> Vec<Candidate>,
    reserved: &dyn Fn(&InspectedDisk) -> bool,
    context: Context<'_>,
) -> Outcome {
    let (looked, choice) = find_disk(plan, present, reserved);
    let mut facts = DiskFacts::default();
    let chosen = match choice {
        Ok(chosen) => chosen,
        Err(refused) => {
            facts.problem = Some(refused.problem);
            facts.unused = unused(&looked, None);
            let reason = in_ram(&format!("{}; nothing was written", refused.text), plan, &[]);
            return degraded(reason, facts);
        }
    };
    facts.unused = unused(&looked, chosen);
    let Some(disk) = chosen.map(|index| &looked[index]) else {
        let what = match plan.device.as_str() {
            "auto" => "no disk found".to_owned(),
            name => format!("no disk {name} found"),
        };
        return degraded(in_ram(&what, plan, &[]), facts);
    };
    facts.serial.clone_from(&disk.disk.serial);
    facts.about = disk.disk.about();
    let worked = work(plan, disk, context, &mut facts);
    let (mut state, text) = match worked {
        Ok((status, mounts, text)) => {
            let state = DiskState {
                status,
                mounts,
                ..DiskState::default()
            };
            (state, text)
        }
        Err(failure) => degraded(in_ram(&failure.to_string(), plan, &[]), DiskFacts::default()),
    };
    state.device.clone_from(&disk.disk.name);
    state.size = disk.disk.size;
    state.facts = facts;
    (state, text)
}

fn degraded(reason: String, facts: DiskFacts) -> Outcome {
    let state = DiskState {
        status: DiskStatus::Degraded { reason: reason.clone() },
        facts,
        ..DiskState::default()
    };
    (state, reason)
}

/// Reads all disks until it is clear which one is the node's, but not longer than slow disks take.
fn find_disk(
    plan: &DiskPlan,
    present: &dyn Fn() -> Vec<Candidate>,
    reserved: &dyn Fn(&InspectedDisk) -> bool,
) -> (Vec<InspectedDisk>, Result<Option<usize>, NoChoice>) {
    let began = Instant::now();
    let mut quiet_since = began;
    let mut looked: Vec<InspectedDisk> = Vec::new();
    loop {
        let all = choose::of_interest(present(), &plan.device);
        if all.iter().ne(looked.iter().map(|l| &l.disk)) {
            quiet_since = Instant::now();
            let mut before = std::mem::take(&mut looked);
            for disk in all {
                let known = before.iter().position(|l| l.disk == disk);
                looked.push(known.map_or_else(|| inspect_disk(disk), |index| before.swap_remove(index)));
            }
        }
        let free: Vec<InspectedDisk> = looked.iter().filter(|disk| !reserved(disk)).cloned().collect();
        let choice = choose::choose(&free, plan);
        let longest = match &choice {
            // This is the last boot's disk.
            Ok(Some(index)) if choose::is_certain(&free[*index], plan) => Duration::ZERO,
            // A disk that appears later may fit the rule better, or as well. Only a disk without a marker is chosen by its properties.
            Ok(Some(index)) if DiskRule::is_rule(&plan.device) && free[*index].marker.is_empty() => AUTO_WAIT,
            Ok(Some(_)) => QUIET,
            Ok(None) if plan.device == "auto" => AUTO_WAIT,
            Err(refused) if !refused.may_pass => Duration::ZERO,
            _ => NAMED_WAIT,
        };
        let waited = match longest {
            QUIET => quiet_since.elapsed(),
            _ => began.elapsed(),
        };
        if waited >= longest {
            return (free, choice);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Finds out what a disk holds. The disk is opened read-only, so that this cannot write to it.
fn inspect_disk(disk: Candidate) -> InspectedDisk {
    let read = || -> Res<(Finding, String)> {
        let node = disk_node(&disk.name)?;
        let mut device = FileDevice::open(&node, false).doing(|| format!("opening {}", node.display()))?;
        let doing = || format!("reading {}", disk.name);
        let finding = inspect::inspect(&mut device).doing(doing)?;
        let marker = match finding.is_ours() {
            true => inspect::marker_id(&mut device).doing(doing)?,
            false => String::new(),
        };
        Ok((finding, marker))
    };
    let (finding, marker) = match read() {
        Ok((finding, marker)) => (Ok(finding), marker),
        Err(failure) => (Err(failure.to_string()), String::new()),
    };
    InspectedDisk { disk, finding, marker }
}

/// The disks that were not chosen.
fn unused(looked: &[InspectedDisk], chosen: Option<usize>) -> Vec<UnusedDisk> {
    let others = looked.iter().enumerate().filter(|(index, _)| Some(*index) != chosen);
    let others = others.map(|(_, disk)| UnusedDisk {
        device: disk.disk.name.clone(),
        size: disk.disk.size,
        what: choose::what(disk),
        about: disk.disk.about(),
    });
    others.take(MOST_UNUSED).collect()
}

/// `why; /tmp and /var are in RAM`: the mount points of the layout without a partition.
fn in_ram(why: &str, plan: &DiskPlan, mounts: &[MountedPartition]) -> String {
    let there = |mount: &String| mounts.iter().any(|m| m.mount.as_ref() == Some(mount));
    let missing: Vec<&str> = plan
        .layout
        .partitions
        .iter()
        .filter_map(|p| p.mount.as_ref())
        .filter(|m| !there(m))
        .map(String::as_str)
        .collect();
    match missing.as_slice() {
        [] => why.to_owned(),
        [one] => format!("{why}; {one} is in RAM"),
        [all @ .., last] => format!("{why}; {} and {last} are in RAM", all.join(", ")),
    }
}

type Worked = (DiskStatus, Vec<MountedPartition>, String);

fn work(plan: &DiskPlan, looked: &InspectedDisk, mut context: Context<'_>, facts: &mut DiskFacts) -> Res<Worked> {
    let layout = &plan.layout;
    let name = &looked.disk.name;
    let node = disk_node(name)?;
    let record = Record {
        name: layout.name.clone(),
        version: layout.version,
        digest: digest(&plan.digest)?,
        table: layout.table,
    };
    let finding = looked.finding.as_ref().map_err(|why| Failure::new(why.clone()))?;
    if let Some(found) = finding.record() {
        facts.marker = Some(marker_of(found, looked.marker.clone()));
    }
    let (size, sector) = {
        let device = FileDevice::open(&node, false).doing(|| format!("opening {}", node.display()))?;
        (device.size(), device.sector())
    };
    let geometry = geometry::place(layout, size, sector);
    if layout
        .partitions
        .iter()
        .any(|partition| partition.fs == FileSystem::Btrfs)
    {
        let failed = image_modules::load_file_system(context.image, FileSystem::Btrfs.as_str());
        if !failed.is_empty() {
            (context.on_line)(&format!("btrfs may be missing: {failed}"));
        }
    }
    match inspect::decide(finding, plan, record.digest) {
        Action::Leave(why) => {
            if let Finding::Leftover(what) | Finding::Foreign(what) = finding {
                facts.foreign.clone_from(what);
                facts.leftover = matches!(finding, Finding::Leftover(_));
                facts.problem = Some(DiskProblem::Foreign);
            }
            let help = match finding {
                Finding::Unclear { .. } => format!(
                    "; to delete its contents and prepare it again: `rackstrap node reprep {}`, then restart the node",
                    context.node
                ),
                _ => String::new(),
            };
            Err(Failure::new(format!("{name} {why}{help}")))
        }
        Action::Keep(note) => {
            // With another digest the table may differ from the plan's: a partition number may mean another partition.
            let geometry = geometry.ok().filter(|_| note.is_none());
            let mut note = note;
            if !plan.remake.is_empty() {
                match remake_some(plan, name, &node, geometry.as_ref(), &mut context) {
                    Ok(made) => facts.remade = made,
                    Err(failure) => note = note.or_else(|| Some(failure.to_string())),
                }
            }
            let (mounts, troubles) = mount_all(plan, name, geometry.as_ref(), note.is_none(), context);
            let wrong: Vec<String> = note.into_iter().chain(troubles).collect();
            if wrong.is_empty() {
                let again = match facts.remade.as_slice() {
                    [] => String::new(),
                    made => format!(", {} made again", made.join(" and ")),
                };
                let text = format!("{name} kept: {record}{again}");
                let layout = record.to_string();
                return Ok((DiskStatus::Kept { layout }, mounts, text));
            }
            let reason = in_ram(&wrong.join("; "), plan, &mounts);
            let text = format!("{name} kept: {reason}");
            Ok((DiskStatus::Degraded { reason }, mounts, text))
        }
        Action::Prepare(from) => {
            let geometry = geometry.map_err(|e| Failure::new(format!("{name} is {e}; left untouched")))?;
            if let Some(what) = machine::missing_program(context.image, &plan.whole_layout()) {
                return Err(Failure::new(format!("{name} was not prepared: {what}")));
            }
            (context.on_line)(&format!("preparing {name}: {from} -> {record}"));
            facts.marker = None;
            let (mounts, troubles) = prepare_disk(plan, name, &node, &geometry, &record, context)?;
            let id = FileDevice::open(&node, false).and_then(|mut device| inspect::marker_id(&mut device));
            facts.marker = Some(marker_of(&record, id.unwrap_or_default()));
            let to = record.to_string();
            let text = format!("{name} prepared: {from} -> {to}");
            if troubles.is_empty() {
                return Ok((DiskStatus::Prepared { from, to }, mounts, text));
            }
            let reason = in_ram(&troubles.join("; "), plan, &mounts);
            let text = format!("{text}; {reason}");
            Ok((DiskStatus::Degraded { reason }, mounts, text))
        }
    }
}

/// Makes the file systems again that the plan names. Returns their names.
fn remake_some(
    plan: &DiskPlan,
    name: &str,
    node: &Path,
    geometry: Option<&geometry::Geometry>,
    context: &mut Context<'_>,
) -> Res<Vec<String>> {
    let names = plan.remake.join(", ");
    let failed = |why: String| Failure::new(format!("{names} of {name} was not made again: {why}"));
    let geometry = geometry.ok_or_else(|| failed("the disk does not have the plan's layout".to_owned()))?;
    if let Some(what) = machine::missing_program(context.image, &plan.whole_layout()) {
        return Err(failed(what));
    }
    (context.on_line)(&format!("making {names} of {name} again"));
    wait_for_entropy();
    let mut device = FileDevice::open(node, true)
        .doing(|| format!("opening {}", node.display()))
        .map_err(|failure| failed(failure.to_string()))?;
    let mut machine = RealMachine {
        disk: name.to_owned(),
        layout: &plan.layout,
        contents: &plan.contents,
        image: context.image.to_owned(),
        list: context.list,
        only: plan.remake.clone(),
        mounts: context.mounts.to_owned(),
        on_step: &mut *context.on_step,
        on_line: &mut *context.on_line,
    };
    // Below an intact marker the table may have been changed by hand, so that something else is where the partition was.
    for (index, (partition, range)) in plan.layout.partitions.iter().zip(&geometry.partitions).enumerate() {
        if plan.remake.contains(&partition.name) {
            let number = partition_number(plan.layout.table, index);
            machine::partition_node(name, number, Some(*range)).map_err(|failure| failed(failure.to_string()))?;
        }
    }
    let made = remake(&mut device, &plan.layout, &plan.remake, geometry, &mut machine);
    made.map_err(|failure| failed(failure.to_string()))
}

/// The marker as reported to the server.
fn marker_of(record: &Record, id: String) -> DiskMarker {
    DiskMarker {
        id,
        layout: record.name.clone(),
        version: record.version,
        digest: record.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

fn prepare_disk(
    plan: &DiskPlan,
    name: &str,
    node: &Path,
    geometry: &geometry::Geometry,
    record: &Record,
    context: Context<'_>,
) -> Res<(Vec<MountedPartition>, Vec<String>)> {
    wait_for_entropy();
    let failed = |f: Failure| Failure::new(format!("preparing {name}: {f}"));
    let mut device = FileDevice::open(node, true)
        .doing(|| format!("opening {}", node.display()))
        .map_err(failed)?;
    let mut machine = RealMachine {
        disk: name.to_owned(),
        layout: &plan.layout,
        contents: &plan.contents,
        image: context.image.to_owned(),
        list: context.list,
        only: Vec::new(),
        mounts: context.mounts.to_owned(),
        on_step: context.on_step,
        on_line: context.on_line,
    };
    prepare::prepare(
        &mut device,
        &plan.layout,
        geometry,
        record,
        &mut Uuid::new_v4,
        &mut machine,
    )
    .map_err(failed)?;
    drop(device);
    let RealMachine { on_step, on_line, .. } = machine;
    let context = Context {
        node: context.node,
        image: context.image,
        list: context.list,
        mounts: context.mounts,
        on_step,
        on_line,
    };
    Ok(mount_all(plan, name, Some(geometry), true, context))
}

/// GUIDs need random numbers. The fallback of a static binary polls /dev/random, and this early only a blocking read makes the
/// kernel's generator ready: it gathers entropy from the CPU's jitter (Linux 5.6 and newer).
fn wait_for_entropy() {
    use std::io::Read;
    let _ = std::fs::File::open("/dev/random").and_then(|mut f| f.read_exact(&mut [0; 16]));
}

/// Mounts the layout's partitions of a prepared disk. A failure is reported, and that partition is left out. With `follow`, copies of
/// the image's directories are updated from the image.
fn mount_all(
    plan: &DiskPlan,
    disk: &str,
    geometry: Option<&geometry::Geometry>,
    follow: bool,
    mut context: Context<'_>,
) -> (Vec<MountedPartition>, Vec<String>) {
    let mut mounts = Vec::new();
    let mut troubles = Vec::new();
    for (index, partition) in plan.layout.partitions.iter().enumerate() {
        let number = partition_number(plan.layout.table, index);
        let range = geometry.and_then(|g| g.partitions.get(index)).copied();
        let encrypted = plan
            .content(&partition.name)
            .filter(|content| content.encrypt.is_some());
        let mounted = match (encrypted, range) {
            (Some(content), Some(range)) => {
                boot_key::make(plan, (disk, number), range, partition, content, &mut context)
            }
            // It is written at each boot, so only where the table is certainly that of the layout.
            (Some(_), None) => Err(Failure::new(format!(
                "{} was not encrypted, and is not used: the disk does not have the plan's layout",
                partition.name
            ))),
            (None, _) if partition.fs == FileSystem::Raw => continue,
            (None, range) => mount_one(disk, number, range, partition, &mut context),
        };
        match mounted {
            Ok(mounted) => {
                let root = plan.roots.iter().find(|root| root.partition == partition.name);
                if let (Some(mount), Some(root)) = (&mounted.mount, root) {
                    let target = context.mounts.join(&partition.name);
                    let set = machine::set_root(&target, root).doing(|| format!("setting owner and mode of {mount}"));
                    troubles.extend(set.err().map(|failure| failure.to_string()));
                }
                mounts.push(mounted);
                if follow && let Err(failure) = refresh(plan, partition, &mut context) {
                    troubles.push(failure.to_string());
                }
            }
            Err(failure) => troubles.push(failure.to_string()),
        }
    }
    (mounts, troubles)
}

/// Updates a file system that holds a copy of one of the image's directories.
fn refresh(plan: &DiskPlan, partition: &rackstrap_wire::Partition, context: &mut Context<'_>) -> Res<()> {
    if !partition.fs.has_attributes() {
        return Ok(());
    }
    let target = context.mounts.join(&partition.name);
    let done = machine::refresh_partition(context.image, context.list, &plan.layout, partition, &target)?;
    if let Some(text) = done {
        (context.on_line)(&text);
    }
    Ok(())
}

fn mount_one(
    disk: &str,
    number: u32,
    range: Option<geometry::Range>,
    partition: &rackstrap_wire::Partition,
    context: &mut Context<'_>,
) -> Res<MountedPartition> {
    let node = machine::partition_node(disk, number, range)?;
    let shown = node.display();
    let (found, size) = FileDevice::open(&node, false)
        .and_then(|mut device| Ok((signature::superblock(&mut device, 0)?, device.size())))
        .doing(|| format!("reading {shown}"))?;
    let want = partition.fs;
    let Some(found) = found.filter(|f| f.fs == want) else {
        return Err(Failure::new(format!(
            "{shown} no longer holds the {} that rackstrap made",
            want.as_str()
        )));
    };
    if want == FileSystem::Ext4 && !found.clean {
        let found = machine::check_ext4(context.image, &node)?;
        (context.on_line)(&format!("{shown} was not unmounted cleanly: {found}"));
    }
    match want {
        FileSystem::Swap => crate::sys::swap_on(&node, options::swap_flags(&partition.options))
            .doing(|| format!("swapping on {shown}"))?,
        _ if partition.mount.is_some() => {
            machine::mount_partition(&node, partition, context.mounts, false)?;
        }
        _ => {}
    }
    Ok(MountedPartition {
        name: partition.name.clone(),
        device: shown.to_string(),
        fs: want,
        uuid: found.uuid,
        mount: partition.mount.clone(),
        options: partition.options.clone(),
        size,
        encrypted: false,
    })
}

fn disk_node(name: &str) -> Res<PathBuf> {
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_!".contains(&b));
    if !plain {
        return Err(Failure::new(format!("'{name}' is not a kernel name of a disk")));
    }
    Ok(Path::new("/dev").join(name))
}

/// Reads the plan's digest.
///
/// # Errors
/// It is not 32 hex digits.
pub fn digest(hex: &str) -> Res<[u8; 16]> {
    let bytes = hex.as_bytes();
    let digit = |b: u8| (b as char).to_digit(16);
    let pairs = bytes
        .chunks_exact(2)
        .map(|p| Some((digit(p[0])? * 16 + digit(p[1])?) as u8));
    let read: Option<Vec<u8>> = pairs.collect();
    read.filter(|_| bytes.len() == 32)
        .and_then(|v| v.try_into().ok())
        .ok_or_else(|| Failure::new(format!("the plan's layout digest '{hex}' is not 32 hex digits")))
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
