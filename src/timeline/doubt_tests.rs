//! Boots that it is in doubt whether their node began them.

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
