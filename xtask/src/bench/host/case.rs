// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The cases, over what each is measured, and what is wanted of it.
//!
//! Invariant: names, units and targets are those that were agreed on; a change of the way a case is
//! measured gives it another name.

use anyhow::Result;

use super::{plain, servers};
use crate::figure::Transport::{self, Iceoryx2, Limit, SmcdUser, Tcp, Unix};
use crate::host::{Measured, Run, programs};

/// A case.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// Whether a smaller figure is better.
    pub(super) is_cost: bool,
    pub(super) transports: &'static [Transport],
    pub(super) targets: &'static [Target],
    /// In the environment of all programs, over every transport.
    pub(super) environment: Option<&'static str>,
    /// Over sockets; `Limit` and `Iceoryx2` have programs of their own.
    pub(super) run: fn(&Run<'_>) -> Result<Measured>,
}

/// What is wanted of SMC-D in a case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    /// So many times as good as TCP, at least.
    TimesTcp(f64),
    /// Better than iceoryx2.
    BetterThanIceoryx2,
    /// As good as nothing: what rounds to 0.0.
    Zero,
}

/// Without spinning each message waits for a sleeper to wake.
const NO_SPINNING: &str = "SMC_SPIN_US=0";
/// Bytes of a message.
const SMALL: u32 = 14;
const PLAIN: u32 = 100;

pub(super) const CASES: [Case; 11] = [
    Case {
        transports: &[Tcp, SmcdUser, Iceoryx2, Limit],
        targets: &[Target::TimesTcp(40.0), Target::BetterThanIceoryx2],
        ..cost("sockperf-pp-14", "us", |run| programs::ping_pong(run, SMALL))
    },
    Case {
        transports: &[Tcp, SmcdUser, Limit],
        targets: &[Target::TimesTcp(4.0)],
        ..rate("sockperf-tp-64000", "MB/s", |run| programs::throughput(run, 64_000))
    },
    Case {
        transports: &[Tcp, SmcdUser, Limit],
        targets: &[Target::TimesTcp(3.0)],
        ..rate("iperf3", "Gbit/s", programs::iperf3)
    },
    Case {
        targets: &[Target::TimesTcp(2.0)],
        ..rate("wrk-keepalive", "req/s", servers::wrk_keepalive)
    },
    rate("wrk-close", "req/s", servers::wrk_close),
    Case {
        transports: &[Tcp, Unix, SmcdUser],
        targets: &[Target::TimesTcp(2.0)],
        ..rate("redis-get", "req/s", servers::redis_get)
    },
    Case {
        transports: &[Tcp, Unix, SmcdUser],
        targets: &[Target::TimesTcp(1.0)],
        environment: Some(NO_SPINNING),
        ..cost("pp-asleep", "us", |run| plain::half_round_trip_asleep(run, SMALL))
    },
    Case {
        transports: &[Tcp, Unix, SmcdUser, Limit],
        targets: &[Target::TimesTcp(20.0)],
        ..rate("msg-100", "messages/s", |run| plain::messages(run, PLAIN))
    },
    Case {
        transports: &[Tcp, Unix, SmcdUser],
        targets: &[Target::TimesTcp(0.8)],
        ..rate("connections", "1/s", plain::connections)
    },
    Case {
        transports: &[Tcp, Unix, SmcdUser],
        targets: &[Target::Zero],
        ..cost("idle-cpu", "%", plain::idle)
    },
    // Beside the agreed ones: what sockperf's own work hides.
    Case {
        transports: &[Tcp, Unix, SmcdUser, Iceoryx2, Limit],
        ..cost("pp-14", "us", |run| plain::half_round_trip(run, SMALL))
    },
];

const fn rate(
    name: &'static str,
    unit: &'static str,
    run: fn(&Run<'_>) -> Result<Measured>,
) -> Case {
    let transports = &[Tcp, SmcdUser];
    Case { name, unit, is_cost: false, transports, targets: &[], environment: None, run }
}

const fn cost(
    name: &'static str,
    unit: &'static str,
    run: fn(&Run<'_>) -> Result<Measured>,
) -> Case {
    Case { is_cost: true, ..rate(name, unit, run) }
}
