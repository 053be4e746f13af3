// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Who may talk to whom, how much each may use, and members that come and go.
//!
//! Invariant: a member learns of others only that they can be reached, and what a member that goes
//! had is dead everywhere when its peers are told.

use ism_abi::{MIN_DMB_LEN, mode, status};
use ism_frontend::channel::MapPolicy;
use ism_frontend::commands::register_request;
use ism_frontend::{Driver, Event, Options};
use ism_tests::fabric::{
    DMB, MODES, all_zero, daemon, eventually, fabric, gid, gone, grant, granted, join, no_event,
    pair, refused, signalled, soon, start, write,
};

#[test]
fn a_member_of_no_common_group_is_unreachable() {
    for mode in MODES {
        let fabric = fabric(mode).vm("a", &["one", "more"]).vm("b", &["one"]).vm("c", &["other"]);
        let daemon = start(&fabric);
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| join(&daemon, name));
        assert_eq!(a.query(gid(&b), None).expect("same group"), mode);
        let (ga, gc) = (gid(&a), gid(&c));
        for (asker, asked) in [(&mut a, gc), (&mut b, gc), (&mut c, ga)] {
            refused(asker.query(asked, None), status::UNREACHABLE);
            let request = register_request(asked, 0, DMB, mode);
            refused(asker.register_raw(&request), status::UNREACHABLE);
            refused(asker.signal_event(asked, 1, 1), status::UNREACHABLE);
        }
        // The same answer as for a GID that nobody has.
        refused(a.query([9; 16], None), status::UNREACHABLE);
        no_event(&mut c);
        let window = c.connection().window().expect("a window");
        assert!(window.extents().is_empty(), "memory of strangers");
        assert_eq!(c.query(gc, None).expect("itself"), mode);
    }
}

#[test]
fn a_member_that_has_not_said_hello_is_unreachable() {
    let daemon = daemon(mode::MAPPED, &["a", "b"]);
    let mut a = join(&daemon, "a");
    let mut b = Driver::connect(&daemon.socket("b"), Options::default()).expect("connect");
    let gb = gid(&b);
    refused(a.query(gb, None), status::UNREACHABLE);
    refused(a.register(gb, 0, DMB, mode::MAPPED), status::UNREACHABLE);
    b.hello().expect("hello");
    assert_eq!(a.query(gb, None).expect("ready"), mode::MAPPED);
}

#[test]
fn software_events_reach_their_receiver() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        a.signal_event(gid(&b), 0x8000_0001, u64::MAX - 1).expect("signal event");
        match b.next_event(soon()).expect("event") {
            Event::Software(event) => {
                assert_eq!((event.gid, event.code), (gid(&a), 0x8000_0001));
                assert_eq!(event.info, u64::MAX - 1);
            }
            other => panic!("{other:?}"),
        }
        let own = gid(&a);
        a.signal_event(own, 5, 6).expect("to itself");
        assert!(matches!(a.next_event(soon()), Ok(Event::Software(event)) if event.gid == own));
    }
}

#[test]
fn software_events_are_bounded_while_nobody_reads_them() {
    let (_daemon, mut a, mut b) = pair(mode::MAPPED);
    b.return_event_buffers(false).expect("keep");
    let gb = gid(&b);
    let mut sent = 0u32;
    let refusal = loop {
        match a.signal_event(gb, sent, 0) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 100_000, "no limit");
        // What is in the ring does not count as waiting: take it, keep the buffer.
        while b.poll_event().expect("events").is_some() {}
    };
    assert_eq!(refusal.status(), Some(status::BUSY));
    assert_eq!(a.ping(1).expect("alive"), 1);
}

