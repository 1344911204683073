//! What every way to switch a machine's power can do. A driver is a file next to this one, and a variant of [`BmcDriver`].

use super::{ipmi, password, verbs::Action};
use rackstrap_model::bmc::BmcOf;
use rackstrap_site::BmcDriver;
use std::pin::Pin;

/// A future of a driver.
pub(super) type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a controller did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The controller, the step, and what was found.
    pub message: String,
    /// What an administrator can do about it.
    pub help: String,
}

/// The connection to the controller of one machine.
pub(super) trait Controller: Send {
    /// Whether the machine's power is on, and faults of the machine in words, empty without faults.
    fn state(&mut self) -> Doing<'_, Result<(bool, String), Trouble>>;

    /// Does something to the machine. Its state follows, with a delay.
    fn act(&mut self, action: Action) -> Doing<'_, Result<(), Trouble>>;

    /// Ends the connection, so that the controller has room for the next one.
    fn close(self: Box<Self>) -> Doing<'static, ()>;
}

/// Connects to a BMC.
pub(super) async fn open(bmc: &BmcOf) -> Result<Box<dyn Controller>, Trouble> {
    let trouble = |message: &str, help: &str| Trouble {
        message: format!("BMC {}: {message}", bmc.address),
        help: help.to_owned(),
    };
    if bmc.user.is_empty() {
        return Err(trouble(
            "the site file names no user",
            "write user = \"admin\" in [bmc], or set bmc-user",
        ));
    }
    let Some(file) = bmc.password_file.clone() else {
        let help = "write password-file in [bmc], or set bmc-password-file";
        return Err(trouble("the site file names no password file", help));
    };
    let read = tokio::task::spawn_blocking(move || password::read(&file)).await;
    let password = match read {
        Ok(Ok(password)) => password,
        Ok(Err((message, help))) => return Err(trouble(&message, &help)),
        Err(panic) => return Err(trouble(&panic.to_string(), "see the daemon's log")),
    };
    match bmc.driver {
        BmcDriver::Ipmi => ipmi::open(bmc.address, &bmc.user, &password).await,
    }
}
