//! Threads that run as long as the daemon. Each one is supervised: if it panics, or cannot be started, its [`Thread::ended`] is
//! an error, and the daemon ends with that reason. The service manager starts the daemon again, and what was confirmed is on disk.

use crate::{
    panics::{HELP, text_of},
    sync::lock,
};
use std::{
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex},
    thread::{Builder, JoinHandle},
};
use tokio::sync::watch;

/// A thread that was started; clones share it.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Why it ended: `Ok` if its work was done.
    end: watch::Receiver<Option<Result<(), String>>>,
    handle: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Thread {
    /// Starts a thread. If that fails, the error is how it ended.
    pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Thread {
        let (ended, end) = watch::channel(None);
        let ended = Arc::new(ended);
        let thread = Builder::new().name(name.to_owned()).spawn({
            let (ended, name) = (ended.clone(), name.to_owned());
            move || {
                let result = panic::catch_unwind(AssertUnwindSafe(|| {
                    #[cfg(debug_assertions)]
                    on_purpose::panic_if_wanted(&name);
                    run();
                }));
                let result = result.map_err(|panic| format!("thread {name} panicked: {}; {HELP}", text_of(&*panic)));
                ended.send_replace(Some(result));
            }
        });
        if let Err(error) = &thread {
            ended.send_replace(Some(Err(format!("thread {name} cannot be started: {error}"))));
        }
        Thread {
            end,
            handle: Arc::new(Mutex::new(thread.ok())),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It panicked, or could not be started.
    pub fn ended(&self) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let mut end = self.end.clone();
        async move {
            // The sender lives until it has said something.
            let end = end.wait_for(Option::is_some).await.map_err(io::Error::other)?;
            end.clone().unwrap_or(Ok(())).map_err(io::Error::other)
        }
    }

    /// Blocks until it has ended.
    ///
    /// # Errors
    /// As of [`Thread::ended`].
    pub fn join(&self) -> io::Result<()> {
        if let Some(handle) = lock(&self.handle).take() {
            // Its panic was caught, and is the end that is returned.
            let _ = handle.join();
        }
        let end = self.end.borrow().clone();
        end.unwrap_or(Ok(())).map_err(io::Error::other)
    }
}

/// How a test has a thread of a whole daemon panic. Release builds have nothing of it.
#[cfg(debug_assertions)]
mod on_purpose {
    use std::{env, fs};

    /// `THREAD=PIPE`: instead of its work, the thread waits until somebody writes to that named pipe, and panics.
    const VARIABLE: &str = "RACKSTRAP_DEBUG_PANIC";

    pub(super) fn panic_if_wanted(name: &str) {
        let wanted = env::var(VARIABLE).unwrap_or_default();
        if let Some((thread, pipe)) = wanted.split_once('=')
            && thread == name
        {
            let _ = fs::read(pipe);
            panic!("{VARIABLE} wants it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    #[test]
    fn the_end_of_a_thread_is_seen_by_everybody_who_waits_for_it() {
        let (go, gate) = channel::<()>();
        let thread = Thread::spawn("works", move || {
            let _ = gate.recv();
        });
        let (one, other) = (thread.ended(), thread.clone().ended());
        drop(go);
        assert!(runtime().block_on(one).is_ok() && runtime().block_on(other).is_ok());
        thread.join().unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_panic_is_an_error_with_its_reason() {
        let thread = Thread::spawn("racking", || panic!("rack {} has no floor", 7));
        let error = runtime().block_on(thread.ended()).unwrap_err().to_string();
        assert!(
            error.starts_with("thread racking panicked: rack 7 has no floor; this is a defect of rackstrap"),
            "{error}"
        );
        assert_eq!(thread.join().unwrap_err().to_string(), error);
    }
}
