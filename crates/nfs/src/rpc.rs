//! ONC RPC version 2 (RFC 5531): the header of a call, and the headers of replies.

use super::{
    access::Credentials,
    buf::Buf,
    xdr::{Malformed, Reader},
};

/// The header of a call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Transaction id, which the reply repeats.
    pub xid: u32,
    /// Number of the RPC program (RFC 5531 section 8.2).
    pub program: u32,
    /// Version of the program.
    pub version: u32,
    /// Number of the procedure within the program.
    pub procedure: u32,
    /// User and groups that the client claims to act for.
    pub credentials: Credentials,
    /// The procedure's arguments.
    pub args: Reader<'a>,
}

/// Why a record is not passed to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswerable {
    /// Too short for a call header, or a header with wrong lengths: no RPC client sends this.
    NoCall,
    /// A reply, although the server sent no call.
    Reply,
    /// Another RPC version: MSG_DENIED, RPC_MISMATCH.
    RpcVersion {
        /// Transaction id, which the reply repeats.
        xid: u32,
    },
    /// Credentials that are not accepted: MSG_DENIED, AUTH_ERROR.
    Auth {
        /// Transaction id, which the reply repeats.
        xid: u32,
        /// `auth_stat`
        why: AuthStat,
    },
}

/// `auth_stat` (RFC 5531, section 9): the values that the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStat {
    /// Bad credential: an unknown flavor, or AUTH_SYS that cannot be parsed.
    BadCred = 1,
    /// Refused for security reasons: the source port is not privileged.
    TooWeak = 5,
}

/// `accept_stat` (RFC 5531, section 9) other than SUCCESS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptStat {
    /// The program is unknown.
    ProgUnavail,
    /// The program has other versions, from the lowest to the highest.
    ProgMismatch(u32, u32),
    /// The program does not have the procedure.
    ProcUnavail,
    /// The arguments cannot be parsed.
    GarbageArgs,
    /// It fails for a reason inside the server.
    SystemErr,
}

const CALL: u32 = 0;
const REPLY: u32 = 1;
const AUTH_NONE: u32 = 0;
const AUTH_SYS: u32 = 1;
/// Most bytes of a credential or verifier body (RFC 5531, section 8.2).
const MAX_AUTH: usize = 400;

