// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! CLC messages that Linux sent: they come back byte for byte, and are made again from what both ends
//! were configured with.
//!
//! Invariant: of a captured message only what Linux rolled dice for is used to make it again: tokens,
//! keys, addresses, queue pairs, packet numbers, a host's instance, a link group's name.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use smc_golden::Golden;
use smc_wire::clc::{
    Accept, AcceptConfirm, Body, Confirm, Contact, Decline, Diagnosis, Features, FirstContact,
    Frame, IsmArea, MAX_MESSAGE, Message, Modes, OfferV1, OfferV2, PrefixV4, PrefixV6, Prefixes,
    Proposal, Smcd, SmcdOffer, Smcr, SmcrOffer, Version, frame, hostname,
};
use smc_wire::id::{Chid, Eid, IsmGid, Mac, PeerId, RoceGid, Ueid};
use smc_wire::size::{BufferSize, PathMtu};

/// Scenarios whose configuration stays the same to the end, and what their clients offer under
/// version 1 and version 2. A device of SMC-D's version 1 is offered as the native one.
const STEADY: [(&str, Option<Modes>, Option<Modes>); 7] = [
    ("smcd-loopback", None, Some(Modes::D)),
    ("smcd-pair", None, Some(Modes::D)),
    ("smcd-strangers", None, Some(Modes::D)),
    ("smcd-two-ueids", None, Some(Modes::D)),
    ("smcr-v1", Some(Modes::R), None),
    ("smcr-v2", None, Some(Modes::Both)),
    ("smcr-v2-limits", None, Some(Modes::R)),
];

/// Linux 7.3 speaks release 1 and offers its one supplemental feature, emulated ISM.
const RELEASE: u8 = 1;
const FEATURES: u16 = 1;

fn is_clc(golden: &Golden) -> bool {
    golden.bytes.starts_with(&[0xE2, 0xD4, 0xC3]) && golden.bytes.len() > 8
}

/// The messages that begin with `prefix`.
fn captured(prefix: &str) -> Vec<(Golden, Message)> {
    let goldens = smc_golden::names(prefix).into_iter().map(|name| smc_golden::get(&name));
    goldens
        .filter(is_clc)
        .map(|golden| {
            let message = Message::parse(&golden.bytes);
            let message = message.unwrap_or_else(|error| panic!("{}: {error}", golden.name));
            (golden, message)
        })
        .collect()
}

fn emitted(message: &Message) -> Vec<u8> {
    let mut bytes = [0xAA; MAX_MESSAGE];
    let len = message.emit(&mut bytes).unwrap();
    bytes.get(..len).unwrap().to_vec()
}

/// One end of a scenario, as it told of itself.
struct End {
    inputs: BTreeMap<String, String>,
    side: &'static str,
}

impl End {
    /// Who sent the message; a guest that talks to itself is called the server.
    fn of(golden: &Golden) -> Self {
        let inputs = smc_golden::inputs(golden.name.split('/').next().unwrap());
        let sender = golden.note("from").unwrap();
        let alone = !inputs.contains_key("client.hostname");
        let side = if sender.starts_with("client") && !alone { "client" } else { "server" };
        Self { inputs, side }
    }

    fn get(&self, key: &str) -> &str {
        let key = format!("{}.{key}", self.side);
        self.inputs.get(&key).unwrap_or_else(|| panic!("no input {key}"))
    }

    fn number<T: TryFrom<u32>>(&self, key: &str) -> T {
        let number: u32 = self.get(key).parse().unwrap();
        T::try_from(number).unwrap_or_else(|_| panic!("{key}"))
    }

    /// Connections or links a link group at most.
    fn limit(&self, name: &str) -> u8 {
        self.number(&format!("sysctl.net.smc.smcr_max_{name}_per_lgr"))
    }

    /// The UEIDs in the order in which they were added.
    fn ueids(&self, side: &str) -> Vec<Eid> {
        let ueids = (0..).map_while(|n| self.inputs.get(&format!("{side}.ueid.{n}")));
        ueids.map(|text| Ueid::new(text).unwrap().eid()).collect()
    }

    /// The first UEID of the client that the server has too.
    fn common_ueid(&self) -> Eid {
        let client = if self.inputs.contains_key("client.hostname") { "client" } else { "server" };
        let server = self.ueids("server");
        self.ueids(client).into_iter().find(|ueid| server.contains(ueid)).unwrap_or(Eid::NONE)
    }

