// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Connections and what is done with them, the same over every transport.
//!
//! Invariant: client sockets are c1, c2, ..., their peers s1, s2, ... .

use anyhow::Result;

use crate::lab::Lab;

/// SO_SNDBUF and SO_RCVBUF of a connection that is filled: the smallest buffers there are.
const SMALL: &str = "16384";

/// Lets the server listen on port 7000, and on 7001 with small buffers.
pub(super) fn listen(lab: &Lab) -> Result<()> {
    lab.ask(lab.server(), "listen l 0.0.0.0:7000")?;
    lab.ask(lab.server(), &format!("listen small 0.0.0.0:7001 {SMALL}"))
}

/// Connection `n` to port 7000.
pub(super) fn connect(lab: &Lab, n: u32) -> Result<()> {
    lab.ask(lab.client(), &format!("connect c{n} {}:7000", lab.address()))?;
    lab.ask(lab.server(), &format!("accept s{n} l"))
}

/// Closes connection `n`, the client first.
pub(super) fn close(lab: &Lab, n: u32) -> Result<()> {
    lab.ask(lab.client(), &format!("close c{n}"))?;
    lab.ask(lab.server(), &format!("close s{n}"))
}

/// First and second contact.
pub(super) fn contacts(lab: &Lab) -> Result<()> {
    listen(lab)?;
    lab.step("the client connects to a server it has no link group with: c1")?;
    connect(lab, 1)?;
    lab.step("the client connects again, in the same link group: c2")?;
    connect(lab, 2)
}

/// Data, urgent data, a full buffer, and all ways to end. Needs [`contacts`].
pub(super) fn everything(lab: &Lab) -> Result<()> {
    let (client, server) = (lab.client(), lab.server());
    lab.step("c1: the client sends 14 bytes")?;
    lab.ask(client, "send c1 14")?;
    lab.step("c1: the server receives them")?;
    lab.ask(server, "recv s1 14")?;
    lab.step("c1: the server sends 20 bytes, the client receives them")?;
    lab.ask(server, "send s1 20")?;
    lab.ask(client, "recv c1 20")?;
    lab.step("c1: the client sends 5 bytes with MSG_OOB, so the fifth is urgent")?;
    lab.ask(client, "oob c1 5")?;
    lab.step("c1: the server receives the 4 before the urgent one")?;
    lab.ask(server, "recv s1 4")?;
    full(lab)?;
    endings(lab)
}

fn full(lab: &Lab) -> Result<()> {
    let (client, server) = (lab.client(), lab.server());
    lab.step("the client connects with 16 KiB buffers: c3")?;
    lab.ask(client, &format!("connect c3 {}:7001 {SMALL}", lab.address()))?;
    lab.ask(server, "accept s3 small")?;
    lab.step("c3: the client sends 40000 bytes, which fill both buffers")?;
    let sending = lab.start(client, "send c3 40000")?;
    lab.step("c3: the server receives 8000 of them")?;
    lab.ask(server, "recv s3 8000")?;
    lab.step("c3: the server receives the other 32000")?;
    lab.ask(server, "recv s3 32000")?;
    sending.succeed(std::time::Duration::from_secs(60))?;
    Ok(())
}

fn endings(lab: &Lab) -> Result<()> {
    let (client, server) = (lab.client(), lab.server());
    lab.step("c1: the client shuts down its sending side")?;
    lab.ask(client, "shutdown c1")?;
    lab.step("c1: the server sends 6 bytes, the client receives them")?;
    lab.ask(server, "send s1 6")?;
    lab.ask(client, "recv c1 6")?;
    lab.step("c1: the server closes")?;
    lab.ask(server, "close s1")?;
    lab.step("c1: the client closes")?;
    lab.ask(client, "close c1")?;
    lab.step("c2: the client sends 10 bytes, the server closes without receiving them")?;
    lab.ask(client, "send c2 10")?;
    lab.ask(server, "close s2")?;
    lab.step("c2: the client closes")?;
    lab.ask(client, "close c2")?;
    lab.step("c3: the client closes")?;
    lab.ask(client, "close c3")?;
    lab.step("c3: the server closes")?;
    lab.ask(server, "close s3")
}
