//! A card whose PXE ROM is not iPXE. QEMU's packages have only iPXE's ROMs, so the ROM's first exchange loses what iPXE says of itself:
//! then a server sees the requests of a PXE ROM that can only load a file by TFTP, as iPXE's ROM then does.

use crate::Result;
use anyhow::Context;
use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// DHCP options by which iPXE is known: the user class, and its own encapsulated options (iPXE's src/include/ipxe/dhcp.h).
const OF_IPXE: [u8; 2] = [77, 175];
/// Offset of the options in a frame: headers of Ethernet, IPv4 without options and UDP, 236 bytes of DHCP, the cookie.
const OPTIONS: usize = 14 + 20 + 8 + 240;
/// Longest frame of the card, more than Ethernet's.
const LONGEST: usize = 65_536;

/// Stands between a card and its network, for frames that the card sends.
#[derive(Debug)]
pub(crate) struct PlainRom {
    out: PathBuf,
    back: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PlainRom {
    /// Listens on two sockets in `dir` until it is dropped, also after a restart of QEMU.
    pub(crate) fn start(dir: &Path) -> Result<Self> {
        let (out, back) = (dir.join("card-out"), dir.join("card-back"));
        let listen = |path: &Path| {
            let _ = std::fs::remove_file(path);
            UnixListener::bind(path).with_context(|| format!("listening at {}", path.display()))
        };
        let (from, to) = (listen(&out)?, listen(&back)?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while let (Ok((from, _)), Ok((to, _))) = (from.accept(), to.accept()) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // It ends when QEMU does.
                let _ = forward(from, to);
            }
        });
        Ok(PlainRom {
            out,
            back,
            stop,
            thread: Some(thread),
        })
    }

    /// QEMU's arguments for the network `net`. Frames that a card sends pass the filters in reverse order (net/net.c of QEMU): they leave by
    /// the last one and come back behind it.
    pub(crate) fn qemu_arguments(&self) -> Vec<String> {
        let channel = |id: &str, path: &Path| format!("socket,id={id},path={}", path.display());
        [
            "-chardev",
            &channel("card-out", &self.out),
            "-chardev",
            &channel("card-back", &self.back),
            "-object",
            "filter-redirector,id=enter,netdev=net,queue=rx,indev=card-back",
            "-object",
            "filter-redirector,id=leave,netdev=net,queue=rx,outdev=card-out",
        ]
        .map(str::to_owned)
        .to_vec()
    }
}

impl Drop for PlainRom {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The thread waits for one of both.
        let _woken = (UnixStream::connect(&self.out), UnixStream::connect(&self.back));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Forwards frames, each behind its length (QEMU's net/filter-mirror.c). A program that the ROM has loaded may say what it is.
fn forward(mut from: UnixStream, mut to: UnixStream) -> std::io::Result<()> {
    let mut loading = false;
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let size = u32::from_be_bytes(length) as usize;
        if size > LONGEST {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut frame = vec![0; size];
        from.read_exact(&mut frame)?;
        loading |= port(&frame) == Some(69);
        if !loading && port(&frame) == Some(67) {
            withhold(&mut frame);
        }
        to.write_all(&[&length[..], &frame].concat())?;
    }
}

/// The destination of a UDP datagram in IPv4 without options.
fn port(frame: &[u8]) -> Option<u16> {
    let udp = frame.get(12..15)? == [8, 0, 0x45] && frame.get(23)? == &17;
    let port = frame.get(36..38)?;
    udp.then(|| u16::from_be_bytes([port[0], port[1]]))
}

/// Overwrites the options of [`OF_IPXE`] with padding. The checksum of UDP becomes 0, "none" (RFC 768).
fn withhold(frame: &mut [u8]) {
    let mut at = OPTIONS;
    while let Some(&code) = frame.get(at) {
        at += match code {
            0 => 1,
            255 => break,
            _ => {
                let Some(&length) = frame.get(at + 1) else { break };
                let whole = 2 + usize::from(length);
                if let Some(option) = frame.get_mut(at..at + whole)
                    && OF_IPXE.contains(&code)
                {
                    option.fill(0);
                }
                whole
            }
        };
    }
    if let Some(checksum) = frame.get_mut(40..42) {
        checksum.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn discover(options: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; OPTIONS];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = 17;
        frame[36..38].copy_from_slice(&67u16.to_be_bytes());
        frame[40..42].copy_from_slice(&[1, 2]);
        [&frame[..], options].concat()
    }

    #[test]
    fn only_what_ipxe_says_of_itself_is_withheld() {
        let mut frame = discover(&[53, 1, 1, 77, 4, b'i', b'P', b'X', b'E', 175, 1, 9, 93, 2, 0, 0, 255]);
        assert_eq!(port(&frame), Some(67));
        withhold(&mut frame);
        assert_eq!(
            frame[OPTIONS..],
            [53, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 93, 2, 0, 0, 255]
        );
        assert_eq!(frame[40..42], [0, 0]);
    }

    #[test]
    fn short_frames_and_options_are_left_alone() {
        for options in [&[][..], &[77], &[77, 200, 1], &[175, 255]] {
            let mut frame = discover(options);
            withhold(&mut frame);
            assert_eq!(frame[OPTIONS..], *options);
        }
        let mut short = vec![8; 20];
        assert_eq!(port(&short), None);
        withhold(&mut short);
        assert_eq!(short, [8; 20]);
    }
}
