//! Tests of rows on disk.

use super::*;

/// Rows of the release before the planner are read, and written with the same names.
#[test]
fn rows_of_the_release_before_are_read_and_keep_their_names() {
    let row = r#"{"number":7,"image":"debian@4","from":"debian@3","by":"root","began":5,"message":"m","stage":"subset","paused":false,
        "stopped":"","batch":"10%","pause_secs":0,"ready_within_secs":900,"max_failures":1,"soak_secs":0,"reboot":true,
        "max_down":"2","round":0,"settled":null,"ended":null,"all":9,"notes":[{"at":5,"what":"given to r01n01, by root"}],
        "tally":{"waiting":1,"booting":0,"ready":0,"failed":0,"gone_back":1}}"#;
    let rollout: Rollout = serde_json::from_str(row).unwrap();
    assert_eq!(
        (rollout.stage, rollout.last_batch, rollout.tally.rolled_back),
        (Stage::Canary, 0, 1)
    );
    assert_eq!(rollout.remarks[0].what, "given to r01n01, by root");
    let member = r#"{"state":"gone-back","why":"w","since":6,"round":2,"counts":true,"good":false,"boots":3,"boot":"b3","first":5,
        "restart":"b0","asked":4}"#;
    let member: Member = serde_json::from_str(member).unwrap();
    assert_eq!((member.state.why(), member.batch, member.boots), ("w", 2, 3));
    let asked = &member.before_planner;
    assert_eq!((asked.restart.as_str(), asked.asked), ("b0", Timestamp(4)));
    let without =
        r#"{"state":"waiting","since":6,"round":0,"counts":true,"good":true,"boots":0,"boot":"","first":null}"#;
    assert_eq!(
        serde_json::from_str::<Member>(without).unwrap().before_planner,
        AskedToRestart::default()
    );

    let written = |value: serde_json::Value, key: &str| value[key].clone();
    let row = serde_json::to_value(&rollout).unwrap();
    assert_eq!(
        (&row["stage"], &row["round"], &row["tally"]["gone_back"]),
        (&"subset".into(), &0.into(), &1.into())
    );
    assert_eq!(written(row, "notes")[0]["at"], 5);
    let row = serde_json::to_value(&member).unwrap();
    assert_eq!(
        (&row["state"], &row["good"], row.get("restart")),
        (&"gone-back".into(), &false.into(), None)
    );
}
