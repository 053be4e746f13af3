// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What this host could speak SMC with: its ISM devices, its RoCE ports and the interfaces of TCP.
//!
//! Invariant: devices stand in the order in which they are tried: ISM loopback first, then those
//! without a PNETID, the newest first, then those with one (`smcd_register_dev`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smc_wire::id::{Chid, IsmGid, Mac, RoceGid};
use smc_wire::size::PathMtu;

use super::pnet::{PnetId, PnetTable};
use crate::id::DeviceId;

/// An interface's number, as the operating system gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u32);

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address; a point-to-point interface gives its peer's (`ifa_address`).
    pub ip: IpAddr,
    /// Leading bits that all addresses of the subnet share.
    pub prefix_len: u8,
}

impl Address {
    /// The subnet, if this is an IPv4 address (`ifa_address & ifa_mask`).
    pub(crate) fn subnet4(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(ip) = self.ip else { return None };
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix_len.min(32))).unwrap_or(0);
        Some(Ipv4Addr::from_bits(ip.to_bits() & mask))
    }

    /// The prefix, if this is an IPv6 address that is more than link-local.
    pub(crate) fn subnet6(&self) -> Option<Ipv6Addr> {
        let IpAddr::V6(ip) = self.ip else { return None };
        let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix_len.min(128))).unwrap_or(0);
        (!ip.is_unicast_link_local()).then(|| Ipv6Addr::from_bits(ip.to_bits() & mask))
    }

    /// Whether `ip` is in this IPv4 subnet (`inet_ifa_match`).
    pub(crate) fn covers4(&self, ip: Ipv4Addr) -> bool {
        let asked = Self { ip: IpAddr::V4(ip), ..*self };
        self.subnet4().is_some_and(|subnet| asked.subnet4() == Some(subnet))
    }
}

/// A network interface over which TCP connections run.
#[derive(Debug, Clone)]
pub struct Interface {
    /// Its number.
    pub id: InterfaceId,
    /// Its name, by which the PNET table knows it.
    pub name: String,
    /// The lowest interface under it, if it is a stacked one such as a VLAN or a bond.
    pub base: Option<InterfaceId>,
    /// Its hardware's own PNETID; only s390 has that.
    pub pnetid: Option<PnetId>,
    /// Whether it is up.
    pub up: bool,
    /// The VLAN that it, or one under it, is of; 0 for none.
    pub vlan: u16,
    /// Its addresses, in order.
    pub addresses: Vec<Address>,
}

/// An ISM device, or one that behaves like one.
#[derive(Debug, Clone)]
pub struct IsmDevice {
    /// Our name for it.
    pub id: DeviceId,
    /// Its name, by which the PNET table knows it.
    pub name: String,
    /// The name of the device it is a function of; may be empty.
    pub parent: String,
    /// Its GID.
    pub gid: IsmGid,
    /// Its fabric.
    pub chid: Chid,
    /// Its hardware's own PNETID; only s390 has that.
    pub pnetid: Option<PnetId>,
    /// Whether it can speak version 2: it takes VLAN 0x1FFF.
    pub v2: bool,
    /// Whether it can take part in VLANs (`add_vlan_id`).
    pub vlans: bool,
    /// Whether a peer's DMB can be mapped here and written in place (`support_mmapped_rdmb`).
    pub mapped: bool,
    /// The largest DMB it takes, in bytes, header included; a power of two from 16 KiB.
    pub max_dmb: u32,
}

/// The protocol of packets that a RoCE GID stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoceVersion {
    /// RoCE v1, over Ethernet.
    V1,
    /// RoCE v2, over UDP.
    V2,
}

/// A GID of a RoCE port.
#[derive(Debug, Clone, Copy)]
pub struct PortGid {
    /// The GID.
    pub gid: RoceGid,
    /// What it stands for.
    pub version: RoceVersion,
    /// The interface it belongs to.
    pub interface: InterfaceId,
}

/// A port of a RoCE adapter.
#[derive(Debug, Clone)]
pub struct RocePort {
    /// Our name for it.
    pub id: DeviceId,
    /// The adapter's name, by which the PNET table knows it.
    pub adapter: String,
    /// The port's number, from 1.
    pub port: u8,
    /// Its MAC.
    pub mac: Mac,
    /// The interface that is this port.
    pub interface: Option<InterfaceId>,
    /// Its hardware's own PNETID; only s390 has that.
    pub pnetid: Option<PnetId>,
    /// Whether it can carry traffic.
    pub active: bool,
    /// Its GIDs, in the order of the port's table.
    pub gids: Vec<PortGid>,
    /// The largest packet that it sends now.
    pub mtu: PathMtu,
}

/// The devices and interfaces of this host.
#[derive(Debug, Default)]
pub struct Inventory {
    interfaces: Vec<Interface>,
    ism: Vec<IsmDevice>,
    ports: Vec<RocePort>,
    /// The first active port's, also after it has gone.
    first_mac: Option<Mac>,
    v2: bool,
}

