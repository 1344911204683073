//! Encrypted devices by the kernel's device mapper (dm-crypt), without a program of the image and without a header on the disk.
//!
//! The key is random, and exists in the kernel's memory only: it gets there by a key of the type `logon`, which no process can read, and not by
//! the device's table, which root can. After that it is removed here and from the keyring. So what was written is lost when the machine
//! restarts. This is what `/dev/urandom` in crypttab(5) does. A LUKS header would add nothing: it stores the key on the disk, for a passphrase,
//! and here there is no passphrase.
//!
//! The messages are those of linux/dm-ioctl.h and Documentation/admin-guide/device-mapper/dm-crypt.rst.

use crate::{
    fail::{Doing, Failure, Res},
    network::wait_for,
    sys::{self, DEVICE_MAPPER_HEADER as HEADER},
};
use rustix::fs::{CWD, FileType, Mode};
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

/// Bytes of `struct dm_target_spec`, which the parameters follow.
const TARGET: usize = 40;
/// Bytes of the key: two of AES-256, as XTS needs them.
const KEY: usize = 64;
/// `DM_SECURE_DATA_FLAG`: the kernel clears its copy of a message.
const SECURE_DATA: u32 = 1 << 15;
/// Longest wait for the device mapper's own device after its module was loaded.
const WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a device that a program has open for a moment, such as udev.
const REMOVAL: Duration = Duration::from_secs(1);

/// What the device mapper is asked to do; the numbers are those of the ioctls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Create = 3,
    Remove = 4,
    Resume = 6,
    LoadTable = 9,
}

/// An encrypted device over a partition.
#[derive(Debug)]
pub struct Mapping {
    name: String,
    control: File,
    /// Its node, `/dev/mapper/rackstrap-tmp`.
    pub node: PathBuf,
}

impl Mapping {
    /// Makes the device `rackstrap-PARTITION` over the block device `below`, of `sectors` sectors of 512 bytes, with a new random key.
    pub fn with_new_key(partition: &str, below: &Path, sectors: u64) -> Res<Mapping> {
        let control = wait_for(WAIT, || {
            File::options().read(true).write(true).open("/dev/mapper/control").ok()
        })
        .ok_or_else(|| Failure::new("the kernel has no device mapper (/dev/mapper/control)"))?;
        let name = format!("rackstrap-{partition}");
        let mapping = Mapping {
            node: Path::new("/dev/mapper").join(&name),
            name,
            control,
        };
        // An attempt of this boot that failed later may have left it.
        let _ = mapping.ask(Request::Remove, None);
        let description = format!("rackstrap:{partition}");
        let key = Key::new(&description)?;
        let numbers = fs::metadata(below).doing(|| format!("looking at {}", below.display()))?;
        let numbers = std::os::unix::fs::MetadataExt::rdev(&numbers);
        let target = Target {
            sectors,
            parameters: crypt_parameters(&description, (rustix::fs::major(numbers), rustix::fs::minor(numbers))),
        };
        let made = mapping.set_up(&target);
        drop(key);
        match made {
            Ok(()) => Ok(mapping),
            Err(failure) => {
                mapping.remove();
                Err(failure)
            }
        }
    }

    fn set_up(&self, target: &Target) -> Res<()> {
        let device = self.ask(Request::Create, None)?;
        self.ask(Request::LoadTable, Some(target))?;
        self.ask(Request::Resume, None)?;
        // A node instead of udev's link to /dev/dm-0: without udev there is no link, and /proc/mounts and /proc/swaps show this name.
        let _ = fs::remove_file(&self.node);
        rustix::fs::mknodat(CWD, &self.node, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, device)
            .doing(|| format!("making {}", self.node.display()))
    }

    /// Removes the device. One that is in use stays, and is gone after the restart.
    pub fn remove(&self) {
        let _ = wait_for(REMOVAL, || self.ask(Request::Remove, None).ok());
        let _ = fs::remove_file(&self.node);
    }

    /// Sends a message, and returns the number of the device.
    fn ask(&self, request: Request, target: Option<&Target>) -> Res<rustix::fs::Dev> {
        let mut message = message(request, &self.name, target);
        sys::device_mapper(&self.control, request as u8, &mut message)
            .doing(|| format!("device mapper: {request:?} of {}", self.name))?;
        Ok(device_of(&message))
    }
}

/// A table with one line, the whole device.
struct Target {
    sectors: u64,
    /// The line after start, length and type.
    parameters: String,
}

/// The parameters of the target `crypt`: cipher, key, offset of its counter, device and offset. `:64:logon:NAME` is a key in the keyring.
fn crypt_parameters(description: &str, (major, minor): (u32, u32)) -> String {
    format!("aes-xts-plain64 :{KEY}:logon:{description} 0 {major}:{minor} 0 1 allow_discards")
}

