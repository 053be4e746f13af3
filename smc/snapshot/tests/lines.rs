// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What one end writes the other reads, and nothing else does harm.

use smc_snapshot::{
    Carrier, Connection, Decoder, Device, Encoder, Fallback, Gid, Group, Joined, MAX_BYTES,
    MAX_LINE, MAX_RECORDS, Malformed, Process, Record, Role, Smcd, Snapshot, Stats, VERSION,
    reason,
};

fn process() -> Process {
    let (name, socket) = ("a \"name\"\n\u{1b}[2J ä".into(), "/run/x.sock".into());
    Process { version: VERSION, pid: 7, name, socket, joined: Joined::Member, omitted: 3 }
}

fn example() -> Snapshot {
    let gid = Gid { gid: u64::MAX, ext: 1 };
    let smcd = Smcd { token: u64::MAX, peer_gid: gid, sent: (u64::MAX, 2), ..Smcd::default() };
    let mut stats = Stats::default();
    (stats.smcd.client_v2, stats.smcd.rx.request_sizes.0[8]) = (1, 2);
    let connection = |carrier, local: &str| Connection {
        state: 1,
        local: local.parse().unwrap(),
        role: Role::Server,
        carrier,
        ..Connection::default()
    };
    Snapshot {
        process: process(),
        device: Some(Device { gid, chid: 0xff01, ..Device::default() }),
        groups: vec![Group { id: 0x100, peer_gid: gid, ..Group::default() }],
        connections: vec![
            connection(Carrier::None, "0.0.0.0:1"),
            connection(Carrier::Smcd(smcd), "[::1]:2"),
            connection(Carrier::Tcp { reason: reason::POLICY, peer: 9 }, "127.0.0.1:3"),
        ],
        stats,
        fallbacks: vec![Fallback {
            reason: reason::FORCED,
            count: u64::MAX,
            ..Fallback::default()
        }],
    }
}

fn encode(snapshot: &Snapshot) -> Vec<u8> {
    let mut encoder = Encoder::default();
    let mut push = |record| assert!(encoder.push(&record), "{record:?}");
    push(Record::Process(snapshot.process.clone()));
    snapshot.device.iter().for_each(|it| push(Record::Device(it.clone())));
    snapshot.groups.iter().for_each(|it| push(Record::Group(it.clone())));
    snapshot.connections.iter().for_each(|it| push(Record::Connection(Box::new(it.clone()))));
    push(Record::Stats(Box::new(snapshot.stats.clone())));
    snapshot.fallbacks.iter().for_each(|it| push(Record::Fallback(it.clone())));
    push(Record::End);
    encoder.take()
}

fn decode(bytes: &[u8]) -> Result<Snapshot, Malformed> {
    let mut decoder = Decoder::default();
    decoder.feed(bytes)?;
    decoder.finish()
}

#[test]
fn a_snapshot_comes_back_in_pieces_of_any_size() {
    let (snapshot, text) = (example(), encode(&example()));
    assert_eq!(decode(&text), Ok(snapshot.clone()));
    for size in [1, 2, 7, 100] {
        let mut decoder = Decoder::default();
        text.chunks(size).for_each(|piece| decoder.feed(piece).unwrap());
        assert_eq!(decoder.finish(), Ok(snapshot.clone()), "{size}");
    }
}

#[test]
fn a_record_is_one_line() {
    let text = encode(&example());
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(lines, 9);
}

#[test]
fn what_a_newer_process_says_is_skipped_and_what_an_older_one_does_not_is_nothing() {
    let text = r#"{"record":"process","version":1,"colour":"red"}
{"record":"future","x":[1,{"y":2}]}
{"record":"group","id":5,"new":null}
{"record":"end"}
"#;
    let found = decode(text.as_bytes()).unwrap();
    let process = Process { version: 1, ..Process::default() };
    let groups = vec![Group { id: 5, ..Group::default() }];
    assert_eq!(found, Snapshot { process, groups, ..Snapshot::default() });
    let text = text.replace("\"version\":1", "\"version\":2");
    assert_eq!(decode(text.as_bytes()), Err(Malformed::Version(2)));
}

#[test]
fn a_snapshot_has_one_beginning_and_one_end() {
    let process = r#"{"record":"process","version":1}"#;
    let end = r#"{"record":"end"}"#;
    let text = |lines: &[&str]| lines.iter().flat_map(|it| [it, "\n"]).collect::<String>();
    assert!(decode(text(&[process, end]).as_bytes()).is_ok());
    for wrong in [&[end][..], &[process, process, end], &[process, end, end]] {
        assert_eq!(decode(text(wrong).as_bytes()), Err(Malformed::Order), "{wrong:?}");
    }
    for cut in [&[][..], &[process]] {
        assert_eq!(decode(text(cut).as_bytes()), Err(Malformed::Cut), "{cut:?}");
    }
}

