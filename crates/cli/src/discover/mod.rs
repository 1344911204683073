//! `rackstrap discover`: turns unknown machines into named nodes.

mod rack;

use super::{
    connection::connect,
    node::prospects,
    output::{self, Format},
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_control::{
    Client,
    api::{self, PlaceFilter, PlacedRow, SessionRow, SessionWish, WaitingRow},
};
use rackstrap_hostlist::{NoGroups, expand_all};
use rackstrap_registries::discovery::LONGEST_SESSION;
use rackstrap_wire::HwAddr;
use std::{io::IsTerminal, net::Ipv4Addr, path::Path, process::ExitCode};

/// Arguments of `rackstrap discover`.
#[derive(Debug, Args)]
pub struct DiscoverArgs {
    #[command(subcommand)]
    command: DiscoverCommand,
}

#[derive(Debug, Subcommand)]
enum DiscoverCommand {
    /// Fill a rack: each new machine gets the next position, in the order in which they are switched on
    #[command(after_help = "\
Switch the machines on one after the other, from the bottom up. Each gets its name when it asks for an address, and
continues to boot by itself. You can leave the view (q) and return (`rackstrap discover watch`). The rack keeps
filling until its time is over, or until `rackstrap discover stop`.

Machines that waited before are not placed, except with --waiting-too. Two racks can be filled at the same time if
their machines differ by subnet, relay, switch or port (option 82 of the relay).

Examples:
  rackstrap discover start r03
  rackstrap discover start r03 --from n05 --skip 'n[07-08]' --profile compute --group new
  rackstrap discover start r03 --confirm                  (asks before each machine)
  rackstrap discover start r03 --switch sw3 & rackstrap discover start r04 --switch sw4")]
    Start(StartArgs),
    /// Show a rack while it is being filled
    #[command(after_help = "\
Keys: q leaves the view, u undoes the last placement, y confirms the next one (with --confirm).

Example:
  rackstrap discover watch r03")]
    Watch(RackArgs),
    /// Stop filling a rack; its nodes stay
    #[command(after_help = "\
Example:
  rackstrap discover stop r03")]
    Stop(RackArgs),
    /// Undo the last placement in a rack: the machine waits again
    #[command(after_help = "\
The next machine gets the position. Racks that are being filled no longer place this machine; `rackstrap discover accept` does.

Example:
  rackstrap discover undo r03")]
    Undo(UndoArgs),
    /// List unknown machines that wait, with their hardware and location
    #[command(after_help = "\
Examples:
  rackstrap discover list
  rackstrap discover list --json | jq -r '.machines[].machine.hwaddr'")]
    List(ListArgs),
    /// Place a waiting machine: make it a node
    #[command(after_help = "\
The machine continues to boot within seconds if there is an image for it.

Examples:
  rackstrap discover accept 52:54:00:ab:cd:ef r03n07
  rackstrap discover accept 52:54:00:ab:cd:ef r03n07 --replace     (new mainboard of an existing node)
  rackstrap discover accept 52:54:00:ab:cd:ef                      (next position; confirms with `discover start --confirm`)")]
    Accept(AcceptArgs),
    /// Ignore a machine: neither show it nor rack it
    #[command(after_help = "\
Examples:
  rackstrap discover ignore 52:54:00:ab:cd:ef
  rackstrap discover ignore 52:54:00:ab:cd:ef --not     (shows it again)")]
    Ignore(IgnoreArgs),
}

#[derive(Debug, Args)]
struct StartArgs {
    /// Rack: a node name without its last number, such as r03
    rack: String,
    /// First position to fill, such as n05 [default: the first one]
    #[arg(long, value_name = "POSITION")]
    from: Option<String>,
    /// Positions to leave free, such as n05 or 'n[05-08]'; repeat for more
    #[arg(long, value_name = "POSITIONS")]
    skip: Vec<String>,
    /// Profile of the new nodes, such as compute; repeat for more
    #[arg(long, add = crate::complete::profiles())]
    profile: Vec<String>,
    /// Group of the new nodes, such as new; repeat for more
    #[arg(long)]
    group: Vec<String>,
    /// Ask before each machine is placed
    #[arg(long)]
    confirm: bool,
    /// Start with the machines that are waiting already, in order of arrival
    #[arg(long)]
    waiting_too: bool,
    /// Stop filling the rack after this time (90m, 1day; at most 7days)
    #[arg(long = "for", value_name = "TIME", default_value = "2h", value_parser = seconds)]
    secs: u64,
    /// Place only machines behind this DHCP relay, such as 10.5.1.254
    #[arg(long, value_name = "IP")]
    relay: Option<Ipv4Addr>,
    /// Place only machines at this switch, by the ID that its relay sends, such as sw3
    #[arg(long, value_name = "ID")]
    switch: Option<String>,
    /// Place only machines at ports whose name begins with this, such as Gi1/0/
    #[arg(long, value_name = "PREFIX")]
    port: Option<String>,
    /// Return immediately instead of showing the rack
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct RackArgs {
    /// Rack, such as r03 [default: the only one that is being filled]
    rack: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct UndoArgs {
    /// Rack, such as r03 [default: the only one that is being filled]
    rack: Option<String>,
    /// Do it although the node is up; it loses its root and hangs until it is restarted
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// List ignored machines too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct AcceptArgs {
    /// MAC address, as the machine shows it, such as 52:54:00:ab:cd:ef
    #[arg(value_name = "MAC")]
    hwaddr: HwAddr,
    /// Name of its node, such as r03n07 [default: the next position of the rack that is being filled]
    #[arg(value_name = "NODE", add = crate::complete::nodes())]
    node: Option<String>,
    /// Give an existing node this machine instead of its present one
    #[arg(long, requires = "node")]
    replace: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct IgnoreArgs {
    /// Hardware address
    #[arg(value_name = "MAC")]
    hwaddr: HwAddr,
    /// Show the machine again
    #[arg(long)]
    not: bool,
}

fn seconds(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 90m, 2h or 1day"))?;
    match time.as_secs() {
        0 => Err("write at least 1s".to_owned()),
        secs if secs > LONGEST_SESSION => {
            Err("a rack can be filled for at most a week; write 7days or less".to_owned())
        }
        secs => Ok(secs),
    }
}

/// Runs the command.
pub fn run(config: &Path, args: DiscoverArgs) -> Result<ExitCode> {
    let client = connect(config)?;
    match args.command {
        DiscoverCommand::Start(args) => start(&client, args)?,
        DiscoverCommand::Watch(args) => rack::watch(&client, &rack_of(&client, args.rack)?, args.format)?,
        DiscoverCommand::Stop(args) => stop(&client, args)?,
        DiscoverCommand::Undo(args) => undo(&client, args)?,
        DiscoverCommand::List(args) => list(&client, &args)?,
        DiscoverCommand::Accept(args) => accept(&client, args)?,
        DiscoverCommand::Ignore(args) => {
            let asked = api::Ignore {
                hwaddr: args.hwaddr,
                ignored: !args.not,
            };
            let done: api::Done = client.post(api::paths::IGNORE, &asked)?;
            output::print(&done.message)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The rack that is meant: the named one, or the only one that is being filled.
fn rack_of(client: &Client, named: Option<String>) -> Result<String> {
    if let Some(rack) = named {
        return Ok(rack);
    }
    let answer: api::DiscoveryAnswer = client.get(api::paths::DISCOVERY)?;
    let mut racks = answer.sessions.iter().map(|filling| filling.session.rack.as_str());
    match (racks.next(), racks.next()) {
        (Some(rack), None) => Ok(rack.to_owned()),
        (None, _) => bail!("no rack is being filled\nhelp: `rackstrap discover start RACK` starts filling one"),
        (Some(first), Some(second)) => bail!("several racks are being filled ({first}, {second}, …); name one of them"),
    }
}

fn start(client: &Client, args: StartArgs) -> Result<()> {
    let wanted = SessionWish {
        rack: args.rack,
        from: args.from,
        skip: expand_all(&args.skip, &NoGroups)?.into_iter().collect(),
        profiles: args.profile,
        groups: args.group.into_iter().collect(),
        confirm: args.confirm,
        waiting_too: args.waiting_too,
        secs: args.secs,
        only: PlaceFilter {
            relay: args.relay,
            switch: args.switch,
            port: args.port,
        },
    };
    let session: SessionRow = client.post(api::paths::SESSIONS, &api::StartSession { wanted })?;
    if !args.detach && !args.format.json && std::io::stdout().is_terminal() {
        return rack::watch(client, &session.rack, args.format);
    }
    if args.format.json {
        return output::print_json(&session);
    }
    output::print(&format!(
        "rack {} is being filled from {} on, until {}; to watch: rackstrap discover watch {}",
        session.rack,
        session.next,
        output::local_time(session.until),
        session.rack
    ))
}

fn stop(client: &Client, args: RackArgs) -> Result<()> {
    let rack = api::Rack {
        rack: rack_of(client, args.rack)?,
        running: false,
    };
    let session: SessionRow = client.post(api::paths::SESSIONS_END, &rack)?;
    match args.format.json {
        true => output::print_json(&session),
        false => output::print(&format!(
            "stopped filling rack {}; {} placed",
            session.rack,
            output::count(session.placed.len(), "machine")
        )),
    }
}

fn undo(client: &Client, args: UndoArgs) -> Result<()> {
    let placed = take_back(client, rack_of(client, args.rack)?, args.running)?;
    match args.format.json {
        true => output::print_json(&placed),
        false => output::print(&took_back(&placed)),
    }
}

fn take_back(client: &Client, rack: String, running: bool) -> Result<PlacedRow> {
    let asked = api::Rack { rack, running };
    Ok(client.post(api::paths::SESSIONS_UNDO, &asked)?)
}

fn took_back(placed: &PlacedRow) -> String {
    format!(
        "{} is no longer {} and waits; the next position is {} again",
        placed.machine.hwaddr, placed.node, placed.node
    )
}

fn accept(client: &Client, args: AcceptArgs) -> Result<()> {
    let accepted = say_yes(client, args.hwaddr, args.node, args.replace)?;
    match args.format.json {
        true => output::print_json(&accepted),
        false => output::print(&format!(
            "{} is {} now\n{}",
            args.hwaddr,
            accepted.node,
            prospects(client, &accepted.node)?
        )),
    }
}

fn say_yes(client: &Client, hwaddr: HwAddr, node: Option<String>, replace: bool) -> Result<api::Accepted> {
    let asked = api::Accept { hwaddr, node, replace };
    Ok(client.post(api::paths::ACCEPT, &asked)?)
}

fn list(client: &Client, args: &ListArgs) -> Result<()> {
    let answer: api::DiscoveryAnswer = client.get(api::paths::DISCOVERY)?;
    if args.format.json {
        return output::print_json(&answer);
    }
    let shown: Vec<&WaitingRow> = answer
        .machines
        .iter()
        .filter(|waiting| args.all || !waiting.machine.ignored)
        .collect();
    let mut text = match shown.is_empty() {
        true => "no machine is waiting".to_owned(),
        false => table(&answer, &shown),
    };
    let hidden = answer.machines.len() - shown.len();
    if hidden > 0 {
        text += &format!("\n{} ignored; --all shows them", output::count(hidden, "machine"));
    }
    for full in &answer.full {
        text += &format!("\n{full} (since {} ago)", output::ago(answer.now, full.since));
    }
    for filling in &answer.sessions {
        let next = filling.next.as_deref().unwrap_or("none, it is full");
        text += &format!("\nrack {} is being filled; next: {next}", filling.session.rack);
    }
    output::print_fitting(&text)
}

fn table(answer: &api::DiscoveryAnswer, shown: &[&WaitingRow]) -> String {
    let mut table = output::table(["machine", "what it is", "where", "first seen", "last seen", "remark"]);
    for waiting in shown {
        let machine = &waiting.machine;
        let firmware = machine.firmware();
        let words = [&machine.vendor, &machine.product, &machine.serial].map(String::as_str);
        let words: Vec<&str> = words
            .into_iter()
            .chain([firmware.as_str()])
            .filter(|word| !word.is_empty())
            .collect();
        let remark = match () {
            () if machine.ignored => "ignored".to_owned(),
            () if !waiting.trouble.is_empty() => waiting.trouble.clone(),
            () if !waiting.no_loader.is_empty() => waiting.no_loader.clone(),
            () if !waiting.contradiction.is_empty() => waiting.contradiction.clone(),
            () if machine.held => "undone; place it: rackstrap discover accept".to_owned(),
            () if !machine.booting => "an operating system".to_owned(),
            () if !machine.confirmed => "has not accepted an address yet".to_owned(),
            () => String::new(),
        };
        table.add_row([
            machine.hwaddr.to_string(),
            output::dash(&words.join(", ")),
            machine.place.shown(),
            output::ago(answer.now, machine.first_seen),
            output::ago(answer.now, machine.last_seen),
            remark,
        ]);
    }
    output::render(&table)
}