#[test]
fn quotas_hold() {
    for mode in MODES {
        let limits = "bytes = \"256K\"\ndmbs = 3\npeers = 1";
        let fabric = fabric(mode).vm_with("a", &["all"], limits).vm("b", &["all"]);
        let daemon = start(&fabric.vm("c", &["all"]));
        let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| join(&daemon, name));
        let limits = a.hello().expect("hello");
        assert_eq!((limits.max_dmbs, limits.max_bytes, limits.max_peers), (3, 256 << 10, 1));
        // Bytes: two of 128 KiB, and no more.
        let (first, _) = grant(&mut a, &mut b, 0, 128 << 10, mode);
        let (second, _) = grant(&mut a, &mut b, 1, 128 << 10, mode);
        refused(a.register(gid(&b), 2, MIN_DMB_LEN, mode), status::NO_SPACE);
        a.unregister(second).expect("unregister");
        a.unregister(first).expect("unregister");
        // Number: three.
        let few = [0, 1, 2].map(|n| a.register(gid(&b), n, MIN_DMB_LEN, mode).expect("three"));
        refused(a.register(gid(&b), 3, MIN_DMB_LEN, mode), status::NO_SPACE);
        // Peers: one, whoever begins.
        refused(a.register(gid(&c), 3, MIN_DMB_LEN, mode), status::NO_SPACE);
        a.unregister(few[0].clone()).expect("unregister");
        refused(a.register(gid(&c), 3, MIN_DMB_LEN, mode), status::NO_SPACE);
        refused(c.register(gid(&a), 0, MIN_DMB_LEN, mode), status::NO_SPACE);
        no_event(&mut c);
        // Others have their own limits.
        grant(&mut b, &mut c, 0, 1 << 20, mode);
    }
}

#[test]
fn the_control_rate_is_limited() {
    let fabric = fabric(mode::MAPPED).vm_with("a", &["all"], "control-rate = 20").vm("b", &["all"]);
    let daemon = start(&fabric);
    let (mut a, mut b) = (join(&daemon, "a"), join(&daemon, "b"));
    let mut busy = false;
    for _ in 0..5000 {
        busy |= matches!(a.ping(1), Err(error) if error.status() == Some(status::BUSY));
        if busy {
            break;
        }
    }
    assert!(busy, "5000 requests at 20 a second");
    assert_eq!(b.ping(2).expect("others are not limited"), 2);
}

#[test]
fn signals_past_the_rate_are_late_but_not_lost() {
    let fabric = fabric(mode::MAPPED).vm("a", &["all"]).vm_with("b", &["all"], "signal-rate = 50");
    let daemon = start(&fabric);
    let (mut a, mut b) = (join(&daemon, "a"), join(&daemon, "b"));
    let (_first, first) = grant(&mut a, &mut b, 0, DMB, mode::MAPPED);
    let (_last, last) = grant(&mut a, &mut b, 1, DMB, mode::MAPPED);
    for _ in 0..500 {
        b.signal(first.token).expect("signal");
    }
    b.signal(last.token).expect("signal");
    let mut seen = 0;
    while seen & 2 == 0 {
        seen |= signalled(&mut a).mask;
    }
}

#[test]
fn the_end_of_a_peer_is_told_once_and_its_tokens_are_dead() {
    for mode in MODES {
        let (daemon, mut a, mut b) = pair(mode);
        let (dmb, to_a) = grant(&mut a, &mut b, 0, DMB, mode);
        let (_, to_b) = grant(&mut b, &mut a, 0, DMB, mode);
        let gb = gid(&b);
        let bytes = dmb.bytes.clone();
        drop(b);
        let event = gone(&mut a);
        assert_eq!((event.gid, event.instance), (gb, dmb.reply.instance));
        refused(a.attach(to_b.token), status::NO_TOKEN);
        a.signal(to_b.token).expect("a signal is not answered");
        if mode == mode::COPIED {
            refused(a.move_to(to_b.token, 0, &[1], false), status::NO_TOKEN);
        }
        refused(a.query(gb, None), status::UNREACHABLE);
        // The memory stays until it is forgotten, and that has an order.
        all_zero(&bytes);
        drop(bytes);
        refused(a.forget_peer(gb, event.instance), status::IN_USE);
        a.unregister(dmb).expect("unregister");
        a.forget_peer(gb, event.instance).expect("forget");
        a.forget_peer(gb, event.instance).expect("forgetting is idempotent");
        no_event(&mut a);
        if mode == mode::MAPPED {
            let window = a.connection().window().expect("a window").clone();
            eventually("the unmapping", || window.extents().is_empty());
        }
        // A new instance of the pair: new memory, new tokens.
        let mut b = join(&daemon, "b");
        assert_eq!(gid(&b), gb, "the socket's GID");
        refused(b.attach(to_a.token), status::NO_TOKEN);
        let (again, grant_again) = grant(&mut a, &mut b, 0, DMB, mode);
        assert_ne!(again.reply.instance, event.instance);
        assert_ne!(again.token(), to_a.token);
        all_zero(&again.bytes);
        write(&mut b, &grant_again, 0, b"again");
        assert_eq!(signalled(&mut a).mask, 1);
    }
}

