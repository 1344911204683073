//! `esp` in `[layout.NAME]`.

use super::*;
use rackstrap_wire::{FileSystem, Size};

fn with(lines: &str) -> String {
    format!(
        "{SMALL}[layout.scratch]\nversion = 1\n{lines}\n[[layout.scratch.partition]]\nname = \"tmp\"\nsize = \"rest\"\nfs = \"ext4\"\n\
         mount = \"/tmp\"\n[profile.default]\nlayout = \"scratch\"\n"
    )
}

#[test]
fn an_efi_system_partition_is_the_first_one_and_has_a_digest_of_its_own() {
    let without = site(&with("")).layouts["scratch"].clone();
    assert!(!without.esp && without.esp_size().is_none());
    let policy = site(&with("esp = \"16MiB\"")).layouts["scratch"].clone();
    assert_eq!((policy.esp, policy.esp_size()), (true, Some(16 << 20)));
    let [esp, tmp] = &policy.layout.partitions[..] else {
        panic!("{:?}", policy.layout.partitions)
    };
    assert_eq!(
        (esp.name.as_str(), esp.size, esp.fs),
        ("esp", Size::Bytes(16 << 20), FileSystem::Raw)
    );
    assert_eq!(tmp, &without.layout.partitions[0]);
    // Under the same version, a raw partition of an administrator that looks alike must not be taken for rackstrap's.
    let raw = "[[layout.scratch.partition]]\nname = \"esp\"\nsize = \"16MiB\"\nfs = \"raw\"";
    let raw = site(&with(raw)).layouts["scratch"].clone();
    assert_eq!(raw.layout, policy.layout);
    let digests = [&without, &policy, &raw].map(|policy| policy.digest.as_str());
    assert!(digests[0] != digests[1] && digests[1] != digests[2], "{digests:?}");
}

#[test]
fn wrong_sizes_are_refused() {
    for (lines, part) in [
        (
            "esp = \"rest\"",
            "write whole MiB, at most 1GiB, such as esp = \"16MiB\"",
        ),
        ("esp = \"2GiB\"", "is not the size of an EFI system partition"),
        ("esp = \"0MiB\"", "is not the size of an EFI system partition"),
        ("esp = 16", "esp = \"16MiB\""),
        ("esp = true", "esp = \"16MiB\""),
        (
            "esp = \"16MiB\"\ntable = \"mbr\"",
            "write table = \"gpt\", or remove 'esp'",
        ),
        (
            "esp = \"16MiB\"\n[[layout.scratch.partition]]\nname = \"esp\"\nsize = \"16MiB\"\nfs = \"raw\"",
            "the one of 'esp' is called so",
        ),
    ] {
        let said = said(&with(lines));
        assert!(said.contains(part), "{lines}: {said}");
    }
}
