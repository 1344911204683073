//! The parts of ELF that an image needs: machine, interpreter, one section, undefined symbols (System V ABI, "Object Files").

/// Machine of an ELF file (`e_machine`) as `uname -m` names it; none for anything else.
pub fn machine(file: &[u8]) -> Option<&'static str> {
    if file.len() < 20 || &file[..4] != b"\x7fELF" || file[5] != 1 {
        return None;
    }
    Some(match u16_at(file, 18)? {
        3 => "i686",
        40 => "armv7l",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        _ => return None,
    })
}

/// True if the file needs a dynamic loader (a PT_INTERP segment). Only 64-bit little-endian files are read.
pub fn has_interpreter(file: &[u8]) -> bool {
    let Some((offset, size, count)) = table(file, 32, 54, 56) else {
        return false;
    };
    (0..count).any(|i| u32_at(file, offset + i * size) == Some(3))
}

/// Content of the section `name` of a 64-bit little-endian file.
pub fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (offset, size, count) = table(file, 40, 58, 60)?;
    if size < 64 {
        return None;
    }
    let header = |i: usize| Some(offset + i.checked_mul(size)?);
    let content = |at: usize| {
        let start = usize::try_from(u64_at(file, at + 24)?).ok()?;
        let len = usize::try_from(u64_at(file, at + 32)?).ok()?;
        file.get(start..start.checked_add(len)?)
    };
    let names = content(header(u16_at(file, 62)? as usize)?)?;
    (0..count).find_map(|i| {
        let at = header(i)?;
        let this = names.get(u32_at(file, at)? as usize..)?;
        (this.starts_with(name) && this.get(name.len()) == Some(&0)).then(|| content(at))?
    })
}

/// Names of the symbols that a 64-bit little-endian object file uses and does not define. In a module these are the kernel functions
/// that it calls. Empty for anything else.
pub fn undefined_symbols(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    /// Bytes of an entry of the symbol table.
    const ENTRY: usize = 24;
    let symbols = section(file, b".symtab").unwrap_or_default();
    let names = section(file, b".strtab").unwrap_or_default();
    // 0 is SHN_UNDEF.
    let undefined = symbols.chunks_exact(ENTRY).filter(|entry| u16_at(entry, 6) == Some(0));
    undefined.filter_map(|entry| {
        let name = names.get(u32_at(entry, 0)? as usize..)?;
        let end = name.iter().position(|b| *b == 0)?;
        name.get(..end).filter(|name| !name.is_empty())
    })
}

/// Offset, entry size and number of entries of a header table; none unless the whole table is in the file.
fn table(file: &[u8], offset: usize, size: usize, count: usize) -> Option<(usize, usize, usize)> {
    if file.len() < 64 || &file[..4] != b"\x7fELF" || file[4] != 2 || file[5] != 1 {
        return None;
    }
    let offset = usize::try_from(u64_at(file, offset)?).ok()?;
    let (size, count) = (u16_at(file, size)? as usize, u16_at(file, count)? as usize);
    let end = offset.checked_add(size.checked_mul(count)?)?;
    (end <= file.len()).then_some((offset, size, count))
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    bytes(file, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_this_very_program() {
        let me = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(machine(&me), Some(std::env::consts::ARCH));
        assert!(has_interpreter(&me));
        assert!(!section(&me, b".text").unwrap().is_empty());
        assert_eq!(section(&me, b".modinfo"), None);
        assert_eq!(machine(b"#!/bin/sh\n# a script, not a program"), None);
    }

    proptest! {
        #[test]
        fn damaged_files_do_no_harm(at in 0usize..64, value: u8, cut in 0usize..400) {
            let mut file = vec![0; 400];
            file[..6].copy_from_slice(b"\x7fELF\x02\x01");
            file[40] = 64; // section headers at 64
            file[58] = 64;
            file[60] = 4;
            file[at] = value;
            file.truncate(cut);
            machine(&file);
            has_interpreter(&file);
            section(&file, b".modinfo");
            undefined_symbols(&file).count();
        }
    }
}
