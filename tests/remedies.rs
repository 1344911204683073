//! Error messages: the true reason, and the command that corrects it.

use crate::{
    answers::run,
    daemon::{Daemon, packet},
};
use rackstrap_store::{Batch, Table};
use std::fs;

/// `r01n01` and `r01n02`, the first with the profile `gpu`, and a pool of one address.
fn daemon() -> Daemon {
    let daemon = Daemon::start_with(|_, text| {
        text.replace("[\"10.5.0.0/24\"]", "[\"10.5.0.0/24\", \"10.5.255.0/24\"]")
            .replace(
                "server = \"10.5.0.1\"",
                "server = \"10.5.0.1\"\npool = \"10.5.255.1-10.5.255.1\"",
            )
            + "\n[profile.gpu]\n\n[profile.wipe]\n"
    });
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01 --profile gpu");
    daemon.says("node add r01n02 --hwaddr 52:54:00:01:01:02");
    daemon
}

#[test]
fn errors_name_the_command_that_corrects_them() {
    let daemon = daemon();
    let exists = daemon.complains("node add r01n01 --hwaddr 52:54:00:01:01:01");
    assert!(exists.contains("node r01n01 already exists"), "{exists}");
    assert!(!exists.contains("rename") && !exists.contains("delete"), "{exists}");
    let last = daemon.complains("node unset r01n01 --hwaddr 52:54:00:01:01:01");
    assert!(last.contains("rackstrap node replace r01n01 --hwaddr MAC"), "{last}");
    let emptied = daemon
        .command("node edit r01n01")
        .env_remove("VISUAL")
        .env("EDITOR", "truncate -s0")
        .output();
    let emptied = String::from_utf8(emptied.unwrap().stderr).unwrap();
    assert!(
        emptied.contains("rackstrap node delete NODES") && !emptied.contains("--type"),
        "{emptied}"
    );
    let nope = daemon.complains("node set r01n01 --profile nope");
    assert!(nope.contains("; the site file has: default, gpu, wipe"), "{nope}");
    let (code, _, month) = run(&daemon, "discover start r03 --for 30days");
    assert_eq!(code, Some(2));
    assert!(month.contains("at most a week; write 7days or less"), "{month}");
    let image = daemon.complains("image delete nosuch");
    assert!(
        image.contains("nosuch is neither a working copy nor an image"),
        "{image}"
    );
    let (code, _, warned) = run(&daemon, "node set r01n01 --leave nogroup");
    assert_eq!(code, Some(0));
    assert_eq!(warned, "warning: none of these nodes has the group 'nogroup'\n");
    let two = daemon.complains("node replace r01n[01-02] --hwaddr 52:54:00:01:01:09");
    assert!(two.contains("but r01n01 and r01n02 are two; name one of them"), "{two}");
}

#[test]
fn a_disk_order_is_shown_until_it_is_cancelled_and_counts_as_no_boot() {
    let daemon = daemon();
    daemon.says("node reprep r01n01 --yes");
    for command in ["explain r01n01", "node show r01n01", "status"] {
        let said = daemon.says(command);
        // Lines are wrapped at the terminal's width.
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            said.contains("rackstrap node reprep r01n01 --cancel"),
            "{command}: {said}"
        );
    }
    let timelines = daemon.says("timeline r01n01 r01n02 --boot last");
    assert_eq!(timelines, "r01n01: never booted\n\nr01n02: never booted\n");
    let both = daemon.says("node reprep r01n[01-02] --cancel");
    assert!(
        both.contains("the order for r01n01 is cancelled, r01n02 had none"),
        "{both}"
    );
    let none = daemon.says("node reprep r01n01 --cancel");
    assert!(none.contains("there was no order to cancel"), "{none}");
    assert!(!daemon.says("explain r01n01").contains("--cancel"));
}

#[test]
fn references_that_a_new_site_file_breaks_are_warned_about() {
    let daemon = daemon();
    let text = fs::read_to_string(daemon.config()).unwrap();
    let check = |text: &str| {
        fs::write(daemon.config(), text).unwrap();
        run(&daemon, "check").1
    };
    let all = check(&text);
    assert!(!all.contains("rackstrap node unset"), "{all}");
    let without = check(&text.replace("\n[profile.gpu]\n", "\n"));
    assert!(
        without.contains("warning: profile 'gpu' of r01n01 is not in the site file"),
        "{without}"
    );
    let moved = check(&text.replace("10.5.{rack}.{slot}", "10.5.{slot}.{rack}"));
    assert!(
        moved.contains("warning: the addresses of r01n02 do not follow from their names"),
        "{moved}"
    );
}

#[test]
fn a_full_pool_promises_no_address_and_an_old_lease_is_shown_as_expired() {
    let daemon = daemon();
    let now = rackstrap_base::clock::Timestamp::now();
    let lease = |expires: u64| {
        let row = serde_json::json!({
            "ipaddr": "10.5.255.1", "hwaddr": "52:54:00:00:00:01", "uuid": null, "state": "bound", "since": 1, "expires": expires,
        });
        daemon
            .store
            .commit_blocking(Batch::new().put(Table::Leases, [10, 5, 255, 1], &row))
            .unwrap();
    };
    lease(now.0 + 600_000);
    packet(&daemon, "52:54:00:00:00:02");
    let full = daemon.says("explain 52:54:00:00:00:02");
    assert!(
        full.contains("the temporary pool 10.5.255.1-10.5.255.1 is full"),
        "{full}"
    );
    assert!(!full.contains("it gets a temporary address"), "{full}");
    assert!(
        daemon
            .says("explain 52:54:00:00:00:01")
            .contains("it gets a temporary address")
    );
    assert!(daemon.says("lease list").contains("bound"));
    lease(now.0 - 1);
    assert!(
        daemon
            .says("explain 52:54:00:00:00:02")
            .contains("it gets a temporary address")
    );
    let listed = daemon.says("lease list");
    assert!(listed.contains("expired") && !listed.contains("bound"), "{listed}");
}

#[test]
fn refusals_of_rollout_commands_name_the_next_command() {
    let daemon = Daemon::start();
    daemon.says("node add r01n01 --hwaddr 52:54:00:01:01:01");
    assert_eq!(
        daemon.says("rollout status"),
        "no rollout yet; current: -\nhelp: `rackstrap rollout start IMAGE@VERSION --nodes NODES` starts one\n"
    );
    assert_eq!(daemon.says("rollout list --json"), "[]\n");
    for (words, says) in [
        (
            "rollout start debian@4 --nodes r01n01",
            "debian@4 does not exist, nor any other version of debian; to list the versions: rackstrap image list",
        ),
        ("rollout start debian@4 --nodes r1n01", "did you mean r01n01?"),
        ("rollout promote", "no rollout is on; begin: rackstrap rollout start"),
        ("rollout status debian", "no version of debian was ever rolled out"),
        (
            "rollout retry r01n01",
            "r01n01: none of these nodes has failed on a version",
        ),
        (
            "image promote debian@1",
            "debian@1 does not exist, nor any other version of debian",
        ),
        (
            "image rollback debian",
            "image debian does not exist: no image has been imported yet",
        ),
    ] {
        let said = daemon.complains(words);
        assert!(said.contains(says), "{words}: {said}");
    }
    for words in [
        "rollout start debian --nodes r01n01",
        "rollout start debian@1",
        "rollout promote --batch 0",
        "rollout promote --batch 110%",
        "rollout start debian@1 --nodes r01n01 --soak soon",
    ] {
        assert_eq!(daemon.run(words).status.code(), Some(2), "{words}");
    }
}