#[test]
fn a_peer_may_return_before_it_is_forgotten() {
    for mode in MODES {
        let (daemon, mut a, mut b) = pair(mode);
        let (old, old_grant) = grant(&mut a, &mut b, 0, DMB, mode);
        write(&mut b, &old_grant, 0, &[0xaa; 100]);
        signalled(&mut a);
        drop(b);
        let event = gone(&mut a);
        let mut b = join(&daemon, "b");
        let (new, new_grant) = grant(&mut a, &mut b, 1, DMB, mode);
        assert_ne!(new.reply.instance, old.reply.instance);
        all_zero(&new.bytes);
        write(&mut b, &new_grant, 0, &[0xbb; 100]);
        signalled(&mut a);
        let mut read = [0; 100];
        old.bytes.read(0, &mut read).expect("still mapped");
        assert_eq!(read, [0xaa; 100], "the old memory is not used by the new instance");
        if mode == mode::MAPPED {
            let extents = |driver: &mut Driver| {
                let window = driver.connection().window().expect("window");
                window.extents().iter().map(|extent| extent.inode).collect::<Vec<_>>()
            };
            let (mine, theirs) = (extents(&mut a), extents(&mut b));
            assert_eq!((mine.len(), theirs.len()), (2, 1));
            assert!(mine.contains(&theirs[0]));
        }
        a.unregister(old).expect("unregister");
        a.forget_peer(event.gid, event.instance).expect("forget");
        new.bytes.read(0, &mut read).expect("the new pair is whole");
        assert_eq!(read, [0xbb; 100]);
    }
}

#[test]
fn a_peer_that_comes_and_goes_leaves_nothing_behind() {
    for mode in MODES {
        let (daemon, mut a, mut b) = pair(mode);
        grant(&mut a, &mut b, 0, DMB, mode);
        a.hello().expect("hello");
        drop(b);
        let mut baseline = None;
        for _ in 0..20 {
            let mut b = join(&daemon, "b");
            let (dmb, _) = grant(&mut a, &mut b, 0, DMB, mode);
            drop(b);
            let event = gone(&mut a);
            a.unregister(dmb).expect("unregister");
            a.forget_peer(event.gid, event.instance).expect("forget");
            let now = || daemon.resources().expect("resources");
            let (descriptors, mappings) = *baseline.get_or_insert_with(|| {
                a.ping(1).expect("ping");
                (now().descriptors, now().mappings)
            });
            eventually("the release of descriptors and mappings", || {
                now().descriptors <= descriptors && now().mappings <= mappings + 4
            });
        }
    }
}

#[test]
fn hello_starts_over() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let (dmb, to_a) = grant(&mut a, &mut b, 0, DMB, mode);
        let (_other, to_b) = grant(&mut b, &mut a, 3, DMB, mode);
        a.add_vlan(7).expect("vlan");
        drop(dmb);
        a.hello().expect("hello");
        let event = gone(&mut b);
        assert_eq!(event.gid, gid(&a));
        refused(b.attach(to_a.token), status::NO_TOKEN);
        refused(a.attach(to_b.token), status::NO_TOKEN);
        refused(a.unregister_token(to_a.token), status::NO_TOKEN);
        assert_eq!(a.stats().expect("stats").dmbs, 0);
        refused(a.query(gid(&b), Some(7)), status::UNREACHABLE);
        if mode == mode::MAPPED {
            let window = a.connection().window().expect("a window").clone();
            eventually("the unmapping", || window.extents().is_empty());
        }
        no_event(&mut a);
        grant(&mut a, &mut b, 0, DMB, mode);
    }
}

