//! Tasks on packet sockets: one for each interface that is wanted now, and packets by the batch.

use super::LinkSocket;
use rackstrap_wire::HwAddr;
use rustix::net::netdevice::name_to_index;
use socket2::{Domain, Socket, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};
use tokio::{
    io::unix::AsyncFd,
    task::{Id, JoinSet},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

/// How often the site is looked at for interfaces that came or went.
const WATCH: Duration = Duration::from_secs(2);
/// Packets taken from a socket before other tasks get a turn.
const BATCH: usize = 64;

/// The index of the interface `name`.
///
/// # Errors
/// No interface has this name.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    Ok(name_to_index(&socket, name)?)
}

/// Runs a task on each interface that `wanted` names, until `cancel`. `open` gets the name and the index of an interface, and
/// answers its task. What cannot be opened is complained of once, and tried again.
pub async fn on_each_interface<T>(
    wanted: impl Fn() -> BTreeSet<String>,
    open: impl Fn(&str, u32) -> io::Result<T>,
    complain: impl Fn(&str, &io::Error),
    cancel: CancellationToken,
) where
    T: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<String, (u32, CancellationToken, Id)> = BTreeMap::new();
    let mut complained = BTreeSet::new();
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            _ = watch.tick() => {}
            Some(ended) = tasks.join_next_with_id() => {
                // One that was not stopped panicked, which its hook has told: the interface gets another one at the next look.
                let id = ended.map_or_else(|panic| panic.id(), |(id, ())| id);
                running.retain(|_, (.., task)| *task != id);
                continue;
            }
        }
        let wanted = wanted();
        running.retain(|name, (index, stop, _)| {
            // An interface that was made again under its old name has another index, and the old socket is deaf.
            let keep = wanted.contains(name) && interface_index(name).is_ok_and(|now| now == *index);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for name in wanted {
            if running.contains_key(&name) {
                continue;
            }
            match interface_index(&name).and_then(|index| Ok((index, open(&name, index)?))) {
                Ok((index, task)) => {
                    complained.remove(&name);
                    let stop = cancel.child_token();
                    let stopped = stop.clone();
                    let running_task = tasks.spawn(async move {
                        stopped.run_until_cancelled(task).await;
                    });
                    running.insert(name, (index, stop, running_task.id()));
                }
                Err(error) if complained.insert(name.clone()) => complain(&name, &error),
                Err(_) => {}
            }
        }
    }
    tasks.shutdown().await;
}

/// Waits for packets, and gives those that are there to `take`, with the hardware addresses that they came from.
///
/// # Errors
/// The socket's: the link went down, for example; it may come back.
pub async fn receive_some(
    link: &AsyncFd<LinkSocket>,
    buffer: &mut [u8],
    mut take: impl FnMut(&[u8], HwAddr),
) -> io::Result<()> {
    let mut ready = link.readable().await?;
    for _ in 0..BATCH {
        match ready.try_io(|link| link.get_ref().receive(buffer)) {
            Ok(received) => {
                let (length, from) = received?;
                take(&buffer[..length], from);
            }
            Err(_would_block) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };

    /// An interface whose task panicked would be deaf until the daemon is started again.
    #[tokio::test]
    async fn an_interface_whose_task_panicked_gets_another_one() {
        let cancel = CancellationToken::new();
        let opened = Arc::new(AtomicU32::new(0));
        let open = |_: &str, _| {
            let (time, cancel) = (opened.fetch_add(1, SeqCst), cancel.clone());
            Ok(async move {
                assert!(time > 0, "a test wants it");
                cancel.cancel();
                std::future::pending::<()>().await;
            })
        };
        let complain = |name: &str, error: &io::Error| panic!("{name}: {error}");
        on_each_interface(|| ["lo".to_owned()].into(), open, complain, cancel.clone()).await;
        assert_eq!(opened.load(SeqCst), 2);
    }
}