impl<'a> Call<'a> {
    /// Parses the header of a call.
    ///
    /// # Errors
    /// [`Unanswerable`] tells what to do instead.
    pub fn parse(record: &'a [u8]) -> Result<Call<'a>, Unanswerable> {
        let short = |_: Malformed| Unanswerable::NoCall;
        let mut r = Reader::new(record);
        let xid = r.u32().map_err(short)?;
        match r.u32().map_err(short)? {
            CALL => {}
            REPLY => return Err(Unanswerable::Reply),
            _ => return Err(Unanswerable::NoCall),
        }
        if r.u32().map_err(short)? != 2 {
            return Err(Unanswerable::RpcVersion { xid });
        }
        let program = r.u32().map_err(short)?;
        let version = r.u32().map_err(short)?;
        let procedure = r.u32().map_err(short)?;
        let bad = Unanswerable::Auth {
            xid,
            why: AuthStat::BadCred,
        };
        let flavor = r.u32().map_err(short)?;
        let body = r.opaque(MAX_AUTH).map_err(|_| bad)?;
        let _verifier_flavor = r.u32().map_err(short)?;
        let _verifier = r.opaque(MAX_AUTH).map_err(short)?;
        let credentials = match flavor {
            AUTH_NONE => Credentials::nobody(),
            AUTH_SYS => auth_sys(body).map_err(|_| bad)?,
            _ => return Err(bad),
        };
        Ok(Call {
            xid,
            program,
            version,
            procedure,
            credentials,
            args: r,
        })
    }
}

/// AUTH_SYS (RFC 5531, appendix A): stamp, machine name up to 255 bytes, uid, gid, up to 16 gids.
fn auth_sys(body: &[u8]) -> Result<Credentials, Malformed> {
    let mut r = Reader::new(body);
    let _stamp = r.u32()?;
    let _machine = r.opaque(255)?;
    let (uid, gid) = (r.u32()?, r.u32()?);
    let count = r.u32()?;
    if count > Credentials::MAX_GROUPS as u32 {
        return Err(Malformed);
    }
    let mut credentials = Credentials::new(uid, gid, &[]);
    for _ in 0..count {
        credentials.add_group(r.u32()?);
    }
    Ok(credentials)
}

/// The header of a reply whose results follow: MSG_ACCEPTED, verifier AUTH_NONE, SUCCESS.
pub fn put_success(out: &mut Buf, xid: u32) {
    for word in [xid, REPLY, 0, AUTH_NONE, 0, 0] {
        out.u32(word);
    }
}

/// A complete reply with the reason why the call was not executed.
pub fn put_not_executed(out: &mut Buf, xid: u32, why: AcceptStat) {
    for word in [xid, REPLY, 0, AUTH_NONE, 0] {
        out.u32(word);
    }
    match why {
        AcceptStat::ProgUnavail => out.u32(1),
        AcceptStat::ProgMismatch(low, high) => {
            out.u32(2);
            out.u32(low);
            out.u32(high);
        }
        AcceptStat::ProcUnavail => out.u32(3),
        AcceptStat::GarbageArgs => out.u32(4),
        AcceptStat::SystemErr => out.u32(5),
    }
}

/// A complete reply MSG_DENIED, RPC_MISMATCH: only version 2 is supported.
pub fn put_rpc_mismatch(out: &mut Buf, xid: u32) {
    for word in [xid, REPLY, 1, 0, 2, 2] {
        out.u32(word);
    }
}

/// A complete reply MSG_DENIED, AUTH_ERROR.
pub fn put_auth_error(out: &mut Buf, xid: u32, why: AuthStat) {
    for word in [xid, REPLY, 1, 1, why as u32] {
        out.u32(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    #[test]
    fn reads_auth_sys() {
        let mut call = words(&[7, 0, 2, 100_003, 3, 1, 1, 36, 99, 3]);
        call.extend(b"r01\0");
        call.extend(words(&[1000, 100, 2, 4, 24, 0, 0, 0, 0xabcd]));
        // The credential body has 4 + 4 + 4 + 4 + 4 + 4 + 8 = 32 bytes.
        call[28..32].copy_from_slice(&32u32.to_be_bytes());
        let call = Call::parse(&call).unwrap();
        assert_eq!(call.xid, 7);
        assert_eq!((call.program, call.version, call.procedure), (100_003, 3, 1));
        assert_eq!(call.credentials, Credentials::new(1000, 100, &[4, 24]));
        assert_eq!(call.args.rest(), &words(&[0, 0xabcd])[..]);
    }

    #[test]
    fn wrong_headers_are_refused_with_their_reason() {
        let none = [0, 0, 0, 0];
        let parse = |head: &[u32], tail: &[u32]| Call::parse(&words(&[head, tail].concat())).map(|c| c.credentials);
        assert_eq!(parse(&[7], &[]), Err(Unanswerable::NoCall));
        assert_eq!(parse(&[7, 1, 0, 0, 0, 0], &[]), Err(Unanswerable::Reply));
        assert_eq!(parse(&[7, 2, 2, 1, 1, 1], &none), Err(Unanswerable::NoCall));
        assert_eq!(
            parse(&[7, 0, 3, 1, 1, 1], &none),
            Err(Unanswerable::RpcVersion { xid: 7 })
        );
        assert_eq!(parse(&[7, 0, 2, 1, 1, 1], &none), Ok(Credentials::nobody()));
        assert_eq!(parse(&[7, 0, 2, 1, 1, 1], &[0, 0]), Err(Unanswerable::NoCall));
        let bad = Err(Unanswerable::Auth {
            xid: 7,
            why: AuthStat::BadCred,
        });
        // RPCSEC_GSS; a body of 2^32 - 1 bytes; one of 401.
        assert_eq!(parse(&[7, 0, 2, 1, 1, 1], &[6, 0, 0, 0]), bad);
        assert_eq!(parse(&[7, 0, 2, 1, 1, 1], &[1, u32::MAX, 0, 0]), bad);
        assert_eq!(
            parse(&[7, 0, 2, 1, 1, 1], &[[1, 401].as_slice(), &[0; 103]].concat()),
            bad
        );
        // 17 and 2^32 - 1 groups; and fewer than announced.
        let cred = |count: u32, gids: usize| {
            let mut tail = vec![1, 20 + 4 * gids as u32, 0, 0, 0, 0, count];
            tail.extend(vec![5; gids]);
            tail.extend([0, 0]);
            parse(&[7, 0, 2, 1, 1, 1], &tail)
        };
        assert_eq!(cred(17, 17), bad);
        assert_eq!(cred(u32::MAX, 16), bad);
        assert_eq!(cred(3, 2), bad);
        assert_eq!(cred(16, 16), Ok(Credentials::new(0, 0, &[5; 16])));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_panic(bytes: Vec<u8>) {
            let _ = Call::parse(&bytes);
        }

        #[test]
        fn truncated_calls_never_parse(cut in 0usize..64) {
            let call = words(&[7, 0, 2, 100_003, 3, 1, 1, 24, 9, 0, 1, 2, 1, 3, 0, 0]);
            prop_assert!(Call::parse(&call).is_ok());
            prop_assert!(Call::parse(&call[..cut]).is_err());
        }
    }
}
