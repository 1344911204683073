//! `rackstrap image`: import, list, show.

use crate::{
    clock::Timestamp,
    image::{ImageVersion, ImportRequest, InitKind, OciOptions, Progress, Step, import, load_catalog, show_bytes},
};
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use rackstrap_wire::ImageRef;
use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// `rackstrap image …`
#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

impl ImageArgs {
    /// True if the command makes versions that a running daemon has to hear of.
    pub fn changes(&self) -> bool {
        matches!(self.command, ImageCommand::Import(_))
    }
}

#[derive(Subcommand, Debug)]
enum ImageCommand {
    /// Make a root tree the next version of an image, with its kernel and initramfs
    #[command(after_help = "\
Examples:
  rackstrap image import debian --from /srv/debian-root
  rackstrap image import debian --from root.tar.zst --message 'with the new driver'
  rackstrap image import debian --from images/debian.toml      (built by mmdebstrap)
  rackstrap image import debian --from docker://registry.example:5000/cluster/node:12
  rackstrap image import debian --from oci-archive:node.tar    (docker save, buildah push, skopeo copy)
  rackstrap image import debian --from oci:/srv/node:12        (a layout in a directory, one of its images)")]
    Import(ImportArgs),
    /// List all versions of all images
    #[command(after_help = "\
Example:
  rackstrap image list")]
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a version, or the newest one of an image
    #[command(after_help = "\
Examples:
  rackstrap image show debian
  rackstrap image show debian@1")]
    Show {
        /// NAME or NAME@VERSION
        image: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
struct ImportArgs {
    /// Name of the image; the version is the next number
    name: String,
    /// A root directory, a tar archive (plain, gzip, xz, zstd), a recipe for mmdebstrap (.toml), or a container image:
    /// docker://REGISTRY/REPOSITORY[:TAG|@DIGEST], oci-archive:FILE[:TAG], oci:DIR[:TAG]
    #[arg(long, value_name = "DIR|TAR|RECIPE|IMAGE")]
    from: PathBuf,
    /// Which variant of a container image, such as linux/arm64 [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// User and password for the registry, in a file like Docker's [default: $DOCKER_CONFIG/config.json, else
    /// ~/.docker/config.json]
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Talk with the registry by plain HTTP if it has no TLS; on this machine itself that is always allowed
    #[arg(long)]
    insecure: bool,
    /// The agent's binary [default: rackstrap-agent beside this program, else in /usr/lib/rackstrap]
    #[arg(long, value_name = "PATH")]
    agent: Option<PathBuf>,
    /// A remark, kept with the version
    #[arg(long, short, default_value = "")]
    message: String,
    /// Kernel to boot, by its release [default: the newest one in the tree]
    #[arg(long, value_name = "RELEASE")]
    kernel: Option<String>,
    /// A module that the initramfs needs in addition; may be repeated
    #[arg(long = "module", value_name = "NAME")]
    modules: Vec<String>,
}

/// Runs the command on the images below `state_dir`.
pub fn run(args: ImageArgs, state_dir: &Path) -> Result<()> {
    let images = state_dir.join("images");
    let text = match args.command {
        ImageCommand::Import(args) => run_import(args, images)?,
        ImageCommand::List { json } => list(&images, json)?,
        ImageCommand::Show { image, json } => show(&images, &image, json)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // `rackstrap image list | head`
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to standard output"),
    }
}

fn run_import(args: ImportArgs, images_dir: PathBuf) -> Result<String> {
    let agent = match args.agent {
        Some(agent) => agent,
        None => find_agent()?,
    };
    let mut progress = Shown::new();
    let request = ImportRequest {
        images_dir,
        name: args.name,
        source: args.from,
        oci: OciOptions {
            platform: args.platform,
            credentials: args.credentials,
            insecure: args.insecure,
        },
        agent,
        message: args.message,
        kernel: args.kernel,
        modules: args.modules,
        now: Timestamp::now(),
    };
    let begun = Instant::now();
    let image = import(&request, &mut progress);
    progress.end();
    let image = image.with_context(|| format!("importing {} as {}", request.source.display(), request.name))?;
    let (catalog, _) = load_catalog(&request.images_dir);
    let version = catalog
        .get(&image)
        .with_context(|| format!("reading {image} after it was made"))?;
    let manifest = &version.manifest;
    Ok(format!(
        "{image}: {} files, {}, kernel {}, initramfs {}, in {:.1} s\n",
        manifest.files,
        show_bytes(manifest.bytes),
        manifest.kernel_release,
        show_bytes(size_of(version, "initramfs")),
        begun.elapsed().as_secs_f64(),
    ))
}

fn find_agent() -> Result<PathBuf> {
    let me = std::env::current_exe().context("finding this program's own place")?;
    let places = [
        me.with_file_name("rackstrap-agent"),
        "/usr/lib/rackstrap/rackstrap-agent".into(),
    ];
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "there is no agent at {} or {}; name it with --agent",
            places[0].display(),
            places[1].display()
        ),
    }
}