/// Every shortening and every change of one byte is a snapshot or an error.
#[test]
fn damage_is_survived() {
    let text = encode(&example());
    for cut in 0..text.len() {
        assert!(decode(&text[..cut]).is_err(), "{cut}");
    }
    let mut refused = 0;
    for at in 0..text.len() {
        for value in [0, b'\n', b'"', b'{', b'9', 0xff] {
            let mut damaged = text.clone();
            damaged[at] = value;
            refused += usize::from(decode(&damaged).is_err());
        }
    }
    assert!(refused > text.len(), "{refused}");
}

#[test]
fn a_hostile_process_cannot_fill_the_readers_memory() {
    let mut decoder = Decoder::default();
    decoder.feed(&vec![b' '; MAX_LINE - 1]).unwrap();
    assert_eq!(decoder.feed(b" "), Err(Malformed::Line(1)));
    let nested = format!("{{\"record\":\"x\",\"y\":{}", "[".repeat(4000));
    assert!(matches!(decode(format!("{nested}\n").as_bytes()), Err(Malformed::Record(1, _))));
    let mut decoder = Decoder::default();
    decoder.feed(b"{\"record\":\"process\",\"version\":1}\n").unwrap();
    let line = format!("{{\"record\":\"future\",\"x\":\"{}\"}}\n", "y".repeat(MAX_LINE - 100));
    let fed = (0..).find_map(|n| decoder.feed(line.as_bytes()).err().map(|error| (n, error)));
    let (lines, error) = fed.unwrap();
    assert_eq!(error, Malformed::Bytes);
    assert!(lines * line.len() <= MAX_BYTES);
}

/// A record of few bytes is a hundred times as many in memory.
#[test]
fn short_records_are_counted() {
    let process = b"{\"record\":\"process\",\"version\":1}\n";
    let feed = |mut decoder: Decoder, line: &str| {
        decoder.feed(process).unwrap();
        (1..).find_map(|n| decoder.feed(line.as_bytes()).err().map(|error| (n, error))).unwrap()
    };
    for kind in ["connection", "group", "fallback", "stats", "future"] {
        let line = format!("{{\"record\":\"{kind}\"}}\n");
        let all = feed(Decoder::default(), &line);
        assert_eq!(all, (MAX_RECORDS, Malformed::Records(MAX_RECORDS)), "{kind}");
        assert_eq!(feed(Decoder::with_room_for(3), &line), (3, Malformed::Records(3)), "{kind}");
    }
}

#[test]
fn a_writer_stops_before_the_reader_would_refuse() {
    let mut encoder = Encoder::default();
    let long = Process { name: "x".repeat(MAX_LINE), ..process() };
    assert!(!encoder.push(&Record::Process(long)));
    assert!(encoder.is_empty());
    let long = Record::Process(Process { name: "x".repeat(MAX_LINE - 200), ..process() });
    let mut total = 0;
    while encoder.push(&long) {
        total += encoder.take().len();
    }
    assert!(encoder.push(&Record::End), "there is room for the end");
    total += encoder.take().len();
    assert!((MAX_BYTES - MAX_LINE..=MAX_BYTES).contains(&total), "{total}");
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    assert!(encoder.push(&Record::Process(process())));
    while encoder.push(&Record::Fallback(Fallback::default())) {}
    assert!(encoder.push(&Record::End), "there is a record left for the end");
    decoder.feed(&encoder.take()).unwrap();
    assert_eq!(decoder.finish().unwrap().fallbacks.len(), MAX_RECORDS - 2);
}

#[test]
fn there_is_room_for_65_536_connections() {
    let most = Smcd { token: u64::MAX, ..Smcd::default() };
    let most = Connection { carrier: Carrier::Smcd(most), ..Connection::default() };
    let mut encoder = Encoder::default();
    assert!(encoder.push(&Record::Connection(Box::new(most))));
    assert!(encoder.len() + 200 < MAX_BYTES >> 16, "{}", encoder.len());
}

#[test]
fn counters_of_any_size_fit_a_line() {
    let text =
        serde_json::to_string(&Stats::default()).unwrap().replace(":0", ":18446744073709551615");
    let text = text.replace("[0,", "[18446744073709551615,").replace(",0", ",18446744073709551615");
    let most: Stats = serde_json::from_str(&text).unwrap();
    assert_eq!(most.smcr.tx.request_sizes.0, [u64::MAX; 9]);
    assert!(Encoder::default().push(&Record::Stats(Box::new(most))));
}
