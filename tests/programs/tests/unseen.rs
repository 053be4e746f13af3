// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Programs that the preload cannot see: they work, their connections stay TCP, and a user is told.

use anyhow::{Context, Result, ensure};
use ism_programs::nginx::{Nginx, file};
use ism_programs::{Lab, Network, Way, need, output, programs};

/// Fetches `/file` with bash's own sockets.
fn script(nginx: &Nginx) -> String {
    format!(
        "exec 3<>/dev/tcp/127.0.0.1/{} && printf 'GET /file HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
        nginx.port()
    )
}

/// Runs `test` over SMC-D; what the preload has said then.
fn log_of(test: impl FnOnce(Way<'_>) -> Result<()>) -> Result<String> {
    programs();
    Network::new()?.inside(|| {
        let lab = Lab::start()?;
        let result = test(Way::Smc(&lab));
        result.with_context(|| lab.log()).map(|()| lab.log())
    })?
}

#[test]
fn a_statically_linked_client_is_served_over_tcp_and_its_user_is_warned() {
    need("nginx", "nginx-light");
    need("bash-static", "bash-static");
    let log = log_of(|way| {
        let nginx = Nginx::start(way, "")?;
        let answer = output(way.command("bash-static").args(["-c", &script(&nginx)]))?;
        ensure!(answer.ends_with(&file()), "{} bytes", answer.len());
        nginx.quit()
    });
    let log = log.expect("it works");
    let warned = log.contains("bash-static is statically linked: its own connections stay TCP");
    assert!(warned, "no warning:\n{log}");
    assert!(!log.contains(": SMC-D"), "it is SMC-D:\n{log}");
}

#[test]
fn a_go_program_that_makes_its_own_system_calls_is_served_over_tcp() {
    need("nginx", "nginx-light");
    need("hey", "hey");
    let log = log_of(|way| {
        let nginx = Nginx::start(way, "")?;
        let url = format!("http://127.0.0.1:{}/", nginx.port());
        let report = output(way.command("hey").args(["-n", "500", "-c", "10", &url]))?;
        let report = String::from_utf8_lossy(&report).into_owned();
        ensure!(report.contains("[200]\t500 responses"), "{report}");
        nginx.quit()
    });
    let log = log.expect("it works");
    assert!(!log.contains(": SMC-D"), "it is SMC-D:\n{log}");
}