fn size_of(version: &ImageVersion, part: &str) -> u64 {
    std::fs::metadata(version.dir.join(part)).map_or(0, |data| data.len())
}

fn warn_of(problems: &[crate::image::Problem]) {
    for problem in problems {
        eprintln!("warning: {problem}");
    }
}

fn list(images: &Path, json: bool) -> Result<String> {
    let (catalog, problems) = load_catalog(images);
    warn_of(&problems);
    if json {
        let all: Vec<_> = catalog.iter().map(|version| as_json(version)).collect();
        return Ok(serde_json::to_string_pretty(&all)? + "\n");
    }
    if catalog.iter().next().is_none() {
        return Ok(format!(
            "no images in {}; make one with `rackstrap image import NAME --from DIR`\n",
            images.display()
        ));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["IMAGE", "CREATED", "OS", "KERNEL", "FILES", "SIZE", "MESSAGE"]);
    for version in catalog.iter() {
        let m = &version.manifest;
        table.add_row([
            m.image.to_string(),
            show_time(m.created),
            m.os.clone(),
            m.kernel_release.clone(),
            m.files.to_string(),
            show_bytes(m.bytes),
            m.message.clone(),
        ]);
    }
    for column in [4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    Ok(lines(&table))
}

fn show(images: &Path, image: &str, json: bool) -> Result<String> {
    let (catalog, problems) = load_catalog(images);
    warn_of(&problems);
    let found = match image.contains('@') {
        true => catalog.get(&image.parse::<ImageRef>()?),
        false => catalog.newest(image),
    };
    let Some(version) = found else {
        let known: Vec<String> = catalog.iter().map(|v| v.manifest.image.to_string()).collect();
        match known.is_empty() {
            true => bail!("there is no image {image}; no image was imported yet"),
            false => bail!("there is no image {image}; there are {}", known.join(", ")),
        }
    };
    if json {
        return Ok(serde_json::to_string_pretty(&as_json(version))? + "\n");
    }
    let m = &version.manifest;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let init = match m.init {
        InitKind::Systemd => "systemd",
        InitKind::Other => "other than systemd",
    };
    for (field, value) in [
        ("image", m.image.to_string()),
        ("created", show_time(m.created)),
        ("from", m.source.clone()),
        ("message", m.message.clone()),
        ("os", m.os.clone()),
        (
            "kernel",
            format!(
                "{} ({}, {})",
                m.kernel_release,
                m.arch,
                show_bytes(size_of(version, "kernel"))
            ),
        ),
        ("initramfs", show_bytes(size_of(version, "initramfs"))),
        ("init", init.to_owned()),
        ("files", m.files.to_string()),
        ("size", show_bytes(m.bytes)),
        ("directory", version.dir.display().to_string()),
    ] {
        if !value.is_empty() {
            table.add_row([field.to_owned(), value]);
        }
    }
    Ok(lines(&table))
}

/// A table's lines without the blanks at their ends.
fn lines(table: &Table) -> String {
    table
        .to_string()
        .lines()
        .map(|line| line.trim_end().trim_start().to_owned() + "\n")
        .collect()
}

fn show_time(time: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(time.0 as i64) {
        Ok(time) => time
            .to_zoned(jiff::tz::TimeZone::system())
            .strftime("%Y-%m-%d %H:%M")
            .to_string(),
        Err(_) => "?".to_owned(),
    }
}

fn as_json(version: &ImageVersion) -> serde_json::Value {
    let m = &version.manifest;
    serde_json::json!({
        "image": m.image,
        "name": m.image.name,
        "version": m.image.version,
        "created_ms": m.created,
        "source": m.source,
        "message": m.message,
        "os": m.os,
        "kernel_release": m.kernel_release,
        "arch": m.arch,
        "init": m.init,
        "files": m.files,
        "bytes": m.bytes,
        "kernel_bytes": size_of(version, "kernel"),
        "initramfs_bytes": size_of(version, "initramfs"),
        "directory": version.dir,
    })
}

/// Shows progress on standard error: a moving line on a terminal, one line a step otherwise.
struct Shown {
    bar: Option<ProgressBar>,
    step: Option<(Step, Instant)>,
    files: u64,
    bytes: u64,
    notes: Vec<String>,
}

impl Shown {
    fn new() -> Self {
        Shown {
            bar: std::io::stderr().is_terminal().then(ProgressBar::new_spinner),
            step: None,
            files: 0,
            bytes: 0,
            notes: Vec::new(),
        }
    }

    fn finish_step(&mut self) {
        let Some((step, begun)) = self.step.take() else { return };
        let what = match (self.files, self.bytes) {
            (0, 0) => String::new(),
            (files, bytes) => format!(": {files} files, {}", show_bytes(bytes)),
        };
        let line = format!("{}{what}, {:.1} s", step.as_str(), begun.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn end(&mut self) {
        self.finish_step();
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        for note in self.notes.drain(..) {
            eprintln!("note: {note}");
        }
    }
}

impl Progress for Shown {
    fn begin(&mut self, step: Step, bytes: Option<u64>) {
        self.finish_step();
        self.step = Some((step, Instant::now()));
        (self.files, self.bytes) = (0, 0);
        let Some(bar) = &self.bar else { return };
        let template = match bytes {
            Some(_) => "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} {msg} {eta}",
            None => "{spinner} {prefix} {elapsed} {wide_msg}",
        };
        // The templates are constants; should one be wrong, the default serves.
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        match bytes {
            Some(bytes) => bar.set_length(bytes),
            None => bar.unset_length(),
        }
        bar.set_position(0);
        bar.set_prefix(step.as_str());
        bar.set_message("");
        bar.enable_steady_tick(Duration::from_millis(120));
    }

    fn advance(&mut self, files: u64, bytes: u64) {
        self.files += files;
        self.bytes += bytes;
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            if files > 0 && self.files.is_multiple_of(64) {
                bar.set_message(format!("{} files", self.files));
            }
        }
    }

    fn doing(&mut self, line: &str) {
        if let Some(bar) = &self.bar {
            let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
            bar.set_message(line);
        }
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        for number in 1..=2 {
            let dir = state.path().join(format!("images/debian/{number}"));
            std::fs::create_dir_all(dir.join("root")).unwrap();
            std::fs::write(dir.join("kernel"), "kernel").unwrap();
            std::fs::write(dir.join("initramfs"), "initramfs").unwrap();
            let text = format!(
                "image = 'debian@{number}'\ncreated = 1700000000000\nsource = '/x'\nmessage = 'try {number}'\n\
                 kernel-release = '6.1.0-40-amd64'\narch = 'x86_64'\ninit = 'systemd'\nfiles = 12400\n\
                 bytes = 389021696\nos = 'Debian GNU/Linux 12 (bookworm)'\n"
            );
            std::fs::write(dir.join("manifest.toml"), text).unwrap();
        }
        state
    }

    #[test]
    fn lists_and_shows() {
        let state = state();
        let images = state.path().join("images");
        let text = list(&images, false).unwrap();
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows.len(), 3, "{text}");
        assert!(
            rows[0].starts_with("IMAGE") && rows[2].starts_with("debian@2"),
            "{text}"
        );
        assert!(rows[1].contains("371.0 MiB") && rows[1].ends_with("try 1"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&list(&images, true).unwrap()).unwrap();
        assert_eq!(json[1]["image"], "debian@2");
        assert_eq!(json[1]["initramfs_bytes"], 9);
        let text = show(&images, "debian", false).unwrap();
        assert!(
            text.contains("debian@2") && text.contains("systemd") && text.contains("/images/debian/2"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&show(&images, "debian@1", true).unwrap()).unwrap();
        assert_eq!(json["message"], "try 1");
    }

    #[test]
    fn says_what_there_is_instead() {
        let state = state();
        let images = state.path().join("images");
        let error = show(&images, "debian@3", false).unwrap_err().to_string();
        assert_eq!(error, "there is no image debian@3; there are debian@1, debian@2");
        assert!(
            show(&images, "debian@x", false)
                .unwrap_err()
                .to_string()
                .contains("NAME@VERSION")
        );
        let none = tempfile::tempdir().unwrap();
        assert!(list(none.path(), false).unwrap().contains("image import"));
        assert!(
            show(none.path(), "x", false)
                .unwrap_err()
                .to_string()
                .contains("no image was imported")
        );
    }

    #[test]
    fn the_command_line_is_sound() {
        let command = ImageArgs::augment_args(clap::Command::new("image"));
        command.clone().debug_assert();
        let parsed = command.try_get_matches_from([
            "image", "import", "debian", "--from", "/x", "--module", "a", "--module", "b",
        ]);
        assert!(parsed.is_ok());
    }
}
