//! Tests of the sockets, on loopback: forwarders that are silent, wrong, unable or too slow, and clients that are idle.

use super::*;
use rackstrap_base::counters::ReadCounts;
use std::{io::ErrorKind, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// When to give up. No step takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

/// UDP and TCP on one port: the port of a datagram socket is almost always free for connections.
fn pair() -> (std::net::UdpSocket, std::net::TcpListener) {
    let sockets = (0..100).find_map(|_| {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpListener::bind(udp.local_addr().unwrap()).ok()?;
        Some((udp, tcp))
    });
    sockets.unwrap()
}

/// Limits with this much time for one forwarder. On a loaded machine it must be enough where an answer is expected.
fn patient(each: Duration) -> Limits {
    Limits {
        patience: Patience { each, all: PATIENCE },
        ..Limits::default()
    }
}

async fn receive(socket: &UdpSocket) -> (Message, SocketAddr) {
    let mut bytes = [0; 2000];
    let (length, peer) = timeout(PATIENCE, socket.recv_from(&mut bytes)).await.unwrap().unwrap();
    (Message::from_vec(&bytes[..length]).unwrap(), peer)
}

/// A name server on loopback, which counts as one of the site's subnets, with a client of it.
struct Lab {
    server: Arc<Server>,
    address: SocketAddr,
    client: UdpSocket,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Lab {
    async fn start(forwarders: &[&UdpSocket], limits: Limits) -> Lab {
        let forwarders: Vec<SocketAddrV4> = forwarders
            .iter()
            .map(|socket| match socket.local_addr().unwrap() {
                SocketAddr::V4(address) => address,
                SocketAddr::V6(address) => panic!("{address}"),
            })
            .collect();
        let view = site(&forwarders, &[("127.0.0.0/8", "127.0.0.1")]);
        let server = Arc::new(Server::new(Arc::new(view), limits));
        let (udp, tcp) = pair();
        let address = udp.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let task = tokio::spawn(serve(udp, tcp, server.clone(), cancel.clone()));
        let client = socket().await;
        client.connect(address).await.unwrap();
        Lab {
            server,
            address,
            client,
            cancel,
            task,
        }
    }

    async fn ask(&self, name: &str, id: u16) {
        let mut query = query(name, RecordType::A);
        query.metadata.id = id;
        self.client.send(&query.to_vec().unwrap()).await.unwrap();
    }

    fn counted(&self, name: &str) -> u64 {
        self.server.counts().into_iter().find(|(n, _)| *n == name).unwrap().1
    }

    async fn stop(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn answer_to(question: &Message, code: ResponseCode) -> Message {
    let mut answer = Message::response(question.metadata.id, OpCode::Query);
    answer.add_queries(question.queries.clone());
    answer.metadata.response_code = code;
    if code == ResponseCode::NoError {
        let name = question.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 300, RData::A(A::new(192, 0, 2, 80))));
    }
    answer
}

#[tokio::test]
async fn a_silent_forwarder_costs_its_time_once_and_forged_answers_are_ignored() {
    let (silent, good) = (socket().await, socket().await);
    let lab = Lab::start(&[&silent, &good], patient(Duration::from_secs(5))).await;
    lab.ask("www.example.", 1).await;
    let (first, _) = receive(&silent).await;
    let (second, peer) = receive(&good).await;
    assert!(first.metadata.id != second.metadata.id && first.queries == second.queries);
    let right = answer_to(&second, ResponseCode::NoError);
    let mut wrong_id = right.clone();
    wrong_id.metadata.id ^= 1;
    let mut wrong_question = right.clone();
    wrong_question.queries[0].set_name(Name::from_ascii("evil.example.").unwrap());
    for forged in [wrong_id, wrong_question] {
        good.send_to(&forged.to_vec().unwrap(), peer).await.unwrap();
    }
    good.send_to(b"\x00", peer).await.unwrap();
    // From another address than the one that was asked.
    silent.send_to(&right.to_vec().unwrap(), peer).await.unwrap();
    assert_eq!(lab.counted("forwarded"), 0);
    good.send_to(&right.to_vec().unwrap(), peer).await.unwrap();
    let (reply, _) = receive(&lab.client).await;
    assert_eq!((reply.metadata.id, reply.answers), (1, right.answers));
    assert_eq!(lab.counted("forwarded"), 1);

    // The forwarder that answered is asked first from now on.
    lab.ask("again.example.", 2).await;
    let (question, peer) = receive(&good).await;
    let answer = answer_to(&question, ResponseCode::NXDomain).to_vec().unwrap();
    good.send_to(&answer, peer).await.unwrap();
    let (reply, _) = receive(&lab.client).await;
    assert_eq!(
        (reply.metadata.id, reply.metadata.response_code),
        (2, ResponseCode::NXDomain)
    );
    let nothing = silent.try_recv(&mut [0; 100]);
    assert!(nothing.is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "asked again");
    lab.stop().await;
}

#[tokio::test]
async fn a_forwarder_that_is_unable_passes_the_question_to_the_next() {
    let (unable, good) = (socket().await, socket().await);
    let lab = Lab::start(&[&unable, &good], patient(PATIENCE)).await;
    for (id, second, said) in [
        (1, ResponseCode::Refused, ResponseCode::Refused),
        (2, ResponseCode::NoError, ResponseCode::NoError),
    ] {
        lab.ask("www.example.", id).await;
        for (socket, code) in [(&unable, ResponseCode::ServFail), (&good, second)] {
            let (question, peer) = receive(socket).await;
            socket
                .send_to(&answer_to(&question, code).to_vec().unwrap(), peer)
                .await
                .unwrap();
        }
        let (reply, _) = receive(&lab.client).await;
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (id, said));
    }
    lab.stop().await;
}

#[tokio::test]
async fn questions_under_way_are_bounded_and_the_zones_answered_meanwhile() {
    let silent = socket().await;
    let limits = Limits {
        forwards_per_client: 1,
        ..patient(Duration::from_secs(5))
    };
    let lab = Lab::start(&[&silent], limits).await;
    lab.ask("one.example.", 1).await;
    receive(&silent).await;
    lab.ask("two.example.", 2).await;
    lab.ask("r01n03.cluster.example.", 3).await;
    for (id, code) in [
        (2, ResponseCode::ServFail),
        (3, ResponseCode::NoError),
        (1, ResponseCode::ServFail),
    ] {
        let (reply, _) = receive(&lab.client).await;
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (id, code));
    }
    assert_eq!((lab.counted("forward-busy"), lab.counted("forward-failed")), (1, 1));
    // Its permit is free again.
    lab.ask("one.example.", 4).await;
    let (question, peer) = receive(&silent).await;
    silent
        .send_to(&answer_to(&question, ResponseCode::NoError).to_vec().unwrap(), peer)
        .await
        .unwrap();
    assert_eq!(receive(&lab.client).await.0.metadata.id, 4);
    lab.stop().await;
}

