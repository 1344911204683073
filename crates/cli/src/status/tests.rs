//! Tests of the table: width, folding and order.

use super::*;
use proptest::prelude::*;
use rackstrap_base::{clock::Timestamp, warnings::SiteWarning};

fn row(node: &str, state: NodeState) -> StatusRow {
    StatusRow {
        node: node.to_owned(),
        state,
        since: Some(Timestamp(1_000)),
        image: "debian@3".parse().ok(),
        ipaddr: "10.5.1.1".parse().ok(),
        disk: "/tmp on vda (kept: scratch v1)".to_owned(),
        next_disk: String::new(),
        disk_trouble: None,
        last_error: String::new(),
        heard: None,
        boot: String::new(),
        remark: String::new(),
        order: None,
        retries: api::RetryCounts::new(),
    }
}

fn answer(nodes: Vec<StatusRow>) -> api::StatusAnswer {
    api::StatusAnswer {
        cluster: "lab".to_owned(),
        now: Timestamp(200_000),
        nodes,
        ignored: 0,
        full: Vec::new(),
        warnings: Vec::new(),
    }
}

fn few() -> api::StatusAnswer {
    let mut nodes: Vec<StatusRow> = (1..=3).map(|n| row(&format!("r01n{n:02}"), NodeState::Ready)).collect();
    let reason = "vda holds an ext4 file system that rackstrap did not write; /tmp is in RAM";
    nodes[1].state = NodeState::Degraded;
    nodes[1].disk = format!("vda (degraded: {reason}); unused: vdb 2.1 GB (blank)");
    nodes[1].disk_trouble = Some(DiskTrouble {
        problem: rackstrap_wire::DiskProblem::Foreign,
        device: "vda".to_owned(),
        layout: String::new(),
        further: false,
    });
    nodes[1].last_error = format!("agent disk: {reason}");
    nodes[2].state = NodeState::Stalled;
    nodes[2].last_error =
        "tftp: fetched snponly.efi, then nothing more; does its firmware enforce Secure Boot? (32 min 0 s ago)"
            .to_owned();
    nodes.push(row("52:54:00:00:00:99", NodeState::Waiting));
    let mut answer = answer(nodes);
    answer.warnings.push(SiteWarning {
        fatal: false,
        topic: "dhcp".to_owned(),
        message: "another DHCP server answers: 10.5.0.9".to_owned(),
        help: "switch it off".to_owned(),
        since: Timestamp(0),
        last: Timestamp(0),
    });
    answer
}

fn at(columns: usize) -> Look {
    Look {
        columns: Some(columns),
        ..Look::default()
    }
}

#[test]
fn a_node_has_one_line_that_fits_the_terminal() {
    for columns in [80, 100, 200] {
        let text = describe(&few(), "", at(columns));
        let table: Vec<&str> = text.lines().skip_while(|line| !line.is_empty()).skip(1).collect();
        assert_eq!(table.len(), 5, "a head and four rows: {text}");
        assert!(text.lines().all(|line| line.width() <= columns), "{text}");
        assert!(
            text.matches("rackstrap did not write").count() <= 1,
            "the reason once: {text}"
        );
        insta::with_settings!({snapshot_suffix => columns.to_string()}, { insta::assert_snapshot!(text) });
    }
}

#[test]
fn wide_lines_have_all_and_the_reason_once() {
    let look = Look { wide: true, ..at(80) };
    let text = describe(&few(), "", look);
    assert_eq!(text.matches("rackstrap did not write").count(), 1, "{text}");
    assert!(
        text.contains("  vda (degraded); unused: vdb 2.1 GB (blank)  "),
        "{text}"
    );
    assert!(text.contains("Secure Boot? (32 min 0 s ago)"), "{text}");
}

