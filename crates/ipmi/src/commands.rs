//! Commands: the data of each request, and what its answer means (pure).
//!
//! A new command is a type here that implements [`Command`]. Section numbers are those of "IPMI Specification, v2.0, rev. 1.1".

/// Network functions (5.1, table 5-1).
const CHASSIS: u8 = 0x00;
const APP: u8 = 0x06;

/// A command to a BMC.
pub trait Command {
    /// What the answer says.
    type Answer;

    /// The name that the specification gives it, for messages.
    const NAME: &'static str;
    /// Network function of the request.
    const NETFN: u8;
    /// Number of the command.
    const NUMBER: u8;

    /// Data of the request.
    fn data(&self) -> Vec<u8>;

    /// Reads the data of the answer, without its completion code. None if they are malformed.
    fn read(&self, data: &[u8]) -> Option<Self::Answer>;
}

/// Get Chassis Status (28.2).
#[derive(Clone, Copy, Debug)]
pub struct GetChassisStatus;

/// The power of a machine, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChassisStatus {
    /// Whether the system's power is on.
    pub on: bool,
    /// Whether the main power was shut down because of an overload.
    pub overload: bool,
    /// Whether a fault was found in the main power.
    pub power_fault: bool,
    /// Whether the controller could not switch the power.
    pub control_fault: bool,
    /// Whether a fault was found in a drive.
    pub drive_fault: bool,
    /// Whether a fault was found in the cooling.
    pub cooling_fault: bool,
}

impl ChassisStatus {
    /// The faults in words, separated by commas; empty without faults.
    pub fn faults(&self) -> String {
        let all = [
            (self.overload, "overload"),
            (self.power_fault, "power fault"),
            (self.control_fault, "power control fault"),
            (self.drive_fault, "drive fault"),
            (self.cooling_fault, "cooling fault"),
        ];
        let named: Vec<&str> = all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        named.join(", ")
    }
}

impl Command for GetChassisStatus {
    type Answer = ChassisStatus;
    const NAME: &'static str = "Get Chassis Status";
    const NETFN: u8 = CHASSIS;
    const NUMBER: u8 = 0x01;

    fn data(&self) -> Vec<u8> {
        Vec::new()
    }

    fn read(&self, data: &[u8]) -> Option<ChassisStatus> {
        let [power, _last_event, misc, ..] = data else {
            return None;
        };
        let is = |byte: &u8, bit: u8| byte & (1 << bit) != 0;
        Some(ChassisStatus {
            on: is(power, 0),
            overload: is(power, 1),
            power_fault: is(power, 3),
            control_fault: is(power, 4),
            drive_fault: is(misc, 2),
            cooling_fault: is(misc, 3),
        })
    }
}

/// Chassis Control (28.3): what is done to the system's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChassisControl {
    /// Power off at once.
    Off,
    /// Power on.
    On,
    /// Power off for at least a second, and on again.
    Cycle,
    /// Hard reset.
    Reset,
    /// Ask the operating system to shut down, by an emulated fatal over-temperature or a press of the power button.
    Soft,
}

impl Command for ChassisControl {
    type Answer = ();
    const NAME: &'static str = "Chassis Control";
    const NETFN: u8 = CHASSIS;
    const NUMBER: u8 = 0x02;

    fn data(&self) -> Vec<u8> {
        vec![match self {
            ChassisControl::Off => 0x0,
            ChassisControl::On => 0x1,
            ChassisControl::Cycle => 0x2,
            ChassisControl::Reset => 0x3,
            ChassisControl::Soft => 0x5,
        }]
    }

    fn read(&self, _data: &[u8]) -> Option<()> {
        Some(())
    }
}

/// Chassis Identify (28.5): lets the identify light blink.
#[derive(Clone, Copy, Debug)]
pub struct ChassisIdentify {
    /// For so many seconds; 0 = the light goes off.
    pub seconds: u8,
}

impl Command for ChassisIdentify {
    type Answer = ();
    const NAME: &'static str = "Chassis Identify";
    const NETFN: u8 = CHASSIS;
    const NUMBER: u8 = 0x04;

    fn data(&self) -> Vec<u8> {
        vec![self.seconds]
    }

    fn read(&self, _data: &[u8]) -> Option<()> {
        Some(())
    }
}

/// Where a machine boots from next (28.13, table 28-14, parameter 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// As the firmware's own boot order says.
    FirmwareOrder,
    /// The network (PXE).
    Network,
    /// The default hard disk.
    Disk,
    /// The setup of the firmware.
    Setup,
}

impl BootDevice {
    const ALL: [(BootDevice, u8); 4] = [
        (BootDevice::FirmwareOrder, 0x0),
        (BootDevice::Network, 0x1),
        (BootDevice::Disk, 0x2),
        (BootDevice::Setup, 0x6),
    ];

    fn number(self) -> u8 {
        BootDevice::ALL
            .iter()
            .find(|(device, _)| *device == self)
            .map_or(0, |(_, number)| *number)
    }
}

