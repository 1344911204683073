//! The load generator: one thread, several connections, several calls in flight on each.

use super::rpc::{self, Ask, HEAD};
use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Time before the measurement, in which the server opens files and grows buffers.
const WARM_UP: Duration = Duration::from_millis(200);
/// A server that sends nothing for this long hangs.
const STALL: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The load on a server.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Connections to it.
    pub connections: u32,
    /// Calls in flight on each.
    pub depth: u32,
    /// Duration of the measurement.
    pub time: Duration,
}

/// The result of one run.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Calls per second.
    pub calls: f64,
    /// Processor time of the server per call, microseconds.
    pub cpu: f64,
    /// 99 of 100 calls were answered within this time, in milliseconds.
    pub p99: f64,
}

struct Connection {
    stream: TcpStream,
    /// For each slot, the call in flight and its start.
    slots: Vec<(usize, Instant)>,
    /// First bytes of the reply that is being received.
    head: Vec<u8>,
    mark: Vec<u8>,
    /// Remaining bytes of this fragment, and whether it is the last one of the reply.
    left: usize,
    last: bool,
}

impl Load {
    /// Keeps the server of that process busy with `asks`, in turn.
    pub fn run(&self, port: u16, pid: u32, asks: &[Ask]) -> Result<Measured> {
        run(self, port, pid, asks)
    }
}

/// Keeps the server of that process busy with `asks`, in turn, for `time`.
fn run(load: &Load, port: u16, pid: u32, asks: &[Ask]) -> Result<Measured> {
    let mut connections = Vec::new();
    let (mut next, mut out) = (0, Vec::new());
    let mut ask = |out: &mut Vec<u8>, slot: usize| {
        let index = next % asks.len();
        next += 1;
        asks[index].put(slot as u32, out);
        (index, Instant::now())
    };
    for _ in 0..load.connections {
        let mut stream = rpc::connect(port)?;
        out.clear();
        let slots = (0..load.depth as usize).map(|slot| ask(&mut out, slot)).collect();
        stream.write_all(&out)?;
        stream.set_nonblocking(true)?;
        connections.push(Connection {
            stream,
            slots,
            head: Vec::new(),
            mark: Vec::new(),
            left: 0,
            last: false,
        });
    }
    let mut times: Vec<u32> = Vec::with_capacity(1 << 20);
    let mut buffer = vec![0; 1 << 18];
    let begin = Instant::now() + WARM_UP;
    let mut counted_from = None;
    loop {
        let now = Instant::now();
        match counted_from {
            None if now >= begin => counted_from = Some((now, cpu(pid)?)),
            Some((start, cpu_before)) if now >= start + load.time => {
                let (elapsed, calls) = ((now - start).as_secs_f64(), times.len());
                ensure!(calls > 0, "no call was answered within {:?}", load.time);
                let cpu = (cpu(pid)? - cpu_before).as_secs_f64() * 1e6 / calls as f64;
                times.sort_unstable();
                return Ok(Measured {
                    calls: calls as f64 / elapsed,
                    cpu,
                    p99: f64::from(times[(calls * 99 / 100).min(calls - 1)]) / 1e3,
                });
            }
            _ => {}
        }
        let mut polled: Vec<_> = connections
            .iter()
            .map(|c| PollFd::new(&c.stream, PollFlags::IN))
            .collect();
        ensure!(
            poll(&mut polled, Some(&STALL))? > 0,
            "the server has sent nothing for 10 s"
        );
        let ready: Vec<bool> = polled.iter().map(|p| !p.revents().is_empty()).collect();
        for (connection, _) in connections.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            out.clear();
            connection.receive(&mut buffer, |slot, head, (asked, since)| {
                asks[asked].check(head)?;
                if counted_from.is_some() {
                    times.push(since.elapsed().as_micros() as u32);
                }
                Ok(ask(&mut out, slot))
            })?;
            // The calls have a few hundred bytes, which always fit into the socket's buffer.
            connection.stream.write_all(&out).context("sending calls")?;
        }
    }
}

impl Connection {
    /// Receives available bytes. `answered` is called for every complete reply, and returns the next call of its slot.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        mut answered: impl FnMut(usize, &[u8], (usize, Instant)) -> Result<(usize, Instant)>,
    ) -> Result<()> {
        let mut bytes = match self.stream.read(buffer) {
            Ok(0) => anyhow::bail!("the server closed a connection"),
            Ok(n) => &buffer[..n],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("receiving replies"),
        };
        while !bytes.is_empty() {
            if self.left == 0 {
                let (now, rest) = bytes.split_at(bytes.len().min(4 - self.mark.len()));
                self.mark.extend(now);
                bytes = rest;
                if self.mark.len() < 4 {
                    return Ok(());
                }
                let mark = rpc::be(&self.mark);
                self.mark.clear();
                (self.left, self.last) = ((mark & 0x7fff_ffff) as usize, mark >> 31 == 1);
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.left));
            bytes = rest;
            self.left -= now.len();
            self.head.extend(&now[..now.len().min(HEAD - self.head.len())]);
            if self.left == 0 && self.last {
                let slot = rpc::be(&self.head) as usize;
                ensure!(slot < self.slots.len(), "a reply without a call: {:x?}", self.head);
                self.slots[slot] = answered(slot, &self.head, self.slots[slot])?;
                self.head.clear();
            }
        }
        Ok(())
    }
}

/// Processor time that a process has used, in user and kernel mode (proc(5), fields 14 and 15 of stat).
fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("reading the server's processor time")?;
    // The program's name, in parentheses, may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_secs_f64(
        ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
    ))
}