impl Inventory {
    /// Adds an interface, or replaces what is known of it.
    pub fn set_interface(&mut self, interface: Interface) {
        match self.interfaces.iter_mut().find(|it| it.id == interface.id) {
            Some(known) => *known = interface,
            None => self.interfaces.push(interface),
        }
    }

    /// Forgets an interface.
    pub fn remove_interface(&mut self, id: InterfaceId) {
        self.interfaces.retain(|it| it.id != id);
    }

    /// Adds an ISM device at its place in the order.
    pub fn add_ism(&mut self, device: IsmDevice, table: &PnetTable) {
        self.v2 |= device.v2;
        let loopback = self.ism.first().is_some_and(|it| it.chid == Chid::LOOPBACK);
        let at = match pnetid_of_ism(&device, table) {
            None => usize::from(loopback),
            Some(_) => self.ism.len(),
        };
        self.ism.insert(at, device);
    }

    /// Forgets an ISM device; whether there was one of that name.
    pub fn remove_ism(&mut self, id: DeviceId) -> bool {
        let before = self.ism.len();
        self.ism.retain(|it| it.id != id);
        self.ism.len() != before
    }

    /// Adds a RoCE port, or replaces what is known of it.
    pub fn set_port(&mut self, port: RocePort) {
        if port.active {
            self.first_mac.get_or_insert(port.mac);
        }
        match self.ports.iter_mut().find(|it| it.id == port.id) {
            Some(known) => *known = port,
            None => self.ports.push(port),
        }
    }

    /// Forgets a RoCE port; whether there was one of that name.
    pub fn remove_port(&mut self, id: DeviceId) -> bool {
        let before = self.ports.len();
        self.ports.retain(|it| it.id != id);
        self.ports.len() != before
    }

    /// The ISM devices, in the order in which they are tried.
    pub fn ism(&self) -> &[IsmDevice] {
        &self.ism
    }

    /// The RoCE ports, in the order in which they were added.
    pub fn ports(&self) -> &[RocePort] {
        &self.ports
    }

    /// An ISM device.
    pub fn ism_device(&self, id: DeviceId) -> Option<&IsmDevice> {
        self.ism.iter().find(|it| it.id == id)
    }

    /// A RoCE port.
    pub fn port(&self, id: DeviceId) -> Option<&RocePort> {
        self.ports.iter().find(|it| it.id == id)
    }

    /// An interface.
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.id == id)
    }

    /// The lowest interface under `interface`, which may be itself.
    pub(crate) fn base<'a>(&'a self, interface: &'a Interface) -> &'a Interface {
        interface.base.and_then(|id| self.interface(id)).unwrap_or(interface)
    }

    /// Whether any ISM device, even one that has gone since, could speak version 2
    /// (`smc_ism_is_v2_capable`).
    pub fn v2_capable(&self) -> bool {
        self.v2
    }

    /// Whether an interface that is up has this PNETID by its hardware
    /// (`smc_pnet_is_ndev_pnetid`).
    pub(crate) fn hardware_has(&self, id: PnetId) -> bool {
        self.interfaces.iter().any(|it| {
            let base = self.base(it);
            base.up && base.pnetid == Some(id)
        })
    }

    /// The MAC that makes this host's peer id unique: the first active port's, for good
    /// (`smc_ib_define_local_systemid`).
    pub(crate) fn first_mac(&self) -> Option<Mac> {
        self.first_mac
    }
}

/// An ISM device's PNETID, its own or the table's.
pub(crate) fn pnetid_of_ism(device: &IsmDevice, table: &PnetTable) -> Option<PnetId> {
    device.pnetid.or_else(|| table.of_ism(&device.name, &device.parent))
}

/// A RoCE port's PNETID, its own or the table's.
pub(crate) fn pnetid_of_port(port: &RocePort, table: &PnetTable) -> Option<PnetId> {
    port.pnetid.or_else(|| table.of_port(&port.adapter, port.port))
}

/// The PNETID of the network that ISM v1 must share with the interface: its base device's own, or
/// the table's for the base device (`smc_pnet_find_ism_by_pnetid`).
pub(crate) fn pnetid_for_ism(
    inventory: &Inventory,
    table: &PnetTable,
    at: &Interface,
) -> Option<PnetId> {
    let base = inventory.base(at);
    base.pnetid.or_else(|| table.of_interface(&base.name))
}

/// The same for a RoCE port, which may also have been given to the interface itself
/// (`smc_pnet_find_roce_by_pnetid`).
pub(crate) fn pnetid_for_roce(
    inventory: &Inventory,
    table: &PnetTable,
    at: &Interface,
) -> Option<PnetId> {
    pnetid_for_ism(inventory, table, at).or_else(|| table.of_interface(&at.name))
}
