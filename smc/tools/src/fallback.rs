// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why connections fell back to TCP.
//!
//! Invariant: every code of Linux has `smc_wire`'s words and, where there is one, an advice; an unknown
//! code is shown as the number it is.

use serde::{Deserialize, Serialize};
use smc_wire::clc::Diagnosis;

use crate::netlink::{Attributes, Malformed};

const GEN_FBACK_STATS: u16 = 8;
/// `SMC_NLA_FBACK_STATS_*`.
const TYPE: u16 = 1;
const SRV_CNT: u16 = 2;
const CLNT_CNT: u16 = 3;
const RSN_CODE: u16 = 4;
const RSN_CNT: u16 = 5;

/// A code's name after `SMC_CLC_DECL_`, of Linux's or of ours (`smc_snapshot::reason`); empty if unknown.
pub fn name(code: u32) -> &'static str {
    let ours = || smc_snapshot::reason::words(code).map(|(name, _)| name);
    Diagnosis(code).name().or_else(ours).unwrap_or_default()
}

/// The words for a code, of Linux's or of ours, and what to do about it; or "unknown".
pub fn explain(code: u32) -> String {
    let ours = || smc_snapshot::reason::words(code).map(|(_, words)| words);
    let known = Diagnosis(code).words().or_else(ours).unwrap_or("unknown to this program");
    known.to_owned() + advice(Diagnosis(code))
}

fn advice(code: Diagnosis) -> &'static str {
    match code {
        Diagnosis::NOSMCDEV | Diagnosis::NOSMCDDEV => {
            "; SMC-D v2 also needs a UEID that both sides have (smcd ueid)"
        }
        Diagnosis::PEERDECL => "; its own statistics say why",
        _ => "",
    }
}

/// The words for why a process's connection is TCP. `peer_code`: what the peer has declined with, or 0.
pub fn explain_process(side: Side, code: u32, peer_code: u32) -> String {
    // A server that could not be marked when it began to listen is when it accepts.
    let hint = match (side, Diagnosis(code)) {
        (Side::Client, Diagnosis::PEERNOSMC) => {
            "; if it is a server under smc-run that listened before smc-discovery and the daemon served, connect again"
        }
        _ => "",
    };
    let text = explain(code) + hint;
    if peer_code == 0 { text } else { format!("{text}: {}", explain(peer_code)) }
}

/// The side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

/// How often one side fell back for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Our side.
    pub side: Side,
    /// The diagnosis code.
    pub code: u32,
    /// Its name, empty if unknown.
    pub name: String,
    /// Its words.
    pub text: String,
    /// How often (the kernel counts to 65 535).
    pub count: u16,
}

/// All fallbacks of the network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallbacks {
    /// Fallbacks as a server, all reasons.
    pub server: u64,
    /// Fallbacks as a client, all reasons.
    pub client: u64,
    /// By reason; the kernel keeps the first 30 of each side.
    pub reasons: Vec<Reason>,
}

impl Fallbacks {
    /// From one message of the kernel (`smc_nl_get_fback_details`, net/smc/smc_stats.c): one
    /// reason, and in the first message the totals.
    pub fn parse(attributes: &Attributes<'_>) -> Result<Self, Malformed> {
        let all = attributes.require_nested("SMC_GEN_FBACK_STATS", GEN_FBACK_STATS)?;
        let code = all.require("SMC_NLA_FBACK_STATS_RSN_CODE", RSN_CODE)?;
        let server: u8 = all.require("SMC_NLA_FBACK_STATS_TYPE", TYPE)?;
        let reason = Reason {
            side: if server == 0 { Side::Client } else { Side::Server },
            code,
            name: name(code).to_owned(),
            text: explain(code),
            count: all.require("SMC_NLA_FBACK_STATS_RSN_CNT", RSN_CNT)?,
        };
        Ok(Fallbacks {
            server: all.count(SRV_CNT)?,
            client: all.count(CLNT_CNT)?,
            reasons: vec![reason],
        })
    }

    /// Puts the messages of a dump together.
    pub fn collect(messages: Vec<Self>) -> Self {
        messages.into_iter().fold(Self::default(), |mut all, message| {
            all.server = all.server.max(message.server);
            all.client = all.client.max(message.client);
            all.reasons.extend(message.reasons);
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_and_unknown_codes_have_words() {
        assert_eq!((name(0x0301_0000), name(0x03ff_0001)), ("PEERNOSMC", "POLICY"));
        assert!(explain(0x0303_0001).ends_with(
            "SMC-D device; SMC-D v2 also needs a UEID that both sides have (smcd ueid)"
        ));
        assert_eq!(name(0xdead_0000), "");
        assert_eq!(explain(0xdead_0000), "unknown to this program");
    }

    #[test]
    fn who_connects_by_a_process_is_told_to_connect_again() {
        let plain = explain(0x0301_0000);
        assert!(plain.starts_with("the peer does not speak SMC: ") && !plain.contains("smc-run"));
        assert_eq!(explain_process(Side::Server, 0x0301_0000, 0), plain);
        let hint = explain_process(Side::Client, 0x0301_0000, 0).replace(&plain, "");
        assert!(hint.starts_with("; ") && hint.ends_with(" connect again"), "{hint}");
        let declined = explain_process(Side::Client, 0x0500_0000, 0x0301_0000);
        assert!(declined.ends_with(&format!("its own statistics say why: {plain}")), "{declined}");
    }

    #[test]
    fn a_dump_is_put_together() {
        let message = |server, client, code| Fallbacks {
            server,
            client,
            reasons: vec![Reason {
                side: Side::Server,
                code,
                name: String::new(),
                text: String::new(),
                count: 1,
            }],
        };
        let all = Fallbacks::collect(vec![message(3, 4, 1), message(0, 0, 2)]);
        assert_eq!((all.server, all.client, all.reasons.len()), (3, 4, 2));
    }
}
