//! The client: one UDP socket to one BMC, and the clock for its [`Session`].

use crate::{
    Ended, Failure, Login, Next, Reason, Session, Step, Suite,
    commands::{CloseSession, Command},
    packet::MOST_BYTES,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};
use tokio::{net::UdpSocket, time};

/// How often a login is begun: a BMC that did not get our last message, or whose answer to it was lost, wants a new one.
const LOGINS: u32 = 2;

/// A session with one BMC. A BMC has few sessions (often four): close it.
pub struct Client {
    socket: UdpSocket,
    session: Session,
}

impl Client {
    /// Logs in to the BMC at `address`: with cipher suite 17, and with 3 if the BMC does not know 17.
    ///
    /// Without a limit of its own: the longest login, to a BMC that never answers, takes 15 s.
    ///
    /// # Errors
    /// The BMC does not answer, or refuses the login.
    pub async fn log_in(address: SocketAddr, login: &Login) -> Result<Client, Failure> {
        let mut failed = Failure::new(Step::OpenSession, Reason::CipherSuite);
        for suite in [Suite::Sha256, Suite::Sha1] {
            match Client::log_in_with(address, login, suite).await {
                Err(failure) if failure.is_of_suite() => failed.step = failure.step,
                ended => return ended,
            }
        }
        Err(failed)
    }

    /// The same with this cipher suite only.
    async fn log_in_with(address: SocketAddr, login: &Login, suite: Suite) -> Result<Client, Failure> {
        let mut logins = 1;
        loop {
            let ended = Client::log_in_once(address, login, suite).await;
            match &ended {
                Err(failure) if failure.is_of_lost_login() && logins < LOGINS => logins += 1,
                _ => return ended,
            }
        }
    }

    async fn log_in_once(address: SocketAddr, login: &Login, suite: Suite) -> Result<Client, Failure> {
        let broken = |error: std::io::Error| Failure::new(Step::OpenSession, Reason::Socket(error.to_string()));
        // A socket of its own, with a port of its own: answers to an earlier login go elsewhere.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await.map_err(broken)?;
        socket.connect(address).await.map_err(broken)?;
        // The operating system's generator seeds it.
        let random = |bytes: &mut [u8]| rand::fill(bytes);
        let session = Session::new(login.clone(), suite, Box::new(random));
        let mut client = Client { socket, session };
        match client.end(Step::OpenSession).await {
            Ok(_) => Ok(client),
            Err(failure) => {
                // The session exists without its privilege: the BMC would keep it for 60 s, and a few such logins would use up all sessions.
                if matches!(
                    (failure.step, &failure.reason),
                    (Step::Privilege, Reason::Completion(_))
                ) {
                    let _ = client.close().await;
                }
                Err(failure)
            }
        }
    }

    /// Has the BMC carry out a command.
    ///
    /// # Errors
    /// The BMC does not answer, refuses it, or its answer is malformed.
    pub async fn run<C: Command>(&mut self, command: &C) -> Result<C::Answer, Failure> {
        self.session.command(command);
        let malformed = || Failure::new(Step::Command(C::NAME), Reason::Malformed);
        match self.end(Step::Command(C::NAME)).await? {
            Ended::Answer(data) => command.read(&data).ok_or_else(malformed),
            Ended::LoggedIn | Ended::Closed => Err(malformed()),
        }
    }

    /// Closes the session, so that the next login finds a free one.
    ///
    /// # Errors
    /// The BMC does not answer. It ends the session after 60 s.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.session.close();
        self.end(Step::Command(CloseSession::NAME)).await.map(drop)
    }

    /// Sends, waits and receives until the session's step has ended.
    async fn end(&mut self, step: Step) -> Result<Ended, Failure> {
        let mut buffer = [0; MOST_BYTES];
        loop {
            match self.session.next(Instant::now()) {
                // An ICMP error is an answer to an earlier packet: the next try may succeed.
                Next::Send(packet) => drop(self.socket.send(&packet).await),
                Next::Wait(until) => {
                    let received = time::timeout_at(until.into(), self.socket.recv(&mut buffer));
                    match received.await {
                        Ok(Ok(length)) => drop(self.session.receive(buffer.get(..length).unwrap_or_default())),
                        // "Port unreachable": no program has the BMC's port now. The time of the try passes, and the next one follows.
                        Ok(Err(_)) => time::sleep_until(until.into()).await,
                        Err(_) => {}
                    }
                }
                Next::Ended(ended) => return ended,
                Next::Idle => return Err(Failure::new(step, Reason::Malformed)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Privilege,
        commands::{GetChassisStatus, SetPrivilege},
        fake::Fake,
    };

    /// A BMC with this completion code on a port of its own: its address, and the commands that it gets.
    async fn bmc(completion: u8) -> (SocketAddr, tokio::task::JoinHandle<Vec<u8>>) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut bmc = Fake::new(Suite::Sha256, b"secret");
        bmc.completion = completion;
        let served = tokio::spawn(async move {
            let mut buffer = [0; MOST_BYTES];
            while bmc.commands.last() != Some(&CloseSession::NUMBER) {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                socket.send_to(&bmc.answer(&buffer[..length]), from).await.unwrap();
            }
            bmc.commands
        });
        (address, served)
    }

    fn login() -> Login {
        Login::new("admin", b"secret", Privilege::Operator).unwrap()
    }

    #[tokio::test]
    async fn a_client_logs_in_runs_a_command_and_closes_its_session() {
        let (address, served) = bmc(0).await;
        let mut client = Client::log_in(address, &login()).await.unwrap();
        assert!(client.run(&GetChassisStatus).await.unwrap().on);
        client.close().await.unwrap();
        let wanted = [SetPrivilege::NUMBER, GetChassisStatus::NUMBER, CloseSession::NUMBER];
        assert_eq!(served.await.unwrap(), wanted);
    }

    #[tokio::test]
    async fn a_session_that_does_not_get_its_privilege_is_closed() {
        let (address, served) = bmc(0x81).await;
        let failure = Client::log_in(address, &login()).await.err().unwrap();
        assert_eq!(failure, Failure::new(Step::Privilege, Reason::Completion(0x81)));
        assert_eq!(served.await.unwrap(), [SetPrivilege::NUMBER, CloseSession::NUMBER]);
    }
}
