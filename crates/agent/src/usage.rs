//! The used space of the disk's file systems, read without waiting for a disk that does not answer.
//!
//! A process that waits in the kernel for a broken disk cannot be interrupted. So a thread asks, and while it waits no other one is started.

use rackstrap_wire::{MountedPartition, UsedSpace};
use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    },
    time::Duration,
};

/// What asks the kernel.
#[derive(Debug, Default)]
pub struct Usage {
    /// The answer that a thread waits for; none if none does.
    waits: Mutex<Option<Receiver<Vec<UsedSpace>>>>,
}

impl Usage {
    /// What `look` returns, if it does within `patience`.
    ///
    /// # Errors
    /// What was waited for, for people.
    pub fn of(
        &self,
        mounts: &[MountedPartition],
        patience: Duration,
        look: fn(&[MountedPartition]) -> Vec<UsedSpace>,
    ) -> Result<Vec<UsedSpace>, String> {
        if mounts.is_empty() {
            return Ok(Vec::new());
        }
        let hangs = || {
            let places: Vec<&str> = mounts.iter().filter_map(|mount| mount.mount.as_deref()).collect();
            let (places, secs) = (places.join(", "), patience.as_secs());
            format!("the disk does not answer: waited {secs} s for the used space of {places}")
        };
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = &*waits
            && matches!(before.try_recv(), Err(TryRecvError::Empty))
        {
            return Err(hangs());
        }
        *waits = None;
        let (sender, answer) = channel();
        let asked = mounts.to_vec();
        let thread = std::thread::Builder::new().spawn(move || sender.send(look(&asked)));
        if thread.is_err() {
            return Ok(Vec::new());
        }
        match answer.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => {
                *waits = Some(answer);
                Err(hangs())
            }
            answered => Ok(answered.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackstrap_wire::FileSystem;
    use std::sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    };

    fn mounts() -> Vec<MountedPartition> {
        vec![MountedPartition {
            name: "tmp".into(),
            device: "/dev/vda2".into(),
            fs: FileSystem::Ext4,
            uuid: String::new(),
            mount: Some("/tmp".into()),
            options: String::new(),
            size: 0,
            encrypted: false,
        }]
    }

    fn answer() -> Vec<UsedSpace> {
        vec![UsedSpace {
            mount: "/tmp".into(),
            bytes: 7,
        }]
    }

    static ASKED: AtomicU32 = AtomicU32::new(0);
    static AGAIN: OnceLock<()> = OnceLock::new();

    fn hangs(_: &[MountedPartition]) -> Vec<UsedSpace> {
        ASKED.fetch_add(1, Relaxed);
        AGAIN.wait();
        answer()
    }

    #[test]
    fn a_disk_that_hangs_is_named_asked_once_and_asked_again_when_it_answers() {
        let usage = Usage::default();
        let patience = Duration::from_secs(600);
        assert_eq!(usage.of(&mounts(), patience, |_| answer()), Ok(answer()));
        assert_eq!(usage.of(&[], patience, hangs), Ok(Vec::new()), "no disk is asked");
        let told = "the disk does not answer: waited 0 s for the used space of /tmp".to_owned();
        for _ in 0..3 {
            assert_eq!(usage.of(&mounts(), Duration::from_millis(1), hangs), Err(told.clone()));
        }
        AGAIN.get_or_init(|| ());
        // The first answer may come late; then the disk is asked again.
        while usage.of(&mounts(), patience, hangs) != Ok(answer()) {
            std::thread::yield_now();
        }
        assert_eq!(ASKED.load(Relaxed), 2);
    }
}
