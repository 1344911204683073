//! A node's ssh host keys: made once and kept by the server, so that they are the same at every boot.

use super::render::{KeyPair, SshKeys};
use rackstrap_store::{Store, StoreError, Table, secret_key};
use ssh_key::{Algorithm, EcdsaCurve, LineEnding, PrivateKey, rand_core::OsRng};

/// The name of the keys in the store.
const KIND: &str = "ssh-host-keys";

/// The host keys of `node`; none if they were not made yet.
pub(super) fn known_host_keys(store: &Store, node: &str) -> Result<Option<SshKeys>, StoreError> {
    store.get(Table::Secrets, &secret_key(node, KIND))
}

/// The host keys of `node`, which are made and stored at their first use.
pub(super) fn host_keys(store: &Store, node: &str) -> Result<SshKeys, StoreError> {
    store.secret(node, KIND, || SshKeys {
        ed25519: key_pair(node, Algorithm::Ed25519),
        ecdsa: key_pair(
            node,
            Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
        ),
    })
}

fn key_pair(node: &str, algorithm: Algorithm) -> KeyPair {
    let mut key = PrivateKey::random(&mut OsRng, algorithm).expect("both algorithms are built in");
    key.set_comment(format!("root@{node}"));
    let private = key
        .to_openssh(LineEnding::LF)
        .expect("a key that was just made can be written");
    let public = key
        .public_key()
        .to_openssh()
        .expect("a key that was just made can be written");
    KeyPair {
        private: private.trim_end().to_owned(),
        public: public.trim_end().to_owned(),
    }
}
