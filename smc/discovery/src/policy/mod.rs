// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which connections may use SMC: the operator's file of rules.
//!
//! Invariant: the first rule that matches decides; a client is never marked for a connection that may turn out to be
//! TCP's.
//!
//! ```toml
//! default = "smc"                 # what no rule matches; the default is "smc"
//!
//! [[rule]]
//! transport = "tcp"               # "smc" or "tcp"
//! program = "sshd"                # the program's file name; each of the five may be left out
//! local = "192.0.2.0/24"          # an address or a prefix
//! local-port = 22                 # a port, or "first-last"
//! peer = "::1"
//! peer-port = "8000-8099"
//!
//! [rendezvous]
//! unique = ["192.0.2.0/24"]       # where an address names one place among all that share the fabric
//! ```

mod file;
mod range;

use std::net::{IpAddr, SocketAddr};

pub use file::Error;
pub use range::{Ports, Prefix};

/// What carries a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// SMC, if the peer speaks it and a device is common.
    Smc,
    /// TCP, whatever the peer speaks.
    Tcp,
}

/// One rule; what is `None` matches all.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rule {
    /// What it decides.
    pub transport: Transport,
    /// The file name of the program, without its directory.
    pub program: Option<String>,
    /// This end's address.
    pub local: Option<Prefix>,
    /// This end's port.
    pub local_port: Option<Ports>,
    /// The other end's address.
    pub peer: Option<Prefix>,
    /// The other end's port.
    pub peer_port: Option<Ports>,
}

/// The rules of one file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Transport,
    unique: Vec<Prefix>,
}

/// SMC wherever the peer speaks it, and the rendezvous within a network namespace only.
impl Default for Policy {
    fn default() -> Self {
        Self { rules: Vec::new(), default: Transport::Smc, unique: Vec::new() }
    }
}

/// Whether a rule matches an end of which perhaps not all is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    No,
    /// It depends on what is not known yet.
    Perhaps,
    Yes,
}

impl Policy {
    /// The rules that can match connections of `program` (a path, or its last part).
    #[must_use]
    pub fn for_program(&self, program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        let concerns = |rule: &&Rule| rule.program.as_ref().is_none_or(|program| program == name);
        let rules = self.rules.iter().filter(concerns).cloned();
        Self { rules: rules.map(|rule| Rule { program: None, ..rule }).collect(), ..self.clone() }
    }

    /// Whether anything depends on addresses.
    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// What carries a connection of which both ends are known. A rule for a program matches only after
    /// [`for_program`](Self::for_program).
    ///
    /// A server whose listener was marked and whose answer is TCP declines the client's proposal: the client has been
    /// told that it may send one.
    pub fn decides(&self, local: SocketAddr, peer: SocketAddr) -> Transport {
        self.first(local.into(), peer.into(), Transport::Tcp)
    }

    /// Whether a client that is about to connect to `peer` marks its socket; `local` is `None` if it did not bind.
    /// Only if [`decides`](Self::decides) will say SMC whatever the kernel chooses for this end: a server that is
    /// offered SMC expects its handshake.
    pub fn may_offer(&self, local: Option<SocketAddr>, peer: SocketAddr) -> bool {
        self.first(local.map_or(End::default(), End::from), peer.into(), Transport::Tcp)
            == Transport::Smc
    }

    /// Whether a listener marks its socket: if [`decides`](Self::decides) can say SMC for any client.
    pub fn may_answer(&self, local: SocketAddr) -> bool {
        let mut local = End::from(local);
        local.ip = local.ip.filter(|ip| !ip.is_unspecified());
        self.first(local, End::default(), Transport::Smc) == Transport::Smc
    }

    /// Whether the rendezvous may take this address for the same place in another network namespace.
    pub fn is_unique(&self, ip: IpAddr) -> bool {
        !ip.is_loopback() && self.unique.iter().any(|prefix| prefix.contains(ip))
    }

    /// Whether there is any such address.
    pub fn has_unique(&self) -> bool {
        !self.unique.is_empty()
    }

    /// The first rule that matches, or that perhaps matches and says `doubt`.
    fn first(&self, local: End, peer: End, doubt: Transport) -> Transport {
        let decides = |rule: &&Rule| match rule.matches(local, peer) {
            Match::No => false,
            Match::Perhaps => rule.transport == doubt,
            Match::Yes => true,
        };
        self.rules.iter().find(decides).map_or(self.default, |rule| rule.transport)
    }
}

/// One end of a connection, as far as it is known.
#[derive(Clone, Copy, Default)]
struct End {
    ip: Option<IpAddr>,
    port: Option<u16>,
}

impl From<SocketAddr> for End {
    fn from(address: SocketAddr) -> Self {
        Self { ip: Some(address.ip()), port: Some(address.port()).filter(|port| *port != 0) }
    }
}

impl Rule {
    fn matches(&self, local: End, peer: End) -> Match {
        // Those of another program, before `for_program`, match nothing.
        let program = if self.program.is_none() { Match::Yes } else { Match::No };
        [
            part(self.local, local.ip, Prefix::contains),
            part(self.local_port, local.port, Ports::contains),
            part(self.peer, peer.ip, Prefix::contains),
            part(self.peer_port, peer.port, Ports::contains),
        ]
        .into_iter()
        .fold(program, Ord::min)
    }
}

fn part<R: Copy, T: Copy>(
    range: Option<R>,
    value: Option<T>,
    contains: impl Fn(R, T) -> bool,
) -> Match {
    match (range, value) {
        (None, _) => Match::Yes,
        (Some(_), None) => Match::Perhaps,
        (Some(range), Some(value)) if contains(range, value) => Match::Yes,
        (Some(_), Some(_)) => Match::No,
    }
}
