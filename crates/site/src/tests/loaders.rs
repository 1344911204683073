//! `[loader.NAME]`: what it means, and its diagnostics.

use super::*;

#[test]
fn loaders_are_read_in_their_order_with_all_their_conditions() {
    let site = site(&format!(
        "{SMALL}\n[loader.secure]\nfile = \"/usr/lib/shim/shimx64.efi.signed\"\narch = [\"x86_64-efi\", 0x10, 9]\n\
         profiles = [\"gpu\"]\n[loader.arm]\nfile = \"./arm64-efi/snponly.efi\"\narch = [11, \"arm64-efi-http\"]\n\
         vendor-class = \"PXEClient:Arch:00011\"\n[profile.gpu]\n"
    ));
    let [secure, arm] = site.loaders.as_slice() else {
        panic!("{:?}", site.loaders);
    };
    assert_eq!(
        (secure.name.as_str(), secure.archs.as_slice()),
        ("secure", &[7, 9, 16][..])
    );
    assert_eq!(secure.file, LoaderFile::Path("/usr/lib/shim/shimx64.efi.signed".into()));
    assert_eq!(secure.served(), "loader.secure/shimx64.efi.signed");
    assert_eq!(secure.profiles, Some(vec!["gpu".to_owned()]));
    assert_eq!(arm.served(), "arm64-efi/snponly.efi");
    assert_eq!((arm.archs.as_slice(), arm.profiles.is_none()), (&[11, 19][..], true));
    assert_eq!(arm.vendor_class, "PXEClient:Arch:00011");
}

#[test]
fn says_what_is_wrong_with_loaders() {
    let long = format!("[loader.a]\nfile = \"{}\"\narch = [7]\n", "x".repeat(128));
    let all = messages(&[
        ("", "[loader]\nfile = \"x\"\n"),
        ("", "loader = 3\n"),
        ("", "[loader.a]\nfiles = \"x\"\narchs = [7]\n"),
        ("", "[loader.\"a b\"]\nfile = \"x\"\narch = [7]\n"),
        ("", "[loader.a]\nfile = \"x.efi\"\n"),
        ("", "[loader.a]\nfile = \"x.efi\"\narch = []\nprofiles = []\n"),
        (
            "",
            "[loader.a]\nfile = \"../x.efi\"\narch = [\"x86_64-eif\", \"uefi-x64\", \"quantum\", \"7\"]\n",
        ),
        ("", "[loader.a]\nfile = \"/\"\narch = [70000, -1, 0x10, 7.5, true]\n"),
        ("", "[loader.a]\nfile = \"x y.efi\"\narch = \"bios\"\n"),
        ("", "[loader.a]\nfile = \"dir/\"\narch = \"bois\"\n"),
        ("", &long),
        (
            "",
            "[loader.a]\nfile = \"x.efi\"\nvendor-class = \"\"\nprofiles = [\"defualt\", \"gpu\"]\n",
        ),
        // The same architecture, once by name and once by number.
        (
            "",
            "[loader.a]\nfile = \"x.efi\"\narch = [\"x86_64-efi\"]\n[loader.b]\nfile = \"y.efi\"\narch = [9, 11]\n",
        ),
        (
            "",
            "[loader.a]\nfile = \"x\"\nvendor-class = \"PXE\"\nprofiles = [\"gpu\", \"big\"]\n[loader.b]\nfile = \"y\"\n\
             vendor-class = \"PXE\"\nprofiles = [\"big\"]\n[profile.gpu]\n[profile.big]\n",
        ),
    ]);
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(all) });
}

#[test]
fn one_of_two_loaders_may_be_more_particular() {
    for (a, b) in [
        ("arch = [7]", "arch = [9]"),
        ("arch = [7]", "arch = [7]\nprofiles = [\"gpu\"]"),
        ("arch = [7]", "arch = [7]\nvendor-class = \"PXEClient\""),
        ("arch = [7]", "vendor-class = \"PXEClient\""),
        (
            "arch = [7]\nvendor-class = \"PXEClient:Arch:00007\"",
            "arch = [7]\nvendor-class = \"PXEClient\"",
        ),
        (
            "arch = [7]\nprofiles = [\"gpu\"]",
            "arch = [7]\nprofiles = [\"default\"]",
        ),
    ] {
        let text = format!("{SMALL}\n[loader.a]\nfile = \"x\"\n{a}\n[loader.b]\nfile = \"y\"\n{b}\n[profile.gpu]\n");
        assert_eq!(said(&text), "ok", "{a} and {b}");
    }
}
