//! Any bytes as a backup: refused with a reason, or read to its end within its bounds.

use rackstrap_store::backup::Reader;

/// More rows than a file of the fuzzer's size announces honestly.
const MOST: u64 = 1 << 20;

/// True if it is a whole backup.
pub fn run(input: &[u8]) -> bool {
    let mut reader = match Reader::new(input) {
        Ok(reader) => reader,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let announced = reader.header().total();
    let mut rows = 0;
    loop {
        match reader.next_row() {
            Ok(Some(_)) => rows += 1,
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return false;
            }
        }
        if rows > MOST {
            return false;
        }
    }
    assert_eq!(rows, announced, "the header counts the rows");
    true
}
