//! Tests of backups: read back, cut, altered, newer, hostile.

use super::*;
use crate::SCHEMA;
use proptest::prelude::*;
use std::io::Write as _;

type Rows = Vec<(Table, Vec<u8>, Vec<u8>)>;

fn header(rows: &Rows) -> Header {
    let mut counts = BTreeMap::new();
    for (table, ..) in rows {
        *counts.entry(table.name().to_owned()).or_default() += 1;
    }
    Header {
        schema: SCHEMA,
        cluster: "lab".into(),
        made: Timestamp(1_795_269_787_123),
        rackstrap: "0.1.0".into(),
        rows: counts,
    }
}

fn written(header: &Header, rows: &Rows) -> Result<Vec<u8>, BackupError> {
    let mut writer = Writer::new(Vec::new(), header)?;
    for (table, key, value) in rows {
        writer.row(Row {
            table: *table,
            key,
            value,
        })?;
    }
    writer.finish()
}

fn read(bytes: &[u8]) -> Result<(Header, Rows), BackupError> {
    let mut reader = Reader::new(bytes)?;
    let mut rows = Rows::new();
    while let Some(row) = reader.next_row()? {
        rows.push((row.table, row.key.to_vec(), row.value.to_vec()));
    }
    assert!(reader.next_row()?.is_none(), "more rows follow the end");
    Ok((reader.header().clone(), rows))
}

/// A backup with these lines, valid or not.
fn forged(head: &str, lines: &[u8]) -> Vec<u8> {
    let mut bytes = frame(head.as_bytes());
    bytes.extend(zstd::encode_all(lines, LEVEL).unwrap());
    let digest = blake3::hash(&bytes);
    bytes.extend(trailer(&digest));
    bytes
}

fn head(rows: &str) -> String {
    format!(
        "{MAGIC}{FORMAT}\n{{\"schema\":{SCHEMA},\"cluster\":\"lab\",\"made\":\"2026-11-21T14:03:07Z\",\"rackstrap\":\"0.1.0\",\"rows\":{{{rows}}}}}\n"
    )
}

fn small() -> Rows {
    let row = |table, key: &[u8], value: &str| (table, key.to_vec(), value.as_bytes().to_vec());
    vec![
        row(Table::Nodes, b"r01n01", r#"{"name":"r01n01"}"#),
        row(Table::Nodes, b"r01n02", r#"{"name":"r01n02","x":"\t\n\u0000"}"#),
        row(Table::Leases, &[10, 5, 255, 1], r#"{"hwaddr":"52:54:00:00:00:01"}"#),
        row(Table::Meta, b"schema", &SCHEMA.to_string()),
    ]
}

fn any_rows() -> impl Strategy<Value = Rows> {
    let key = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        "[a-z0-9x/ \t]{0,6}".prop_map(String::into_bytes),
        "0x[0-9a-fA-F]{0,4}".prop_map(String::into_bytes),
    ];
    let value = prop_oneof![
        any::<Option<i64>>().prop_map(|v| serde_json::to_vec(&v).unwrap()),
        any::<String>().prop_map(|v| serde_json::to_vec(&v).unwrap()),
        prop::collection::btree_map(any::<String>(), any::<f64>(), 0..4).prop_map(|v| serde_json::to_vec(&v).unwrap()),
    ];
    prop::collection::btree_map((0..Table::ALL.len(), key), value, 0..40).prop_map(|rows| {
        rows.into_iter()
            .map(|((table, key), value)| (Table::ALL[table], key, value))
            .collect()
    })
}

proptest! {
    #[test]
    fn a_written_backup_is_read_back(rows in any_rows()) {
        let header = header(&rows);
        let bytes = written(&header, &rows).unwrap();
        let (found, again) = read(&bytes).unwrap();
        prop_assert_eq!(found, header);
        prop_assert_eq!(again, rows);
    }

    #[test]
    fn reading_any_bytes_ends(bytes in prop::collection::vec(any::<u8>(), 0..300), lines in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes).is_err());
        let _ = read(&forged(&head("\"nodes\":2"), &lines));
        let _ = read(&forged(&String::from_utf8_lossy(&lines), b""));
    }
}

