//! `rackstrap backup`

use super::{
    connection,
    output::{self, Format},
    store,
};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rackstrap_base::clock::Timestamp;
use rackstrap_control::{ClientError, api};
use rackstrap_store::{
    Store, StoreError, Table,
    backup::{BackupError, Header, Reader, file},
};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

/// Arguments of `rackstrap backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
A backup contains the store: nodes with their history, unknown machines, racks that are being filled, leases, boots,
timelines, and the keys of the cluster and of nodes. Its mode is 0600; keep it where only you can read it. It does not
contain the site file, templates, boot scripts and images: back these up by other means.

The daemon may run; the backup contains everything that it confirmed before the backup started. The file gets its name
when it is complete, on disk, and verified. `zstd -dc FILE` prints its rows.

Examples:
  rackstrap backup                                   makes rackstrap-CLUSTER-DATE.backup
  rackstrap backup /var/backups/rackstrap            the same in that directory
  rackstrap backup - | ssh vault 'cat > lab.backup'
  rackstrap backup --show lab.backup                 what it contains
  rackstrap backup --check                           reads every row of the store

The daemon makes a backup every night: see [backup] in the site file.

See also: rackstrap restore --help")]
pub struct BackupArgs {
    /// File or directory to write to, or - for standard output [default: rackstrap-CLUSTER-DATE.backup]
    file: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Check a backup and print what it contains, instead of making one
    #[arg(long, value_name = "BACKUP", conflicts_with_all = ["file", "force"])]
    show: Option<PathBuf>,
    /// Read every row of the store and list unreadable ones, instead of making a backup
    #[arg(long, conflicts_with_all = ["file", "force", "show"])]
    check: bool,
    /// Delete the unreadable rows that the daemon set aside
    #[arg(long, conflicts_with_all = ["file", "force", "show", "check"])]
    discard: bool,
    #[command(flatten)]
    format: Format,
}