#[test]
fn equal_rows_of_many_nodes_share_a_line() {
    let mut nodes: Vec<StatusRow> = (1..=60)
        .map(|n| row(&format!("r01n{n:02}"), NodeState::Ready))
        .collect();
    nodes[30].state = NodeState::Lost;
    nodes[59].since = Some(Timestamp(199_000));
    let all = answer(nodes);
    let text = describe(&all, "", at(80));
    insta::assert_snapshot!(text, @r"
    60 nodes: 59 ready, 1 lost

    NODE               STATE  SINCE  IMAGE     NOTE
    r01n[01-30,32-60]  ready   1 s+  debian@3  /tmp on vda (kept: scratch v1)
    r01n31             lost   3 min  debian@3  /tmp on vda (kept: scratch v1)
    ");
    let worst = Look {
        sort: Sort::Worst,
        ..at(80)
    };
    let text = describe(&all, "", worst);
    assert!(text.lines().nth(3).unwrap().starts_with("r01n31"), "{text}");
    let each = Look { wide: true, ..at(80) };
    assert_eq!(describe(&all, "", each).lines().count(), 63);
}

#[test]
fn rows_that_do_not_fit_are_counted_and_problems_come_first() {
    let mut nodes: Vec<StatusRow> = (1..=40)
        .map(|n| row(&format!("r01n{n:02}"), NodeState::Ready))
        .collect();
    nodes[30].state = NodeState::Lost;
    // Each has its own text, so that no nodes share a line.
    for (number, row) in nodes.iter_mut().enumerate() {
        row.last_error = format!("{number} {}", "x".repeat(300));
    }
    nodes.push(row("52:54:00:00:00:99", NodeState::Waiting));
    let all = answer(nodes);
    let within = |rows| {
        describe(
            &all,
            "",
            Look {
                rows: Some(rows),
                ..at(80)
            },
        )
    };
    let text = within(11);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 11, "{text}");
    assert_eq!(
        lines[1],
        "1 unknown machine waits: rackstrap discover accept 52:54:00:00:00:99 NAME"
    );
    assert!(
        lines[4].starts_with("r01n31") && lines[5].starts_with("52:54:00:00:00:99"),
        "{text}"
    );
    assert_eq!(lines[10], "... and 35 more: rackstrap status");
    assert_eq!(within(45).lines().count(), 45, "all of them, with head and sum");
    assert!(!within(45).contains("more:"));
    assert!(within(0).contains("and 40 more"), "a terminal of no height");
}

#[test]
fn a_remark_stands_before_the_disk_and_its_nodes_fold_apart() {
    let mut nodes = vec![row("r01n01", NodeState::Ready)];
    nodes[0].remark = "SELinux permissive".to_owned();
    for look in [
        at(100),
        Look::default(),
        Look {
            wide: true,
            ..Look::default()
        },
    ] {
        let shown = describe(&answer(nodes.clone()), "", look);
        assert!(
            shown.contains("SELinux permissive; /tmp on vda (kept: scratch v1)"),
            "{shown}"
        );
    }
    let mut many: Vec<StatusRow> = (1..=50)
        .map(|n| row(&format!("r01n{n:02}"), NodeState::Ready))
        .collect();
    many[49].remark = "SELinux permissive".to_owned();
    let shown = describe(&answer(many), "", Look::default());
    assert!(shown.contains("r01n[01-49]") && shown.contains("r01n50"), "{shown}");
}

#[test]
fn each_loss_of_data_is_shown_once_with_its_nodes() {
    let mut nodes: Vec<StatusRow> = (1..=9).map(|n| row(&format!("r01n{n:02}"), NodeState::Ready)).collect();
    for (number, row) in nodes.iter_mut().enumerate() {
        // Four have the same on their disks, and each of the rest something else.
        let used = number.saturating_sub(3);
        row.next_disk =
            format!("the next boot prepares the disk for layout scratch v2 and loses scratch v1: /tmp {used} GB used");
    }
    let text = describe(&answer(nodes), "", Look::default());
    let said: Vec<&str> = text.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(said.len(), 5, "{text}");
    assert_eq!(
        said[0],
        "warning: r01n[01-04]: the next boot prepares the disk for layout scratch v2 and loses scratch v1: /tmp 0 GB used"
    );
    assert_eq!(
        said[4],
        "warning: also the disks of r01n[08-09]: rackstrap explain NODE"
    );
}

fn wide(number: usize, text: &str, state: usize) -> StatusRow {
    let mut row = row(
        &format!("{text}-r01n{number:02}"),
        NodeState::OF_NODES[state % NodeState::OF_NODES.len()],
    );
    row.image = format!(
        "debian-13-with-a-long-name-for-the-nodes-of-the-institute@{}",
        1000 + number
    )
    .parse()
    .ok();
    row.last_error = format!(
        "agent disk: {text} {}",
        "vda holds an ext4 file system ".repeat(number % 7)
    );
    row.next_disk = format!("the next boot prepares the disk for layout {text} v2 and loses what is there now");
    row.since = Some(Timestamp(200_000_u64.saturating_sub(number as u64 * 70_000)));
    row
}