#[test]
fn a_cut_at_every_byte_is_refused() {
    let bytes = written(&header(&small()), &small()).unwrap();
    for length in 0..bytes.len() {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(
            matches!(error, BackupError::Cut),
            "cut at {length} of {}: {error}",
            bytes.len()
        );
    }
    let more = [&bytes[..], b"x"].concat();
    assert!(read(&more).unwrap_err().to_string().contains("follows its end"));
    let twice = [&bytes[..], &bytes].concat();
    assert!(read(&twice).is_err());
}

#[test]
fn an_altered_byte_is_refused_wherever_it_is() {
    let bytes = written(&header(&small()), &small()).unwrap();
    assert!(read(&bytes).is_ok());
    for at in 0..bytes.len() {
        for change in [1u8, 0x10, 0x80, 0xff] {
            let mut altered = bytes.clone();
            altered[at] ^= change;
            assert!(read(&altered).is_err(), "byte {at} of {} ^ {change:#x}", bytes.len());
        }
    }
}

#[test]
fn newer_backups_and_other_files_are_reported() {
    let bytes = written(&header(&small()), &small()).unwrap();
    let said = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
    let text = String::from_utf8_lossy(&bytes[8..40]).into_owned();
    assert!(text.starts_with("rackstrap-backup 1\n{\"schema\":"), "{text}");
    let newer = said(&forged(&head("").replace("backup 1", "backup 7"), b""));
    assert!(
        newer.contains("format is version 7") && newer.contains("up to 1;"),
        "{newer}"
    );
    // This also holds if this release cannot read the header.
    let newer = said(&forged("rackstrap-backup 12\nwhatever", b""));
    assert!(newer.contains("format is version 12"), "{newer}");
    let schema = format!("\"schema\":{}", SCHEMA + 3);
    let newer = said(&forged(
        &head("").replace(&format!("\"schema\":{SCHEMA}"), &schema),
        b"",
    ));
    assert!(
        newer.contains(&format!("schema version {} (made by rackstrap 0.1.0)", SCHEMA + 3))
            && newer.contains(&format!("up to {SCHEMA}")),
        "{newer}"
    );
    for foreign in [
        &b"#!/bin/sh\necho 1\n"[..],
        b"\x28\xb5\x2f\xfd123456",
        &frame(b"something else"),
        &[0; 5000],
    ] {
        let said = said(foreign);
        assert!(said.contains("not a backup of rackstrap"), "{said}");
    }
}

#[test]
fn malformed_rows_are_refused() {
    let good = b"nodes\tr01n01\t{}\nleases\t0x0a05ff01\t{}\n";
    let counts = "\"nodes\":1,\"leases\":1";
    assert_eq!(read(&forged(&head(counts), good)).unwrap().1.len(), 2);
    for (counts, lines, why) in [
        (counts, &b"nodes\tr01n01\t{}\n"[..], "leases does not have as many"),
        (counts, b"leases\t0x0a05ff01\t{}\n", "nodes does not have as many"),
        (
            "\"nodes\":1",
            b"nodes\ta\t1\nnodes\tb\t2\n",
            "nodes does not have as many",
        ),
        ("\"nodes\":0", b"nodes\ta\t1\n", "nodes does not have as many"),
        (
            "\"nodes\":2",
            b"nodes\tb\t1\nnodes\ta\t2\n",
            "nodes a: it is out of order",
        ),
        ("\"nodes\":2", b"nodes\ta\t1\nnodes\ta\t2\n", "a duplicate"),
        (counts, b"leases\ta\t1\nnodes\ta\t1\n", "does not have as many"),
        (
            "\"nodes\":1,\"leases\":1,\"meta\":0",
            b"nodes\ta\t1\nleases\ta\t1\nnodes\tb\t1\n",
            "nodes is out of order",
        ),
        ("\"nodes\":1", b"nodes\ta\t{\n", "nodes a: its value is not JSON"),
        ("\"nodes\":1", b"nodes\ta\t{} {}\n", "not JSON"),
        ("\"nodes\":1", b"nodes\ta\t1", "is incomplete"),
        ("\"nodes\":1", b"nodes\ta\n", "not a table, key and value"),
        ("\"nodes\":1", b"nodes\t0x61\t1\n", "misspelt"),
        ("\"nodes\":1", b"nodes\t0xFF\t1\n", "misspelt"),
        ("\"nodes\":1", b"nodes\t0xf\t1\n", "misspelt"),
        ("\"nodes\":1", b"nodes\ta\x07\t1\n", "misspelt"),
        (
            "\"nodes\":1",
            b"no\x1b[2Jdes\ta\t1\n",
            "table 'no\\u{1b}[2Jdes' is unknown",
        ),
        ("\"secretss\":1", b"", "an unknown table"),
        ("\"nodes\":-1", b"", "misspelt"),
    ] {
        let error = read(&forged(&head(counts), lines)).unwrap_err().to_string();
        assert!(error.contains(why), "{:?}: {error}", String::from_utf8_lossy(lines));
    }
    let beeping = head("").replace("lab", "\\u0007");
    assert!(
        read(&forged(&beeping, b""))
            .unwrap_err()
            .to_string()
            .contains("impossible name")
    );
    let long = head("").replace("lab", &"x".repeat(HEADER_LIMIT));
    assert!(read(&forged(&long, b"")).is_err());
}

