// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Changes the kernel's PNET table, as smc_pnet does (generic netlink family `SMC_PNETID`).
//!
//! Invariant: an error of the kernel is an error here.

use std::io;

use rustix::fd::OwnedFd;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use smc_tools::netlink::{ACK, Attributes, Messages, Request, TYPE_ERROR};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_*` (include/uapi/linux/genetlink.h).
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// Of a generic netlink message.
const HEADER: usize = 4;

/// `SMC_PNETID_*` (include/uapi/linux/smc.h).
const ADD: u8 = 2;
const FLUSH: u8 = 4;
const NAME: u16 = 1;
const ETHNAME: u16 = 2;
const IBNAME: u16 = 3;
const IBPORT: u16 = 4;

/// `add NAME eth NETDEV`, `add NAME dev DEVICE` (a RoCE device's port 1, or an SMC-D device), or
/// `flush`.
pub(crate) fn change(words: &[&str]) -> io::Result<()> {
    let text = |text: &str| format!("{text}\0").into_bytes();
    let attributes = match *words {
        ["flush"] => return send(FLUSH, &[]),
        ["add", name, "eth", netdev] => vec![(NAME, text(name)), (ETHNAME, text(netdev))],
        ["add", name, "dev", device] => {
            vec![(NAME, text(name)), (IBNAME, text(device)), (IBPORT, vec![1])]
        }
        _ => return Err(io::Error::other("add NAME eth|dev DEVICE, or flush")),
    };
    send(ADD, &attributes)
}

fn send(command: u8, attributes: &[(u16, Vec<u8>)]) -> io::Result<()> {
    let kind = SocketType::RAW;
    let protocol = Some(netlink::GENERIC);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
    let lookup = Request::new(CONTROLLER, 0, 1)
        .header(&[GET_FAMILY, 1, 0, 0])
        .attribute(FAMILY_NAME, b"SMC_PNETID\0");
    let family = ask(&socket, lookup, |payload| {
        let attributes = Attributes::parse(payload.get(HEADER..).unwrap_or_default()).ok()?;
        attributes.require("CTRL_ATTR_FAMILY_ID", FAMILY_ID).ok()
    })?;
    let mut request = Request::new(family, ACK, 2).header(&[command, 1, 0, 0]);
    for (number, content) in attributes {
        request = request.attribute(*number, content);
    }
    ask(&socket, request, |_| Some(0)).map(drop)
}

/// Sends a request and evaluates its one answer.
fn ask(
    socket: &OwnedFd,
    request: Request,
    evaluate: impl Fn(&[u8]) -> Option<u16>,
) -> io::Result<u16> {
    let kernel = SocketAddrNetlink::new(0, 0);
    rustix::net::sendto(socket, &request.finish(), SendFlags::empty(), &kernel)?;
    let mut buffer = vec![0; 8192];
    let (_, length) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    let answer = Messages::new(buffer.get(..length).unwrap_or_default())
        .next()
        .ok_or_else(|| io::Error::other("the kernel did not answer"))?
        .map_err(io::Error::other)?;
    if answer.kind == TYPE_ERROR {
        let number = answer.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        if number != 0 {
            return Err(io::Error::from_raw_os_error(-number));
        }
        return Ok(0);
    }
    evaluate(answer.payload).ok_or_else(|| io::Error::other("the answer is not understood"))
}
