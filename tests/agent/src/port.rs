// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's end of the stream: a virtio-serial port, or a socket in tests.
//!
//! Invariant: reading and writing may happen at the same time from two threads, and only
//! [`Port::wait_for_host`] decides whether an end of file is for good.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::event::epoll;

/// A stream to the host.
pub trait Port: Send + Sync + 'static {
    /// Reads what there is, at least one byte; 0 when no host is connected.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes everything, waiting for the host to connect and to take it.
    fn write_all(&self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until a host is connected; false when none can come any more.
    fn wait_for_host(&self) -> io::Result<bool>;
}

/// The character device of a virtio-serial port, `/dev/vportNpM`.
///
/// While no host is connected, Linux (drivers/char/virtio_console.c) answers a read with 0 and
/// poll with `POLLHUP`, and a write waits. Connecting wakes the port's wait queue, which only an
/// edge-triggered epoll sees, since the level is "readable" all the time.
#[derive(Debug)]
pub struct VirtioPort {
    file: File,
    epoll: rustix::fd::OwnedFd,
}

impl VirtioPort {
    /// Opens the port. A port can be open once at a time (`EBUSY`).
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edges = epoll::EventFlags::ET | epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(&epoll, &file, epoll::EventData::new_u64(0), edges)?;
        Ok(VirtioPort { file, epoll })
    }

    /// Finds a port by the name QEMU gave it (`-device virtserialport,name=NAME`), where no udev
    /// makes `/dev/virtio-ports/NAME`.
    pub fn find(name: &str) -> io::Result<PathBuf> {
        for entry in std::fs::read_dir("/sys/class/virtio-ports")? {
            let entry = entry?;
            let has = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if has.trim_end() == name {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("no virtio-serial port is named {name:?} (see /sys/class/virtio-ports)"),
        ))
    }
}

impl Port for VirtioPort {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }

    fn wait_for_host(&self) -> io::Result<bool> {
        loop {
            let mut events = Vec::with_capacity(1);
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // `flags` is a packed struct's field: copied out before it is looked at.
            let hung_up = events.iter().any(|event| {
                let flags = event.flags;
                flags.contains(epoll::EventFlags::HUP)
            });
            if !hung_up {
                return Ok(true);
            }
        }
    }
}

impl Port for UnixStream {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(&mut &*self, buffer)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, bytes)
    }

    fn wait_for_host(&self) -> io::Result<bool> {
        Ok(false)
    }
}
