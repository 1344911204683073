//! The script that `sh` runs instead of init in a boot by `rackstrap node boot --once rescue` or `shell`.
//!
//! It is a file of the node like any other, so that every agent can start it, also one of an image that was sealed by an older release. The
//! shell and all tools are the image's own: the initramfs has none. Of the ssh servers that were weighed, the image's own wins: it knows the
//! node's host keys and root's keys already, and nothing has to be shipped that needs updates of its own.

use crate::render::Placed;
use rackstrap_model::orders::{Once, OnceBoot, RESCUE};
use rackstrap_wire::{OverlayContent, OverlayFile};

/// The script. The mode is a variable at its beginning.
const INIT: &str = include_str!("rescue.sh");

/// The line of [`INIT`] that a boot without ssh changes.
const SSH: &str = "ssh=yes\n";

/// The file with the program for the order of a boot.
pub(super) fn init(once: &Once) -> Placed {
    let text = match once.what {
        OnceBoot::Rescue => INIT.to_owned(),
        _ => INIT.replace(SSH, "ssh=no\n"),
    };
    Placed {
        tree: "rescue".to_owned(),
        file: OverlayFile {
            path: RESCUE.to_owned(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            content: OverlayContent::Text(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn text(what: OnceBoot) -> String {
        let once = Once {
            id: 1,
            what,
            by: "root".to_owned(),
        };
        match init(&once).file.content {
            OverlayContent::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_program_is_a_script_that_a_plain_shell_reads() {
        for (what, ssh) in [(OnceBoot::Rescue, "ssh=yes\n"), (OnceBoot::Shell, "ssh=no\n")] {
            let text = text(what);
            assert!(text.starts_with("#!/bin/sh\n") && text.matches("ssh=").count() == 1 && text.contains(ssh));
            let checked = Command::new("sh").args(["-n", "-c", &text]).output().unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