    fn mac(&self) -> Mac {
        let bytes: Vec<u8> = self
            .get("net.eth0.mac")
            .split(':')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect();
        Mac(bytes.try_into().unwrap())
    }

    /// The network card's addresses and their prefixes' lengths.
    fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let addresses = (0..).map_while(|n| {
            let key = format!("{}.net.eth0.address.{n}", self.side);
            let (address, len) = self.inputs.get(&key)?.split_once('/')?;
            Some((address.parse().unwrap(), len.parse().unwrap()))
        });
        addresses.collect()
    }

    /// The subnets as a proposal over IPv4 or IPv6 names them.
    fn prefixes(&self, over_v6: bool) -> Prefixes {
        let mut prefixes = Prefixes::default();
        for (address, len) in self.addresses() {
            match address {
                IpAddr::V4(v4) if !over_v6 => {
                    let mask = u32::MAX << (32 - len);
                    prefixes.v4 = PrefixV4 { subnet: (u32::from(v4) & mask).into(), len };
                }
                IpAddr::V6(v6) if over_v6 && !v6.is_unicast_link_local() => {
                    let mask = u128::MAX << (128 - len);
                    let subnet = (u128::from(v6) & mask).into();
                    prefixes.v6.push(PrefixV6 { subnet, len });
                }
                _ => {}
            }
        }
        prefixes
    }

    /// The GID that soft-RoCE makes of the IPv4 address.
    fn roce_gid(&self) -> RoceGid {
        let mut addresses = self.addresses().into_iter();
        let v4 = addresses.find_map(|(address, _)| match address {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        RoceGid(v4.unwrap().to_ipv6_mapped().octets())
    }

    /// The ISM devices, loopback first.
    fn devices(&self) -> Vec<(IsmGid, Chid)> {
        let prefix = format!("{}.dibs.", self.side);
        let names = self.inputs.keys().filter_map(|key| {
            let name = key.strip_prefix(&prefix)?.strip_suffix(".gid")?;
            Some(name.to_owned())
        });
        let mut names: Vec<_> = names.collect();
        names.sort_by_key(|name| name != "lo");
        names.iter().map(|name| self.device(name)).collect()
    }

    fn device(&self, name: &str) -> (IsmGid, Chid) {
        let digits = self.get(&format!("dibs.{name}.gid")).replace('-', "");
        let gid = u128::from_str_radix(&digits, 16).unwrap().to_be_bytes();
        let half = |at: usize| u64::from_be_bytes(*gid.get(at..).unwrap().first_chunk().unwrap());
        let fabric = self.get(&format!("dibs.{name}.fabric_id")).trim_start_matches("0x");
        let chid = Chid(u16::from_str_radix(fabric, 16).unwrap());
        (IsmGid { gid: half(0), ext: half(8) }, chid)
    }

    /// A host's name in SMC-R: two bytes by chance, then the MAC.
    fn peer(&self, rolled: PeerId) -> PeerId {
        let [a, b, ..] = rolled.0;
        let [c, d, e, f, g, h] = self.mac().0;
        PeerId([a, b, c, d, e, f, g, h])
    }
}

/// Whether the step is one that `words` are about.
fn step(golden: &Golden, words: &str) -> bool {
    golden.note("step").unwrap().contains(words)
}

/// What the client of a steady scenario proposes; `rolled` is the captured host's name.
fn proposal(golden: &Golden, v1: Option<Modes>, v2: Option<Modes>, rolled: PeerId) -> Proposal {
    let end = End::of(golden);
    let smcr_v1 = v1.is_some_and(Modes::smcr);
    let mut smcd = SmcdOffer::default();
    for (gid, chid) in end.devices() {
        assert!(smcd.push(gid, chid));
    }
    let conns = |name| end.number::<u8>(&format!("sysctl.net.smc.smcr_max_{name}_per_lgr"));
    let smcr =
        || SmcrOffer { gid: end.roce_gid(), max_conns: conns("conns"), max_links: conns("links") };
    Proposal {
        version: Version::V2,
        peer: if smcr_v1 { end.peer(rolled) } else { PeerId::default() },
        gid: if smcr_v1 { end.roce_gid() } else { RoceGid::default() },
        mac: if smcr_v1 { end.mac() } else { Mac::default() },
        ism: Some(IsmArea::default()),
        v1: v1.map(|modes| OfferV1 { modes, prefixes: end.prefixes(step(golden, "over IPv6")) }),
        v2: v2.map(|modes| OfferV2 {
            release: RELEASE,
            feature_mask: FEATURES,
            ueids: end.ueids(end.side).into_iter().collect(),
            smcr: modes.smcr().then(smcr),
            smcd: modes.smcd().then_some(smcd),
        }),
    }
}

/// What an end of a steady scenario answers; `rolled` is the captured answer, for its dice.
fn answer(golden: &Golden, rolled: &AcceptConfirm, v1: bool) -> AcceptConfirm {
    let end = End::of(golden);
    let first = step(golden, "no link group");
    let small = step(golden, "16 KiB buffers");
    let asked = if small { 16 << 10 } else { end.number("sysctl.net.smc.rmem") };
    let size = BufferSize::covering(asked, BufferSize::MAX);
    let peer =
        End { side: if end.side == "client" { "server" } else { "client" }, ..End::of(golden) };
    let limit = |name| end.limit(name).min(peer.limit(name));
    let (body, features, v2_direct) = match rolled.body {
        Body::Smcr(rolled) => {
            let smcr = Smcr {
                peer: end.peer(rolled.peer),
                gid: end.roce_gid(),
                mac: end.mac(),
                rmbe_idx: 1,
                size,
                mtu: PathMtu::M1024,
                ..rolled
            };
            let (max_conns, max_links) = (limit("conns"), limit("links"));
            (Body::Smcr(smcr), Features { max_conns, max_links, ..Features::default() }, true)
        }
        Body::Smcd(rolled) => {
            // The device that both have: loopback in one guest, otherwise the one behind it.
            let (gid, chid) = *end.devices().last().unwrap();
            let smcd = Smcd { gid, chid, dmbe_idx: 0, size, ..rolled };
            (Body::Smcd(smcd), Features::default(), false)
        }
    };
    let features = Features { feature_mask: FEATURES, ..features };
    let smcr = !body.is_smcd();
    let extension = FirstContact::new(smcr, RELEASE, hostname(end.get("hostname")), features);
    let contact = if v1 {
        Contact::V1 { first }
    } else {
        let first = first.then_some(FirstContact { v2_direct, ..extension });
        Contact::V2 { eid: end.common_ueid(), first }
    };
    AcceptConfirm { contact, body }
}

// rows 5, 12, 13, 14, 16, 17
#[test]
fn what_linux_sent_comes_back() {
    let mut kinds = BTreeSet::new();
    for (golden, message) in captured("") {
        assert_eq!(emitted(&message), golden.bytes, "{}: {message:#?}", golden.name);
        assert_eq!(frame(&golden.bytes), Ok(Frame::Message { len: golden.bytes.len() }));
        kinds.insert(golden.bytes.get(4).copied().unwrap());
    }
    assert_eq!(kinds, (1..=4).collect());
}

// row 5
#[test]
fn linux_proposes_what_we_propose() {
    for (scenario, v1, v2) in STEADY {
        let mut proposals = 0;
        for (golden, message) in captured(&format!("{scenario}/")) {
            let Message::Proposal(captured) = message else { continue };
            let ours = proposal(&golden, v1, v2, captured.peer);
            assert_eq!(emitted(&Message::Proposal(ours)), golden.bytes, "{}", golden.name);
            proposals += 1;
        }
        assert!(proposals > 0, "{scenario}");
    }
}

// row 6
#[test]
fn linux_proposes_one_device_in_224_bytes() {
    let (golden, _) = captured("smcr-v2/").swap_remove(0);
    let end = End::of(&golden);
    assert_eq!((end.devices().len(), end.ueids(end.side).len()), (1, 1));
    let ours = proposal(&golden, None, Some(Modes::Both), PeerId::default());
    let ours = emitted(&Message::Proposal(ours));
    assert_eq!((ours.len(), ours), (224, golden.bytes));
}

// rows 12, 13, 14, 16
#[test]
fn linux_answers_what_we_answer() {
    for (scenario, v1, _) in STEADY {
        let mut answers = BTreeSet::new();
        for (golden, message) in captured(&format!("{scenario}/")) {
            let (end, first) = (End::of(&golden), step(&golden, "no link group"));
            let ours = match message {
                Message::Accept(Accept(accept)) => {
                    Message::Accept(Accept(answer(&golden, &accept, v1.is_some())))
                }
                Message::Confirm(confirm) => {
                    let common = answer(&golden, &confirm.common, v1.is_some());
                    let listed = first && v1.is_none() && !common.body.is_smcd();
                    let gids = listed.then(|| [end.roce_gid()].into_iter().collect());
                    Message::Confirm(Confirm { common, gids })
                }
                _ => continue,
            };
            assert_eq!(emitted(&ours), golden.bytes, "{}", golden.name);
            answers.insert((golden.bytes.get(4).copied(), first));
        }
        let wanted = if scenario == "smcd-strangers" { 0 } else { 4 };
        assert_eq!(answers.len(), wanted, "{scenario}: accepts and confirms, first and not");
    }
}

// row 16
#[test]
fn linux_lists_both_ports_of_the_client() {
    let gid = |last| RoceGid(Ipv4Addr::new(10, 77, 0, last).to_ipv6_mapped().octets());
    let lists = captured("smcr-v2-two-ports/").into_iter().filter_map(|(golden, message)| {
        let Message::Confirm(Confirm { gids: Some(gids), .. }) = message else { return None };
        Some((golden.bytes.len(), gids.to_vec()))
    });
    assert_eq!(lists.collect::<Vec<_>>(), [(196, vec![gid(2), gid(12)])]);
}

// row 12
#[test]
fn smcd_version_1_is_a_64_bit_gid_and_a_subnet() {
    let mut messages = 0;
    let mut left = captured("smcd-v1/");
    // From where on nobody has a UEID, as the inputs say.
    let steady = left.iter().position(|(golden, _)| step(golden, "without a UEID"));
    left.drain(..steady.unwrap());
    for (golden, message) in left {
        let end = End::of(&golden);
        let (gid, chid) = end.device("lo");
        let ours = match message {
            Message::Proposal(_) => {
                let v4 = PrefixV4 { subnet: Ipv4Addr::new(127, 0, 0, 0), len: 8 };
                let prefixes = Prefixes { v4, v6: <_>::default() };
                Message::Proposal(Proposal {
                    version: Version::V2,
                    peer: PeerId::default(),
                    gid: RoceGid::default(),
                    mac: Mac::default(),
                    ism: Some(IsmArea { gid: gid.gid, chid, ..IsmArea::default() }),
                    v1: Some(OfferV1 { modes: Modes::D, prefixes }),
                    v2: Some(OfferV2 {
                        release: RELEASE,
                        feature_mask: FEATURES,
                        ueids: <_>::default(),
                        smcr: None,
                        smcd: Some(SmcdOffer::default()),
                    }),
                })
            }
            Message::Accept(Accept(AcceptConfirm { contact, body: Body::Smcd(rolled) })) => {
                let gid = IsmGid { ext: 0, ..gid };
                let smcd = Smcd { gid, chid: Chid(0), ..rolled };
                Message::Accept(Accept(AcceptConfirm { contact, body: Body::Smcd(smcd) }))
            }
            other => other,
        };
        assert_eq!(emitted(&ours), golden.bytes, "{}", golden.name);
        messages += 1;
    }
    assert!(messages > 4);
}

// row 17
#[test]
fn linux_declines_as_we_decline() {
    let mut codes = BTreeSet::new();
    for (golden, message) in captured("") {
        let Message::Decline(captured) = message else { continue };
        // "04-server-decline-v2-03030008", and maybe "-out-of-sync".
        let (_, words) = golden.name.split_once("-decline-v").unwrap();
        let code = words.split('-').nth(1).unwrap();
        let diagnosis = Diagnosis(u32::from_str_radix(code, 16).unwrap());
        let v2 = golden.name.contains("-decline-v2-");
        let peer = match captured.peer {
            PeerId([0, 0, 0, 0, 0, 0, 0, 0]) => PeerId::default(),
            rolled => End::of(&golden).peer(rolled),
        };
        let ours = Message::Decline(Decline::new(v2, peer, diagnosis));
        assert_eq!(emitted(&ours), golden.bytes, "{}", golden.name);
        codes.insert(diagnosis);
    }
    assert!(codes.contains(&Diagnosis::NOSMCD2DEV) && codes.contains(&Diagnosis::MAX_DMB));
}
