// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Declines what a client proposes on a connection that somebody else is about to have, who may not know of SMC.
//!
//! Invariant: a whole proposal is taken out of the stream, with the Decline by which its client has withdrawn it
//! before it is answered, and nothing else. No lock is taken and no memory, so a child of vfork may do it.
//! A withdrawal that is on its way when the answer is sent stays in the stream: nobody looks there any more.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use smc_snapshot::reason;
use smc_wire::clc::{Decline, Diagnosis, Frame, MAX_MESSAGE, Message, Version, frame};
use smc_wire::id::PeerId;

/// How long a proposal is waited for. It is on its way: TCP's option has told the client to send it. Who waits in vain
/// has a client that is stopped, or one that a middlebox has kept the option from.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// How often a proposal of which a part is there is looked at.
const PART: Duration = Duration::from_millis(1);

/// What is in front in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Front {
    /// Nothing, or what may become a proposal.
    Open,
    /// Data, or the stream's end.
    Plain,
    /// A proposal of that version, of so many bytes.
    Proposal(Version, usize),
    /// One that was withdrawn: so many bytes with the Decline. An answer would be data to its client.
    Withdrawn(usize),
}

/// Waits for the proposal, for [`PATIENCE`] at most, and declines it.
pub(crate) fn decline(tcp: impl AsFd) {
    let until = Instant::now() + PATIENCE;
    let mut bytes = [0; 2 * MAX_MESSAGE];
    loop {
        let (front, some) = match peek(&tcp, &mut bytes) {
            Ok([]) => (Front::Plain, false),
            Ok(peeked) => (look(peeked), true),
            Err(Errno::AGAIN | Errno::INTR) => (Front::Open, false),
            Err(_) => (Front::Plain, false),
        };
        match front {
            Front::Open => {}
            Front::Plain => return,
            Front::Withdrawn(len) => {
                eat(&tcp, bytes.get_mut(..len));
                return;
            }
            Front::Proposal(version, len) => {
                if eat(&tcp, bytes.get_mut(..len)) && !is_withdrawn(&tcp, &mut bytes, until) {
                    answer(&tcp, version);
                }
                return;
            }
        }
        if !pause(&tcp, some, until) {
            return;
        }
    }
}

/// Whether a Decline of the client's has come behind its proposal meanwhile; takes it out.
fn is_withdrawn(tcp: impl AsFd, bytes: &mut [u8], until: Instant) -> bool {
    loop {
        let Ok(peeked @ [_, ..]) = peek(&tcp, bytes) else { return false };
        match frame(peeked) {
            Ok(Frame::Message { len }) => {
                let is_decline = is_decline(peeked.get(..len));
                if is_decline {
                    eat(&tcp, bytes.get_mut(..len));
                }
                return is_decline;
            }
            // A client that has not been answered sends nothing else.
            Ok(Frame::More { .. }) if !pause(&tcp, true, until) => return true,
            Ok(Frame::More { .. }) => {}
            Err(_) => return false,
        }
    }
}

fn peek(tcp: impl AsFd, bytes: &mut [u8]) -> Result<&[u8], Errno> {
    let (len, _) = recv(tcp, &mut *bytes, RecvFlags::PEEK | RecvFlags::DONTWAIT)?;
    Ok(bytes.get(..len).unwrap_or_default())
}

/// Sleeps until there may be more, behind a part or not; not if the time is up.
fn pause(tcp: impl AsFd, is_part: bool, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    // Of a part TCP says nothing more.
    let (left, events) =
        if is_part { (left.min(PART), PollFlags::empty()) } else { (left, PollFlags::IN) };
    let mut fds = [PollFd::new(&tcp, events)];
    // What ended the sleep shows at the next look.
    let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
    true
}

fn look(peeked: &[u8]) -> Front {
    let len = match frame(peeked) {
        Ok(Frame::More { .. }) => return Front::Open,
        Ok(Frame::Message { len }) => len,
        Err(_) => return Front::Plain,
    };
    let (whole, behind) = peeked.split_at_checked(len).unwrap_or((peeked, &[]));
    let Ok(Message::Proposal(proposal)) = Message::parse(whole) else { return Front::Plain };
    match frame(behind) {
        Ok(Frame::Message { len: more }) if is_decline(behind.get(..more)) => {
            Front::Withdrawn(len + more)
        }
        // Not all of that is here yet.
        Ok(Frame::More { .. }) if !behind.is_empty() => Front::Open,
        _ => Front::Proposal(proposal.version, len),
    }
}

fn is_decline(message: Option<&[u8]>) -> bool {
    message.is_some_and(|it| matches!(Message::parse(it), Ok(Message::Decline(_))))
}

/// Whether all of it was taken out, and by this call: others may have the connection, too.
fn eat(tcp: impl AsFd, room: Option<&mut [u8]>) -> bool {
    room.is_some_and(|room| {
        let len = room.len();
        // They were there a moment ago.
        recv(tcp, room, RecvFlags::DONTWAIT).is_ok_and(|(eaten, _)| eaten == len)
    })
}