#[test]
fn names_have_the_room_that_the_rest_leaves() {
    let ready = |rack: usize, slot: usize| row(&format!("r{rack:02}n{slot:02}"), NodeState::Ready);
    // Every second node of ten racks, so that the list is long; the remaining ones are absent.
    let nodes: Vec<StatusRow> = (1..=10)
        .flat_map(|rack| (1..=9).map(move |slot| (rack, slot)))
        .map(|(rack, slot)| match slot % 2 == rack % 2 {
            true => row(&format!("r{rack:02}n{slot:02}"), NodeState::Absent),
            false => ready(rack, slot),
        })
        .collect();
    for columns in [80, 100, 200] {
        let text = describe(&answer(nodes.clone()), "", at(columns));
        let widest = text.lines().map(UnicodeWidthStr::width).max().unwrap_or(0);
        assert!(
            widest <= columns && widest + 2 >= columns.min(130),
            "{columns}: {widest}\n{text}"
        );
        let cut = text.lines().filter(|line| line.contains("...")).count();
        assert_eq!(cut, if columns == 200 { 0 } else { 2 }, "{text}");
    }
}

#[test]
fn long_names_and_many_states_fit_too() {
    let mut nodes: Vec<StatusRow> = (0..16)
        .map(|n| wide(n, "a-very-long-host-name-of-the-chemistry-lab", n))
        .collect();
    nodes.push(row("52:54:00:00:00:99", NodeState::Waiting));
    let mut answer = answer(nodes);
    answer.ignored = 12;
    for columns in [80, 100] {
        let text = describe(&answer, "", at(columns));
        assert!(text.lines().all(|line| line.width() <= columns), "{text}");
        insta::with_settings!({snapshot_suffix => columns.to_string()}, { insta::assert_snapshot!(text) });
    }
}

proptest! {
    #[test]
    fn no_line_is_wider_than_the_terminal(
        texts in prop::collection::vec("[a-z0-9\\[\\],-]{1,63}|[ -~\u{a1}-\u{17f}\u{4e00}-\u{4fff}]{0,40}", 1..60),
        columns in 50_usize..160,
        rows in prop::option::of(0_usize..60),
        sort in any::<bool>(),
    ) {
        let nodes = texts.iter().enumerate().map(|(n, text)| wide(n, text, n / 5 + n % 3));
        let mut answer = answer(nodes.collect());
        answer.nodes.push(row("52:54:00:00:00:99", NodeState::Waiting));
        answer.warnings.push(SiteWarning {
            fatal: false,
            topic: "dhcp".to_owned(),
            message: texts.join(" "),
            help: texts.join(""),
            since: Timestamp(0),
            last: Timestamp(0),
        });
        let look = Look {
            columns: Some(columns),
            rows,
            sort: if sort { Sort::Worst } else { Sort::default() },
            wide: false,
        };
        let text = describe(&answer, "", look);
        for line in text.lines() {
            prop_assert!(line.width() <= columns, "{} columns: {line}\n{text}", line.width());
        }
    }
}

#[test]
fn retries_are_one_line_for_each_step_and_a_node_that_came_up_at_once_is_not_named() {
    let mut answer = few();
    answer.nodes[2].retries = [("kernel".to_owned(), 3), ("dhcp".to_owned(), 1)].into();
    let mut other = row("r01n04", NodeState::Loading);
    other.retries = [("kernel".to_owned(), 9)].into();
    answer.nodes.push(other);
    // One retry of a node that is up is usual.
    answer.nodes[0].retries = [("dhcp".to_owned(), 1)].into();
    answer.nodes[1].retries = [("plan".to_owned(), 5)].into();
    let lines: Vec<String> = beside(&answer)
        .into_iter()
        .filter(|line| line.contains("retried"))
        .collect();
    assert_eq!(
        lines,
        [
            "r01n03 retried 4 times: kernel 3, dhcp 1: rackstrap timeline r01n03",
            "r01n02 retried 5 times: plan, and came up: rackstrap timeline r01n02",
            "r01n04 retried 9 times: kernel: rackstrap timeline r01n04",
        ]
    );
}
