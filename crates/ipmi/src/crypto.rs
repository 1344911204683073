//! Keys, authentication codes and encryption of RMCP+ sessions (pure).
//!
//! Section numbers are those of "IPMI Specification, v2.0, rev. 1.1".

use aes::{
    Aes128,
    cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::NoPadding},
};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// Bytes of a block and of an initialisation vector of AES (13.29).
pub(crate) const BLOCK: usize = 16;

/// A cipher suite: how messages are authenticated. Both encrypt with AES-CBC-128 (22.15.2, table 22-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// Cipher suite 3: RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Sha1,
    /// Cipher suite 17: RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Sha256,
}

impl Suite {
    /// The numbers of its algorithms: authentication, integrity, confidentiality (13.28, tables 13-17 to 13-19).
    pub(crate) fn algorithms(self) -> [u8; 3] {
        match self {
            Suite::Sha1 => [0x01, 0x01, 0x01],
            Suite::Sha256 => [0x03, 0x04, 0x01],
        }
    }

    /// Bytes of the code in RAKP messages 2 and 3.
    pub(crate) fn code_length(self) -> usize {
        match self {
            Suite::Sha1 => 20,
            Suite::Sha256 => 32,
        }
    }

    /// Bytes of the code in RAKP message 4 and behind each packet of a session (13.28.4).
    pub(crate) fn short_code_length(self) -> usize {
        match self {
            Suite::Sha1 => 12,
            Suite::Sha256 => 16,
        }
    }

    /// The code of all `parts` together.
    pub(crate) fn code(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        match self {
            Suite::Sha1 => code::<Hmac<Sha1>>(key, parts),
            Suite::Sha256 => code::<Hmac<Sha256>>(key, parts),
        }
    }

    /// The same, as long as in RAKP message 4.
    pub(crate) fn short_code(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut code = self.code(key, parts);
        code.truncate(self.short_code_length());
        code
    }
}

fn code<M: Mac + hmac::digest::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of every length (RFC 2104, section 2), so that the empty code cannot come out.
    let Ok(mut mac) = <M as Mac>::new_from_slice(key) else {
        return Vec::new();
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Whether two codes are equal, in a time that does not depend on how far they are. Codes of different lengths, and empty ones, never are.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    !a.is_empty() && a.len() == b.len() && bool::from(a.ct_eq(b))
}

/// The keys of one session (13.31, 13.32).
#[derive(Clone)]
pub(crate) struct Keys {
    suite: Suite,
    /// Session integrity key.
    pub(crate) sik: Vec<u8>,
    /// Authenticates packets.
    k1: Vec<u8>,
    /// Its first 16 bytes encrypt payloads.
    k2: [u8; BLOCK],
}

impl Keys {
    /// The keys that follow from the session integrity key.
    pub(crate) fn new(suite: Suite, sik: Vec<u8>) -> Keys {
        // The constants have 20 bytes with SHA-256, too, as in ipmitool's and OpenIPMI's programs.
        let k1 = suite.code(&sik, &[&[0x01; 20]]);
        let mut k2 = [0; BLOCK];
        for (to, from) in k2.iter_mut().zip(suite.code(&sik, &[&[0x02; 20]])) {
            *to = from;
        }
        Keys { suite, sik, k1, k2 }
    }

    /// The code behind a packet whose authenticated part is `packet`.
    pub(crate) fn packet_code(&self, packet: &[u8]) -> Vec<u8> {
        self.suite.short_code(&self.k1, &[packet])
    }

    /// Bytes of [`Keys::packet_code`].
    pub(crate) fn packet_code_length(&self) -> usize {
        self.suite.short_code_length()
    }

    /// `plain`, padded and encrypted, behind its initialisation vector (13.29).
    pub(crate) fn encrypt(&self, plain: &[u8], iv: [u8; BLOCK]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let pad = (BLOCK - (plain.len() + 1) % BLOCK) % BLOCK;
        text.extend((1u8..).take(pad));
        // Less than a block.
        text.push(pad.to_le_bytes()[0]);
        let encryptor = cbc::Encryptor::<Aes128>::new(&self.k2.into(), &iv.into());
        let body = encryptor.encrypt_padded_vec_mut::<NoPadding>(&text);
        [&iv[..], &body].concat()
    }

    /// The text of an encrypted payload; none if it was not made by [`Keys::encrypt`].
    pub(crate) fn decrypt(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let (iv, body) = payload.split_first_chunk::<BLOCK>()?;
        let decryptor = cbc::Decryptor::<Aes128>::new(&self.k2.into(), iv.into());
        let mut text = decryptor.decrypt_padded_vec_mut::<NoPadding>(body).ok()?;
        let pad = usize::from(text.pop()?);
        let length = text.len().checked_sub(pad).filter(|_| pad < BLOCK)?;
        // Some BMCs pad with other bytes than 1, 2, 3: the code behind the packet has proven them already.
        text.truncate(length);
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_rfc_2202_and_4231() {
        // RFC 2202, section 3, and RFC 4231, section 4.3: test case 2.
        let parts: [&[u8]; 2] = [b"what do ya want ", b"for nothing?"];
        for (suite, wanted) in [
            (Suite::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
            (
                Suite::Sha256,
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
        ] {
            assert_eq!(hex::encode(suite.code(b"Jefe", &parts)), wanted);
            assert_eq!(suite.code(b"Jefe", &parts).len(), suite.code_length());
            assert!(wanted.starts_with(&hex::encode(suite.short_code(b"Jefe", &parts))));
        }
    }

    #[test]
    fn payloads_of_every_length_come_back() {
        let keys = Keys::new(Suite::Sha1, vec![7; 20]);
        for length in 0..64 {
            let plain: Vec<u8> = (0..length).collect();
            let payload = keys.encrypt(&plain, [9; BLOCK]);
            assert_eq!(payload.len() % BLOCK, 0);
            assert_eq!(keys.decrypt(&payload), Some(plain));
        }
    }

    #[test]
    fn a_payload_that_is_not_whole_is_refused() {
        let keys = Keys::new(Suite::Sha256, vec![7; 32]);
        let payload = keys.encrypt(&[1; 20], [9; BLOCK]);
        for length in [0, 1, 15, 16, 17, 31, 47] {
            assert_eq!(keys.decrypt(&payload[..length]), None, "{length} bytes");
        }
        // A pad length beyond a block: the key is another one.
        let other = Keys::new(Suite::Sha256, vec![8; 32]);
        assert_ne!(other.decrypt(&payload), Some(vec![1; 20]));
    }

    #[test]
    fn codes_of_other_lengths_are_never_equal() {
        assert!(equal(&[1, 2], &[1, 2]));
        for (a, b) in [(&[][..], &[][..]), (&[1][..], &[1, 2][..]), (&[1, 3][..], &[1, 2][..])] {
            assert!(!equal(a, b));
        }
    }
}