fn answer(tcp: impl AsFd, version: Version) {
    let decline = Decline::new(version > Version::V1, PeerId::default(), Diagnosis(reason::PASSED));
    let mut bytes = [0; MAX_MESSAGE];
    if let Some(bytes) = decline.emit(&mut bytes).ok().and_then(|len| bytes.get(..len)) {
        // Nothing was sent before, so there is room; the client may be gone.
        let _ = send(tcp, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use smc_wire::clc::{IsmArea, OfferV2, Proposal, SmcdOffer};
    use smc_wire::id::{Chid, IsmGid, Mac, RoceGid};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    fn proposal() -> Vec<u8> {
        let mut smcd = SmcdOffer::default();
        assert!(smcd.push(IsmGid { gid: 1, ext: 2 }, Chid(0xff00)));
        let v2 = OfferV2 {
            release: 1,
            feature_mask: 1,
            ueids: Default::default(),
            smcr: None,
            smcd: Some(smcd),
        };
        let proposal = Proposal {
            version: Version::V2,
            peer: PeerId::default(),
            gid: RoceGid::default(),
            mac: Mac::default(),
            ism: Some(IsmArea::default()),
            v1: None,
            v2: Some(v2),
        };
        let mut bytes = vec![0; MAX_MESSAGE];
        let len = proposal.emit(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    fn withdrawal() -> Vec<u8> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let decline = Decline::new(true, PeerId::default(), Diagnosis::TIMEOUT_CL);
        let len = decline.emit(&mut bytes).unwrap();
        bytes.truncate(len);
        bytes
    }

    /// What is left for the server's program, and what the client gets.
    fn after(said: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let (mut client, mut server) = pair();
        client.write_all(said).unwrap();
        decline(&server);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (mut left, mut answer) = (Vec::new(), Vec::new());
        server.read_to_end(&mut left).unwrap();
        drop(server);
        client.read_to_end(&mut answer).unwrap();
        (left, answer)
    }

    #[test]
    fn a_proposal_is_taken_out_and_declined() {
        let (left, answer) = after(&proposal());
        assert!(left.is_empty());
        let Ok(Message::Decline(said)) = Message::parse(&answer) else { panic!("{answer:?}") };
        assert_eq!(said.diagnosis, Diagnosis(reason::PASSED));
    }

    #[test]
    fn one_that_was_withdrawn_is_taken_out_with_its_decline_and_not_answered() {
        let said = [proposal(), withdrawal(), b"hello".to_vec()].concat();
        assert_eq!(after(&said), (b"hello".to_vec(), Vec::new()));
    }

    #[test]
    fn a_withdrawal_that_crosses_is_taken_out_and_not_answered() {
        let (mut client, mut server) = pair();
        let is_late = |client: &TcpStream, bytes: &mut [u8]| {
            is_withdrawn(client, bytes, Instant::now() + PATIENCE)
        };
        let mut bytes = [0; 2 * MAX_MESSAGE];
        assert!(!is_late(&server, &mut bytes));
        client.write_all(&withdrawal()).unwrap();
        server.peek(&mut [0]).unwrap();
        assert!(is_late(&server, &mut bytes));
        client.write_all(b"hello").unwrap();
        server.peek(&mut [0]).unwrap();
        assert!(!is_late(&server, &mut bytes));
        server.read_exact(&mut [0; 5]).unwrap();

        // The rest may come before or after the look.
        let said = [proposal(), withdrawal()].concat();
        let (most, rest) = said.split_at(said.len() - 3);
        client.write_all(most).unwrap();
        server.peek(&mut [0; 1]).unwrap();
        let declining = std::thread::spawn(move || {
            decline(&server);
            server
        });
        client.write_all(rest).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut server = declining.join().unwrap();
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_part_of_a_withdrawal_is_waited_for() {
        let all = [proposal(), withdrawal()].concat();
        let behind = proposal().len();
        assert!(matches!(look(&all[..behind]), Front::Proposal(_, len) if len == behind));
        for len in behind + 1..all.len() {
            assert_eq!(look(&all[..len]), Front::Open);
        }
        assert_eq!(look(&all), Front::Withdrawn(all.len()));
    }

    #[test]
    fn who_has_not_eaten_all_says_nothing() {
        let (mut client, server) = pair();
        client.write_all(b"hello").unwrap();
        server.peek(&mut [0]).unwrap();
        assert!(eat(&server, Some(&mut [0; 3])));
        assert!(!eat(&server, Some(&mut [0; 3])));
        assert!(!eat(&server, Some(&mut [0; 3])));
    }

    #[test]
    fn data_and_the_end_are_left() {
        assert_eq!(after(b"hello"), (b"hello".to_vec(), Vec::new()));
        assert_eq!(after(&withdrawal()).0, withdrawal());
        let (client, server) = pair();
        drop(client);
        decline(&server);
    }

    #[test]
    fn a_proposal_that_comes_late_and_in_parts_is_waited_for() {
        let (mut client, server) = pair();
        let declining = std::thread::spawn(move || {
            decline(&server);
            server
        });
        for part in proposal().chunks(20) {
            client.write_all(part).unwrap();
        }
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        drop(declining.join().unwrap());
        assert_eq!(answer, withdrawal()[..4]);
    }
}
