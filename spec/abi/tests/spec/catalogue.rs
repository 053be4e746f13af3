// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every constant and structure of the crate with the value the compiler gives it.
//!
//! Invariant: the catalogue names exactly what `layout.rs` does (the tests at the end).

use crate::source;
use ism_abi::layout as root;
use ism_abi::{FieldInfo, board, command, event, mode, signal_page, status};

/// A constant's module ("root" for none), name and value.
pub(crate) struct Constant {
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    pub(crate) value: u64,
}

/// A structure's name, layout and its way from bytes to bytes.
pub(crate) struct Structure {
    pub(crate) name: &'static str,
    pub(crate) size: usize,
    pub(crate) fields: &'static [FieldInfo],
    pub(crate) round_trip: fn(&[u8]) -> Option<Vec<u8>>,
}

macro_rules! constants {
    ($($module:ident: $($name:ident)*;)*) => {
        vec![$($(constant(stringify!($module), stringify!($name), $module::$name),)*)*]
    };
}

fn constant<T>(module: &'static str, name: &'static str, value: T) -> Constant
where
    T: TryInto<u64>,
    T::Error: std::fmt::Debug,
{
    Constant { module, name, value: value.try_into().expect("constants are not negative") }
}

/// Every constant.
pub(crate) fn constants() -> Vec<Constant> {
    constants! {
        root:
            VIRTIO_ID_ISM VIRTIO_ID_ISM_FALLBACK MAGIC VERSION
            QUEUE_CONTROL QUEUE_EVENT QUEUE_SIGNAL QUEUE_MOVE QUEUE_COUNT
            F_WINDOW F_MOVE F_BOARD SHM_WINDOW FABRIC_ID_MIN FABRIC_ID_MAX
            MAX_DMBS MIN_DMB_LEN MAX_DMB_LEN WINDOW_ALIGN EVENT_SIZE;
        command:
            HELLO PING STATS QUERY_RGID FORGET_PEER REGISTER UNREGISTER ATTACH DETACH
            ADD_VLAN DEL_VLAN SIGNAL_EVENT BOARD_POST;
        status:
            OK INVALID UNSUPPORTED UNREACHABLE NO_TOKEN NO_SPACE IN_USE OUT_OF_RANGE WRONG_MODE
            BUSY IO_ERROR NOT_READY BAD_CDC;
        mode: MAPPED COPIED;
        event: SIGNALS DMB_GRANTED DMB_UNREGISTERED PEER_GONE SOFTWARE_EVENT BOARD_ENTRY;
        board: ANNOUNCE ACCEPT LEAVE LISTEN CALL;
        signal_page:
            SIZE DOORBELL SUMMARY PENDING PENDING_WORDS RING_ALWAYS ARMED SILENT;
    }
}

macro_rules! structures {
    ($($name:ident)*) => {
        vec![$(Structure {
            name: stringify!($name),
            size: ism_abi::$name::SIZE,
            fields: ism_abi::$name::FIELDS,
            round_trip: |bytes| Some(ism_abi::$name::from_bytes(bytes)?.to_bytes().to_vec()),
        }),*]
    };
}

/// Every structure.
pub(crate) fn structures() -> Vec<Structure> {
    structures! {
        Config
        RequestHeader ReplyHeader HelloRequest HelloReply Ping StatsReply QueryRequest QueryReply
        ForgetPeerRequest RegisterRequest RegisterReply TokenRequest AttachReply VlanRequest
        SignalEventRequest BoardPostRequest BoardPostReply
        EventHeader Signals DmbGranted DmbUnregistered PeerGone SoftwareEvent BoardEntry
        SignalRequest MoveRequest MoveReply
    }
}

#[test]
fn names_every_constant_of_the_source() {
    let items = source::items();
    let in_source: Vec<_> =
        source::constants(&items).map(|it| format!("{}::{}", it.module, it.name)).collect();
    let here: Vec<_> = constants().iter().map(|it| format!("{}::{}", it.module, it.name)).collect();
    for name in &in_source {
        assert!(here.contains(name), "catalogue.rs lacks {name} of layout.rs");
    }
    assert_eq!(in_source.len(), here.len(), "a name is twice in catalogue.rs");
}

#[test]
fn names_every_structure_and_field_of_the_source() {
    let items = source::items();
    let here = structures();
    for in_source in source::structures(&items) {
        let name = &in_source.name;
        let known = here.iter().find(|it| it.name == name);
        let known = known.unwrap_or_else(|| panic!("catalogue.rs lacks {name} of layout.rs"));
        let fields: Vec<_> = in_source.fields.iter().map(|field| field.name.as_str()).collect();
        let known_fields: Vec<_> = known.fields.iter().map(|field| field.name).collect();
        assert_eq!(fields, known_fields, "fields of {name}");
    }
    assert_eq!(source::structures(&items).count(), here.len(), "a name is twice in catalogue.rs");
}

#[test]
fn fields_follow_one_another_to_the_end_and_are_aligned() {
    for structure in structures() {
        let mut end = 0;
        for field in structure.fields {
            let what = format!("{}.{}", structure.name, field.name);
            assert_eq!(field.offset, end, "{what} begins where the field before it ends");
            let integer = matches!(field.size, 2 | 4 | 8) && field.name != "reserved";
            assert!(!integer || field.offset % field.size == 0, "{what} is aligned");
            end = field.offset + field.size;
        }
        assert_eq!(structure.size, end, "size of {}", structure.name);
    }
}

#[test]
fn every_event_fits_its_buffer() {
    for body in structures().iter().filter(|it| {
        ["Signals", "DmbGranted", "DmbUnregistered", "PeerGone", "SoftwareEvent", "BoardEntry"]
            .contains(&it.name)
    }) {
        assert!(ism_abi::EventHeader::SIZE + body.size <= ism_abi::EVENT_SIZE, "{}", body.name);
    }
}