#[tokio::test]
async fn a_silent_client_does_not_keep_its_connection() {
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..Limits::default()
    };
    let lab = Lab::start(&[], limits).await;
    let mut idle = TcpStream::connect(lab.address).await.unwrap();
    assert_eq!(timeout(PATIENCE, idle.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert_eq!(lab.counted("connections-closed"), 1);
    lab.stop().await;
}

#[tokio::test]
async fn queries_on_a_connection_are_answered_in_turn() {
    // Its TCP port accepts connections, and sends nothing on them.
    let (forwarder, silent) = pair();
    forwarder.set_nonblocking(true).unwrap();
    let forwarder = UdpSocket::from_std(forwarder).unwrap();
    let lab = Lab::start(&[&forwarder], patient(Duration::from_secs(1))).await;
    let mut stream = TcpStream::connect(lab.address).await.unwrap();
    let ours = query("r01n03.cluster.example.", RecordType::A).to_vec().unwrap();
    let other = query("www.example.", RecordType::A).to_vec().unwrap();
    let all = [framing::framed(&ours), framing::framed(&other), framing::framed(&ours)].concat();
    stream.write_all(&all).await.unwrap();
    for code in [ResponseCode::NoError, ResponseCode::ServFail, ResponseCode::NoError] {
        let length = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, code);
    }
    drop(silent);
    // Open connections do not delay the end.
    lab.stop().await;
}