#[test]
fn compressed_bombs_are_refused() {
    // A line without an end: 200 MB of it compress to some kB.
    let mut packed = zstd::Encoder::new(Vec::new(), LEVEL).unwrap();
    packed.write_all(b"nodes\ta\t\"").unwrap();
    for _ in 0..200 {
        packed.write_all(&[b'x'; 1_000_000]).unwrap();
    }
    let mut bytes = frame(head("\"nodes\":1").as_bytes());
    bytes.extend(packed.finish().unwrap());
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let error = reader.next_row().unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
    // This frame needs a window of 128 MiB for decompression.
    let mut packed = zstd::Encoder::new(Vec::new(), LEVEL).unwrap();
    packed.window_log(27).unwrap();
    packed.write_all(b"nodes\ta\t1\n").unwrap();
    packed.flush().unwrap();
    packed.write_all(&[b'x'; 1_000_000]).unwrap();
    let mut bytes = frame(head("\"nodes\":1").as_bytes());
    bytes.extend(packed.finish().unwrap());
    let error = read(&bytes).unwrap_err();
    assert!(matches!(error, BackupError::Damaged(_)), "{error}");
    // More rows than in the header end the reading at once, so the header limits the work.
    assert!(
        read(&forged(
            &head("\"nodes\":1"),
            &b"nodes\ta\t1\nnodes\tb\t1\n".repeat(1_000)
        ))
        .is_err()
    );
}

#[test]
fn a_writer_refuses_rows_that_a_reader_refuses() {
    let row = |key: Vec<u8>, value: &[u8]| vec![(Table::Nodes, key, value.to_vec())];
    for rows in [
        row(vec![b'k'; KEY_LIMIT + 1], b"1"),
        row(b"a".to_vec(), b"[1,\n2]"),
        row(b"a".to_vec(), &vec![b'1'; VALUE_LIMIT + 1]),
    ] {
        let error = written(&header(&rows), &rows).unwrap_err();
        assert!(matches!(error, BackupError::Row { table: "nodes", .. }), "{error}");
    }
    let rows = small();
    let mut fewer = header(&rows);
    fewer.rows.remove("meta");
    assert!(written(&fewer, &rows).is_err());
}

#[test]
fn a_writer_passes_errors_on() {
    /// A disk with that many free bytes.
    struct Full(usize);
    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let length = bytes.len().min(self.0);
            self.0 -= length;
            Ok(length)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let rows = small();
    let whole = written(&header(&rows), &rows).unwrap().len();
    for room in 0..whole {
        let attempt = || -> Result<(), BackupError> {
            let mut writer = Writer::new(Full(room), &header(&rows))?;
            for (table, key, value) in &rows {
                writer.row(Row {
                    table: *table,
                    key,
                    value,
                })?;
            }
            writer.finish().map(drop)
        };
        let error = attempt().unwrap_err();
        assert!(
            matches!(error, BackupError::Io { what: "write", .. }),
            "{room}: {error}"
        );
    }
}
