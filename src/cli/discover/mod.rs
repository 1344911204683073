//! `rackstrap discover`: from machines that nobody knows to named nodes.

mod rack;

use super::{
    connection::connect,
    node::prospects,
    output::{self, Format},
};
use crate::{
    control::{
        Client,
        api::{self, PlaceFilter, PlacedRow, SessionRow, SessionWish, WaitingRow},
    },
    discovery::LONGEST_SESSION,
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rackstrap_hostlist::{NoGroups, expand_all};
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
Switch the machines on one after the other, from the bottom up, and look: each is named as soon as it has asked for an
address, and boots on by itself. The view can be left (q) and entered again (discover watch); the rack goes on filling until
its time is over, or until discover stop.

Machines that waited before are left alone, unless --waiting-too. Two racks can be filled side by side if their machines can
be told apart: by their subnets, or by relay, switch or port (option 82 of the relay).

Examples:
  rackstrap discover start r03
  rackstrap discover start r03 --from n05 --skip 'n[07-08]' --profile compute --group new
  rackstrap discover start r03 --confirm                  (asks for each)
  rackstrap discover start r03 --switch sw3 & rackstrap discover start r04 --switch sw4")]
    Start(StartArgs),
    /// Look at a rack that is being filled
    #[command(after_help = "\
Keys: q leaves, u takes back the last one, y says yes to the next one (with --confirm).

Example:
  rackstrap discover watch r03")]
    Watch(RackArgs),
    /// End the filling of a rack; its nodes stay
    #[command(after_help = "\
Example:
  rackstrap discover stop r03")]
    Stop(RackArgs),
    /// Take back the last machine that was placed in a rack: it waits again
    #[command(after_help = "\
The position is the next one again. The machine is left alone by racks that are being filled; place it with discover accept.

Example:
  rackstrap discover undo r03")]
    Undo(UndoArgs),
    /// Who waits, and what is known of each
    #[command(after_help = "\
Examples:
  rackstrap discover list
  rackstrap discover list --json | jq -r '.machines[].machine.hwaddr'")]
    List(ListArgs),
    /// Give a waiting machine its place
    #[command(after_help = "\
It boots on by itself within some seconds, if there is an image for it. Without a name it gets the next position of the rack that is being filled.

Examples:
  rackstrap discover accept 52:54:00:ab:cd:ef r03n07
  rackstrap discover accept 52:54:00:ab:cd:ef r03n07 --replace     (a new mainboard: the node exists)
  rackstrap discover accept 52:54:00:ab:cd:ef                      (yes, with discover start --confirm)")]
    Accept(AcceptArgs),
    /// Leave a machine alone: neither shown nor racked
    #[command(after_help = "\
Examples:
  rackstrap discover ignore 52:54:00:ab:cd:ef
  rackstrap discover ignore 52:54:00:ab:cd:ef --not     (shown again, and racked again)")]
    Ignore(IgnoreArgs),
}

#[derive(Debug, Args)]
struct StartArgs {
    /// The rack: a name without its last number, such as r03
    rack: String,
    /// First position, such as n05 [default: the first one]
    #[arg(long, value_name = "POSITION")]
    from: Option<String>,
    /// Positions to leave free, such as n05 or 'n[05-08]'; repeat it for further ones
    #[arg(long, value_name = "POSITIONS")]
    skip: Vec<String>,
    /// Profile of the new nodes; repeat it for further ones
    #[arg(long, add = crate::cli::complete::profiles())]
    profile: Vec<String>,
    /// Group of the new nodes; repeat it for further ones
    #[arg(long)]
    group: Vec<String>,
    /// Ask before each
    #[arg(long)]
    confirm: bool,
    /// Begin with the machines that wait already, in the order in which they came
    #[arg(long)]
    waiting_too: bool,
    /// Stop filling the rack after this time (90m, 1day; at most 7days)
    #[arg(long = "for", value_name = "TIME", default_value = "2h", value_parser = seconds)]
    secs: u64,
    /// Only machines that come through this relay
    #[arg(long, value_name = "IP")]
    relay: Option<Ipv4Addr>,
    /// Only machines at this switch, as its relay calls it
    #[arg(long, value_name = "ID")]
    switch: Option<String>,
    /// Only machines at ports whose name begins so
    #[arg(long, value_name = "PREFIX")]
    port: Option<String>,
    /// Do not stay to look
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct RackArgs {
    /// The rack [default: the only one that is being filled]
    rack: Option<String>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct UndoArgs {
    /// The rack [default: the only one that is being filled]
    rack: Option<String>,
    /// Even if it is up: it loses its root, and hangs
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Those that are ignored as well
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
struct AcceptArgs {
    /// Hardware address, as the machine shows it
    #[arg(value_name = "MAC")]
    hwaddr: HwAddr,
    /// The node that it shall be
    #[arg(value_name = "NODE", add = crate::cli::complete::nodes())]
    node: Option<String>,
    /// The node exists, and gets this machine in place of its own
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
    /// No longer
    #[arg(long)]
    not: bool,
}

fn seconds(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|error| format!("{error}; write 90m, 2h or 1day"))?;
    match time.as_secs() {
        0 => Err("write at least 1s".to_owned()),
        secs if secs > LONGEST_SESSION => Err("a rack is filled for at most a week; write 7days or less".to_owned()),
        secs => Ok(secs),
    }
}

/// Runs it.
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

/// The rack that is meant: if none is named, the only one that is being filled.
fn rack_of(client: &Client, named: Option<String>) -> Result<String> {
    if let Some(rack) = named {
        return Ok(rack);
    }
    let answer: api::DiscoveryAnswer = client.get(api::paths::DISCOVERY)?;
    let mut racks = answer.sessions.iter().map(|filling| filling.session.rack.as_str());
    match (racks.next(), racks.next()) {
        (Some(rack), None) => Ok(rack.to_owned()),
        (None, _) => bail!("no rack is being filled; begin: rackstrap discover start RACK"),
        (Some(first), Some(second)) => bail!("several racks are being filled ({first}, {second}, …); name one"),
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
        "rack {} is being filled from {} on, until {}; look: rackstrap discover watch {}",
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
            "rack {} is not being filled any more; {} placed",
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
        "{} is {} no longer, and waits; {} is the next position again",
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
        true => "nobody waits".to_owned(),
        false => table(&answer, &shown),
    };
    let hidden = answer.machines.len() - shown.len();
    if hidden > 0 {
        text += &format!("\n{} ignored: --all shows them", output::count(hidden, "machine"));
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
            () if machine.held => "taken back: rackstrap discover accept".to_owned(),
            () if !machine.booting => "an operating system".to_owned(),
            () if !machine.confirmed => "has taken no address yet".to_owned(),
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
