//! A byte stream as one connection sends it to the NFS server, cut into records, each answered.

use rackstrap_nfs::{
    Assembler, Buf, Counters, Engine, ExportId, ExportRoot, Exports, HandleKey, NfsEvent, Outcome, Pace, Peer, Refusal,
    portmap,
};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

const ID: ExportId = ExportId(*b"fuzz@1..");

struct Open(Arc<ExportRoot>);

impl Exports for Open {
    fn is_node(&self, _: SocketAddr) -> bool {
        true
    }

    fn mount(&self, _: SocketAddr, path: &[u8]) -> Result<Arc<ExportRoot>, Refusal> {
        if path == b"/tree" {
            Ok(self.0.clone())
        } else {
            Err(Refusal::NoSuchExport)
        }
    }

    fn by_id(&self, _: SocketAddr, id: ExportId) -> Result<Arc<ExportRoot>, Refusal> {
        if id == ID {
            Ok(self.0.clone())
        } else {
            Err(Refusal::NoSuchExport)
        }
    }

    fn list(&self, _: SocketAddr) -> Vec<Vec<u8>> {
        vec![b"/tree".to_vec()]
    }

    fn observe(&self, _: NfsEvent) {}
}

struct Harness {
    engine: Engine,
    /// Eight-byte words that stand for handles, and the handles.
    handles: Vec<(&'static [u8; 8], Vec<u8>)>,
}

fn harness() -> &'static Harness {
    static HARNESS: OnceLock<Harness> = OnceLock::new();
    HARNESS.get_or_init(|| {
        // One directory for all runs: it lies below `target/` in tests, and costs nothing to leave.
        let dir = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, Into::into);
        let dir = dir.join("rackstrap-fuzz-nfs");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("file"), vec![7; 10_000]).unwrap();
        let _already_there = symlink("file", dir.join("link"));
        let export = Arc::new(ExportRoot::open(Path::new(&dir), ID, "fuzz@1".into()).unwrap());
        let key = HandleKey::new([1; 32]);
        let root = export.node(export.root_id(), Pace::MayBlock).unwrap();
        let handle = |name: &[u8]| {
            let (node, _) = export.child(&root, name, Pace::MayBlock).unwrap();
            key.seal(ID, node.id()).as_slice().to_vec()
        };
        let handles = vec![
            (b"ROOTROOT", handle(b".")),
            (b"FILEFILE", handle(b"file")),
            (b"LINKLINK", handle(b"link")),
            (b"SUB-SUB-", handle(b"sub")),
        ];
        let engine = Engine::new(
            Arc::new(Open(export)),
            key,
            Arc::new(Counters::default()),
            false,
            [0; 8],
        );
        Harness { engine, handles }
    })
}

/// Puts handles where the stream says so: no fuzzer finds their MACs. `length = 8, "ROOTROOT"` becomes the root's handle.
fn with_handles(record: &[u8], handles: &[(&[u8; 8], Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.len() + 64);
    let mut rest = record;
    while let [first, tail @ ..] = rest {
        let named = rest
            .strip_prefix(&[0, 0, 0, 8])
            .and_then(|rest| handles.iter().find(|(name, _)| rest.starts_with(&name[..])));
        match named {
            Some((_, handle)) => {
                out.extend((handle.len() as u32).to_be_bytes());
                out.extend(handle);
                out.resize(out.len().next_multiple_of(4), 0);
                rest = &rest[12..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// One run; true if a call got a reply.
pub fn run(stream: &[u8]) -> bool {
    datagram(stream);
    replies(stream) > 0
}

/// The same bytes after the record mark, as one datagram of a node, and as one for the port mapper: replies fit into datagrams.
fn datagram(stream: &[u8]) {
    let harness = harness();
    let call = with_handles(stream.get(4..).unwrap_or_default(), &harness.handles);
    let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 700)));
    let mut out = Buf::default();
    for pace in [Pace::Inline, Pace::MayBlock] {
        out.clear();
        match harness
            .engine
            .answer_datagram(&peer, &call, &mut out, pace, Instant::now())
        {
            Outcome::Replied => {
                assert_eq!(out.as_slice()[..4], call[..4], "the transaction id");
                assert!(out.len() <= 20 << 10, "a reply of {} bytes", out.len());
            }
            _ => assert!(out.is_empty()),
        }
    }
    let portmap = portmap::Portmap::new(2049);
    for may_list in [false, true] {
        out.clear();
        if portmap.answer(stream, may_list, &mut out) == Outcome::Replied {
            assert_eq!(out.as_slice()[..4], stream[..4], "the transaction id");
            assert!(may_list || out.len() <= stream.len(), "an amplifier");
        }
    }
}

/// Answers a stream; panics if an answer is not well-formed. Returns how many calls got replies.
pub fn replies(stream: &[u8]) -> usize {
    let harness = harness();
    let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 700)));
    let mut input = Assembler::new(1 << 16);
    let (mut rest, mut replies) = (stream, 0);
    let mut out = Buf::default();
    while !rest.is_empty() {
        let room = input.room();
        let n = room.len().min(rest.len());
        room[..n].copy_from_slice(&rest[..n]);
        input.received(n);
        rest = &rest[n..];
        loop {
            let record = match input.next_record() {
                Ok(Some(record)) => with_handles(record, &harness.handles),
                Ok(None) => break,
                Err(_) => return replies,
            };
            out.clear();
            let mut outcome = harness
                .engine
                .answer(&peer, &record, &mut out, Pace::Inline, Instant::now());
            if outcome == Outcome::WouldBlock {
                assert!(out.is_empty());
                outcome = harness
                    .engine
                    .answer(&peer, &record, &mut out, Pace::MayBlock, Instant::now());
            }
            match outcome {
                Outcome::Replied => {
                    let reply = out.as_slice();
                    let mark = u32::from_be_bytes(reply[..4].try_into().unwrap());
                    assert_eq!(mark, (reply.len() - 4) as u32 | 1 << 31);
                    assert_eq!(reply.len() % 4, 0);
                    assert_eq!(reply[4..8], record[..4], "the transaction id");
                    replies += 1;
                }
                Outcome::Silent => assert!(out.is_empty()),
                Outcome::Close => return replies,
                Outcome::WouldBlock => panic!("would block although it may"),
            }
        }
    }
    replies
}
