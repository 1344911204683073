//! `[bmc]`, and `bmc-...` of profiles.

use super::*;

fn with(lines: &str) -> String {
    format!("{SMALL}{lines}\n")
}

#[test]
fn bmcs_have_the_addresses_of_their_pattern() {
    let text = with(
        "[bmc]\naddress = \"10.6.{rack}.{slot}\"\nuser = \"admin\"\npassword-file = \"bmc.password\"\n[profile.old]\nbmc-user = \"ADMIN\"",
    );
    let site = site(&text);
    let bmc = site.bmc.unwrap();
    let hosts = bmc.hosts.unwrap();
    assert_eq!(hosts.name_to_address("r01n03-bmc").ok(), Some([10, 6, 1, 3].into()));
    assert_eq!((bmc.user.as_str(), bmc.driver), ("admin", BmcDriver::Ipmi));
    assert_eq!(
        bmc.password_file.as_deref(),
        Some(Path::new("/etc/rackstrap/bmc.password"))
    );
    assert_eq!(site.profiles["old"].bmc_user.as_deref(), Some("ADMIN"));
    // BMCs may be in a subnet of the nodes, at addresses of their own.
    assert_eq!(said(&with("[bmc]\naddress = \"10.7.{rack}.{slot}\"")), "ok");
}

#[test]
fn addresses_that_another_host_has_are_refused() {
    let pool = "pool = \"10.8.2.1-10.8.2.9\"\n";
    for (lines, message) in [
        (
            "[bmc]\naddress = \"10.5.{rack}.{slot}\"",
            "give the BMCs addresses of their own",
        ),
        (
            "[bmc]\naddress = \"10.6.{rack}.{slot}\"\n[[network]]\nname = \"ib\"\ntype = \"infiniband\"\n\
             match = { driver = \"mlx5_core\" }\nnode-address = \"10.6.{rack}.{slot}\"\nprefix = 16",
            "give the BMCs addresses of their own",
        ),
    ] {
        let text = said(&with(lines));
        assert!(text.contains(message), "{text}");
    }
    let other = "[[subnet]]\nnetwork = \"10.8.0.0/16\"\nrelayed = true\nserver = \"10.8.1.1\"\n";
    let bmc = "[bmc]\naddress = \"10.8.{rack}.{slot}\"";
    for (more, message) in [
        ("", "r01n01-bmc would have 10.8.1.1, which is the daemon's own"),
        (
            pool,
            "r02n01-bmc would have 10.8.2.1, which is in the pool that begins with 10.8.2.1",
        ),
    ] {
        let server = if more.is_empty() {
            other.to_owned()
        } else {
            other.replace("10.8.1.1", "10.8.0.1")
        };
        let text = said(&with(&format!("{server}{more}{bmc}")));
        assert!(text.contains(message), "{text}");
    }
}

#[test]
fn wrong_values_name_the_right_form() {
    for (lines, message) in [
        ("[bmc]\ndriver = \"redfish\"", "'redfish' is not a driver of BMCs"),
        ("[bmc]\nuser = \"seventeen-letters\"", "write at most 16 letters"),
        ("[bmc]\naddres = \"x\"", "did you mean 'address'?"),
        (
            "[profile.x]\nbmc-address = \"10.6.1\"",
            "'10.6.1' is not the IPv4 address of a BMC",
        ),
        (
            "[profile.x]\nbmc-address = \"255.255.255.255\"",
            "is not the IPv4 address of a BMC",
        ),
        ("[profile.x]\nbmc-user = \"two words\"", "is not a user of a BMC"),
        (
            "[profile.x]\nbmc-password-file = \"bmc.password\"",
            "write it from the root",
        ),
    ] {
        let text = said(&with(lines));
        assert!(text.contains(message), "{lines}: {text}");
    }
    assert_eq!(said(&with("[profile.x]\nbmc-address = \"\"")), "ok");
}
