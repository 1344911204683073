use super::*;
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Record> {
    ("[a-z0-9-]{1,16}", any::<u32>(), any::<[u8; 16]>(), any::<bool>()).prop_map(|(name, version, digest, gpt)| {
        Record {
            name,
            version,
            digest,
            table: if gpt { PartitionTable::Gpt } else { PartitionTable::Mbr },
        }
    })
}

fn state() -> impl Strategy<Value = MarkerState> {
    prop_oneof![Just(MarkerState::InProgress), Just(MarkerState::Final)]
}

proptest! {
    #[test]
    fn records_and_sectors_read_back(record in record(), state in state(), entries: [[u8; 16]; 3], signature: [u8; 4]) {
        prop_assert_eq!(decode_record(&encode_record(&record, state)), Some((record.clone(), state)));
        let sector = encode_sector0(&record, state, &entries, signature);
        prop_assert_eq!(entries_of(&sector), entries);
        prop_assert_eq!(disk_signature_of(&sector), signature);
        prop_assert_eq!(decode_sector0(&sector), Sector0::Ours(Some(record), state));
    }

    #[test]
    fn a_changed_byte_is_noticed(record in record(), state in state(), at in 0usize..512, bit in 0u8..8) {
        let mut sector = encode_sector0(&record, state, &[[7; 16]; 3], [1, 2, 3, 4]);
        sector[at] ^= 1 << bit;
        let found = decode_sector0(&sector);
        let covered = (RECORD_AT..RECORD_AT + RECORD_LEN).contains(&at) || (TABLE_AT..512).contains(&at);
        if covered {
            prop_assert_ne!(found, Sector0::Ours(Some(record), state));
        } else {
            // Other programs may rewrite boot code and disk signature, and the disk is still ours.
            prop_assert_eq!(found, Sector0::Ours(Some(record), state));
        }
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode_record(&bytes);
        let _ = decode_sector0(&bytes);
    }
}

/// Disks in the field have this format: these exact bytes must stay readable.
#[test]
fn the_format_is_fixed() {
    let record = Record {
        name: "scratch".into(),
        version: 1,
        digest: *b"0123456789abcdef",
        table: PartitionTable::Gpt,
    };
    let sector = encode_sector0(&record, MarkerState::Final, &[[0; 16]; 3], [0xaa; 4]);
    let text = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(
        (
            text(&sector[RECORD_AT..][..RECORD_LEN]).as_str(),
            text(&sector[494..]).as_str()
        ),
        (RECORD_BYTES, ENTRY_BYTES)
    );
}

const RECORD_BYTES: &str = "524b53545241503173637261746368000000000000000000010000003031323334353637383961626364656601460000000000000000000000000000a43dcf4c";
const ENTRY_BYTES: &str = "00524b5300014655b00f2bcc0000000055aa";

#[test]
fn linux_does_not_take_the_entry_for_a_partition() {
    // block/partitions/msdos.c: the boot flag must be 0 or 0x80, or the whole table is refused; an entry
    // without sectors is skipped.
    let entry = encode_entry(u32::MAX, MarkerState::Final);
    assert_eq!((entry[0], entry[4], &entry[12..]), (0, 0, &[0; 4][..]));
}

#[test]
fn an_in_progress_sector_with_a_damaged_record_is_still_ours() {
    let record = Record {
        name: "a".into(),
        version: 2,
        digest: [0; 16],
        table: PartitionTable::Mbr,
    };
    let mut sector = encode_sector0(&record, MarkerState::InProgress, &[[0; 16]; 3], [0; 4]);
    sector[RECORD_AT + 3] ^= 1;
    assert_eq!(decode_sector0(&sector), Sector0::Ours(None, MarkerState::InProgress));
    let mut sector = encode_sector0(&record, MarkerState::Final, &[[0; 16]; 3], [0; 4]);
    sector[TABLE_AT] = 0x80;
    assert_eq!(decode_sector0(&sector), Sector0::Changed);
}

#[test]
fn the_partition_name_fits_gpt() {
    let record = Record {
        name: "0123456789abcdef".into(),
        version: u32::MAX,
        digest: [0; 16],
        table: PartitionTable::Gpt,
    };
    assert_eq!(partition_name(&record).len(), 36);
}
