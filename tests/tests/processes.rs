// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Host processes as members: the conformance suite through a daemon, and a process with a VM.
//!
//! Invariant tested: what the loopback does, the daemon does too, and nothing is left over in it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ism_abi::mode;
use ism_client::conformance::{World, wait_for};
use ism_client::{Device, Event, conformance, vhost};
use ism_frontend::{Daemon, Event as VmEvent, Fabric, Options};
use ism_tests::fabric::{eventually, soon, write};

const LEN: u32 = 16 << 10;

struct Host(Daemon);

impl Host {
    fn new() -> Self {
        Self(Fabric::new().processes("apps", "").start().unwrap())
    }
}

impl World for Host {
    fn member(&self) -> Device {
        vhost::join(&self.0.socket("apps")).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let stats = || {
                let output = self.0.ctl(&["stats"]).unwrap();
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            eventually("the end of all members", || {
                stats().contains(": 0 VMs, 0 pairs, 0 memory files, 0 DMBs")
            });
        }
    }
}

conformance!(Host::new());

/// A process and a VM in one group: bytes and signals both ways, through the daemon where one is a VM.
#[test]
fn a_process_and_a_vm_share_memory() {
    let fabric = Fabric::new().processes("apps", "").vm("vm", &["default"]);
    let daemon = fabric.start().unwrap();
    let process = vhost::join(&daemon.socket("apps")).unwrap();
    let mut vm = daemon.join("vm", Options::default()).unwrap();
    let vm_gid = vm.config().gid;
    let of_vm = vm.register(process.gid(), 5, LEN, mode::MAPPED).unwrap();
    let of_process = process.register(vm_gid, LEN).unwrap();
    let to_vm = process.remote(of_vm.token()).unwrap();
    let Ok(VmEvent::Granted(grant)) = vm.next_event(soon()) else { panic!("no grant") };
    assert_eq!(grant.token, of_process.token());
    for n in 0..50u8 {
        to_vm.memory().write(64, &[n]).unwrap();
        to_vm.signal().unwrap();
        let event = vm.next_event(soon()).unwrap();
        assert!(
            matches!(event, VmEvent::Signals(it) if (it.base, it.mask) == (0, 1 << 5)),
            "{event:?}"
        );
        let mut byte = [0xff];
        of_vm.bytes.read(64, &mut byte).unwrap();
        assert_eq!(byte, [n]);
        write(&mut vm, &grant, 64, &[n + 1]);
        wait_for(&process, |event| {
            (*event == Event::Signal { index: of_process.index() }).then_some(())
        });
        of_process.memory().read(64, &mut byte).unwrap();
        assert_eq!(byte, [n + 1]);
    }
    drop(vm);
    wait_for(&process, |event| (*event == Event::PeerGone { gid: vm_gid }).then_some(()));
    // The log calls each what it is.
    daemon.wait_for_log("VM vm: gone").unwrap();
    daemon.wait_for_log("process apps.1: connected").unwrap();
}
