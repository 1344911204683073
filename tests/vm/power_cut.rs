//! The power is cut after each step of disk preparation, and the next boot ends with the same disk.
//!
//! `rackstrap.hold=STEP` makes the agent stop for good after that step, so the cut is exactly there. There are two tests, so that they run in
//! parallel.

use super::{GIB2, expect_scratch, shape};
use testbed::{Cluster, Result, Site};

#[test]
fn a_disk_is_prepared_after_cuts_up_to_the_first_file_system() -> Result {
    cut_after(&["in-progress", "table", "mkfs-swap"])
}

#[test]
fn a_disk_is_prepared_after_cuts_from_the_last_file_systems_to_the_final_marker() -> Result {
    cut_after(&["mkfs-tmp", "mkfs-var", "seed", "final"])
}

fn cut_after(steps: &[&str]) -> Result {
    let mut site = Site::small();
    let cluster = Cluster::start_small(site.clone())?;
    let node = cluster.node("r01n01").blank_disk(GIB2)?;
    let mut ends = Vec::new();
    for step in steps {
        let blank = testbed::Disk::blank(&cluster.dir().join(format!("{step}.raw")), GIB2)?;
        node.insert_disk(Some(blank));
        node.add()?;
        // Without this order the agent would look for the disk of the last step, and write to no other one.
        cluster.daemon.cli(&["node", "reprep", node.name(), "--new-disk"])?;
        site.default_profile().kernel_args = Some(format!("rackstrap.hold={step}"));
        cluster.daemon.reload(&site)?;
        node.power_on()?;
        node.wait_console(&format!("holding after {step}"))?;
        node.pull_plug();

        site.default_profile().kernel_args = None;
        cluster.daemon.reload(&site)?;
        node.power_on()?;
        let shown = node.wait_disk()?;
        let expected = match *step {
            "final" => "kept: scratch v1",
            _ => "prepared: half-prepared scratch v1 -> scratch v1",
        };
        assert_eq!(
            shown,
            format!("/tmp and /var on vda ({expected})"),
            "after a cut that follows {step}"
        );
        if step == steps.last().unwrap_or(&"") {
            node.wait_ready()?;
            assert_eq!(node.status("state")?, "ready");
        }
        node.pull_plug();
        ends.push(shape(&expect_scratch(&node.disk()?)?));
    }
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{ends:#?}");
    Ok(())
}
