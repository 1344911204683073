//! The texts of orders, and properties of an order's life.

use super::*;
use proptest::prelude::*;

#[test]
fn what_a_node_boots_once_reads_back_from_its_text() {
    for text in [
        "rescue",
        "shell",
        "local",
        "memtest",
        "script:flash.ipxe.j2",
        "image=debian@2",
    ] {
        let what: OnceBoot = text.parse().unwrap();
        assert_eq!(what.to_string(), text);
        let json = serde_json::to_value(&what).unwrap();
        assert_eq!(
            (json.as_str(), serde_json::from_value(json.clone()).unwrap()),
            (Some(text), what)
        );
    }
    for text in [
        "",
        "Rescue",
        "image",
        "image=",
        "image=debian",
        "image=debian@0x",
        "script:",
        "script:flash",
        "script:flash.ipxe",
        "script:../flash.ipxe.j2",
        "script:a/b.ipxe.j2",
        "script:.ipxe.j2",
        "script:a b.grub.j2",
        "disk",
    ] {
        let error = text.parse::<OnceBoot>().unwrap_err();
        assert!(
            error.to_string().contains("write rescue, shell, local"),
            "{text}: {error}"
        );
    }
    assert!(
        format!("script:{}.ipxe.j2", "x".repeat(99))
            .parse::<OnceBoot>()
            .is_err()
    );
    // A text of a store or a client is shown on terminals.
    let error = "\u{1b}[2J\nrescue".parse::<OnceBoot>().unwrap_err().to_string();
    assert!(!error.contains('\u{1b}') && !error.contains('\n'), "{error}");
}

#[test]
fn what_a_loader_cannot_do_is_refused_by_name() {
    use ScriptLanguage::{Grub, Ipxe, Pxelinux, RaspberryPi};
    let refused = |text: &str, language, locked| text.parse::<OnceBoot>().unwrap().refused_by(language, locked);
    for text in ["rescue", "shell", "image=debian@2"] {
        for language in [Ipxe, Grub, Pxelinux, RaspberryPi] {
            assert_eq!(refused(text, language, true), None, "{text}");
        }
    }
    for (text, language, locked, says) in [
        ("memtest", Grub, true, "memtest: Secure Boot is on"),
        ("memtest", RaspberryPi, false, "memtest: the firmware of a Raspberry Pi"),
        ("local", RaspberryPi, false, "local: the firmware of a Raspberry Pi"),
        (
            "script:a.ipxe.j2",
            Grub,
            false,
            "script:a.ipxe.j2: GRUB reads files that end with .grub.j2",
        ),
        (
            "script:a.grub.j2",
            RaspberryPi,
            false,
            "script:a.grub.j2: the firmware of a Raspberry Pi",
        ),
    ] {
        let said = refused(text, language, locked).unwrap();
        assert!(said.starts_with(says), "{said}");
    }
    assert_eq!(refused("memtest", Grub, false), None);
    assert_eq!(refused("local", Pxelinux, true), None);
    assert_eq!(refused("script:a.grub.j2", Grub, true), None);
}

#[test]
fn a_shell_replaces_the_arguments_of_init_and_keeps_those_of_the_kernel() {
    let shell = |usual: &str| OnceBoot::Shell.kernel_args(usual);
    assert_eq!(shell(""), "-- /usr/lib/rackstrap/rescue");
    assert_eq!(shell("quiet a=b"), "quiet a=b -- /usr/lib/rackstrap/rescue");
    assert_eq!(shell("quiet -- single"), "quiet -- /usr/lib/rackstrap/rescue");
    assert_eq!(shell("-- single"), "-- /usr/lib/rackstrap/rescue");
    assert_eq!(shell("a=--"), "a=-- -- /usr/lib/rackstrap/rescue");
    assert_eq!(OnceBoot::Local.kernel_args("quiet -- single"), "quiet -- single");
}

#[test]
fn rows_of_orders_keep_their_fields() {
    let order = BootOrder::new(7, OnceBoot::Memtest, "root", Timestamp(5));
    let row = serde_json::json!({"id": 7, "what": "memtest", "by": "root", "at": 5});
    assert_eq!(serde_json::to_value(&order).unwrap(), row);
    assert_eq!(serde_json::from_value::<BootOrder>(row).unwrap(), order);
    assert_eq!(order.describe(), "memtest, by root: at its next boot");
}

#[derive(Clone, Debug)]
enum Step {
    Give(OnceBoot),
    Cancel,
    /// A loader asks for its script so many seconds later.
    Script {
        failed: bool,
        later: u64,
    },
    /// The agent of the boot that has the newest script has the node's files.
    Files,
}

fn whats() -> impl Strategy<Value = OnceBoot> {
    let all = [
        "rescue",
        "shell",
        "local",
        "memtest",
        "script:a.ipxe.j2",
        "image=debian@2",
    ];
    prop::sample::select(all.map(|text| text.parse::<OnceBoot>().unwrap()).to_vec())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        1 => whats().prop_map(Step::Give),
        1 => Just(Step::Cancel),
        6 => (any::<bool>(), 0_u64..1200).prop_map(|(failed, later)| Step::Script { failed, later }),
        2 => Just(Step::Files),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever happens, an order is carried out by the attempts of one boot: none after its agent has the files, none after half an hour,
    /// none after it was taken back, and none by a loader without agent that starts again.
    #[test]
    fn an_order_is_carried_out_by_one_boot(steps in steps()) {
        let (mut order, mut now, mut next) = (None::<BootOrder>, Timestamp(1_000_000), 0);
        // The order of the boot that has the newest script, and all orders that may not be carried out any more.
        let (mut booting, mut over, mut first) = (None::<Once>, Vec::new(), None::<Timestamp>);
        for step in steps {
            match step {
                Step::Give(what) => {
                    next += 1;
                    over.extend(order.replace(BootOrder::new(next, what, "root", now)).map(|order| order.id));
                    first = None;
                }
                Step::Cancel => over.extend(order.take().map(|order| order.id)),
                Step::Script { failed, later } => {
                    now = now.plus_secs(later);
                    let before = booting.take();
                    let Some(known) = &mut order else { continue };
                    match known.at_script(failed, now) {
                        AtScript::Begins => {
                            prop_assert_eq!(known.used, None);
                            known.used = Some(now);
                            first = Some(now);
                            booting = Some(known.once());
                        }
                        AtScript::Again => {
                            let since = now.since(first.unwrap());
                            prop_assert!(since < IN_USE_SECS * 1000);
                            prop_assert!(known.what.has_agent() || failed);
                            prop_assert!(before.is_none_or(|before| before.id == known.id));
                            booting = Some(known.once());
                        }
                        AtScript::Over => {
                            prop_assert!(known.used.is_some());
                            over.extend(order.take().map(|order| order.id));
                        }
                    }
                    if let Some(once) = &booting {
                        prop_assert!(!over.contains(&once.id), "{} was over", once.id);
                    }
                }
                Step::Files => {
                    if order.as_ref().is_some_and(|order| order.is_ended_by(booting.as_ref())) {
                        over.extend(order.take().map(|order| order.id));
                    }
                }
            }
        }
    }
}
