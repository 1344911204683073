//! Logins of another program, byte by byte: what ipmitool 1.8.19 sent for `-U admin -P geheim chassis power status`, and what it accepted.

use crate::{
    Ended, Login, Next, Privilege, Session, Suite,
    crypto::Keys,
    packet::{self, Payload},
};
use std::{collections::VecDeque, time::Instant};

/// With `-C 3`, between ipmitool and ipmi_sim of OpenIPMI 2.0.33: both directions in turn, up to the answer to Set Session Privilege Level.
const SUITE_3: &[&str] = &[
    "0600ff0706100000000000000000200000000000a4a3a2a0000000080100000001000008010000000200000801000000",
    "0600ff0706110000000000000000240000000000a4a3a2a082070000000000080100000001000008010000000200000801000000",
    "0600ff0706120000000000000000210000000000820700002fdf365b6a9562817d6a792bde372c7c1400000561646d696e",
    "0600ff07061300000000000000003c0000000000a4a3a2a06c1ed2a1e7b96dd5e6526d97dce145a8a123456789abcdefa123456789abcd\
     efea3be5c43bed9f04833c23aad9164b3fa004f394",
    "0600ff07061400000000000000001c000000000082070000425d43cba5ae910f6b34840283b0604c6112b335",
    "0600ff0706150000000000000000140000000000a4a3a2a0011162457c4361fc0e1b4ccb",
    "0600ff0706c0820700000300000020001de1996f5ee2e9e786c204fe97260d33dd95baef2cfd30a0393be656e7211e37ffff0207d1db0b\
     b964fa8e79350c9e88",
    "0600ff0706c0a4a3a2a001000000200062ef5b7c56e5edb085ddaf33d53e9cfc27082c92ac4321806b9812c40ad3454bffff0207ea6112\
     67625c820294c0b906",
];

/// With `-C 17`, between ipmitool and a script of 30 lines with an HMAC of its own, because ipmi_sim does not know SHA-256: up to the first packet of the session.
const SUITE_17: &[&str] = &[
    "0600ff0706100000000000000000200000000000a4a3a2a0000000080300000001000008040000000200000801000000",
    "0600ff0706110000000000000000240000000000a4a3a2a082070000000000080300000001000008040000000200000801000000",
    "0600ff070612000000000000000021000000000082070000ac904b483555f8c1ce682c4979e945f91400000561646d696e",
    "0600ff0706130000000000000000480000000000a4a3a2a0606162636465666768696a6b6c6d6e6fa123456789abcdefa123456789abcd\
     ef717372dca1efa60d9cb75887ea4e4272bad88271d4537b2c3e7961e30b88639c",
    "0600ff070614000000000000000028000000000082070000109fded2ee6252ff0538842fcd005967636e5abda96af1acf7e13f67cae051\
     97",
    "0600ff0706150000000000000000180000000000a4a3a2a0ebf2be12dcdf4ca06ec09f75544d6b63",
    "0600ff0706c082070000030000002000af108757e67e66188fd1dd5135920d997579347c58a5727e909f9b80aab55002ffff02071630e1\
     feefa8322d15aab48d09537c2f",
];

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

/// A session with the numbers that ipmitool chose.
fn session(suite: Suite, conversation: &[Vec<u8>]) -> Session {
    // The console's number of the session and its random number, and then the tag, which is 0.
    let mut numbers = VecDeque::from([
        conversation[0][20..24].to_vec(),
        conversation[2][24..40].to_vec(),
        vec![0],
    ]);
    let login = Login::new("admin", b"geheim", Privilege::Administrator).unwrap();
    let random = move |bytes: &mut [u8]| {
        if let Some(next) = numbers.pop_front() {
            bytes.copy_from_slice(&next);
        }
    };
    Session::new(login, suite, Box::new(random))
}

/// Where a message of the login has its tag. ipmitool has the same for all, and a session counts.
const TAG: usize = 16;

#[test]
fn logins_are_those_of_ipmitool_byte_by_byte() {
    for (suite, conversation) in [(Suite::Sha1, SUITE_3), (Suite::Sha256, SUITE_17)] {
        let conversation: Vec<Vec<u8>> = conversation.iter().map(|text| bytes(text)).collect();
        let mut session = session(suite, &conversation);
        let now = Instant::now();
        for (tag, pair) in (0..3).zip(conversation.chunks(2)) {
            let (mut sent, mut answer) = (pair[0].clone(), pair[1].clone());
            (sent[TAG], answer[TAG]) = (tag, tag);
            assert_eq!(session.next(now), Next::Send(sent), "message {tag}");
            assert!(session.receive(&answer), "answer {tag}");
        }
        // The number of the packet and its initialisation vector differ from ipmitool's.
        assert!(
            matches!(session.next(now), Next::Send(packet) if packet.len() == 16 + 32 + 4 + suite.short_code_length())
        );
        if let Some(answer) = conversation.get(7) {
            assert!(session.receive(answer));
            assert_eq!(session.next(now), Next::Ended(Ok(Ended::LoggedIn)));
        }
    }
}

#[test]
fn keys_and_encrypted_packets_are_those_of_ipmitool() {
    let sik_3 = "4eb1f390dba53b9eb8337826061ac6a4bb52a51c";
    let sik_17 = "cc572b07fcb3088174da22dca5464469a7340a8d9cb840e69ffd7c0ec1d03c78";
    for (suite, sik, conversation) in [(Suite::Sha1, sik_3, SUITE_3), (Suite::Sha256, sik_17, SUITE_17)] {
        let keys = Keys::new(suite, bytes(sik));
        let wanted = bytes(conversation[6]);
        let iv = *wanted[16..].first_chunk().unwrap();
        let message = packet::request(0x06, 1, 0x3b, &[4]);
        assert_eq!(packet::sealed(&keys, Payload::Ipmi, 0x0782, 3, &message, iv), wanted);
        assert_eq!(packet::read(&wanted, Some(&keys)).unwrap().payload, message);
    }
}
