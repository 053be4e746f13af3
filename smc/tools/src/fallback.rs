// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why connections fell back to TCP.
//!
//! Invariant: every code of Linux 7.3's net/smc/smc_clc.h has words and, where there is one, an
//! advice; an unknown code is shown as the number it is.

use serde::{Deserialize, Serialize};

use crate::netlink::{Attributes, Malformed};

const GEN_FBACK_STATS: u16 = 8;
/// `SMC_NLA_FBACK_STATS_*`.
const TYPE: u16 = 1;
const SRV_CNT: u16 = 2;
const CLNT_CNT: u16 = 3;
const RSN_CODE: u16 = 4;
const RSN_CNT: u16 = 5;

/// What a diagnosis code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The code: the reason of a fallback, or a peer's diagnosis in its decline.
    pub code: u32,
    /// The kernel's name after `SMC_CLC_DECL_`.
    pub name: &'static str,
    /// What it means.
    pub text: &'static str,
}

/// The codes of net/smc/smc_clc.h.
pub const DIAGNOSES: [Diagnosis; 36] = {
    const fn of(code: u32, name: &'static str, text: &'static str) -> Diagnosis {
        Diagnosis { code, name, text }
    }
    [
        of(0x0101_0000, "MEM", "not enough memory"),
        of(0x0201_0000, "TIMEOUT_CL", "timeout while waiting for Confirm Link"),
        of(0x0202_0000, "TIMEOUT_AL", "timeout while waiting for Add Link"),
        of(0x0300_0000, "CNFERR", "configuration error"),
        of(
            0x0301_0000,
            "PEERNOSMC",
            "the peer does not speak SMC: its TCP handshake did not say so",
        ),
        of(0x0302_0000, "IPSEC", "IPsec is in use"),
        of(
            0x0303_0000,
            "NOSMCDEV",
            "no common SMC device; SMC-D v2 also needs a UEID that both sides have (smcd ueid)",
        ),
        of(
            0x0303_0001,
            "NOSMCDDEV",
            "no common SMC-D device; SMC-D v2 also needs a UEID that both sides have (smcd ueid)",
        ),
        of(0x0303_0002, "NOSMCRDEV", "no common SMC-R device"),
        of(0x0303_0003, "NOISM2SUPP", "no device here takes part in SMC-D v2"),
        of(0x0303_0004, "NOV2EXT", "the peer sent no extension for SMC v2"),
        of(0x0303_0005, "NOV2DEXT", "the peer sent no extension for SMC-D v2"),
        of(0x0303_0006, "NOSEID", "the peer sent no SEID"),
        of(0x0303_0007, "NOSMCD2DEV", "no common device for SMC-D v2"),
        of(0x0303_0008, "NOUEID", "the peer sent no UEID"),
        of(0x0303_0009, "RELEASEERR", "the sides did not agree on a release"),
        of(0x0303_000a, "MAXCONNERR", "the sides did not agree on the number of connections"),
        of(0x0303_000b, "MAXLINKERR", "the sides did not agree on the number of links"),
        of(0x0304_0000, "MODEUNSUPP", "one side has SMC-R only, the other SMC-D only"),
        of(0x0305_0000, "RMBE_EC", "the peer needs eyecatchers in its buffers"),
        of(0x0306_0000, "OPTUNSUPP", "the program uses a socket option that SMC lacks (TFO)"),
        of(0x0307_0000, "DIFFPREFIX", "the peers are in different IP subnets"),
        of(0x0308_0000, "GETVLANERR", "the VLAN of the IP device could not be found"),
        of(0x0309_0000, "ISMVLANERR", "the VLAN could not be registered at the ISM device"),
        of(0x030a_0000, "NOACTLINK", "no active SMC-R link in the link group"),
        of(0x030b_0000, "NOSRVLINK", "the server's SMC-R link was not found"),
        of(0x030c_0000, "VERSMISMAT", "the peers have different versions of SMC"),
        of(0x030d_0000, "MAX_DMB", "the ISM device has no room for another DMB"),
        of(0x030e_0000, "NOROUTE", "no route to the peer for SMC-R v2"),
        of(0x030f_0000, "NOINDIRECT", "one side needs a gateway for SMC-R v2, the other none"),
        of(0x0400_0000, "SYNCERR", "the peers differ about which link groups exist"),
        of(0x0500_0000, "PEERDECL", "the peer declined; its own statistics say why"),
        of(0x0999_0000, "INTERR", "internal error"),
        of(0x0999_0001, "ERR_RTOK", "internal error: remote token"),
        of(0x0999_0002, "ERR_RDYLNK", "internal error: link not ready"),
        of(0x0999_0003, "ERR_REGBUF", "internal error: RDMA buffers not registered"),
    ]
};

/// What `code` means, if Linux 7.3 knows it.
pub fn diagnosis(code: u32) -> Option<&'static Diagnosis> {
    DIAGNOSES.iter().find(|diagnosis| diagnosis.code == code)
}

/// The words for a code, of Linux's or of ours (`smc_snapshot::reason`), or "unknown".
pub fn explain(code: u32) -> &'static str {
    let ours = || smc_snapshot::reason::words(code).map(|(_, words)| words);
    let known = diagnosis(code).map(|diagnosis| diagnosis.text).or_else(ours);
    known.unwrap_or("unknown to this program")
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
            name: diagnosis(code).map(|diagnosis| diagnosis.name).unwrap_or_default().to_owned(),
            text: explain(code).to_owned(),
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
    fn codes_are_in_order_and_unique() {
        assert!(DIAGNOSES.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn known_and_unknown_codes_have_words() {
        assert_eq!(diagnosis(0x0301_0000).unwrap().name, "PEERNOSMC");
        assert_eq!(explain(0xdead_0000), "unknown to this program");
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
