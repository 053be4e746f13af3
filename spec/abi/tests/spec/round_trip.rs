// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the code does with bytes: no bit is lost or moved, short input is refused.
//!
//! Invariant: nothing here knows a particular structure but the golden bytes.

use crate::catalogue;
use proptest::prelude::*;

proptest! {
    /// The longest structure has 64 bytes; what follows a structure is not its business.
    #[test]
    fn bytes_survive_the_way_through_each_structure(bytes in prop::array::uniform32(any::<u8>())) {
        let bytes = [bytes, bytes.map(u8::reverse_bits), bytes].concat();
        for structure in catalogue::structures() {
            let back = (structure.round_trip)(&bytes);
            prop_assert_eq!(back.as_deref(), bytes.get(..structure.size), "{}", structure.name);
        }
    }
}

#[test]
fn every_short_input_is_refused() {
    let bytes = [0xa5; 96];
    for structure in catalogue::structures() {
        for len in 0..structure.size {
            assert_eq!((structure.round_trip)(&bytes[..len]), None, "{} of {len}", structure.name);
        }
        assert!((structure.round_trip)(&bytes[..structure.size]).is_some(), "{}", structure.name);
    }
}

/// Integers are little-endian, arrays keep their order: a request as it is on the wire.
#[test]
fn register_request_has_these_bytes() {
    let request = ism_abi::RegisterRequest {
        rgid: *b"0123456789abcdef",
        index: 0x0403_0201,
        len: 0x0010_0000,
        ram_addr: 0x0807_0605_0403_0201,
        vlan_id: 0x0ffe,
        vlan_valid: 1,
        mode: ism_abi::mode::COPIED,
        reserved: [0; 4],
    };
    let expected = *b"0123456789abcdef\x01\x02\x03\x04\x00\x00\x10\x00\
        \x01\x02\x03\x04\x05\x06\x07\x08\xfe\x0f\x01\x02\x00\x00\x00\x00";
    assert_eq!(request.to_bytes(), expected);
    assert_eq!(ism_abi::RegisterRequest::from_bytes(&expected), Some(request));
}
