//! The archive format of an initramfs: cpio "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The output is reproducible: inode numbers count up, owners are root, times are zero.

use rustix::fs::FileType;
use std::io::{self, Write};

/// Writes a newc archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    written: u64,
    entries: u32,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub fn new(out: W) -> Self {
        Writer {
            out,
            written: 0,
            entries: 0,
        }
    }

    /// Uncompressed bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes a directory; parents must come before their content.
    pub fn dir(&mut self, path: &str, mode: u32) -> io::Result<()> {
        self.entry(path, FileType::Directory, mode, (0, 0), &[])
    }

    /// Writes a regular file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, FileType::RegularFile, mode, (0, 0), content)
    }

    /// Writes a character device.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, FileType::CharacterDevice, mode, (major, minor), &[])
    }

    fn entry(&mut self, path: &str, kind: FileType, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        self.entries += 1;
        let links = if kind == FileType::Directory { 2 } else { 1 };
        let mode = kind.as_raw_mode() | (mode & 0o7777);
        self.raw(path, mode, links, device, content)
    }

    fn raw(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        // The kernel reads at most PATH_MAX bytes of a name (init/initramfs.c).
        if path.len() >= 4096 || path.bytes().any(|b| b == 0) {
            return Err(io::Error::other(format!(
                "'{path}' is not a name for an initramfs entry"
            )));
        }
        let size =
            u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{path} is larger than 4 GiB")))?;
        let inode = if path == "TRAILER!!!" { 0 } else { self.entries };
        let (major, minor) = device;
        let name_len = path.len() as u32 + 1;
        let mut header = b"070701".to_vec();
        for field in [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_len, 0] {
            write!(header, "{field:08X}")?;
        }
        header.extend_from_slice(path.as_bytes());
        header.push(0);
        self.put(&header)?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..padding as usize])
    }

    /// Ends the archive and returns the writer below it.
    pub fn finish(mut self) -> io::Result<W> {
        self.raw("TRAILER!!!", 0, 1, (0, 0), &[])?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_it() {
        let mut writer = Writer::new(Vec::new());
        writer.dir("dev", 0o755).unwrap();
        writer.char_device("dev/console", 0o600, 5, 1).unwrap();
        writer.file("init", 0o755, b"12345").unwrap();
        writer.file("empty", 0o644, b"").unwrap();
        let archive = writer.finish().unwrap();
        assert_eq!(archive.len() % 4, 0);
        let mut child = Command::new("cpio")
            .args(["-tv", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        child.stdin.take().unwrap().write_all(&archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0][0], "drwxr-xr-x");
        assert_eq!(lines[1][..6], ["crw-------", "1", "0", "0", "5,", "1"]);
        assert_eq!(lines[2][4], "5");
        assert_eq!(lines[2].last(), Some(&"init"));
        assert!(text.contains("Jan  1  1970"), "{text}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn impossible_names_are_refused() {
        let mut writer = Writer::new(Vec::new());
        assert!(writer.dir(&"x".repeat(5000), 0).is_err());
        assert!(writer.dir("a\0b", 0).is_err());
    }
}
