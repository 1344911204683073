//! A port mapper, version 2 (RFC 1833, section 3): it names the port of NFS and MOUNT to clients that do not know it. FreeBSD's boot
//! loader asks for each of them by UDP (`rpc_getport` in stand/libsa/rpc.c of its sources).
//!
//! The list is fixed: programs of other processes cannot be registered. CALLIT, which sends a call on to another program, is never
//! answered, because it has been used to amplify floods.

pub mod task;

use super::{
    buf::Buf,
    engine::{MOUNT, NFS, Outcome, unanswerable},
    rpc::{self, AcceptStat, Call},
};

/// PMAP_PROG
const PORTMAP: u32 = 100_000;
/// PMAP_PORT, which clients know.
pub const PORT: u16 = 111;
/// IPPROTO_TCP and IPPROTO_UDP.
const PROTOCOLS: [u32; 2] = [6, 17];

const NULL: u32 = 0;
const SET: u32 = 1;
const UNSET: u32 = 2;
const GETPORT: u32 = 3;
const DUMP: u32 = 4;
const CALLIT: u32 = 5;

/// The port of a program, by TCP and by UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    program: u32,
    version: u32,
    port: u16,
}

/// Answers calls to the port mapper.
#[derive(Clone, Debug)]
pub struct Portmap {
    mappings: [Mapping; 3],
}

impl Portmap {
    /// A port mapper for NFS and MOUNT at `port`, by TCP and UDP.
    pub fn new(port: u16) -> Self {
        let of = |program, version, port| Mapping { program, version, port };
        Portmap {
            mappings: [of(PORTMAP, 2, PORT), of(NFS, 3, port), of(MOUNT, 3, port)],
        }
    }

