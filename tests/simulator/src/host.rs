// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An end: an [`Endpoint`] with an ISM device, and what goes wrong there.
//!
//! Invariant: its device is member of the one fabric, with the GID that its number gives it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use smc_proto::config::Config;
use smc_proto::endpoint::Endpoint;
use smc_proto::handshake::inventory::{Address, Interface, InterfaceId, IsmDevice};
use smc_proto::handshake::route::Route;
use smc_proto::id::{BufferId, DeviceId};
use smc_wire::id::{Chid, DmbToken, IsmGid, Ueid};

/// The one ISM device of each end.
pub(crate) const ISM: DeviceId = DeviceId(1);
const INTERFACE: InterfaceId = InterfaceId(2);

/// How an end is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setup {
    /// Its ISM device can map the peers' DMBs, and sends in place.
    pub mapped: bool,
    /// Bytes of its send and receive buffers (`net.smc.wmem`, `net.smc.rmem`).
    pub buffer: u32,
}

impl Setup {
    /// Two or three ends of any kind.
    pub fn any() -> impl Strategy<Value = Vec<Self>> {
        let buffer = prop_oneof![Just(16 << 10), Just(64 << 10)];
        let setup = (any::<bool>(), buffer).prop_map(|(mapped, buffer)| Self { mapped, buffer });
        prop::collection::vec(setup, 2..=3)
    }
}

/// An end.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) route: Route,
    pub(crate) gid: IsmGid,
    pub(crate) alive: bool,
    /// DMBs by the names that the endpoint gave them.
    pub(crate) dmbs: BTreeMap<BufferId, DmbToken>,
    /// Registrations that will fail.
    pub(crate) no_memory: u8,
    /// Signals to it are lost.
    pub(crate) deaf: bool,
}

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

impl Host {
    /// End number `n`, from 0.
    ///
    /// # Errors
    /// If the configuration is out of its bounds.
    pub(crate) fn new(n: u8, setup: Setup) -> Result<Self, String> {
        let buffer = setup.buffer;
        let mut config = Config { wmem: buffer, rmem: buffer, ..Config::default() };
        config.instance = [0x51, n];
        config.set_hostname("simulated");
        let ueid = Ueid::new("SIMULATOR").map_err(|error| error.to_string())?;
        config.eids.add(ueid).map_err(|error| format!("{error:?}"))?;
        let mut endpoint = Endpoint::new(config).map_err(|error| error.to_string())?;
        endpoint.set_interface(Interface {
            id: INTERFACE,
            name: "eth0".into(),
            base: None,
            pnetid: None,
            up: true,
            vlan: 0,
            addresses: vec![Address { ip: address(n + 1), prefix_len: 24 }],
        });
        let gid = IsmGid { gid: 0xA000 + u64::from(n), ext: 0xB000 + u64::from(n) };
        endpoint.add_ism(IsmDevice {
            id: ISM,
            name: "ism0".into(),
            parent: String::new(),
            gid,
            chid: Chid(0xFF01),
            pnetid: None,
            v2: true,
            vlans: true,
            mapped: setup.mapped,
            max_dmb: 1 << 20,
        });
        let route = Route {
            interface: Some(INTERFACE),
            local: address(n + 1),
            smc: true,
            ipsec: false,
            sndbuf: None,
            rcvbuf: None,
        };
        let dmbs = BTreeMap::new();
        Ok(Self { endpoint, route, gid, alive: true, dmbs, no_memory: 0, deaf: false })
    }
}
