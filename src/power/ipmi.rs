//! BMCs by IPMI 2.0 over LAN: the driver of `rackstrap-ipmi`.

use super::{
    driver::{Controller, Doing, Trouble},
    verbs::Action,
};
use rackstrap_control::api::BootFrom;
use rackstrap_ipmi::{
    Client, Failure, Login, PORT, Privilege,
    commands::{BootDevice, ChassisControl, ChassisIdentify, GetChassisStatus, GetNextBoot, SetNextBoot},
};
use std::net::Ipv4Addr;

/// A session with one BMC.
struct Ipmi {
    address: Ipv4Addr,
    client: Client,
}

fn trouble(address: Ipv4Addr, failure: &Failure) -> Trouble {
    Trouble {
        message: format!("BMC {address}: {failure}"),
        help: failure.remedy().to_owned(),
    }
}

/// Logs in to the BMC at `address`, as an operator: who switches the power needs no more.
pub(super) async fn open(address: Ipv4Addr, user: &str, password: &[u8]) -> Result<Box<dyn Controller>, Trouble> {
    let login = Login::new(user, password, Privilege::Operator).map_err(|error| Trouble {
        message: format!("BMC {address}: {error}"),
        help: "check `bmc-user` and the file of `bmc-password-file`".to_owned(),
    })?;
    let opened = Client::log_in((address, PORT).into(), &login).await;
    let client = opened.map_err(|failure| trouble(address, &failure))?;
    Ok(Box::new(Ipmi { address, client }))
}

impl Ipmi {
    /// Sets where the next boot is from, and reads it back: some BMCs accept what they do not keep, and some keep it for all boots.
    async fn boot_once(&mut self, from: BootFrom, efi: bool) -> Result<(), Trouble> {
        let device = match from {
            BootFrom::Network => BootDevice::Network,
            BootFrom::Disk => BootDevice::Disk,
            BootFrom::Setup => BootDevice::Setup,
            BootFrom::Firmware => BootDevice::FirmwareOrder,
        };
        let address = self.address;
        let failed = |failure: Failure| trouble(address, &failure);
        self.client.run(&SetNextBoot { device, efi }).await.map_err(failed)?;
        let kept = self.client.run(&GetNextBoot).await.map_err(failed)?;
        let wrong = |message: &str, help: &str| {
            Err(Trouble {
                message: format!("BMC {address}: {message}"),
                help: help.to_owned(),
            })
        };
        // Whether the flags are valid is not compared: OpenIPMI's simulator never says so.
        if kept.device != Some(device) {
            return wrong(
                "it accepted the boot device and did not keep it",
                "set it in the BMC's own interface",
            );
        }
        if kept.persistent {
            return wrong(
                "it keeps the boot device for all boots, and not for the next one alone",
                "take it back with --from firmware after the boot",
            );
        }
        Ok(())
    }
}

impl Controller for Ipmi {
    fn state(&mut self) -> Doing<'_, Result<(bool, String), Trouble>> {
        Box::pin(async move {
            let status = self.client.run(&GetChassisStatus).await;
            let status = status.map_err(|failure| trouble(self.address, &failure))?;
            Ok((status.on, status.faults()))
        })
    }

    fn act(&mut self, action: Action) -> Doing<'_, Result<(), Trouble>> {
        Box::pin(async move {
            let done = match action {
                Action::On => self.client.run(&ChassisControl::On).await,
                Action::Off => self.client.run(&ChassisControl::Off).await,
                Action::Soft => self.client.run(&ChassisControl::Soft).await,
                Action::Cycle => self.client.run(&ChassisControl::Cycle).await,
                Action::Reset => self.client.run(&ChassisControl::Reset).await,
                Action::Boot(from, efi) => return self.boot_once(from, efi).await,
                Action::Identify(seconds) => self.client.run(&ChassisIdentify { seconds }).await,
            };
            done.map_err(|failure| trouble(self.address, &failure))
        })
    }

    fn close(self: Box<Self>) -> Doing<'static, ()> {
        Box::pin(async move {
            // The BMC ends the session by itself after a minute.
            let _ = self.client.close().await;
        })
    }
}
