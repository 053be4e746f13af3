// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory the daemon makes (arena extents) and memory it is given (guests' RAM).
//!
//! Invariant: no file the daemon maps can shrink below its mapping, unless the operator allowed
//! it: a page that disappears under a mapping is SIGBUS, which ends the process for every VM.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Guest memory as the daemon holds it: no dirty bitmap, since the device is not migratable.
pub type GuestMemory = GuestMemoryMmap<()>;

/// One extent of a pair's arena: a memfd that two members map.
///
/// The daemon never maps it. Its length is fixed by seals, so that no holder of the descriptor
/// can make another holder's access fault.
#[derive(Debug)]
pub struct Extent {
    fd: OwnedFd,
    len: u64,
}

impl Extent {
    /// Makes an extent of `len` zero bytes that occupy no memory until they are written.
    ///
    /// # Errors
    /// What memfd_create, ftruncate or fcntl report: no descriptors or no address space left.
    pub fn new(name: &str, len: u64) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, len)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { fd, len })
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the extent holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives `len` bytes at `offset` back to the host; they read as zero from then on.
    ///
    /// # Errors
    /// `InvalidInput` if the range is not inside the extent, else what fallocate reports.
    pub fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot release {len} bytes at {offset} of an extent of {}", self.len),
            ));
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.fd, flags, offset, len)?)
    }
}

impl AsFd for Extent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why guest memory is refused.
#[derive(Debug)]
pub enum UnsafeMemory {
    /// A region without a file: the VMM did not share it.
    NotShared {
        /// Guest-physical address.
        at: u64,
    },
    /// A region whose file could shrink.
    NotSealed {
        /// Guest-physical address.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// A region of huge pages, which the host may not have when they are touched.
    HugePages {
        /// Guest-physical address.
        at: u64,
        /// Bytes.
        len: u64,
    },
    /// A region that its file ends before.
    TooShort {
        /// Guest-physical address.
        at: u64,
        /// Bytes of the region.
        len: u64,
        /// Where in the file the region begins, in bytes.
        offset: u64,
        /// Bytes of the file.
        file_len: u64,
    },
    /// A region whose file cannot be asked.
    Unknown {
        /// Guest-physical address.
        at: u64,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for UnsafeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotShared { at } => write!(
                f,
                "guest memory at {at:#x} is not shared: use -object memory-backend-memfd,…,share=on"
            ),
            Self::NotSealed { at, len } => write!(
                f,
                "guest memory at {at:#x} ({len} bytes) is a file that can shrink under the daemon: \
                 use -object memory-backend-memfd (its default seal=on), \
                 or start the daemon with --allow-unsealed-memory"
            ),
            Self::HugePages { at, len } => write!(
                f,
                "guest memory at {at:#x} ({len} bytes) is made of huge pages, and a host that has \
                 none left stops the daemon when it touches them: use memory without hugetlb=on, \
                 or start the daemon with --allow-unsealed-memory"
            ),
            Self::TooShort { at, len, offset, file_len } => write!(
                f,
                "guest memory at {at:#x} has {len} bytes from byte {offset} of a file of {file_len}"
            ),
            Self::Unknown { at, error } => {
                write!(f, "guest memory at {at:#x}: its file cannot be looked at: {error}")
            }
        }
    }
}

impl std::error::Error for UnsafeMemory {}

/// `f_type` of hugetlbfs (linux/magic.h).
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// Checks that no access to `memory` can fault: every region is inside a file that cannot shrink,
/// and whose pages the kernel makes when they are missing. The library's mapping checks none of it.
/// `allow_unsealed`: the operator trusts the front-end to keep its files as they are.
///
/// # Errors
/// The first region that is not.
pub fn check_guest_memory(memory: &GuestMemory, allow_unsealed: bool) -> Result<(), UnsafeMemory> {
    for region in memory.iter() {
        let (at, len) = (region.start_addr().0, region.len());
        let part = region.file_offset().ok_or(UnsafeMemory::NotShared { at })?;
        let file = part.file();
        let unknown = |error| UnsafeMemory::Unknown { at, error };
        if !allow_unsealed {
            if !is_sealed_against_shrinking(file) {
                return Err(UnsafeMemory::NotSealed { at, len });
            }
            if is_on_hugetlbfs(file).map_err(unknown)? {
                return Err(UnsafeMemory::HugePages { at, len });
            }
        }
        // After the seal: a length that was right before it need not be any more.
        let (offset, file_len) = (part.start(), file.metadata().map_err(unknown)?.len());
        if offset.checked_add(len).is_none_or(|end| end > file_len) {
            return Err(UnsafeMemory::TooShort { at, len, offset, file_len });
        }
    }
    Ok(())
}

fn is_sealed_against_shrinking(file: &File) -> bool {
    // Only memfds (and hugetlbfs ones) have seals; other files answer EINVAL.
    rustix::fs::fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK))
}

