//! `mtu` and `dhcp-options` of subnets and profiles.

use super::*;

fn with(lines: &str) -> String {
    SMALL.replace("server = \"10.5.0.1\"\n", &format!("server = \"10.5.0.1\"\n{lines}\n"))
}

#[test]
fn subnets_and_profiles_have_an_mtu_and_options() {
    let text = with("mtu = 9000\ndhcp-options = [\"150 address 10.5.0.1\", \"always 224 text a\"]")
        + "\n[profile.gpu]\nmtu = 1400\ndhcp-options = [\"150 address 10.5.0.9\"]\n";
    let site = site(&text);
    let subnet = &site.subnets[0];
    assert_eq!((subnet.mtu, subnet.options.len()), (Some(9000), 2));
    let profile = &site.profiles["gpu"];
    let options = profile.dhcp_options.as_ref().unwrap();
    assert_eq!(
        (profile.mtu, options[0].to_string().as_str()),
        (Some(1400), "150 address 10.5.0.9")
    );
    let shown = |key: &str| (SETTINGS.iter().find(|setting| setting.key == key).unwrap().shown)(profile);
    assert_eq!(
        (shown("mtu"), shown("dhcp-options")),
        (Some("1400".into()), Some("150 address 10.5.0.9".into()))
    );
}

#[test]
fn what_is_wrong_is_named_at_its_place() {
    for (lines, wanted) in [
        ("mtu = 500", "mtu = 500 is out of range"),
        ("mtu = \"9000\"", "'mtu' is a whole number, not a string"),
        (
            "dhcp-options = \"150 address 10.5.0.1\"",
            "'dhcp-options' is a list, not a string",
        ),
        (
            "dhcp-options = [\"3 address 10.5.0.1\"]",
            "write router = \"…\" in [[subnet]]",
        ),
        (
            "dhcp-options = [\"150 u8 1\", \"always 150 u8 2\"]",
            "option 150 is in 'dhcp-options' twice",
        ),
        (
            "dhcp-options = [\"routes 10.6.0.0/16 via 10.7.0.2\"]",
            "the router 10.7.0.2 of a route is not in 10.5.0.0/16",
        ),
        (
            "dhcp = \"proxy\"\ndhcp-options = [\"150 u8 1\"]",
            "so 'dhcp-options' has no effect",
        ),
    ] {
        let text = said(&with(lines));
        assert!(text.contains(wanted), "{lines}: {text}");
    }
}
