// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The launcher and the library with a program that knows nothing of them. On a kernel without
//! SMC it must not notice; on one with SMC its sockets must be SMC ones. Either way it works.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;

/// The launcher with its library beside it, which cargo does not build for tests by itself.
fn launcher() -> Command {
    static BUILT: OnceLock<()> = OnceLock::new();
    let launcher = Path::new(env!("CARGO_BIN_EXE_smc_run"));
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "smc-kernel-run", "--lib"]);
        if launcher.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
        let library = launcher.with_file_name("libsmc_run.so");
        assert!(library.exists(), "{}", library.display());
    });
    Command::new(launcher)
}

/// Runs this test program's `worker` below the launcher.
fn run_worker(arguments: &[&str]) -> Output {
    launcher()
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
#[ignore = "the program that the other tests run below the launcher"]
fn worker() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"hello").unwrap();
        });
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        client.join().unwrap();
        assert_eq!(text, "hello");
    }
}

#[test]
fn a_program_works_and_is_told_nothing() {
    let output = run_worker(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(!stderr.contains("libsmc_run"), "{stderr}");
}

#[test]
fn with_debug_it_says_what_becomes_of_sockets() {
    let output = run_worker(&["-d", "-r", "64K", "-t", "1M"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let fell_back = stderr.matches("no AF_SMC in this kernel").count();
    let replaced = stderr.matches("AF_SMC instead of TCP").count();
    assert!((fell_back, replaced) == (1, 0) || (fell_back, replaced) == (0, 4), "{stderr}");
}

#[test]
fn a_missing_program_has_its_own_status() {
    let output = launcher().arg("/no/such/program").output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/program"));
}

/// As the help says, by which a script knows whose status it is.
#[test]
fn wrong_options_are_2() {
    for (options, status) in [(&["-r", "x", "true"][..], 2), (&[], 2), (&["--help"], 0)] {
        let output = Command::new(env!("CARGO_BIN_EXE_smc_run")).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{options:?}: {output:?}");
    }
}
