//! Nodes of a rollout that boot by an order for one boot meanwhile.

use super::*;

/// A node in a boot by `order`, which is up or not.
fn by_order(order: &str, up: bool) -> Observed {
    Observed {
        problem: match up {
            true => format!("runs {order}, by the order of root"),
            false => String::new(),
        },
        ordered: order.to_owned(),
        ..seen(up)
    }
}

#[test]
fn a_boot_by_an_order_is_neither_a_failure_nor_a_success_in_any_state() {
    let mut wish = wish(&["n01", "n02", "n03", "n04"]);
    wish.soak_secs = 300;
    let mut rollout = begin(&wish);
    let mut all = audience(4);
    comes_up(&mut rollout, "n01", 1);
    comes_up(&mut rollout, "n02", 1);
    assert!(rollout.boots("n03", "n03-1", at(1)));
    // One soaks and goes into rescue, one soaks and tests its memory, one boots the version, and one waits for it.
    for (node, observed) in [
        ("n01", by_order("rescue", true)),
        ("n02", by_order("memtest", false)),
        (
            "n03",
            Observed {
                stalled: "agent: was not heard of".into(),
                ..by_order("image=debian@4", false)
            },
        ),
        (
            "n04",
            Observed {
                image: Some(image("debian@4")),
                opened: at(1),
                stalled: "kernel".into(),
                ..by_order("image=debian@4", false)
            },
        ),
    ] {
        all.insert(node.into(), observed);
    }
    let before: Vec<State> = rollout.nodes.values().map(|member| member.state.clone()).collect();
    assert_eq!(tick(&mut rollout, &all, at(2)), ["n01", "n02", "n03", "n04"]);
    for minute in [3, 60, 600] {
        assert_eq!(
            tick(&mut rollout, &all, at(minute)),
            [""; 0],
            "it is written each second"
        );
    }
    let after: Vec<State> = rollout.nodes.values().map(|member| member.state.clone()).collect();
    assert_eq!(before, after);
    assert!(!rollout.nodes.values().any(|member| member.proven));
    assert_eq!(
        rollout.waits_for(at(600)),
        "waits for a first node to be ready on it; does not wait for n[01-04]: an order for one boot"
    );

    // The times start again after the order: no node is late at once, and the soak time begins again.
    for (_, observed) in all.iter_mut() {
        *observed = UP;
    }
    assert_eq!(tick(&mut rollout, &all, at(601)), ["n01", "n02", "n03", "n04"]);
    assert_eq!(rollout.waits_for(at(601)), "waits for n[01-04]");
    tick(&mut rollout, &all, at(605));
    assert!(!rollout.nodes["n01"].proven);
    tick(&mut rollout, &all, at(606));
    assert!(rollout.nodes["n01"].proven && rollout.nodes["n02"].proven);
    tick(&mut rollout, &all, at(612));
    assert_eq!(state(&rollout, "n03").why(), "not ready within 600 s (1 boots)");
    assert_eq!(*state(&rollout, "n04"), State::Waiting);
}

#[test]
fn a_batch_does_not_wait_for_an_order_and_a_shell_is_no_fault_from_before() {
    let mut all = audience(3);
    all.insert("n02".into(), by_order("shell", true));
    let mut rollout = Rollout::begin(&wish(&["n01"]), 1, &image("debian@3"), |_| &ANY_UP, "tests", at(0));
    let pace = Pace {
        batch: Some(Share::Nodes(1)),
        ..Pace::default()
    };
    rollout.promote(&pace, "tests", at(0)).unwrap();
    comes_up(&mut rollout, "n01", 1);
    tick(&mut rollout, &all, at(1));
    assert_eq!(rollout.last_batch, 1);
    assert!(!rollout.nodes["n02"].was_degraded);
    tick(&mut rollout, &all, at(2));
    assert_eq!(given(&rollout), "n01 n02 n03", "the next batch waited for a shell");
    comes_up(&mut rollout, "n03", 3);
    tick(&mut rollout, &all, at(3));
    assert_eq!(rollout.stage, Stage::Done);
    assert_eq!(*state(&rollout, "n02"), State::Waiting, "a shell is no success");
}

#[test]
fn rows_of_older_releases_have_no_order() {
    let member = Member::new(0, &by_order("rescue", true), at(1));
    let mut row = serde_json::to_value(&member).unwrap();
    assert_eq!(row["ordered"], "rescue");
    row.as_object_mut().unwrap().remove("ordered");
    assert_eq!(serde_json::from_value::<Member>(row).unwrap().ordered, "");
}
