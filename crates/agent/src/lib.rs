//! The rackstrap agent: `/init` of the initramfs, and later the reporter of the running node.
//!
//! | started as | does |
//! |---|---|
//! | PID 1 | boots: the phases of [`rackstrap_wire::Phase`], see `boot` |
//! | `agent voice` | reports that the system is up, then sends heartbeats for ever, see `reporter` |
//! | `agent -q -- NAME` | loads a module for the kernel, see `modules` |

mod boot;
mod boot_bond;
mod checks;
mod cmdline;
mod command;
mod console;
mod disk;
mod disk_health;
mod facts;
mod fail;
mod firmware;
mod guards;
mod handover;
mod hardware;
mod http;
mod image_files;
mod kernel_log;
mod login;
mod modalias;
mod modprobe;
mod modules;
mod netconsole;
mod network;
mod networks;
mod new_root;
mod overlay;
mod pstore;
mod reporter;
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
mod usage;
mod users;

/// The agent's description of the machine, for tests that compare it with other sources.
pub use hardware::describe;

/// Inspection of disks, for fuzzers.
pub use disk::{
    device::BlockDevice,
    inspect::{Finding, inspect},
    marker::{MarkerState, Record},
    wiped::was_wiped,
};

/// Readers of the kernel's messages and of crashes, for fuzzers.
pub use {kernel_log::text_of_record, pstore::around_the_panic};

/// Readers of what disks say of their health, for fuzzers.
pub use disk_health::{HealthPage, Smart, device_with_error};

/// Readers of modules' indexes and configuration, for fuzzers.
pub use {modalias::Index as ModuleIndex, modprobe::Config as ModuleConfig};

/// Runs the program.
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
        // The command stays `voice`: the unit of `templates/` is the same for the agents of all sealed images.
        ["voice", rest @ ..] if rest.iter().all(|a| *a == "--wait-for-init") => reporter::main(&arguments[1..]),
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
