//! Answers that are sent again whenever they change, for commands that print line by line.

use rackstrap_control::{ClientError, Watch};

/// The next answer; none at the end. That the daemon is away is said once, on standard error.
///
/// # Errors
/// Failures that do not end with a restart of the daemon.
pub fn next_answer<T>(watch: &mut Watch<T>) -> Option<Result<T, ClientError>> {
    let mut gone = false;
    loop {
        match watch.blocking_next()? {
            Err(error) if error.passes() => {
                if !std::mem::replace(&mut gone, true) {
                    eprintln!("{error}");
                }
            }
            answer => return Some(answer),
        }
    }
}