    /// Executes the call in `record` and appends its reply, without a record mark, to `out`. `may_list` is false for a sender whose
    /// address may be forged: a list is larger than its question.
    pub fn answer(&self, record: &[u8], may_list: bool, out: &mut Buf) -> Outcome {
        let call = match Call::parse(record) {
            Ok(call) => call,
            Err(why) => return unanswerable(why, out),
        };
        let refuse = |out: &mut Buf, why| {
            rpc::put_not_executed(out, call.xid, why);
            Outcome::Replied
        };
        match (call.program, call.version) {
            (PORTMAP, 2) => {}
            // Clients of versions 3 and 4 (rpcbind) ask again with version 2.
            (PORTMAP, _) => return refuse(out, AcceptStat::ProgMismatch(2, 2)),
            _ => return refuse(out, AcceptStat::ProgUnavail),
        }
        let mut args = call.args;
        let mut wanted = || Some([args.u32().ok()?, args.u32().ok()?, args.u32().ok()?, args.u32().ok()?]);
        match call.procedure {
            NULL => rpc::put_success(out, call.xid),
            GETPORT => {
                let Some([program, version, protocol, _]) = wanted() else {
                    return refuse(out, AcceptStat::GarbageArgs);
                };
                let found = |mapping: &&Mapping| (mapping.program, mapping.version) == (program, version);
                let mapping = self.mappings.iter().find(found);
                let port = mapping.filter(|_| PROTOCOLS.contains(&protocol)).map_or(0, |m| m.port);
                rpc::put_success(out, call.xid);
                out.u32(port.into());
            }
            SET | UNSET => {
                if wanted().is_none() {
                    return refuse(out, AcceptStat::GarbageArgs);
                }
                rpc::put_success(out, call.xid);
                // False: nothing was changed.
                out.u32(0);
            }
            DUMP if may_list => {
                rpc::put_success(out, call.xid);
                for mapping in self.mappings {
                    for protocol in PROTOCOLS {
                        for word in [1, mapping.program, mapping.version, protocol, mapping.port.into()] {
                            out.u32(word);
                        }
                    }
                }
                out.u32(0);
            }
            DUMP | CALLIT => return Outcome::Silent,
            _ => return refuse(out, AcceptStat::ProcUnavail),
        }
        Outcome::Replied
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The words of a call as FreeBSD's loader sends it: AUTH_SYS with an empty machine name.
    fn call(program: u32, version: u32, procedure: u32, args: &[u32]) -> Vec<u8> {
        let head = [9, 0, 2, program, version, procedure, 1, 20, 0, 0, 0, 0, 0, 0, 0];
        [&head[..], args]
            .concat()
            .iter()
            .flat_map(|w| w.to_be_bytes())
            .collect()
    }

    fn answer(call: &[u8], may_list: bool) -> (Outcome, Vec<u32>) {
        let mut out = Buf::default();
        let outcome = Portmap::new(2049).answer(call, may_list, &mut out);
        let words = out.as_slice().chunks_exact(4);
        let words = words.map(|word| u32::from_be_bytes(word.try_into().unwrap()));
        (outcome, words.collect())
    }

    /// The header of a reply to a call that was executed.
    const DONE: [u32; 6] = [9, 1, 0, 0, 0, 0];

    #[test]
    fn the_loader_gets_the_ports_of_mount_and_nfs() {
        let port = |program, version, protocol| {
            let (outcome, words) = answer(&call(PORTMAP, 2, GETPORT, &[program, version, protocol, 0]), false);
            assert_eq!((outcome, &words[..6]), (Outcome::Replied, &DONE[..]));
            words[6]
        };
        assert_eq!([port(MOUNT, 3, 17), port(NFS, 3, 17), port(NFS, 3, 6)], [2049; 3]);
        assert_eq!(port(PORTMAP, 2, 17), 111);
        // Version 2 of NFS, a lock manager, and SCTP.
        assert_eq!([port(NFS, 2, 17), port(100_021, 4, 17), port(NFS, 3, 132)], [0; 3]);
    }

    #[test]
    fn nothing_is_registered_sent_on_or_listed_for_a_stranger() {
        for procedure in [SET, UNSET] {
            let (_, words) = answer(&call(PORTMAP, 2, procedure, &[100_021, 4, 17, 4045]), true);
            assert_eq!(words, [&DONE[..], &[0]].concat());
        }
        assert_eq!(
            answer(&call(PORTMAP, 2, CALLIT, &[NFS, 3, 0, 0]), true),
            (Outcome::Silent, vec![])
        );
        assert_eq!(answer(&call(PORTMAP, 2, DUMP, &[]), false), (Outcome::Silent, vec![]));
        let (_, list) = answer(&call(PORTMAP, 2, DUMP, &[]), true);
        assert_eq!(list.len(), 6 + 6 * 5 + 1);
        assert_eq!(list[6..11], [1, PORTMAP, 2, 6, 111]);
        assert_eq!(list[21..26], [1, NFS, 3, 17, 2049]);
    }

    #[test]
    fn other_versions_programs_and_procedures_are_refused_by_their_reason() {
        assert_eq!(answer(&call(PORTMAP, 4, 3, &[]), true).1, [9, 1, 0, 0, 0, 2, 2, 2]);
        assert_eq!(answer(&call(NFS, 3, 0, &[]), true).1, [9, 1, 0, 0, 0, 1]);
        assert_eq!(answer(&call(PORTMAP, 2, 6, &[]), true).1, [9, 1, 0, 0, 0, 3]);
        assert_eq!(
            answer(&call(PORTMAP, 2, GETPORT, &[NFS, 3]), true).1,
            [9, 1, 0, 0, 0, 4]
        );
        assert_eq!(answer(&call(PORTMAP, 2, NULL, &[]), false).1, DONE);
        assert_eq!(answer(b"GET / HTTP/1.0\r\n\r\n", true).0, Outcome::Close);
    }

    proptest! {
        #[test]
        fn no_stranger_gets_more_bytes_than_it_sent(words: Vec<u32>, procedure in 0u32..8) {
            let sent = call(PORTMAP, 2, procedure, &words);
            let (outcome, reply) = answer(&sent, false);
            prop_assert!(reply.len() * 4 <= sent.len(), "{outcome:?}");
        }

        #[test]
        fn any_bytes_are_answered_without_panic(bytes: Vec<u8>, may_list: bool) {
            let _ = answer(&bytes, may_list);
        }
    }
}
