// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `libsmc_run.so`: loaded with LD_PRELOAD, it makes a program's TCP sockets sockets of the
//! kernel's AF_SMC.
//!
//! Invariant: a program that would have got a TCP socket gets a socket: where the kernel has no
//! SMC, that TCP socket.
//!
//! Nothing but `socket()` is replaced: AF_SMC sockets take the same calls and addresses as TCP
//! ones. The environment is that of smc-tools' library of the same job:
//!
//! | variable | effect |
//! |---|---|
//! | `SMC_DEBUG` | anything but empty and 0: say on stderr what becomes of sockets |
//! | `SMC_SNDBUF`, `SMC_RCVBUF` | `SO_SNDBUF`, `SO_RCVBUF` of each socket, in bytes, or with a K or M |

mod choose;
mod size;

/// The C side: the entry point, and what it needs of the C library. Not in the unit tests, whose
/// own sockets it would replace; the tests in tests/ load it as programs do.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "a C entry point, dlsym and system calls by their C names")]
mod entry {
    use std::ffi::{CStr, c_int};
    use std::io::{self, Write};
    use std::mem::transmute;
    use std::ptr;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::choose::{Choice, choose, falls_back};
    use crate::size;

    type Socket = unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;

    struct Settings {
        debug: bool,
        /// `SO_SNDBUF` and `SO_RCVBUF` with what to set them to.
        buffers: Vec<(c_int, &'static str, c_int)>,
        /// The next library's `socket`, normally libc's.
        next: Option<Socket>,
    }

    static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
        let debug = std::env::var_os("SMC_DEBUG").is_some_and(|v| !v.is_empty() && v != "0");
        let mut settings = Settings { debug, buffers: Vec::new(), next: next(c"socket") };
        let options = [(libc::SO_SNDBUF, "SMC_SNDBUF"), (libc::SO_RCVBUF, "SMC_RCVBUF")];
        for (option, name) in options {
            let Some(value) = std::env::var_os(name) else { continue };
            match value.to_str().map(size::parse) {
                Some(Ok(bytes)) => settings.buffers.push((option, name, bytes)),
                _ => settings.say(format_args!("{name} is ignored: {}", size::EXPECTED)),
            }
        }
        settings
    });

    impl Settings {
        /// With SMC_DEBUG, writes a line to stderr; `errno` stays as it is.
        fn say(&self, text: std::fmt::Arguments<'_>) {
            if self.debug {
                let errno = io::Error::last_os_error();
                // The program's stderr is the program's: a failure to write there is not ours.
                let _ = writeln!(io::stderr(), "libsmc_run: {text}");
                set_errno(errno.raw_os_error().unwrap_or_default());
            }
        }
    }

    /// Reads the environment before the program has threads that could change it.
    extern "C" fn load() {
        LazyLock::force(&SETTINGS);
    }

    // SAFETY: an entry of .init_array is a function that the loader calls with the C ABI; this one
    // takes no arguments and does not unwind (it writes no output that could fail).
    #[unsafe(link_section = ".init_array")]
    #[used]
    static LOAD: extern "C" fn() = load;

    fn next(name: &CStr) -> Option<Socket> {
        // SAFETY: `name` ends with a NUL, and RTLD_NEXT is a handle of dlsym's own.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        if address.is_null() {
            return None;
        }
        // SAFETY: a symbol of this name in a process with a C library is the function of POSIX,
        // whose type this is; it is not null.
        Some(unsafe { transmute::<*mut libc::c_void, Socket>(address) })
    }

    fn set_errno(number: c_int) {
        // SAFETY: the function returns the calling thread's errno, which lives as long as it.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above; nothing else refers to it now.
        unsafe { *errno = number };
    }

    /// The next library's `socket`.
    fn plain_socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        let Some(socket) = SETTINGS.next else {
            set_errno(libc::ENOSYS);
            return -1;
        };
        // SAFETY: `next` found a function of this type; socket(2) takes any numbers.
        unsafe { socket(domain, kind, protocol) }
    }

    fn set_buffers(socket: c_int) {
        for (option, name, bytes) in &SETTINGS.buffers {
            // SAFETY: the value is a readable c_int for the length given with it.
            let result = unsafe {
                libc::setsockopt(
                    socket,
                    libc::SOL_SOCKET,
                    *option,
                    ptr::from_ref(bytes).cast(),
                    c_int::BITS / 8,
                )
            };
            if result != 0 {
                let error = io::Error::last_os_error();
                SETTINGS.say(format_args!("socket {socket}: {name}={bytes}: {error}"));
            }
        }
    }

    /// socket(2): TCP sockets become AF_SMC ones where the kernel has them.
    // SAFETY: the name and type are those of POSIX's socket(), which this library exists to stand
    // in for; it keeps that function's contract.
    #[unsafe(no_mangle)]
    extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
        static SAID: AtomicBool = AtomicBool::new(false);
        let Choice::Smc { domain: smc, protocol: smc_protocol } = choose(domain, kind, protocol)
        else {
            return plain_socket(domain, kind, protocol);
        };
        let socket = plain_socket(smc, kind, smc_protocol);
        if socket >= 0 {
            SETTINGS.say(format_args!("socket {socket}: AF_SMC instead of TCP"));
            set_buffers(socket);
            return socket;
        }
        let error = io::Error::last_os_error();
        if !falls_back(error.raw_os_error().unwrap_or_default()) {
            return socket;
        }
        if !SAID.swap(true, Ordering::Relaxed) {
            SETTINGS.say(format_args!("no AF_SMC in this kernel, so TCP ({error})"));
        }
        plain_socket(domain, kind, protocol)
    }
}
