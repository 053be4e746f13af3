// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables that an administrator fills: EIDs, PNETIDs, bounds.

use smc_proto::config::Config;
use smc_proto::endpoint::Endpoint;
use smc_proto::handshake::eid::{EidError, EidTable};
use smc_proto::handshake::pnet::{Named, PnetError, PnetId, PnetTable};
use smc_proto::handshake::reason::{Failure, Kind, Reason};
use smc_wire::clc::Diagnosis;
use smc_wire::id::Eid;

use crate::craft::proposal;
use crate::pair::{Pair, ueid};

#[test]
fn a_pnetid_is_up_to_16_letters_and_digits_in_upper_case() {
    for (text, id) in [
        ("net1", Some("NET1")),
        ("  NeT1 ", Some("NET1")),
        ("0123456789ABCDEF", Some("0123456789ABCDEF")),
        ("0123456789ABCDEF0", None),
        ("", None),
        ("   ", None),
        ("A B", None),
        ("A-B", None),
        ("\u{e4}", None),
    ] {
        let found = PnetId::new(text).map(|id| id.to_string());
        assert_eq!(found, id.map(String::from).ok_or(PnetError::Syntax), "{text:?}");
    }
}

#[test]
fn the_pnet_table_has_one_line_for_each_name() {
    let (one, two) = (PnetId::new("ONE").unwrap(), PnetId::new("TWO").unwrap());
    let device = |name: &str, port| Named::Device { name: name.into(), port };
    let mut table = PnetTable::default();
    table.add(Named::Interface("eth0".into()), one).unwrap();
    assert_eq!(table.add(Named::Interface("eth0".into()), two), Err(PnetError::Exists));
    table.add(device("rxe0", 1), one).unwrap();
    table.add(device("rxe0", 2), two).unwrap();
    table.add(device("0000:00:05.0", 1), two).unwrap();
    assert_eq!(table.of_interface("eth0"), Some(one));
    assert_eq!(table.of_interface("rxe0"), None);
    assert_eq!(table.of_port("rxe0", 2), Some(two));
    assert_eq!(table.of_port("rxe0", 3), None);
    assert_eq!(table.of_ism("ism0", "0000:00:05.0"), Some(two));
    assert_eq!(table.of_ism("ism0", ""), None);
    table.remove(two).unwrap();
    assert_eq!(table.remove(two), Err(PnetError::Missing));
    assert_eq!(table.iter().count(), 2);
    table.flush();
    assert_eq!(table.iter().count(), 0);
}

// row 27
#[test]
fn there_are_four_eids_of_users_at_most_and_one_of_the_system() {
    let system = Eid(*b"IBM-SYSZ-ISMSEID0000000012345678");
    let mut table = EidTable::new(Some(system));
    assert_eq!(table.enable_system(false), Err(EidError::Only));
    for name in ["A", "B", "C", "D"] {
        table.add(ueid(name)).unwrap();
    }
    assert_eq!(table.add(ueid("E")), Err(EidError::Full));
    table.enable_system(false).unwrap();
    assert_eq!(table.system(), None);
    for name in ["A", "B", "C"] {
        table.remove(&ueid(name)).unwrap();
    }
    assert_eq!(table.remove(&ueid("A")), Err(EidError::Missing));
    assert_eq!(table.add(ueid("D")), Err(EidError::Exists));
    assert_eq!(table.system(), None);
    table.remove(&ueid("D")).unwrap();
    assert_eq!(table.system(), Some(system));
    let mut without = EidTable::new(None);
    assert_eq!(without.enable_system(true), Err(EidError::NoSystem));
    without.flush();
    assert_eq!(without.system(), None);
}

#[test]
fn a_configuration_has_linuxs_bounds() {
    let bad: [fn(&mut Config); 8] = [
        |it| it.wmem = 16383,
        |it| it.rmem = 16383,
        |it| it.rmem = 1 << 30,
        |it| it.max_conns = 15,
        |it| it.max_links = 0,
        |it| it.max_links = 3,
        |it| it.release = 2,
        |it| it.wmem = u32::MAX,
    ];
    for change in bad {
        let mut config = Config::default();
        assert!(Endpoint::new(config.clone()).is_ok());
        change(&mut config);
        let error = Endpoint::new(config).unwrap_err();
        assert!(!(error.from..=error.to).contains(&error.value), "{error}");
    }
}

#[test]
fn endings_are_told_in_words() {
    let own = Reason::from(Diagnosis::NOSMCDDEV);
    assert_eq!(own.to_string(), "no common SMC-D device (0x03030001)");
    let theirs = Reason { diagnosis: Diagnosis::PEERDECL, peer: Some(Diagnosis::MEM) };
    let words = "the peer declined (0x05000000): not enough memory (0x01010000)";
    assert_eq!(theirs.to_string(), words);
    let late = Failure::Timeout(Kind::Confirm).to_string();
    assert_eq!(late, "no CLC Confirm from the peer in time");
}

#[test]
fn a_busy_server_stops_offering_smc_if_it_shall() {
    for limit in [false, true] {
        let mut pair = Pair::ism();
        let mut config = pair.ends[1].endpoint.config().clone();
        config.limit_hs = limit;
        pair.ends[1].endpoint.configure(config).unwrap();
        pair.propose(&proposal());
        let route = pair.ends[1].route;
        for _ in 0..1022 {
            pair.ends[1].endpoint.accept(pair.now, &route);
        }
        assert!(pair.ends[1].endpoint.offers());
        pair.ends[1].endpoint.accept(pair.now, &route);
        assert_eq!(pair.ends[1].endpoint.offers(), !limit);
    }
}