/// Parameter 5 of the boot options: boot flags.
const BOOT_FLAGS: u8 = 5;
/// Bits of its first byte.
const VALID: u8 = 0x80;
const PERSISTENT: u8 = 0x40;
const EFI: u8 = 0x20;

/// Set System Boot Options (28.12), parameter 5, for the next boot alone.
#[derive(Clone, Copy, Debug)]
pub struct SetNextBoot {
    /// Where the machine boots from.
    pub device: BootDevice,
    /// Whether its firmware boots as UEFI does.
    pub efi: bool,
}

impl Command for SetNextBoot {
    type Answer = ();
    const NAME: &'static str = "Set System Boot Options";
    const NETFN: u8 = CHASSIS;
    const NUMBER: u8 = 0x08;

    fn data(&self) -> Vec<u8> {
        let efi = if self.efi { EFI } else { 0 };
        vec![BOOT_FLAGS, VALID | efi, self.device.number() << 2, 0, 0, 0]
    }

    fn read(&self, _data: &[u8]) -> Option<()> {
        Some(())
    }
}

/// Get System Boot Options (28.13), parameter 5.
#[derive(Clone, Copy, Debug)]
pub struct GetNextBoot;

/// The boot flags that a BMC has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextBoot {
    /// Whether the flags have an effect on all boots, and not on the next one alone.
    pub persistent: bool,
    /// Where the machine boots from; none if it is a device that rackstrap does not set.
    pub device: Option<BootDevice>,
}

impl Command for GetNextBoot {
    type Answer = NextBoot;
    const NAME: &'static str = "Get System Boot Options";
    const NETFN: u8 = CHASSIS;
    const NUMBER: u8 = 0x09;

    fn data(&self) -> Vec<u8> {
        vec![BOOT_FLAGS, 0, 0]
    }

    fn read(&self, data: &[u8]) -> Option<NextBoot> {
        let [_version, parameter, flags, device, ..] = data else {
            return None;
        };
        // Bit 7 says that the parameter is locked.
        if parameter & 0x7f != BOOT_FLAGS {
            return None;
        }
        let number = (device >> 2) & 0x0f;
        Some(NextBoot {
            persistent: flags & PERSISTENT != 0,
            device: BootDevice::ALL
                .iter()
                .find(|(_, known)| *known == number)
                .map(|(device, _)| *device),
        })
    }
}

/// Set Session Privilege Level (22.18). Sessions begin with the privilege User, which may switch nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetPrivilege(pub(crate) u8);

impl Command for SetPrivilege {
    /// The new level.
    type Answer = u8;
    const NAME: &'static str = "Set Session Privilege Level";
    const NETFN: u8 = APP;
    const NUMBER: u8 = 0x3b;

    fn data(&self) -> Vec<u8> {
        vec![self.0]
    }

    fn read(&self, data: &[u8]) -> Option<u8> {
        Some(data.first()? & 0x0f)
    }
}

/// Close Session (22.19). BMCs have few sessions, and keep one for 60 s if it is not closed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CloseSession(pub(crate) u32);

impl Command for CloseSession {
    type Answer = ();
    const NAME: &'static str = "Close Session";
    const NETFN: u8 = APP;
    const NUMBER: u8 = 0x3c;

    fn data(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn read(&self, _data: &[u8]) -> Option<()> {
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chassis_status_is_read_bit_by_bit() {
        let read = |data: &[u8]| GetChassisStatus.read(data);
        let status = read(&[0x61, 0x10, 0x00]).unwrap();
        assert!(status.on && status.faults().is_empty());
        let status = read(&[0x1a, 0x00, 0x0c, 0x00]).unwrap();
        assert!(!status.on);
        assert_eq!(
            status.faults(),
            "overload, power fault, power control fault, drive fault, cooling fault"
        );
        for short in [&[][..], &[1], &[1, 0]] {
            assert_eq!(read(short), None);
        }
    }

    #[test]
    fn the_next_boot_is_for_one_boot_alone() {
        // As ipmitool 1.8.19 sends it for `chassis bootdev pxe` and `... bios options=efiboot`.
        let data = |device, efi| SetNextBoot { device, efi }.data();
        assert_eq!(data(BootDevice::Network, false), [5, 0x80, 0x04, 0, 0, 0]);
        assert_eq!(data(BootDevice::Setup, true), [5, 0xa0, 0x18, 0, 0, 0]);
        let read = |data: &[u8]| GetNextBoot.read(data);
        let next = read(&[1, 5, 0xe0, 0x08, 0, 0, 0]).unwrap();
        assert!(next.persistent);
        assert!(!read(&[1, 5, 0xa0, 0x08, 0, 0, 0]).unwrap().persistent);
        assert_eq!(next.device, Some(BootDevice::Disk));
        assert_eq!(read(&[1, 0x85, 0x80, 0x3c]).unwrap().device, None);
        for bad in [&[][..], &[1, 5, 0x80], &[1, 4, 0x80, 0x04, 0, 0, 0]] {
            assert_eq!(read(bad), None);
        }
    }
}