/// Runs the command.
pub fn run(config: &Path, args: BackupArgs) -> Result<ExitCode> {
    if let Some(file) = &args.show {
        let header = check(file)?;
        Shown::new(file, &header).print(args.format)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        return store::check(config, args.format);
    }
    if args.discard {
        return store::discard(config, args.format);
    }
    match &args.file {
        Some(file) if file == Path::new("-") => to_standard_output(config),
        wanted => {
            let (file, header) = to_file(config, wanted.as_deref(), args.force)?;
            Shown::new(&file, &header).print(args.format)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Reads a whole backup and checks it.
pub(super) fn check(file: &Path) -> Result<Header> {
    let input = File::open(file).with_context(|| format!("backup {}: cannot open it", file.display()))?;
    check_from(BufReader::with_capacity(1 << 17, input), "checking")
        .with_context(|| format!("backup {}", file.display()))
}

fn check_from(input: impl io::BufRead, what: &'static str) -> Result<Header, BackupError> {
    let mut reader = Reader::new(input)?;
    let bar = progress(what, reader.header());
    while reader.next_row()?.is_some() {
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(reader.header().clone())
}

/// A progress bar for the rows of a backup, on a terminal.
pub(super) fn progress(what: &'static str, header: &Header) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} rows");
    ProgressBar::with_draw_target(Some(header.total()), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

fn to_standard_output(config: &Path) -> Result<ExitCode> {
    if io::stdout().is_terminal() {
        bail!(
            "standard output is a terminal, and a backup is not text\nhelp: `rackstrap backup FILE` writes it to a file"
        );
    }
    let mut out = io::stdout().lock();
    write(config, &mut out)?;
    out.flush().context("writing to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// Writes to a temporary file, and renames it when it is verified.
fn to_file(config: &Path, wanted: Option<&Path>, force: bool) -> Result<(PathBuf, Header)> {
    let (dir, name) = match wanted {
        None => (PathBuf::new(), None),
        Some(dir) if dir.is_dir() => (dir.to_owned(), None),
        Some(file) => {
            let name = file
                .file_name()
                .with_context(|| format!("{} is not a file name", file.display()))?;
            (file.parent().unwrap_or(Path::new("")).to_owned(), Some(name.to_owned()))
        }
    };
    let place = file::Place {
        dir,
        name,
        replace: force,
    };
    file::write(&place, |out| write(config, out))
}

/// Copies a backup to `out`: from the daemon, or from the store's file if none runs. The copy is checked on its way.
fn write(config: &Path, out: &mut impl Write) -> Result<Header> {
    let client = connection::connect(config)?;
    match client.stream(api::paths::BACKUP) {
        Ok(answer) => copy(answer, out).context("backing up"),
        Err(ClientError::NoDaemon(socket)) => from_file(config, &socket, out),
        Err(error) => Err(error.into()),
    }
}

/// Reads `input` to its end as a backup, and copies the bytes to `out`.
fn copy(input: impl Read, out: &mut impl Write) -> Result<Header> {
    let tee = Tee {
        input,
        out,
        failed: None,
    };
    let mut input = BufReader::with_capacity(1 << 17, tee);
    let checked = check_from(&mut input, "backing up");
    match input.into_inner().failed {
        // The check failed because of this error.
        Some(error) => Err(error).context("writing the backup"),
        None => Ok(checked?),
    }
}

/// Copies everything that is read to `out`.
struct Tee<'a, R, W> {
    input: R,
    out: &'a mut W,
    failed: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.out.write_all(&buffer[..length]).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            io::Error::from(kind)
        })?;
        Ok(length)
    }
}

/// Makes the backup without a daemon: this process opens the store.
fn from_file(config: &Path, socket: &Path, out: &mut impl Write) -> Result<Header> {
    let store = connection::store(config)?;
    if !store.exists() {
        bail!(
            "nothing to back up: no daemon answers on {}, and the store {} does not exist\nhelp: name another site \
             file with --config FILE",
            socket.display(),
            store.display()
        );
    }
    let cluster = connection::cluster(config)?;
    let (pipe, fill) = io::pipe().context("making a pipe")?;
    let (copied, made) = thread::scope(|scope| {
        let maker = scope.spawn(|| {
            let fill = BufWriter::with_capacity(1 << 16, fill);
            Store::back_up_file(&store, &cluster, Timestamp::now(), fill)
        });
        let copied = copy(pipe, out);
        (copied, maker.join())
    });
    match made.map_err(|_| anyhow!("reading the store panicked, see above"))? {
        // The reader ended first, so its error is the cause.
        Err(BackupError::Io { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => copied,
        Err(BackupError::Store(StoreError::Locked { holder, .. })) => bail!(
            "store {}: a daemon has it open{}, but no daemon answers on {}; a daemon that is starting answers soon, \
             and one with another site file needs --config FILE\nhelp: `systemctl restart rackstrap` if it hangs",
            store.display(),
            holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
            socket.display()
        ),
        Err(error) => Err(error.into()),
        Ok(_) => copied,
    }
}

/// Content of a backup, as text or JSON.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    file: String,
    bytes: u64,
    #[serde(flatten)]
    header: &'a Header,
}

impl Shown<'_> {
    pub(super) fn new<'a>(file: &Path, header: &'a Header) -> Shown<'a> {
        Shown {
            file: file.display().to_string(),
            bytes: file.metadata().map_or(0, |meta| meta.len()),
            header,
        }
    }

    pub(super) fn print(&self, format: Format) -> Result<()> {
        if format.json {
            return output::print_json(self);
        }
        output::print(&self.text())
    }

    pub(super) fn text(&self) -> String {
        let header = self.header;
        let rows = |table, one, several| match header.count(table) {
            1 => format!("1 {one}"),
            number => format!("{number} {several}"),
        };
        let first = [
            rows(Table::Nodes, "node", "nodes"),
            rows(Table::History, "entry of history", "entries of history"),
            rows(Table::Machines, "machine", "machines"),
            rows(Table::Leases, "lease", "leases"),
        ];
        let more = [
            rows(Table::Boots, "boot", "boots"),
            rows(Table::Events, "timeline event", "timeline events"),
            rows(Table::Secrets, "secret", "secrets"),
        ];
        output::facts(&[
            (
                "backup",
                format!("{} ({})", self.file, indicatif::HumanBytes(self.bytes)),
            ),
            ("cluster", header.cluster.clone()),
            (
                "made",
                format!(
                    "{} by rackstrap {}, schema {}",
                    output::local_time(header.made),
                    header.rackstrap,
                    header.schema
                ),
            ),
            ("holds", format!("{}\n{}", first.join(", "), more.join(", "))),
        ])
    }
}