/// A message about the device `name` (pure): the header, and the table if there is one.
fn message(request: Request, name: &str, target: Option<&Target>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    // The oldest version of the interface with all that is used here. Later ones accept it.
    put(0, &4u32.to_ne_bytes());
    put(16, &(HEADER as u32).to_ne_bytes());
    put(20, &u32::from(target.is_some()).to_ne_bytes());
    put(28, &SECURE_DATA.to_ne_bytes());
    // Names are cut so that a zero follows: 128 bytes at 48, and 129 bytes of the UUID at 176.
    let name = rackstrap_wire::text::cut(name, 100);
    put(48, name.as_bytes());
    // cryptsetup's form of the UUID tells lsblk what the device is. Later a device is named by one of both: the kernel refuses two.
    if request == Request::Create {
        put(176, format!("CRYPT-PLAIN-{name}").as_bytes());
    }
    if let Some(target) = target {
        let mut table = vec![0; TARGET];
        table[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
        table[24..29].copy_from_slice(b"crypt");
        table.extend(target.parameters.as_bytes());
        // A zero ends the parameters, and targets are aligned to 8 bytes.
        table.resize((table.len() + 1).next_multiple_of(8), 0);
        bytes.extend(table);
    }
    let size = (bytes.len() as u32).to_ne_bytes();
    bytes[12..16].copy_from_slice(&size);
    bytes
}

/// The number of the device in an answer (pure), as the kernel's `huge_encode_dev` writes it.
fn device_of(message: &[u8]) -> rustix::fs::Dev {
    let number = u64::from_ne_bytes(std::array::from_fn(|i| message[40 + i]));
    let major = (number & 0xf_ff00) >> 8;
    let minor = (number & 0xff) | ((number >> 12) & 0xf_ff00);
    rustix::fs::makedev(major as u32, minor as u32)
}

/// A random key in the keyring of this process, until it is dropped.
struct Key(i32);

impl Key {
    fn new(description: &str) -> Res<Key> {
        let mut key = [0; KEY];
        let made = File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(&mut key))
            .and_then(|()| sys::add_logon_key(description, &key))
            .doing(|| "making a random key".to_owned());
        key.fill(0);
        // So that the compiler does not leave this out, because nothing reads the array any more.
        std::hint::black_box(&mut key);
        made.map(Key)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = sys::invalidate_key(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_name_of_a_key_and_never_the_key() {
        let target = Target {
            sectors: 65536,
            parameters: crypt_parameters("rackstrap:tmp", (259, 3)),
        };
        let bytes = message(Request::LoadTable, "rackstrap-tmp", Some(&target));
        let line = "aes-xts-plain64 :64:logon:rackstrap:tmp 0 259:3 0 1 allow_discards";
        assert_eq!(bytes.len(), (HEADER + TARGET + line.len() + 1).next_multiple_of(8));
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        // Version, size, start of the data, number of targets, flags.
        assert_eq!(
            (u32_at(0), u32_at(12), u32_at(16), u32_at(20), u32_at(28)),
            (4, bytes.len() as u32, 312, 1, 1 << 15)
        );
        assert_eq!(&bytes[48..62], b"rackstrap-tmp\0");
        assert!(
            bytes[176..305].iter().all(|byte| *byte == 0),
            "the kernel refuses a name with a UUID"
        );
        let table = &bytes[HEADER..];
        assert_eq!(table[..16], [[0; 8], 65536u64.to_ne_bytes()].concat());
        assert_eq!(&table[24..30], b"crypt\0");
        assert_eq!(&table[TARGET..TARGET + line.len()], line.as_bytes());
        assert!(table[TARGET + line.len()..].iter().all(|byte| *byte == 0) && table.ends_with(&[0]));
    }

    #[test]
    fn names_of_any_length_stay_in_their_fields() {
        for length in [1, 99, 100, 128, 1000] {
            let bytes = message(Request::Create, &"x".repeat(length), None);
            assert_eq!((bytes.len(), bytes[20], bytes[175], bytes[304]), (HEADER, 0, 0, 0));
            assert!(bytes[176..].starts_with(b"CRYPT-PLAIN-x"));
        }
    }

    #[test]
    fn the_number_of_a_device_is_read_as_the_kernel_writes_it() {
        let mut bytes = vec![0; HEADER];
        // huge_encode_dev(MKDEV(253, 0x12345)): (253 << 8) | 0x45 | (0x123 << 20)
        bytes[40..48].copy_from_slice(&(253u64 << 8 | 0x45 | 0x123 << 20).to_ne_bytes());
        let device = device_of(&bytes);
        assert_eq!((rustix::fs::major(device), rustix::fs::minor(device)), (253, 0x12345));
    }

    #[test]
    fn a_key_is_in_the_keyring_until_it_is_dropped() {
        let key = match Key::new("rackstrap:test") {
            Ok(key) => key,
            // A kernel or a container without keyrings.
            Err(failure) => {
                println!("not tried: {failure}");
                return;
            }
        };
        let number = key.0;
        assert!(number > 0);
        drop(key);
        assert!(sys::invalidate_key(number).is_err(), "it is still there");
    }
}