/// A page of hugetlbfs that is not reserved, and that the pool does not have, is SIGBUS; and a
/// reservation is the front-end's to make and, by punching holes, to undo.
fn is_on_hugetlbfs(file: &File) -> io::Result<bool> {
    let file_system = rustix::fs::fstatfs(file)?;
    Ok(u64::try_from(file_system.f_type).is_ok_and(|kind| kind == HUGETLBFS_MAGIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};
    use vm_memory::{FileOffset, GuestAddress};

    fn memory_on(file: File) -> GuestMemory {
        let range = (GuestAddress(0), 0x1000, Some(FileOffset::new(file, 0)));
        GuestMemory::from_ranges_with_files([range]).expect("mapping one page")
    }

    #[test]
    fn an_extent_cannot_change_its_length() {
        let extent = Extent::new("test", 1 << 20).expect("memfd");
        assert!(rustix::fs::ftruncate(&extent, 4096).is_err());
        assert!(rustix::fs::ftruncate(&extent, 2 << 20).is_err());
        assert!(rustix::fs::fcntl_add_seals(&extent, SealFlags::WRITE).is_err());
    }

    #[test]
    fn punched_bytes_read_as_zero_and_their_neighbours_stay() {
        let extent = Extent::new("test", 3 * 4096).expect("memfd");
        let mut file = File::from(extent.as_fd().try_clone_to_owned().expect("dup"));
        file.write_all(&[7; 3 * 4096]).expect("write");
        extent.punch(4096, 4096).expect("punch");
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0)).expect("seek");
        file.read_to_end(&mut bytes).expect("read");
        assert!(bytes[..4096].iter().all(|b| *b == 7));
        assert!(bytes[4096..8192].iter().all(|b| *b == 0));
        assert!(bytes[8192..].iter().all(|b| *b == 7));
    }

    #[test]
    fn punching_past_the_end_is_refused() {
        let extent = Extent::new("test", 4096).expect("memfd");
        for (offset, len) in [(4096, 1), (0, 4097), (u64::MAX, 2)] {
            assert!(extent.punch(offset, len).is_err(), "{offset} {len}");
        }
    }

    #[test]
    fn memory_that_can_shrink_is_refused_unless_allowed() {
        let file = |seals| {
            let fd = rustix::fs::memfd_create("ram", MemfdFlags::ALLOW_SEALING).expect("memfd");
            rustix::fs::ftruncate(&fd, 0x1000).expect("truncate");
            rustix::fs::fcntl_add_seals(&fd, seals).expect("seal");
            File::from(fd)
        };
        let sealed = memory_on(file(SealFlags::SHRINK));
        let unsealed = memory_on(file(SealFlags::GROW));
        assert!(check_guest_memory(&sealed, false).is_ok());
        assert!(matches!(
            check_guest_memory(&unsealed, false),
            Err(UnsafeMemory::NotSealed { at: 0, len: 0x1000 })
        ));
        assert!(check_guest_memory(&unsealed, true).is_ok());
    }

    #[test]
    fn memory_that_its_file_ends_before_is_refused_even_if_allowed() {
        for (file_len, offset) in [(0, 0), (0x800, 0), (0x1000, 0x1000), (0x1800, 0x1000)] {
            let fd = rustix::fs::memfd_create("ram", MemfdFlags::ALLOW_SEALING).expect("memfd");
            rustix::fs::ftruncate(&fd, file_len).expect("truncate");
            rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).expect("seal");
            let range = (GuestAddress(0), 0x1000, Some(FileOffset::new(File::from(fd), offset)));
            let memory = GuestMemory::from_ranges_with_files([range]).expect("mapping one page");
            for allow_unsealed in [false, true] {
                assert!(
                    matches!(
                        check_guest_memory(&memory, allow_unsealed),
                        Err(UnsafeMemory::TooShort { at: 0, len: 0x1000, .. })
                    ),
                    "{file_len:#x} {offset:#x} {allow_unsealed}"
                );
            }
        }
    }

    #[test]
    fn huge_pages_that_may_not_be_there_are_refused_unless_allowed() {
        const HUGE: usize = 2 << 20;
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        let Ok(fd) = rustix::fs::memfd_create("ram", flags) else {
            return; // A kernel without hugetlbfs has nothing to refuse.
        };
        rustix::fs::ftruncate(&fd, HUGE as u64).expect("truncate");
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK).expect("seal");
        let range = (GuestAddress(0), HUGE, Some(FileOffset::new(File::from(fd), 0)));
        let memory = GuestMemory::from_ranges_with_files([range]).expect("mapping no page yet");
        assert!(matches!(
            check_guest_memory(&memory, false),
            Err(UnsafeMemory::HugePages { at: 0, .. })
        ));
        assert!(check_guest_memory(&memory, true).is_ok());
    }

    #[test]
    fn memory_without_a_file_is_refused() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0x4000), 0x1000)]).expect("mapping");
        assert!(matches!(
            check_guest_memory(&memory, true),
            Err(UnsafeMemory::NotShared { at: 0x4000 })
        ));
    }
}
