// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Events that ISM devices bring (`smc_ism.c`: `smc_ism_event_work`, `smcd_handle_sw_event`).
//!
//! Invariant: any 64 bits are an [`EventInfo`], and come back as they were.

use core::fmt;

use smc_wire::id::IsmGid;

/// What happened at a peer's device (`struct dibs_event`); the sender's GID is vouched for by the
/// device that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceEvent {
    /// A DMB was unregistered. Ignored, as in Linux: the CDC area says more.
    Buffer,
    /// The device with this GID was disabled or failed; a GID of zeros means all of them.
    Device {
        /// The peer's device.
        gid: IsmGid,
    },
    /// The peer's SMC-D sent an event.
    Software {
        /// The peer's device.
        gid: IsmGid,
        /// Which.
        code: EventCode,
        /// Its data.
        info: u64,
    },
}

/// The code of a software event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventCode(pub u32);

impl EventCode {
    /// The peer's link group goes (`ISM_EVENT_CODE_SHUTDOWN`).
    pub const SHUTDOWN: Self = Self(0x80);
    /// A sign of life, to be answered (`ISM_EVENT_CODE_TESTLINK`).
    pub const TEST_LINK: Self = Self(0x83);
}

impl fmt::Display for EventCode {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Self::SHUTDOWN => f.write_str("shutdown"),
            Self::TEST_LINK => f.write_str("test link"),
            Self(code) => write!(f, "event {code:#x}"),
        }
    }
}

/// The data of a software event (`union smcd_sw_event_info`), in the host's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventInfo {
    /// The sender's number of the link group. Nobody compares it.
    pub group: [u8; 4],
    /// The VLAN of the sender's link group; [`Self::ANY_VLAN`] stands for all.
    pub vlan: u16,
    /// [`Self::REQUEST`] or [`Self::RESPONSE`].
    pub code: u16,
}

impl EventInfo {
    /// What asks for an answer (`ISM_EVENT_REQUEST`).
    pub const REQUEST: u16 = 1;
    /// The answer (`ISM_EVENT_RESPONSE`).
    pub const RESPONSE: u16 = 2;
    /// The VLAN that stands for all of them (`VLAN_VID_MASK`).
    pub const ANY_VLAN: u16 = 0x0FFF;

    /// From an event's 64 bits.
    pub const fn from_bits(info: u64) -> Self {
        let [a, b, c, d, v0, v1, c0, c1] = info.to_ne_bytes();
        Self {
            group: [a, b, c, d],
            vlan: u16::from_ne_bytes([v0, v1]),
            code: u16::from_ne_bytes([c0, c1]),
        }
    }

    /// The 64 bits.
    pub const fn bits(self) -> u64 {
        let [a, b, c, d] = self.group;
        let [v0, v1] = self.vlan.to_ne_bytes();
        let [c0, c1] = self.code.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, v0, v1, c0, c1])
    }

    /// What a test-link request is answered with: the same bits but for the code
    /// (`smcd_handle_sw_event`). `None` for what is no request.
    pub const fn answer(self) -> Option<Self> {
        match self.code {
            Self::REQUEST => Some(Self { code: Self::RESPONSE, ..self }),
            _ => None,
        }
    }
}
