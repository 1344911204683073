//! `[server]`: where the daemon stores data and listens; and `[limits]`.

use super::{
    Limits, Server,
    diagnostic::{Report, quote},
    section::Section,
};
use std::path::{Component, Path, PathBuf};

/// Directories in which packages of iPXE put their loaders, always searched last: of Debian and Ubuntu; and of Fedora, Enterprise Linux
/// and Arch.
pub const SYSTEM_LOADER_DIRS: [&str; 2] = ["/usr/lib/ipxe", "/usr/share/ipxe"];
/// `sun_path` of `struct sockaddr_un` (unix(7)) has 108 bytes, one of them the final NUL.
const SOCKET_PATH: usize = 107;

pub(super) fn read(report: &mut Report<'_>, section: Option<&Section<'_>>, directory: &Path) -> Server {
    let mut server = Server {
        state_dir: PathBuf::from(super::DEFAULT_STATE_DIR),
        socket: PathBuf::from("/run/rackstrap/rackstrap.sock"),
        http_port: 80,
        nfs_port: 2049,
        tftp_port: 69,
        netconsole_port: 6666,
        loader_dirs: Vec::new(),
        templates_dir: None,
        bootscripts_dir: None,
        answer_router_solicitations: true,
        look_for_dhcp_servers: true,
    };
    if let Some(section) = section {
        let path = |text: &str| read_path(text, directory);
        let mut take = |key, example: &str| Some(section.parsed(report, key, example, path)?.into_inner());
        server.state_dir = take("state-dir", "\"/var/lib/rackstrap\"").unwrap_or(server.state_dir);
        server.socket = take("socket", "\"/run/rackstrap/rackstrap.sock\"").unwrap_or(server.socket);
        server.templates_dir = take("templates-dir", "\"templates\"");
        server.bootscripts_dir = take("bootscripts-dir", "\"bootscripts\"");
        if let Some(wanted) = section.boolean(report, "answer-router-solicitations") {
            server.answer_router_solicitations = wanted.into_inner();
        }
        if let Some(wanted) = section.boolean(report, "look-for-dhcp-servers") {
            server.look_for_dhcp_servers = wanted.into_inner();
        }
        let loaders = section
            .list(report, "loader-dirs", "[\"loaders\"]", path)
            .unwrap_or_default();
        server.loader_dirs = loaders.into_iter().map(|l| l.into_inner()).collect();

        let length = server.socket.as_os_str().len();
        if length > SOCKET_PATH {
            let message = format!("the socket's path is {length} bytes long, and the kernel takes {SOCKET_PATH}");
            report.error(
                section.key_at("socket"),
                message,
                "choose a shorter one, such as \"/run/rackstrap/rackstrap.sock\"",
            );
        }
        let mut port = |key, default: u16| {
            let number = section.integer(report, key, 1..=65535, default.into());
            number
                .and_then(|n| u16::try_from(n.into_inner()).ok())
                .unwrap_or(default)
        };
        server.http_port = port("http-port", server.http_port);
        server.nfs_port = port("nfs-port", server.nfs_port);
        server.tftp_port = port("tftp-port", server.tftp_port);
        let number = section.integer(report, "netconsole-port", 0..=65535, server.netconsole_port.into());
        server.netconsole_port = number
            .and_then(|n| u16::try_from(n.into_inner()).ok())
            .unwrap_or(server.netconsole_port);
        if server.http_port == server.nfs_port {
            let at = section.key_at(if section.get("nfs-port").is_some() {
                "nfs-port"
            } else {
                "http-port"
            });
            let message = format!("HTTP and NFS would both listen on TCP port {}", server.http_port);
            report.error(
                at,
                message,
                "give them different ports, such as http-port = 80 and nfs-port = 2049",
            );
        }
        if server.tftp_port != 69 && section.get("tftp-port").is_some() {
            let message = "firmware always asks for its loader on UDP port 69";
            report.warn(
                section.key_at("tftp-port"),
                message,
                "keep 69 unless another program forwards that port",
            );
        }
    }
    for system in SYSTEM_LOADER_DIRS.map(PathBuf::from) {
        if !server.loader_dirs.contains(&system) {
            server.loader_dirs.push(system);
        }
    }
    server
}

/// A path, made absolute from the site file's directory. The error is (message, help).
pub(super) fn read_path(text: &str, directory: &Path) -> Result<PathBuf, (String, String)> {
    let wrong = |what: &str, help: &str| Err((format!("{} {what}", quote(text)), help.to_owned()));
    if text.trim().is_empty() || text.len() > 4000 || text.chars().any(char::is_control) {
        return wrong(
            "is not a path",
            "write an absolute path, or one relative to the site file's directory",
        );
    }
    if text.starts_with('~') || text.contains("${") || text.starts_with('$') {
        return wrong(
            "would need a shell",
            "write the path in full: ~ and $VARIABLES are not replaced here",
        );
    }
    // `.` and `..` are resolved by name. This is wrong for a path with symbolic links before `..`, which is not supported.
    let mut path = PathBuf::new();
    for component in directory.join(text).components() {
        match component {
            Component::ParentDir if path.parent().is_some() && path.file_name().is_some() => {
                path.pop();
            }
            Component::ParentDir if path == Path::new("/") => {}
            Component::CurDir => {}
            other => path.push(other),
        }
    }
    Ok(path)
}

pub(super) fn limits(report: &mut Report<'_>, section: Option<&Section<'_>>) -> Limits {
    let mut limits = Limits {
        timeline_events: 300,
        unknown_machines: 1024,
        heartbeat_secs: 30,
        boots_before_going_back: 3,
        checks_within_secs: 120,
        check_timeout_secs: 30,
    };
    if let Some(section) = section {
        let mut number = |key, range, default: usize| {
            let number = section.integer(report, key, range, default as u64);
            number
                .and_then(|n| usize::try_from(n.into_inner()).ok())
                .unwrap_or(default)
        };
        limits.timeline_events = number("timeline-events", 20..=10_000, limits.timeline_events);
        limits.unknown_machines = number("unknown-machines", 16..=65_536, limits.unknown_machines);
        limits.heartbeat_secs = section
            .seconds(report, "heartbeat", 5..=3600, "30s")
            .unwrap_or(limits.heartbeat_secs);
        let boots = section.integer(
            report,
            "boots-before-going-back",
            0..=100,
            limits.boots_before_going_back.into(),
        );
        limits.boots_before_going_back = boots
            .and_then(|boots| u32::try_from(boots.into_inner()).ok())
            .unwrap_or(limits.boots_before_going_back);
        limits.checks_within_secs = section
            .seconds(report, "checks-within", 1..=3600, "2m")
            .unwrap_or(limits.checks_within_secs);
        limits.check_timeout_secs = section
            .seconds(report, "check-timeout", 1..=600, "30s")
            .unwrap_or(limits.check_timeout_secs);
    }
    limits
}
