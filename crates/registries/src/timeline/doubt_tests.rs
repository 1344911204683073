//! Tests of boots in doubt: the node may not have begun them itself.

use super::*;

#[test]
fn a_system_that_proves_that_it_runs_takes_its_node_back_from_a_boot_that_was_not_its_own() {
    let standing = check(
        "10 script @a => loading
         20 agent disk @a !degraded +5: no disk => agent
         30 ready @a +9: x => degraded
         40 script @b => loading
         45 heartbeat @a => loading
         50 running @a => degraded
         60 heartbeat @a => degraded
         70 kernel @b => degraded",
    );
    assert_eq!(standing.boot, "a");
    assert_eq!(standing.last_error, "agent disk: no disk", "it lacks what it lacked");
}

#[test]
fn a_boot_that_a_user_began_is_no_boot_of_its_node_until_its_agent_is_heard_of() {
    let forged = "
        100 script-client @b: boots debian@1
        101 kernel-client @b: 8 MB
        105 running @a: still runs
        110 heartbeat @a !degraded: x";
    let boots = summarise(&script(&format!("{BOOT}{forged}")));
    assert_eq!(boots.len(), 1);
    assert_eq!((boots[0].boot.as_str(), boots[0].total_ms), ("a", 48_000));
    let own = "
        100 script-client @b: boots debian@1
        104 kernel-client @b: 8 MB
        120 plan @b: debian@1
        130 ready @b: up";
    let boots = summarise(&script(&format!("{BOOT}{own}")));
    assert_eq!(boots.len(), 2);
    assert_eq!((boots[1].boot.as_str(), boots[1].total_ms), ("b", 30_000));
}

#[test]
fn what_users_and_relays_can_do_is_no_fault_of_a_node_and_no_sign_of_its_life() {
    let up = "
        30 ready @a +9: x => ready
        40 tftp-client !error: no such file => ready
        50 nfs-client !error: no => ready
        60 dhcp-client request !retry: nak => ready
        70 dhcp-first !error: no window => ready
        80 refused @a !error: somebody asked for it => ready
        90 agent-client @b !retry: waits => ready";
    let standing = check(up);
    assert_eq!((standing.last_error.as_str(), standing.heard), ("", Timestamp(30_000)));
    let starting = "
        20 agent switch-root @a +5: x => starting
        40 tftp-client !error: no such file => starting
        50 nfs-client !error: no => starting
        60 dhcp-first !error: no window => starting";
    let standing = check(starting);
    assert_eq!((standing.last_error.as_str(), standing.heard), ("", Timestamp(20_000)));
    // It may be the machine itself with another address.
    let standing = check("20 agent root @a: started => agent\n30 refused @a !error: foreign => agent");
    assert_eq!(standing.last_error, "refused: foreign");
}

#[test]
fn a_system_that_says_twice_that_it_runs_keeps_what_it_lacks() {
    let standing = check(
        "20 agent disk @a !degraded +5: no disk => agent
         30 ready @a +9: x => degraded
         40 script @b => loading
         50 running @a => degraded
         51 running @a => degraded",
    );
    assert_eq!(standing.last_error, "agent disk: no disk");
}
