// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Evidence of what carried the traffic of processes: what the preload says of each end of a
//! connection, and what the namespace's lo carried.
//!
//! Invariant: a case is SMC-D's only if every end says so and lo carried next to none of its bytes.

use anyhow::{Error, Result, ensure};

/// How the preload's lines begin.
const PRELOAD: &str = "libsmc_preload[";
/// What it says of an end over SMC-D.
const SMCD: &str = ": SMC-D";
/// What it says of an end, or of all, that stays with TCP or is reset.
const NOT_SMCD: [&str; 4] = [": TCP: ", "so TCP: ", "are TCP: ", ": reset: "];
/// What it says of an end whose peer's program ended, or closed, before the handshake did.
const ENDED: &str = ": reset: the peer ended the TCP connection during the handshake";
/// lo carries handshakes alone: at least so many times fewer bytes than the programs exchange.
const MUCH_FEWER: u64 = 20;

/// What the programs exchanged.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    /// Bytes of user data, at least.
    pub(crate) bytes: u64,
    /// Connections, at least.
    pub(crate) connections: u64,
    /// Whether the connections' handshakes are much less than these bytes.
    pub(crate) bulk: bool,
    /// Connections, at most, that the client leaves when it ends, wherever their handshakes are.
    pub(crate) left: u64,
}

impl Traffic {
    /// Over few connections.
    pub(crate) fn of(bytes: u64) -> Self {
        Self { bytes, connections: 1, bulk: true, left: 0 }
    }

    /// Over so many connections that their handshakes weigh more than the bytes.
    pub(crate) fn of_connections(bytes: u64, connections: u64) -> Self {
        Self { bytes, connections, bulk: false, left: 0 }
    }

    /// Of a client that ends with so many connections.
    pub(crate) fn leaving(self, left: u64) -> Self {
        Self { left, ..self }
    }
}

/// What carried a case, or several.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// Ends of connections over SMC-D.
    ends: u64,
    /// Ends whose peer's program ended during the handshake: neither SMC-D nor TCP carried anything of theirs.
    left: u64,
    /// The preload's lines about others.
    fallbacks: Vec<String>,
    traffic: Traffic,
    /// Bytes that lo carried.
    lo: u64,
}

impl Proof {
    /// From what was written to stderr, and bytes.
    pub(crate) fn new(said: &str, traffic: Traffic, lo: u64) -> Self {
        let mut proof = Self { traffic, lo, ..Self::default() };
        for line in said.lines().filter(|line| line.starts_with(PRELOAD)) {
            if line.ends_with(SMCD) {
                proof.ends += 1;
            } else if line.ends_with(ENDED) && proof.left < traffic.left {
                proof.left += 1;
            } else if NOT_SMCD.iter().any(|words| line.contains(words)) {
                proof.fallbacks.push(line.to_owned());
            }
        }
        proof
    }

