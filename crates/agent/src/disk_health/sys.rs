//! The ioctls that ask disks about their health.
#![allow(unsafe_code)]

use super::{ata::TABLE, nvme::PAGE};
use std::{fs::File, io, os::fd::AsRawFd};

/// How long a disk may take for an answer, in milliseconds.
const PATIENCE_MS: u32 = 10_000;

/// `NVME_IOCTL_ADMIN_CMD`, linux/nvme_ioctl.h: `_IOWR('N', 0x41, struct nvme_admin_cmd)`, of 72 bytes.
const NVME_IOCTL_ADMIN_CMD: u32 = 0xc048_4e41;
/// Get Log Page (NVM Express Base Specification 2.0c, 5.16).
const GET_LOG_PAGE: u8 = 0x02;
/// SMART / Health Information.
const HEALTH: u32 = 0x02;
/// The page of the whole disk, not of a namespace.
const ALL_NAMESPACES: u32 = 0xffff_ffff;

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct NvmePassthru {
    opcode: u8,
    flags: u8,
    reserved: u16,
    nsid: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    addr: u64,
    metadata_len: u32,
    data_len: u32,
    /// cdw10 to cdw15.
    cdw10: [u32; 6],
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<NvmePassthru>() == 72);

/// The health page of an NVMe disk.
pub fn nvme_health(disk: &File) -> io::Result<[u8; PAGE]> {
    let mut page = [0; PAGE];
    let mut command = NvmePassthru {
        opcode: GET_LOG_PAGE,
        nsid: ALL_NAMESPACES,
        addr: page.as_mut_ptr() as u64,
        data_len: PAGE as u32,
        // The number of dwords minus one, and the page.
        cdw10: [((PAGE as u32 / 4 - 1) << 16) | HEALTH, 0, 0, 0, 0, 0],
        timeout_ms: PATIENCE_MS,
        ..NvmePassthru::default()
    };
    // SAFETY: the command is the kernel's struct, and the kernel writes at most `data_len` bytes to `page`, both of which outlive the call.
    match unsafe { libc::ioctl(disk.as_raw_fd(), NVME_IOCTL_ADMIN_CMD as _, &mut command) } {
        0 => Ok(page),
        // A positive result is the disk's status: it refused the command.
        status if status > 0 => Err(io::Error::other(format!("NVMe status {status:#x}"))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `SG_IO`, scsi/sg.h.
const SG_IO: u32 = 0x2285;
/// `SG_DXFER_NONE` and `SG_DXFER_FROM_DEV`.
const NO_DATA: libc::c_int = -1;
const FROM_DISK: libc::c_int = -3;
/// Bytes of sense data.
const SENSE: usize = 32;

/// `struct sg_io_hdr` of scsi/sg.h.
#[repr(C)]
struct SgIoHdr {
    interface_id: libc::c_int,
    dxfer_direction: libc::c_int,
    cmd_len: u8,
    mx_sb_len: u8,
    iovec_count: u16,
    dxfer_len: libc::c_uint,
    dxferp: *mut u8,
    cmdp: *const u8,
    sbp: *mut u8,
    timeout: libc::c_uint,
    flags: libc::c_uint,
    pack_id: libc::c_int,
    usr_ptr: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    msg_status: u8,
    sb_len_wr: u8,
    host_status: u16,
    driver_status: u16,
    resid: libc::c_int,
    duration: libc::c_uint,
    info: libc::c_uint,
}

/// A table of SMART.
#[derive(Clone, Copy, Debug)]
pub enum SmartTable {
    /// SMART READ DATA.
    Data,
    /// SMART READ THRESHOLDS, obsolete and supported by all disks.
    Thresholds,
}

/// A table of an ATA disk.
pub fn smart_table(disk: &File, table: SmartTable) -> io::Result<Vec<u8>> {
    let feature = match table {
        SmartTable::Data => 0xd0,
        SmartTable::Thresholds => 0xd1,
    };
    let mut data = vec![0; TABLE];
    // PIO data-in; the length is in the sector count, in blocks, from the disk.
    let command = pass_through(4, 0x0e, feature, 1);
    sg_io(disk, &command, FROM_DISK, &mut data)?;
    Ok(data)
}

/// The sense data of SMART RETURN STATUS, which have the disk's verdict.
pub fn smart_status(disk: &File) -> io::Result<[u8; SENSE]> {
    // No data; the disk's registers are returned in the sense data.
    let command = pass_through(3, 0x20, 0xda, 0);
    sg_io(disk, &command, NO_DATA, &mut [])
}

/// ATA PASS-THROUGH (16) with the command SMART (SAT-2, 12.2.3).
fn pass_through(protocol: u8, flags: u8, feature: u8, count: u8) -> [u8; 16] {
    let mut command = [0; 16];
    (command[0], command[1], command[2]) = (0x85, protocol << 1, flags);
    (command[4], command[6]) = (feature, count);
    // The signature of SMART in LBA mid and high, and the command itself.
    (command[10], command[12], command[14]) = (0x4f, 0xc2, 0xb0);
    command
}

fn sg_io(disk: &File, command: &[u8; 16], direction: libc::c_int, data: &mut [u8]) -> io::Result<[u8; SENSE]> {
    let mut sense = [0; SENSE];
    let mut header = SgIoHdr {
        interface_id: libc::c_int::from(b'S'),
        dxfer_direction: direction,
        cmd_len: command.len() as u8,
        mx_sb_len: SENSE as u8,
        iovec_count: 0,
        dxfer_len: data.len() as libc::c_uint,
        dxferp: data.as_mut_ptr(),
        cmdp: command.as_ptr(),
        sbp: sense.as_mut_ptr(),
        timeout: PATIENCE_MS,
        flags: 0,
        pack_id: 0,
        usr_ptr: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        msg_status: 0,
        sb_len_wr: 0,
        host_status: 0,
        driver_status: 0,
        resid: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: the header is the kernel's struct. The kernel reads 16 bytes of the command, and writes at most the given lengths to data and
    // sense data. All of them outlive the call.
    match unsafe { libc::ioctl(disk.as_raw_fd(), SG_IO as _, &mut header) } {
        0 if header.host_status == 0 => Ok(sense),
        0 => Err(io::Error::other(format!("host status {:#x}", header.host_status))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(nvme_health(&file).is_err());
        assert!(smart_table(&file, SmartTable::Data).is_err() && smart_status(&file).is_err());
    }

    #[test]
    fn commands_have_the_signature_of_smart() {
        let command = pass_through(4, 0x0e, 0xd0, 1);
        assert_eq!(
            command,
            [0x85, 8, 0x0e, 0, 0xd0, 0, 1, 0, 0, 0, 0x4f, 0, 0xc2, 0, 0xb0, 0]
        );
    }
}
