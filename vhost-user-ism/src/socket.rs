// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Listening sockets: made with mode 0600 (doors for processes: 0666), taken over from the dead, or inherited.
//!
//! Invariant: a socket whose process lives is never taken over, and only a file that this process
//! made is removed.
#![expect(unsafe_code, reason = "an inherited descriptor is only a number")]

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening socket.
#[derive(Debug)]
pub struct Listening {
    socket: UnixListener,
    made: Option<Made>,
}

/// The file of a socket that this process made.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug)]
pub enum SocketError {
    /// Another process listens there.
    InUse(PathBuf),
    /// Something else than a socket is there.
    NotASocket(PathBuf),
    /// The path is empty or longer than an address can be.
    Path(PathBuf),
    /// The inherited descriptor does not exist or is no listening socket.
    Inherited(RawFd),
    /// The system refused.
    Io(PathBuf, io::Error),
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                let path = path.display();
                write!(
                    f,
                    "{path}: socket path in use by a running process (fuser {path} says which)"
                )
            }
            Self::NotASocket(path) => {
                write!(f, "{}: a file that is no socket is in the way", path.display())
            }
            Self::Path(path) => {
                write!(f, "{}: a socket's path has 1 to 107 bytes", path.display())
            }
            Self::Inherited(fd) => {
                write!(f, "descriptor {fd} is not an inherited, listening Unix socket")
            }
            Self::Io(path, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                f,
                "{}: {error} (this user may not make files there; a running daemon makes sockets only in the \
                 directories of those it made at its start, unless it was started with --no-sandbox)",
                path.display()
            ),
            Self::Io(path, error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = path.parent().unwrap_or(path).display();
                write!(f, "{}: {error}; make its folder first: mkdir -p {folder}", path.display())
            }
            Self::Io(path, error) => {
                write!(f, "{}: cannot listen there: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for SocketError {}

impl Listening {
    /// Listens at `path`.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        Self::bind_with(path, Mode::RUSR | Mode::WUSR)
    }

    /// As [`Listening::bind`], for everybody: who connects is checked by its user.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn bind_for_all(path: &Path) -> Result<Self, SocketError> {
        let read = Mode::RUSR | Mode::RGRP | Mode::ROTH;
        Self::bind_with(path, read | Mode::WUSR | Mode::WGRP | Mode::WOTH)
    }

    fn bind_with(path: &Path, mode: Mode) -> Result<Self, SocketError> {
        let io = |error: io::Error| SocketError::Io(path.to_owned(), error);
        let address = SocketAddrUnix::new(path).map_err(|_| SocketError::Path(path.to_owned()))?;
        remove_stale(path)?;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| io(error.into()))?;
        rustix::net::bind(&socket, &address).map_err(|error| io(error.into()))?;
        // Nobody can connect before `listen`, so there is no moment with a wider mode.
        rustix::fs::chmod(path, mode).map_err(|error| io(error.into()))?;
        let file = std::fs::symlink_metadata(path).map_err(io)?;
        let made = Made { path: path.to_owned(), device: file.dev(), inode: file.ino() };
        rustix::net::listen(&socket, BACKLOG).map_err(|error| io(error.into()))?;
        Ok(Self { socket: UnixListener::from(socket), made: Some(made) })
    }

    /// Takes over an inherited, listening socket. Each number is given once.
    ///
    /// # Errors
    /// The descriptor does not exist or is something else.
    pub fn inherit(fd: RawFd) -> Result<Self, SocketError> {
        let wrong = || SocketError::Inherited(fd);
        if fd < 3 {
            return Err(wrong());
        }
        // SAFETY: the number is only asked about, for the length of this call; if it is closed
        // (EBADF), fcntl says so.
        let asked = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_getfd(asked).map_err(|_| wrong())?;
        let listens = rustix::net::sockopt::socket_acceptconn(asked).unwrap_or(false);
        let domain = rustix::net::sockopt::socket_domain(asked).ok();
        if !listens || domain != Some(AddressFamily::UNIX) {
            return Err(wrong());
        }
        // SAFETY: the descriptor exists (checked above) and is none of standard input, output or
        // error. It was inherited for this purpose: the command line names it once, and it is
        // taken before any other descriptor of the process could have got the number, since an
        // open number is not given out again.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { socket: UnixListener::from(socket), made: None })
    }

    /// A socket that listens already.
    pub fn of(socket: UnixListener) -> Self {
        Self { socket, made: None }
    }

    /// The socket.
    pub fn socket(&self) -> &UnixListener {
        &self.socket
    }
}

impl Listening {
    /// Removes the socket's file, if this process made it and it was not replaced.
    pub fn remove(&self) {
        let Some(made) = &self.made else { return };
        let ours = std::fs::symlink_metadata(&made.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == (made.device, made.inode));
        if ours {
            let _ = std::fs::remove_file(&made.path);
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes the socket of a process that has died, if there is one.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let io = |error: io::Error| SocketError::Io(path.to_owned(), error);
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    if !file.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            log::info!("{}: taken over from a process that is gone", path.display());
            std::fs::remove_file(path).map_err(io)
        }
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(io(error)),
        // It answers, or is too busy to.
        _ => Err(SocketError::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that is removed again.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("vui-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).expect("directory");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_is_its_owners_alone_and_goes_with_it() {
        let dir = Scratch::new("mode");
        let path = dir.0.join("s");
        let listening = Listening::bind(&path).expect("bind");
        let mode = std::fs::metadata(&path).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn a_living_socket_is_not_taken_over() {
        let dir = Scratch::new("living");
        let path = dir.0.join("s");
        let _first = Listening::bind(&path).expect("bind");
        let error = Listening::bind(&path).expect_err("in use").to_string();
        assert!(error.contains("socket path in use by a running process (fuser "), "{error}");
    }

    #[test]
    fn a_dead_socket_is_taken_over() {
        let dir = Scratch::new("dead");
        let path = dir.0.join("s");
        drop(UnixListener::bind(&path).expect("bind"));
        assert!(path.exists());
        assert!(Listening::bind(&path).is_ok());
    }

    #[test]
    fn another_file_is_left_alone() {
        let dir = Scratch::new("file");
        let path = dir.0.join("s");
        std::fs::write(&path, "precious").expect("write");
        assert!(matches!(Listening::bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
    }

    #[test]
    fn a_socket_that_replaced_ours_is_not_removed() {
        let dir = Scratch::new("replaced");
        let path = dir.0.join("s");
        let ours = Listening::bind(&path).expect("bind");
        std::fs::remove_file(&path).expect("remove");
        let _theirs = Listening::bind(&path).expect("bind");
        drop(ours);
        assert!(path.exists());
    }

    #[test]
    fn long_paths_are_refused_with_the_limit() {
        let path = PathBuf::from("/").join("x".repeat(200));
        let error = Listening::bind(&path).expect_err("too long").to_string();
        assert!(error.ends_with("1 to 107 bytes"), "{error}");
    }

    #[test]
    fn a_missing_directory_is_named_as_the_cause() {
        let dir = Scratch::new("missing");
        let folder = dir.0.join("none");
        let error = Listening::bind(&folder.join("s")).expect_err("no directory").to_string();
        assert!(error.ends_with(&format!("mkdir -p {}", folder.display())), "{error}");
    }

    #[test]
    fn descriptors_that_do_not_listen_are_refused() {
        assert!(Listening::inherit(0).is_err());
        assert!(Listening::inherit(987_654).is_err());
    }
}
