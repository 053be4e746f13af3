// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An end: an [`Endpoint`] with an ISM device, and what goes wrong there.
//!
//! Invariant: its device is member of the one fabric, with the GID that its number gives it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use proptest::prelude::*;
use smc_proto::Instant;
use smc_proto::config::{Config, Versions};
use smc_proto::endpoint::Endpoint;
use smc_proto::handshake::inventory::{
    Address, Interface, InterfaceId, IsmDevice, PortGid, RocePort, RoceVersion,
};
use smc_proto::handshake::route::Route;
use smc_proto::id::{BufferId, DeviceId};
use smc_wire::id::{Chid, DmbToken, IsmGid, Mac, RoceGid, Ueid};
use smc_wire::size::PathMtu;

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
    /// It has an ISM device.
    pub ism: bool,
    /// RoCE ports that it has.
    pub ports: u8,
    /// It speaks version 1 of SMC-R, and not version 2.
    pub v1: bool,
    /// How long it waits for the answer to a Proposal, if not as long as Linux.
    pub patience: Option<Duration>,
}

/// What the ends of a world have in common.
#[derive(Debug, Clone, Copy)]
enum Network {
    Ism,
    Roce { ports: u8, v1: bool },
    Any,
}

fn network() -> impl Strategy<Value = Network> {
    prop_oneof![
        3 => Just(Network::Ism),
        3 => (1..=2u8, any::<bool>()).prop_map(|(ports, v1)| Network::Roce { ports, v1 }),
        1 => Just(Network::Any),
    ]
}

impl Setup {
    fn on(network: Network) -> impl Strategy<Value = Self> {
        let buffer = prop_oneof![Just(16 << 10), Just(64 << 10)];
        // About what an answer takes, so that either may come first.
        let patience =
            prop::option::weighted(0.3, (5_000..60_000u64).prop_map(Duration::from_nanos));
        let has = (any::<bool>(), buffer, any::<bool>(), 0..=2u8, any::<bool>(), patience);
        has.prop_map(move |(mapped, buffer, ism, ports, v1, patience)| {
            let (ism, ports, v1) = match network {
                Network::Ism => (true, 0, false),
                Network::Roce { ports, v1 } => (false, ports, v1),
                Network::Any => (ism, ports, v1),
            };
            Self { mapped, buffer, ism, ports, v1, patience }
        })
    }

    /// Two ends with two RoCE ports each.
    pub fn two_ports() -> impl Strategy<Value = Vec<Self>> {
        any::<bool>()
            .prop_flat_map(|v1| prop::collection::vec(Self::on(Network::Roce { ports: 2, v1 }), 2))
    }

    /// Two or three ends, mostly on one kind of network.
    pub fn any() -> impl Strategy<Value = Vec<Self>> {
        network().prop_flat_map(|network| prop::collection::vec(Self::on(network), 2..=3))
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
    /// Its RoCE ports, and those that are down.
    pub(crate) ports: Vec<RocePort>,
    pub(crate) down: BTreeSet<DeviceId>,
}

fn address(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, n))
}

fn ism(gid: IsmGid, mapped: bool) -> IsmDevice {
    IsmDevice {
        id: ISM,
        name: "ism0".into(),
        parent: String::new(),
        gid,
        chid: Chid(0xFF01),
        pnetid: None,
        v2: true,
        vlans: true,
        mapped,
        max_dmb: 1 << 20,
    }
}

/// RoCE port `id` of the end with address `n`: GIDs by its MAC, and by an address.
fn roce(n: u8, id: u8) -> RocePort {
    let mac = Mac([2, 0, 0, 0, n, id]);
    let mut v1 = [0xFE; 16];
    v1[10..].copy_from_slice(&mac.0);
    let v2 = Ipv4Addr::new(10, 0, id - 1, n).to_ipv6_mapped().octets();
    let gid = |gid, version| PortGid { gid: RoceGid(gid), version, interface: INTERFACE };
    RocePort {
        id: DeviceId(100 + u32::from(id)),
        adapter: format!("rxe{id}"),
        port: 1,
        mac,
        interface: Some(INTERFACE),
        pnetid: None,
        active: true,
        gids: vec![gid(v1, RoceVersion::V1), gid(v2, RoceVersion::V2)],
        mtu: PathMtu::M1024,
    }
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
        config.patience = setup.patience;
        config.smcr = Versions { v1: setup.v1, v2: !setup.v1 };
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
        if setup.ism {
            endpoint.add_ism(ism(gid, setup.mapped));
        }
        let ports: Vec<_> = (1..=setup.ports).map(|port| roce(n + 1, port)).collect();
        for port in &ports {
            endpoint.set_port(Instant(0), port.clone());
        }
        let route = Route {
            interface: Some(INTERFACE),
            local: address(n + 1),
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            smc: true,
            ipsec: false,
            sndbuf: None,
            rcvbuf: None,
        };
        let dmbs = BTreeMap::new();
        let down = BTreeSet::new();
        let (alive, no_memory, deaf) = (true, 0, false);
        Ok(Self { endpoint, route, gid, alive, dmbs, no_memory, deaf, ports, down })
    }

    /// Whether a registration fails now.
    pub(crate) fn fails(&mut self) -> bool {
        let fails = self.no_memory > 0;
        self.no_memory = self.no_memory.saturating_sub(1);
        fails
    }
}
