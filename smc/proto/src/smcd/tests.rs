// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Elements, indices and the events' bits.

#![expect(clippy::unwrap_used, reason = "a test that does not get what it expects shall fail")]

use proptest::prelude::*;
use smc_wire::id::DmbToken;
use smc_wire::size::BufferSize;

use super::dmb::{ElementError, Indices, PeerElement};
use super::event::{EventCode, EventInfo};
use crate::id::ConnId;

const TOKEN: DmbToken = DmbToken(0xABCD);

// row 37
#[test]
fn the_ring_begins_after_the_cdc_message() {
    for (index, size, begin) in [(0, 0, 0), (1, 0, 16384), (3, 6, 3 << 20), (255, 6, 255 << 20)] {
        let size = BufferSize::from_bits(size);
        let element = PeerElement::new(TOKEN, size, index).unwrap();
        assert_eq!(element.cdc_offset(), begin);
        assert_eq!(element.ring_offset(), begin + 32);
        assert_eq!(element.ring_len(), size.bytes() - 32);
        assert_eq!(element.token(), TOKEN);
    }
}

#[test]
fn an_element_beyond_32_bits_of_offset_is_refused() {
    for bits in 0..16 {
        let size = BufferSize::from_bits(bits);
        for index in 0..=255 {
            let end = (u64::from(index) + 1) * u64::from(size.bytes());
            let element = PeerElement::new(TOKEN, size, index);
            assert_eq!(element.is_ok(), end <= 1 << 32, "{index} × {}", size.bytes());
        }
    }
}

#[test]
fn an_element_must_lie_within_a_known_dmb() {
    let element = PeerElement::new(TOKEN, BufferSize::MIN, 1).unwrap();
    assert_eq!(element.within(32768), Ok(element));
    assert_eq!(element.within(1 << 40), Ok(element));
    let outside = |len| ElementError::Outside { index: 1, size: 16384, len };
    for len in [0, 16384, 32767] {
        assert_eq!(element.within(len), Err(outside(len)));
    }
    assert_eq!(outside(5).to_string(), "DMB element 1 of 16384 bytes: the DMB has 5");
}

#[test]
fn a_signal_finds_the_connection_or_nobody() {
    let mut indices = Indices::new(4);
    assert!(indices.set(3, Some(ConnId(7))));
    assert!(!indices.set(4, Some(ConnId(8))));
    assert_eq!(
        [0, 3, 4, u16::MAX].map(|index| indices.get(index)),
        [None, Some(ConnId(7)), None, None]
    );
    assert!(indices.set(3, None));
    assert_eq!(indices.get(3), None);
    assert!(Indices::new(usize::MAX).set(u16::MAX, None), "bounded by what an index can say");
}

// row 49
#[test]
fn a_shutdown_events_bits_are_linuxs_struct() {
    let info = EventInfo { group: [1, 2, 3, 4], vlan: 0x0506, code: EventInfo::REQUEST };
    let [v0, v1] = 0x0506u16.to_ne_bytes();
    let [c0, c1] = 1u16.to_ne_bytes();
    assert_eq!(info.bits().to_ne_bytes(), [1, 2, 3, 4, v0, v1, c0, c1]);
    assert_eq!((EventCode::SHUTDOWN.0, EventCode::TEST_LINK.0), (0x80, 0x83));
    let names = [EventCode::SHUTDOWN, EventCode::TEST_LINK, EventCode(9)].map(|c| c.to_string());
    assert_eq!(names, ["shutdown", "test link", "event 0x9"]);
}

proptest! {
    // row 50
    #[test]
    fn any_bits_come_back_and_only_requests_are_answered(bits: u64) {
        let info = EventInfo::from_bits(bits);
        prop_assert_eq!(info.bits(), bits);
        let answer = info.answer().map(|answer| (answer.group, answer.vlan, answer.code));
        let expected = (info.code == 1).then_some((info.group, info.vlan, 2));
        prop_assert_eq!(answer, expected);
        let request = EventInfo { code: 1, ..info };
        prop_assert_eq!(request.answer(), Some(EventInfo { code: 2, ..info }));
    }
}
