use super::*;
use crate::esp_image::BLOCK;
use proptest::prelude::*;

fn chain(arch: &'static str, shim: usize, grub: usize) -> Chain {
    let next = match arch {
        "x86_64" => [("grubx64.efi", 2, grub), ("mmx64.efi", 3, grub / 4)],
        _ => [("grubaa64.efi", 2, grub), ("mmaa64.efi", 3, grub / 4)],
    };
    Chain {
        arch,
        shim: vec![1; shim].into(),
        next: next
            .map(|(name, fill, size)| (name, Bytes::from(vec![fill; size])))
            .to_vec(),
    }
}

fn build(sizes: &[u64], chains: &[Chain]) -> LayoutEsps {
    let sizes = sizes.iter().map(|mib| mib * MIB).collect();
    let servers = ["10.6.0.1".parse().unwrap(), "10.5.0.1".parse().unwrap()].into();
    LayoutEsps::build(&sizes, chains, &servers)
}

/// The file at `path` of a partition that begins with `bytes`, behind which another file system was.
fn read(bytes: &[u8], size: u64, path: &str) -> io::Result<Vec<u8>> {
    let mut disk = Sparse::new(size);
    disk.bytes = bytes.to_vec();
    disk.bytes.resize(usize::try_from(size).unwrap(), 0xff);
    let volume = FileSystem::new(disk, FsOptions::new())?;
    let mut found = Vec::new();
    volume.root_dir().open_file(path)?.read_to_end(&mut found)?;
    Ok(found)
}

#[test]
fn the_partition_has_shim_grub_and_the_script_for_both_block_sizes() {
    let chains = [
        chain("x86_64", 1_048_504, 3_843_520),
        chain("aarch64", 900_001, 3_000_000),
    ];
    let all = build(&[8, 17], &chains);
    assert_eq!(all.too_small(), []);
    for size in [8 * MIB, 17 * MIB] {
        let images = all.images(size);
        assert_eq!(images.len(), 4);
        for image in images {
            let kind = format!("{}-{}", image.arch, image.sector);
            let pieces = all.pieces(size, &kind).unwrap();
            let bytes = pieces.concat();
            assert_eq!((bytes.len() as u32, crc32fast::hash(&bytes)), (image.size, image.crc));
            assert!(bytes.len().is_multiple_of(BLOCK) && image.size <= MOST_ESP_IMAGE);
            let chain = chains.iter().find(|chain| chain.arch == image.arch).unwrap();
            let boot = if image.arch == "x86_64" {
                "BOOTX64.EFI"
            } else {
                "BOOTAA64.EFI"
            };
            assert_eq!(
                read(&bytes, size, &format!("EFI/BOOT/{boot}")).unwrap(),
                chain.shim,
                "{kind}"
            );
            for (name, content) in &chain.next {
                assert_eq!(
                    read(&bytes, size, &format!("EFI/BOOT/{name}")).unwrap(),
                    *content,
                    "{name}"
                );
            }
            for path in ["grub/grub.cfg", "EFI/debian/grub.cfg"] {
                let text = String::from_utf8(read(&bytes, size, path).unwrap()).unwrap();
                assert!(text.contains("\n  for server in $2 10.5.0.1 10.6.0.1; do\n"), "{text}");
            }
            // The rest is memory of the loaders.
            let own = |piece: &&Bytes| {
                let files = || chain.next.iter().map(|(_, bytes)| bytes).chain([&chain.shim]);
                !files().any(|file| file.as_ptr() == piece.as_ptr())
            };
            let held: usize = pieces.iter().filter(own).map(Bytes::len).sum();
            assert!(held < 256 << 10, "{kind} of {size}: {held} bytes of its own");
        }
    }
    assert_eq!(all.images(9 * MIB), []);
    for kind in ["", "x86_64", "x86_64-", "x86_64-1024", "riscv64-512", "-512"] {
        assert!(all.pieces(8 * MIB, kind).is_none(), "{kind}");
    }
}

#[test]
fn a_partition_that_is_too_small_names_the_smallest_that_is_enough() {
    let chain = chain("x86_64", 1_048_504, 3_843_520);
    let all = build(&[4], std::slice::from_ref(&chain));
    assert_eq!(all.images(4 * MIB), []);
    let [small] = all.too_small() else {
        panic!("{:?}", all.too_small())
    };
    assert_eq!((small.size, small.arch), (4 * MIB, "x86_64"));
    let smallest = small.smallest.unwrap();
    assert_eq!(smallest, 6 * MIB);
    assert_eq!(build(&[smallest / MIB], std::slice::from_ref(&chain)).too_small(), []);
    let less = build(&[smallest / MIB - 1], std::slice::from_ref(&chain));
    assert_eq!(less.too_small().len(), 1);
    // More than an agent takes.
    let huge = super::tests::chain("x86_64", 1, 20 << 20);
    assert_eq!(build(&[64], &[huge]).too_small()[0].smallest, None);
}

#[test]
fn the_script_asks_on_each_card_and_equal_files_give_equal_bytes() {
    let text = script(&BTreeSet::new());
    assert!(text.contains("\n  for server in $2 ; do\n"), "{text}");
    let card = "\n  if [ -n \"$net_efinet7_dhcp_ip\" ]; then ask efinet7_dhcp $net_efinet7_dhcp_next_server; fi\n";
    assert!(text.contains(card), "{text}");
    assert!(!text.contains("CARDS") && !text.contains("SERVERS"), "{text}");
    let crcs = |shim| {
        let images = build(&[8], &[chain("x86_64", shim, 100)]).images(8 * MIB);
        images.into_iter().map(|image| image.crc).collect::<Vec<u32>>()
    };
    assert_eq!(crcs(1000), crcs(1000));
    assert_ne!(crcs(1000), crcs(1001));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever the sizes: what is made can be read again, and what is not made is called too small.
    #[test]
    fn every_size_is_made_whole_or_refused(mib in 1u64..12, shim in 0usize..700_000, grub in 0usize..700_000) {
        let chain = chain("x86_64", shim, grub);
        let all = build(&[mib], std::slice::from_ref(&chain));
        let images = all.images(mib * MIB);
        prop_assert_eq!(images.len() == 2, all.too_small().is_empty());
        for image in images {
            let pieces = all.pieces(mib * MIB, &format!("x86_64-{}", image.sector)).unwrap();
            let bytes = pieces.concat();
            prop_assert!(bytes.len() as u64 <= mib * MIB);
            prop_assert_eq!(crc32fast::hash(&bytes), image.crc);
            prop_assert!(read(&bytes, mib * MIB, "EFI/BOOT/grubx64.efi").unwrap() == chain.next[0].1);
        }
    }
}
