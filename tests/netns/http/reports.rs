//! Reports of agents: valid, malformed, too long, repeated, and out of order.

use super::{BASE, Lab, connect_as_agent, fetch, status_of, talk};
use serde_json::{Value, json};
use testbed::{Event, Result};

fn event(seq: u64, detail: &str) -> Value {
    json!({
        "seq": seq, "phase": "disk", "outcome": "step", "uptime_ms": 1, "took_ms": 0, "attempt": 1, "detail": detail
    })
}

/// The messages of the agent's disk phase on the timeline, in order.
fn said(lab: &Lab) -> Result<Vec<String>> {
    let timeline = lab.cluster.daemon.json(&["timeline", "r01n01"])?;
    let events: Vec<Event> = serde_json::from_value(timeline["events"].clone())?;
    let of_agent = events.into_iter().filter(|event| event.step == "agent disk");
    Ok(of_agent.map(|event| event.detail).collect())
}

#[test]
fn malformed_bodies_are_refused_with_the_reason_and_change_nothing() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let token = &node.token;
    let with = |events: &str| format!(r#"{{"token":"{token}","events":{events}}}"#);
    let good = event(1, "x").to_string();
    let bad = [
        String::new(),
        "{".into(),
        "null".into(),
        "[]".into(),
        "\u{feff}{}".into(),
        r#"{"events":[]}"#.into(),
        r#"{"token":7,"events":[]}"#.into(),
        with("{}"),
        with("[7]"),
        with("[{}]"),
        with(&format!("[{}]", good.replace("\"disk\"", "\"no such phase\""))),
        with(&format!("[{}]", good.replace("\"seq\":1", "\"seq\":-1"))),
        with(&format!("[{}]", good.replace("\"seq\":1", "\"seq\":1e99"))),
        with(&format!(
            "[{}]",
            good.replace("\"seq\":1", "\"seq\":18446744073709551616")
        )),
        with("[]") + "}",
        // More nesting than a parser's stack allows.
        with(&"[".repeat(100_000)),
        // A binary format such as postcard.
        "\u{1}\u{20}\u{0}\u{7f}".into(),
    ];
    for body in &bad {
        let (status, text) = node.post("report", body)?;
        let shown: String = body.chars().take(100).collect();
        assert!(matches!(status, 400 | 422), "{shown}: {status}: {text}");
        assert!(text.len() > 20 && text.len() < 1_000, "{shown}: {text}");
    }
    lab.expect_counted("refused-bad-body", bad.len() as u64)?;

    // Without the content type of JSON; invalid UTF-8.
    let url = format!("{BASE}/v1/report/{}", node.boot);
    let (got, _, text) = fetch(&node.namespace, &url, &["-d", &with("[]")])?;
    assert!(got == 415 && text.contains("application/json"), "{got}: {text}");
    let mut request = format!(
        "POST /v1/report/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: 64\r\n\r\n",
        node.boot
    )
    .into_bytes();
    request.extend([0xff; 64]);
    assert_eq!(
        status_of(&talk(connect_as_agent(&node.namespace)?, &request)?),
        Some(400)
    );

    let many: Vec<Value> = (1..=257).map(|seq| event(seq, "x")).collect();
    let (status, text) = node.report(&many)?;
    assert!(
        status == 400 && text.contains("at most 256 events, this one 257"),
        "{status}: {text}"
    );
    assert_eq!(said(&lab)?, [""; 0]);

    // The longest allowed body, and one byte more. curl asks (Expect: 100-continue) before it sends a body, so the longer one
    // is not sent.
    let most = 512 << 10;
    for (bytes, expected) in [(most, 204), (most + 1, 413)] {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(&file, with("[]") + &" ".repeat(bytes - with("[]").len()))?;
        let data = format!("@{}", file.path().display());
        let asking = ["-H", "Expect: 100-continue", "--expect100-timeout", "60"];
        let more = [
            &asking[..],
            &["-H", "Content-Type: application/json", "--data-binary", &data],
        ]
        .concat();
        let (status, _, text) = fetch(&node.namespace, &url, &more)?;
        assert_eq!(status, expected, "{bytes} bytes: {text}");
        assert!(status == 204 || text.contains("at most 524288 bytes"), "{text}");
    }
    // The same body in chunks, without a length.
    let head = format!(
        "POST /v1/report/{} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        node.boot
    );
    let chunk = [
        head.as_bytes(),
        format!("{:x}\r\n", most + 1).as_bytes(),
        &vec![b' '; most + 1],
    ]
    .concat();
    assert_eq!(status_of(&talk(connect_as_agent(&node.namespace)?, &chunk)?), Some(413));
    lab.expect_counted("refused-body-too-large", 2)?;
    assert_eq!(lab.counted("unavailable")?, 0);
    lab.expect_served(node)?;
    lab.cluster.daemon.stop()
}

#[test]
fn repeated_and_reordered_events_are_on_the_timeline_once() -> Result {
    let lab = Lab::start()?;
    let node = &lab.node;
    let report = |events: &[Value]| -> Result {
        let (status, text) = node.report(events)?;
        assert_eq!(status, 204, "{text}");
        Ok(())
    };
    report(&[event(1, "one"), event(2, "two")])?;
    // The answer was lost: the report is repeated with more events, in another order.
    report(&[event(4, "four"), event(1, "one"), event(2, "two"), event(3, "three")])?;
    assert_eq!(said(&lab)?, ["one", "two", "four", "three"]);
    // An event that arrives after its successors is not recorded.
    report(&[event(2, "two"), event(3, "three")])?;
    assert_eq!(said(&lab)?.len(), 4);
    // The largest number: the event is recorded, and all later ones are not. Only this boot is affected.
    report(&[event(u64::MAX, "huge")])?;
    report(&[event(u64::MAX, "huge"), event(5, "five")])?;
    assert_eq!(said(&lab)?, ["one", "two", "four", "three", "huge"]);
    // An agent that does not number its events: all are recorded, with their texts shortened and escaped.
    report(&[
        event(0, &("long ".repeat(50_000) + "end")),
        event(0, "red \u{1b}[31m\r\n\u{0}"),
    ])?;
    let said = said(&lab)?;
    assert_eq!(said.len(), 7);
    assert!(
        said[5].len() <= 500 && said[5].starts_with("long long"),
        "{}",
        said[5].len()
    );
    assert!(
        said[6].starts_with("red ") && !said[6].chars().any(char::is_control),
        "{:?}",
        said[6]
    );
    lab.expect_served(node)?;
    lab.cluster.daemon.stop()
}
