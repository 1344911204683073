//! The rackstrap agent: `/init` of the initramfs, and later the node's voice.
//!
//! | started as | does |
//! |---|---|
//! | PID 1 | boots: the phases of [`rackstrap_wire::Phase`], see `boot` |
//! | `agent voice` | says that the system is up, then a heartbeat for ever, see `voice` |
//! | `agent -q -- NAME` | loads a module for the kernel, see `modules` |

mod boot;
mod checks;
mod cmdline;
mod command;
mod console;
mod disk;
mod facts;
mod fail;
mod handover;
mod hardware;
mod http;
mod image_files;
mod login;
mod modalias;
mod modprobe;
mod modules;
mod network;
mod new_root;
mod overlay;
mod restart;
mod retry;
mod root;
mod rtnl;
mod session;
mod sys;
#[cfg(test)]
mod testdisk;
mod timeline;
mod transport;
mod users;
mod voice;

/// What the agent tells of the machine, for whoever compares it with what others find.
pub use hardware::look;

/// What looks at disks, for whoever feeds it hostile ones.
pub use disk::{
    device::BlockDevice,
    inspect::{Finding, inspect},
    marker::{Record, State},
    wiped::was_wiped,
};

/// What reads the indexes and the configuration of modules, for whoever feeds it hostile ones.
pub use {modalias::Index as ModuleIndex, modprobe::Config as ModuleConfig};

/// The program.
pub fn main() {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    if std::process::id() == 1 {
        boot::run();
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let code = match words.as_slice() {
        ["voice", rest @ ..] if rest.iter().all(|a| *a == "--wait-for-init") => voice::main(&arguments[1..]),
        ["-q", "--", module, ..] => match modules::modprobe(module) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        ["--version"] => {
            println!("rackstrap-agent {}", env!("CARGO_PKG_VERSION"));
            0
        }
        _ => {
            eprintln!("rackstrap-agent is /init of a node's initramfs; on a running node: rackstrap-agent voice");
            2
        }
    };
    std::process::exit(code)
}
