//! A node that a rollout is about to restart, and that boots by an order for one boot meanwhile.

use super::*;

#[test]
fn a_node_that_went_into_a_shell_is_not_restarted_for_the_rollout_and_the_next_one_gets_its_turn() {
    let mut lab = Lab::new(2, 2, 1);
    lab.plan();
    assert_eq!(["n01", "n02"].map(|node| lab.step(node)), ["draining", "waiting"]);
    lab.now = 10;
    lab.boots("n01", 1, false);
    lab.nodes.get_mut("n01").unwrap().observed.ordered = "rescue".to_owned();
    for _ in 0..2 {
        lab.assign();
        // The rollout gives a node in a boot by an order no other version.
        lab.nodes.get_mut("n01").unwrap().leaves = None;
        let plan = lab.ask();
        lab.write(&plan);
        lab.programs_end(&Ok(()));
    }
    assert!(!lab.gets_order("n01"));
    let said: Vec<&str> = (lab.records.iter())
        .filter(|record| record.node == "n01")
        .map(|record| record.text.as_str())
        .collect();
    assert!(
        said.contains(&"is not restarted: it runs an order for one boot"),
        "{said:?}"
    );
    assert_eq!(lab.rollouts[&1].nodes["n01"].state, State::Waiting);
    lab.assign();
    lab.nodes.get_mut("n01").unwrap().leaves = None;
    let plan = lab.ask();
    lab.write(&plan);
    assert_ne!(lab.step("n02"), "waiting", "the shell holds the rollout up");
}