    /// Adds another case's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.ends += other.ends;
        self.left += other.left;
        self.fallbacks.extend(other.fallbacks.iter().cloned());
        self.traffic.bytes += other.traffic.bytes;
        self.lo += other.lo;
    }

    /// Connections over SMC-D; both ends say so of each.
    pub(crate) fn connections(&self) -> u64 {
        self.ends / 2
    }

    /// Ends that fell back or were reset.
    pub(crate) fn fallbacks(&self) -> u64 {
        self.fallbacks.len() as u64
    }

    /// Fails unless SMC-D carried everything.
    pub(crate) fn expect_smcd(&self) -> Result<()> {
        ensure!(self.fallbacks.is_empty(), "connections fell back to TCP");
        ensure!(self.ends > 0, "no connection used SMC-D");
        // Of one that was left the client may have been done.
        let whole = self.left > 0 || self.ends.is_multiple_of(2);
        ensure!(whole, "a connection used SMC-D at one end alone");
        ensure!(
            self.connections() >= self.traffic.connections,
            "the programs had {} connections",
            self.traffic.connections
        );
        ensure!(
            !self.traffic.bulk || self.traffic.bytes > self.lo.saturating_mul(MUCH_FEWER),
            "TCP carried the data although the preload says SMC-D"
        );
        Ok(())
    }

    /// Fails unless TCP did, which shows too that lo's counter sees it.
    pub(crate) fn expect_tcp(&self) -> Result<()> {
        ensure!(self.ends == 0, "TCP traffic used SMC-D");
        ensure!(
            self.traffic.bytes > 0 && self.lo >= self.traffic.bytes,
            "lo did not carry the traffic of plain programs"
        );
        Ok(())
    }

    /// The error with the preload's reasons and the counters.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let reasons: String = self.fallbacks.iter().map(|line| format!("\n  | {line}")).collect();
        anyhow::anyhow!("{error:#} ({}){reasons}", self.words())
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        let left = match self.left {
            0 => String::new(),
            left => format!(", {left} left by a client that ended"),
        };
        format!(
            "{} connections and {} fallbacks{left}; the programs exchanged {} bytes, lo carried {}",
            self.connections(),
            self.fallbacks(),
            self.traffic.bytes,
            self.lo
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "libsmc_preload[1]: socket 3: SMC-D\nlibsmc_preload[2]: socket 4: SMC-D\n";

    #[test]
    fn both_ends_and_a_quiet_lo_prove_it() {
        let proof = Proof::new(BOTH, Traffic::of(1_000_000), 1000);
        proof.expect_smcd().unwrap();
        assert_eq!((proof.connections(), proof.fallbacks()), (1, 0));
        assert!(proof.expect_tcp().is_err());
    }

    #[test]
    fn words_do_not_prove_it_when_lo_carried_the_data() {
        assert!(Proof::new(BOTH, Traffic::of(1_000_000), 1_100_000).expect_smcd().is_err());
    }

    #[test]
    fn many_short_connections_are_proved_one_by_one() {
        Proof::new(BOTH, Traffic::of_connections(2, 1), 1000).expect_smcd().unwrap();
        assert!(Proof::new(BOTH, Traffic::of_connections(2, 2), 1000).expect_smcd().is_err());
    }

    #[test]
    fn a_client_that_ends_may_leave_as_many_handshakes_as_it_has_connections() {
        let left = format!("libsmc_preload[2]: socket 5{ENDED}\n");
        let said = format!("{BOTH}{left}{left}");
        let traffic = Traffic::of_connections(2, 1);
        Proof::new(&said, traffic.leaving(2), 1000).expect_smcd().unwrap();
        assert!(Proof::new(&said, traffic.leaving(1), 1000).expect_smcd().is_err());
        assert!(Proof::new(&said, traffic, 1000).expect_smcd().is_err());
    }

    #[test]
    fn silence_and_one_end_alone_prove_nothing() {
        assert!(Proof::new("", Traffic::of(1_000_000), 0).expect_smcd().is_err());
        let one = BOTH.lines().next().unwrap();
        assert!(Proof::new(one, Traffic::of(1_000_000), 0).expect_smcd().is_err());
    }

    #[test]
    fn every_word_for_a_fallback_is_one() {
        for line in [
            "socket 3: TCP: the peer does not speak SMC",
            "no device at /x, so TCP: no such file",
            "all connections are TCP: line 3",
            "TCP: too many open files",
            "socket 3: reset: timed out",
        ] {
            let proof = Proof::new(
                &format!("{BOTH}libsmc_preload[1]: {line}\n"),
                Traffic::of(1_000_000),
                0,
            );
            assert_eq!(proof.fallbacks(), 1, "{line}");
            let error = proof.explain(proof.expect_smcd().unwrap_err()).to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn tcp_is_seen_on_lo() {
        Proof::new("", Traffic::of(1000), 1100).expect_tcp().unwrap();
        assert!(Proof::new("", Traffic::of(1000), 10).expect_tcp().is_err());
    }
}