#[test]
fn a_device_reset_starts_over_too() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let (dmb, _) = grant(&mut a, &mut b, 0, DMB, mode);
        drop(dmb);
        a.reset().expect("reset");
        gone(&mut b);
        refused(a.stats(), status::NOT_READY);
        refused(b.query(gid(&a), None), status::UNREACHABLE);
        a.hello().expect("hello");
        let (dmb, grant) = grant(&mut a, &mut b, 0, DMB, mode);
        all_zero(&dmb.bytes);
        write(&mut b, &grant, 0, b"after the reset");
        assert_eq!(signalled(&mut a).mask, 1);
    }
}

#[test]
fn members_are_added_and_removed_while_others_run() {
    for mode in MODES {
        let (daemon, mut a, mut b) = pair(mode);
        let (_dmb, to_a) = grant(&mut a, &mut b, 0, DMB, mode);
        let socket = daemon.socket("late");
        let spec = format!("name=late,socket={},groups=all", socket.display());
        let output = daemon.ctl(&["add-vm", &spec]).expect("ctl");
        assert!(output.status.success(), "{output:?}");
        daemon.wait_for_socket(&socket).expect("the new socket");
        let again = daemon.ctl(&["add-vm", &spec]).expect("ctl");
        assert!(!again.status.success(), "a name that is taken");
        let mut late = join(&daemon, "late");
        let (_own, to_late) = grant(&mut late, &mut a, 9, DMB, mode);
        write(&mut a, &to_late, 0, b"welcome");
        assert_eq!(signalled(&mut late).mask, 1 << 9);
        let late_gid = gid(&late);
        let output = daemon.ctl(&["remove-vm", "late"]).expect("ctl");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(gone(&mut a).gid, late_gid);
        refused(a.attach(to_late.token), status::NO_TOKEN);
        refused(a.query(late_gid, None), status::UNREACHABLE);
        assert!(!daemon.ctl(&["remove-vm", "late"]).expect("ctl").status.success());
        // The pair that was there before has noticed nothing.
        write(&mut b, &to_a, 0, b"still here");
        assert_eq!(signalled(&mut a).mask, 1);
        no_event(&mut b);
    }
}

#[test]
fn a_window_that_cannot_be_mapped_fails_the_register_and_nothing_else() {
    let daemon = daemon(mode::MAPPED, &["a", "b", "c"]);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| join(&daemon, name));
    let policy = |driver: &mut Driver, policy| {
        driver.connection().channel().expect("a channel").set_policy(policy).expect("policy");
    };
    policy(&mut b, MapPolicy::Refuse);
    refused(a.register(gid(&b), 0, DMB, mode::MAPPED), status::IO_ERROR);
    refused(b.register(gid(&a), 0, DMB, mode::MAPPED), status::IO_ERROR);
    no_event(&mut b);
    assert_eq!(a.stats().expect("stats").dmbs, 0);
    grant(&mut a, &mut c, 0, DMB, mode::MAPPED);
    policy(&mut b, MapPolicy::Map);
    let (dmb, to_a) = grant(&mut a, &mut b, 1, DMB, mode::MAPPED);
    write(&mut b, &to_a, 0, b"mapped now");
    assert_eq!(signalled(&mut a).mask, 2);
    all_zero(&dmb.bytes.part(10, 100).expect("part"));
}

#[test]
fn grants_are_withdrawn_when_the_owner_goes_before_they_are_read() {
    for mode in MODES {
        let (_daemon, mut a, mut b) = pair(mode);
        let dmb = a.register(gid(&b), 0, DMB, mode).expect("register");
        let token = dmb.token();
        a.unregister(dmb).expect("unregister");
        // The grant was in the ring already, so its end follows it.
        assert_eq!(granted(&mut b).token, token);
        match b.next_event(soon()).expect("event") {
            Event::Unregistered(event) => assert_eq!(event.token, token),
            other => panic!("{other:?}"),
        }
        no_event(&mut b);
    }
}
