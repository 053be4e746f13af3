// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A fabric with one hostile member, and what must hold whatever that member does.
//!
//! Invariant: [`Siege::end`] returns only if nobody but the hostile member was affected.

use std::path::PathBuf;
use std::time::Instant;

use ism_frontend::commands::Dmb;
use ism_frontend::daemon::Resources;
use ism_frontend::{Daemon, Driver, Options};

use crate::fabric::{DMB, eventually, fabric, gid, grant, join, start, write};
use crate::random::Random;
use crate::stream::Stream;

/// Name of the hostile member.
pub const HOSTILE: &str = "hostile";
/// Name of a member that only some tests use: in the hostile member's group.
const VICTIM: &str = "victim";
/// Resident anonymous memory may differ by this much: allocators keep some.
const SLACK_KIB: u64 = 4 << 10;

/// The besieged: a pair that streams, which the hostile member may talk to, and a quiet pair of
/// another group, of which no byte may change.
#[derive(Debug)]
pub struct Siege {
    /// The daemon.
    pub daemon: Daemon,
    /// The mode of all pairs.
    pub mode: u8,
    /// A token that is valid, but not for the hostile member.
    pub foreign_token: u64,
    /// GIDs of all other members: those that stream, and those that cannot be reached.
    pub gids: Vec<ism_abi::Gid>,
    stream: Stream,
    quiet: Vec<Quiet>,
    baseline: Resources,
}

/// A member that does nothing, and all its bytes.
#[derive(Debug)]
struct Quiet {
    driver: Driver,
    _dmb: Dmb,
    ram: Vec<u8>,
    window: Vec<Vec<u8>>,
}

/// A small VM: its RAM is compared byte by byte.
fn small() -> Options {
    Options { ram: 8 << 20, ..Options::default() }
}

impl Siege {
    /// Starts the daemon, the stream and the quiet pair.
    pub fn begin(mode: u8) -> Self {
        Self::begin_with(mode, "")
    }

    /// As [`Siege::begin`], with further settings for the daemon.
    pub fn begin_with(mode: u8, settings: &str) -> Self {
        let fabric = fabric(mode).set(settings).vm("a", &["open"]).vm("b", &["open"]);
        let fabric = fabric.vm(HOSTILE, &["open"]).vm(VICTIM, &["open"]);
        let fabric = fabric.vm("c", &["quiet"]).vm("d", &["quiet"]);
        let daemon = start(&fabric);
        let (a, b) = (join(&daemon, "a"), join(&daemon, "b"));
        let mut gids = vec![gid(&a), gid(&b)];
        let [mut c, mut d] = ["c", "d"].map(|name| daemon.join(name, small()).expect("quiet"));
        gids.extend([gid(&c), gid(&d)]);
        let (dmb_c, grant_c) = grant(&mut c, &mut d, 0, DMB, mode);
        let (dmb_d, grant_d) = grant(&mut d, &mut c, 1, DMB, mode);
        let pattern = Random::new(42).bytes(DMB as usize);
        write(&mut d, &grant_c, 0, &pattern);
        write(&mut c, &grant_d, 0, &pattern);
        crate::fabric::signalled(&mut c);
        crate::fabric::signalled(&mut d);
        let stream = Stream::start(a, b, mode);
        // Whatever the daemon allocates once for a member is there after this.
        drop(join(&daemon, HOSTILE));
        drop(join(&daemon, VICTIM));
        stream.progress(20);
        let mut siege = Self {
            baseline: daemon.resources().expect("resources"),
            foreign_token: grant_c.token,
            quiet: vec![Quiet::new(c, dmb_c), Quiet::new(d, dmb_d)],
            daemon,
            mode,
            gids,
            stream,
        };
        siege.baseline = siege.settled();
        siege
    }

    /// The hostile member's socket.
    pub fn socket(&self) -> PathBuf {
        self.daemon.socket(HOSTILE)
    }

    /// The hostile member's driver, after HELLO.
    pub fn intruder(&self) -> Driver {
        join(&self.daemon, HOSTILE)
    }

    /// A further member of the hostile one's group, after HELLO.
    pub fn victim(&self) -> Driver {
        join(&self.daemon, VICTIM)
    }

    /// Chunks the well-behaved pair has streamed.
    pub fn stream_chunks(&self) -> u64 {
        self.stream.chunks()
    }

    /// The well-behaved pair makes progress now.
    pub fn others_work(&self) {
        self.stream.progress(5);
    }

    /// Resources once the hostile member's last connection is gone.
    fn settled(&self) -> Resources {
        let now = || self.daemon.resources().expect("resources");
        let mut last = now();
        eventually("the end of changes in the daemon's resources", || {
            self.stream.progress(3);
            let before = std::mem::replace(&mut last, now());
            (before.descriptors, before.threads) == (last.descriptors, last.threads)
        });
        last
    }

    fn resources_return(&self, pid: u32) {
        let was = self.baseline;
        let deadline = crate::fabric::soon();
        loop {
            let now = Resources::of(pid).expect("the daemon is alive");
            let back = now.descriptors <= was.descriptors
                && now.threads <= was.threads
                && now.mappings <= was.mappings + 8
                && now.anonymous_kib <= was.anonymous_kib + SLACK_KIB;
            if back {
                return;
            }
            assert!(Instant::now() < deadline, "not given back: {now:?}\nbefore:         {was:?}");
            self.stream.progress(1);
        }
    }

    /// Checks that nobody else was affected. The hostile member must be disconnected.
    pub fn end(mut self) {
        let pid = self.daemon.pid();
        assert!(!self.daemon.has_ended(), "the daemon is gone");
        self.others_work();
        self.resources_return(pid);
        // The hostile member's place is not spoilt for a better driver.
        let mut again = self.intruder();
        again.ping(1).expect("the hostile member's socket serves again");
        drop(again);
        self.stream.finish();
        for quiet in &mut self.quiet {
            quiet.check();
        }
        let log = self.daemon.log();
        assert!(!log.contains("panicked"), "a panic in the daemon:\n{log}");
        let list = self.daemon.ctl(&["list"]).expect("ctl");
        assert!(list.status.success(), "{list:?}");
    }
}

impl Quiet {
    fn new(mut driver: Driver, dmb: Dmb) -> Self {
        let (ram, window) = bytes_of(&mut driver);
        Self { driver, _dmb: dmb, ram, window }
    }

    fn check(&mut self) {
        let (ram, window) = bytes_of(&mut self.driver);
        same("RAM", &self.ram, &ram);
        assert_eq!(self.window.len(), window.len(), "extents in the window");
        for (was, is) in self.window.iter().zip(&window) {
            same("arena", was, is);
        }
        self.driver.ping(1).expect("the quiet member's device");
    }
}

/// All of a VM's RAM and of its window.
fn bytes_of(driver: &mut Driver) -> (Vec<u8>, Vec<Vec<u8>>) {
    let connection = driver.connection();
    let ram = connection.ram();
    let all = ram.bytes(ism_frontend::memory::GuestRam::BASE, ram.size());
    let ram = all.and_then(|all| all.to_vec()).expect("RAM");
    let extents = connection.window().map(|window| window.extents()).unwrap_or_default();
    let copy = |extent| ism_frontend::memory::SharedBytes::of_extent(extent).to_vec();
    (ram, extents.into_iter().map(|extent| copy(extent).expect("extent")).collect())
}

fn same(what: &str, was: &[u8], is: &[u8]) {
    if was != is {
        let first = was.iter().zip(is).position(|(was, is)| was != is);
        panic!("foreign bytes of a quiet member's {what} changed, the first at {first:x?}");
    }
}
