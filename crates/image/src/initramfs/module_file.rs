//! Reads module files, plain or compressed, and the firmware that they name.

use super::elf;
use std::io::{self, Read};

/// Largest uncompressed module (the largest one of Debian, amdgpu, has 12 MiB).
const LARGEST: u64 = 64 << 20;

/// Memory limit for unpacking an .xz file; the dictionary of `xz -9` is 64 MiB.
const XZ_MEMORY: u64 = 128 << 20;

/// Uncompressed content of a module file. Its first bytes tell the compression.
pub fn decompress(file: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match file.as_slice() {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(file.as_slice())
            .take(LARGEST + 1)
            .read_to_end(&mut plain)?,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, xz2::stream::CONCATENATED)?;
            xz2::read::XzDecoder::new_stream(file.as_slice(), stream)
                .take(LARGEST + 1)
                .read_to_end(&mut plain)?
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd::stream::read::Decoder::new(file.as_slice())?
            .take(LARGEST + 1)
            .read_to_end(&mut plain)?,
        _ => {
            plain = file;
            plain.len()
        }
    };
    if plain.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("larger than {LARGEST} bytes uncompressed")));
    }
    Ok(plain)
}

/// Firmware files that a module requests (`firmware=` in its .modinfo section, see MODULE_FIRMWARE in linux/module.h).
pub fn firmware(module: &[u8]) -> Vec<String> {
    let info = elf::section(module, b".modinfo").unwrap_or_default();
    info.split(|b| *b == 0)
        .filter_map(|line| line.strip_prefix(b"firmware="))
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| {
            !name.is_empty() && !name.starts_with('/') && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_compression_is_undone() {
        let plain = b"\x7fELF module".repeat(1000);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gz.write_all(&plain).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&plain).unwrap();
        for packed in [
            plain.clone(),
            gz.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::encode_all(plain.as_slice(), 3).unwrap(),
        ] {
            assert_eq!(decompress(packed.clone()).unwrap(), plain);
            if packed.len() < plain.len() {
                assert!(decompress(packed[..packed.len() / 2].to_vec()).is_err());
            }
        }
    }

    #[test]
    fn bombs_are_refused() {
        let bomb = zstd::encode_all(std::io::repeat(0).take(LARGEST + 1), 1).unwrap();
        assert!(bomb.len() < 1 << 20);
        assert!(decompress(bomb).unwrap_err().to_string().contains("larger"));
    }
}
