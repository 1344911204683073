//! A user of the server, whose address is not a node's: such a user names any card in a request, and changes no machine by it.

use super::{Lab, PATIENCE, as_nobody, tftp};
use crate::netns::http::fetch;
use anyhow::{Context, ensure};
use serde_json::Value;
use testbed::{Namespace, Result, Site, timeline::poll};

const WAITING: &str = "52:54:00:00:09:09";

/// A lab that remembers 16 machines, the least that a site file can say.
fn lab() -> Result<Lab> {
    Lab::with(Site {
        unknown_machines: Some(16),
        ..Site::demo()
    })
}

/// The script of iPXE, asked for by a user of `from`.
fn asks(from: &Namespace, query: &str) -> Result<String> {
    as_nobody(from, || {
        let stream = std::net::TcpStream::connect_timeout(&super::address("10.5.0.1:80"), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = format!("GET /ipxe?mac={query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let said = super::talk(stream, request.as_bytes())?;
        ensure!(super::status_of(&said) == Some(200), "{query}: {said}");
        Ok(said)
    })
}

fn row(lab: &Lab) -> Result<Option<Value>> {
    let list = lab.cluster.daemon.json(&["discover", "list"])?;
    let mut rows = list["machines"].as_array().cloned().unwrap_or_default();
    rows.retain(|row| row["machine"]["hwaddr"] == WAITING);
    Ok(rows.pop())
}

#[test]
fn a_user_of_the_server_changes_nothing_that_is_known_of_a_waiting_machine() -> Result {
    let lab = lab()?;
    let server = &lab.cluster.namespace;
    let uuid = lab.node.player.machine.uuid;
    let before = poll(PATIENCE, || row(&lab))?.context("the machine waits")?;
    assert_eq!(before["machine"]["uuid"], Value::Null, "{before}");

    let forged = format!("{WAITING}&uuid={uuid}&serial=FORGED&vendor=FORGED&product=FORGED");
    let screen = asks(server, &forged)?;
    assert!(!screen.contains("token"), "{screen}");
    // The machine itself reports. Reports are processed in order, so that the forged one would be by then.
    let own = "6b010203-0405-4607-8809-0a0b0c0d0909";
    let url = format!("http://10.5.0.1/ipxe?mac={WAITING}&uuid={own}&serial=REAL-1&product=Pro%E2%80%AE9000");
    let (status, _, screen) = fetch(&lab.stranger, &url, &[])?;
    assert!(status == 200 && screen.contains("waiting to be racked"), "{screen}");
    let reported = poll(PATIENCE, || {
        Ok(row(&lab)?.filter(|row| row["machine"]["serial"] == "REAL-1"))
    })?;
    let reported = reported.with_context(|| format!("{:?}", row(&lab)))?;
    let text = reported.to_string();
    assert!(!text.contains("FORGED") && !text.contains(&uuid.to_string()), "{text}");
    assert_eq!(reported["machine"]["uuid"], own, "{text}");
    // Its texts do not reverse or hide a row of the list.
    assert!(reported["machine"]["product"] == "Pro 9000", "{text}");
    let list = lab.cluster.daemon.cli(&["discover", "list"])?;
    assert!(!list.contains('\u{202e}') && list.contains("REAL-1"), "{list}");
    // The node's identity is not advised for it.
    assert_eq!(
        (reported["trouble"].as_str(), reported["contradiction"].as_str()),
        (Some(""), Some(""))
    );

    // Nor does a request that names a node's card reach the node's timeline.
    let name_of_node = lab.node.mac.clone();
    for more in ["", "&failed=kernel", "&serial=FORGED"] {
        let screen = asks(server, &format!("{name_of_node}{more}"))?;
        assert!(!screen.contains("token"), "{screen}");
    }
    let timeline = lab.cluster.daemon.cli(&["timeline", "r01n01"])?;
    assert!(
        !timeline.contains("dhcp-first") && !timeline.contains("FORGED"),
        "{timeline}"
    );
    lab.cluster.daemon.stop()
}

#[test]
fn a_user_of_the_server_deletes_no_timeline_of_a_waiting_machine() -> Result {
    let lab = lab()?;
    let server = &lab.cluster.namespace;
    let timeline = |card: &str| lab.cluster.daemon.cli(&["timeline", card]);
    let has = |text: &str| text.contains("dhcp") && text.contains("ack 10.5.255.");
    poll(PATIENCE, || Ok(has(&timeline(WAITING)?).then_some(())))?.context("the machine's DHCP")?;
    for n in 0..40 {
        asks(server, &format!("52:54:00:ee:00:{n:02x}"))?;
        asks(
            server,
            &format!("52:54:00:ee:01:{n:02x}&serial=x&uuid=6b010203-0405-4607-8809-0a0b0c0d{n:04x}"),
        )?;
        as_nobody(server, || {
            tftp(&format!("pxelinux.cfg/01-52-54-00-ee-02-{n:02x}"))?;
            tftp(&format!("grub/script/mac-52-54-00-ee-03-{n:02x}"))?;
            Ok(())
        })?;
    }
    let kept = timeline(WAITING)?;
    assert!(has(&kept), "{kept}");
    let list = lab.cluster.daemon.cli(&["discover", "list", "--all"])?;
    assert!(list.contains(WAITING) && !list.contains("52:54:00:ee"), "{list}");
    lab.cluster.daemon.stop()
}
