// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Diagnosis codes: why a connection stays on TCP.
//!
//! Invariant: each code of Linux has a constant (`smc_clc.h`, `SMC_CLC_DECL_*`), a name and words;
//! any other code is kept as it came.

use core::fmt;

/// Why an end declined, or fell back by itself. Displayed in words with the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Diagnosis(pub u32);

/// Declares the constants and the table of their names and words.
macro_rules! diagnoses {
    ($($name:ident = $code:literal, $words:literal $(, $note:literal)?;)*) => {
        impl Diagnosis {
            $(
                #[doc = concat!("`SMC_CLC_DECL_", stringify!($name), "`: ", $words, $(" (", $note, ")",)? ".")]
                pub const $name: Self = Self($code);
            )*

            /// Each code that Linux knows, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Linux's name without its prefix, and what it means.
            const fn known(self) -> Option<(&'static str, &'static str)> {
                match self {
                    $(Self::$name => Some((stringify!($name), $words)),)*
                    _ => None,
                }
            }
        }
    };
}

diagnoses! {
    MEM = 0x0101_0000, "not enough memory";
    TIMEOUT_CL = 0x0201_0000, "timeout while waiting for Confirm Link";
    TIMEOUT_AL = 0x0202_0000, "timeout while waiting for Add Link", "not raised by Linux 7.3";
    CNFERR = 0x0300_0000, "configuration error";
    PEERNOSMC = 0x0301_0000, "the peer does not speak SMC: its TCP handshake did not say so";
    IPSEC = 0x0302_0000, "IPsec is in use";
    NOSMCDEV = 0x0303_0000, "no common SMC device";
    NOSMCDDEV = 0x0303_0001, "no common SMC-D device";
    NOSMCRDEV = 0x0303_0002, "no common SMC-R device";
    NOISM2SUPP = 0x0303_0003, "no device here takes part in SMC-D v2";
    NOV2EXT = 0x0303_0004, "the peer sent no extension for SMC v2";
    NOV2DEXT = 0x0303_0005, "the peer sent no extension for SMC-D v2";
    NOSEID = 0x0303_0006, "the peer sent no SEID", "not raised by Linux 7.3";
    NOSMCD2DEV = 0x0303_0007, "no common device for SMC-D v2";
    NOUEID = 0x0303_0008, "the peer sent no UEID";
    RELEASEERR = 0x0303_0009, "the sides did not agree on a release";
    MAXCONNERR = 0x0303_000A, "the sides did not agree on the number of connections";
    MAXLINKERR = 0x0303_000B, "the sides did not agree on the number of links";
    MODEUNSUPP = 0x0304_0000, "one side has SMC-R only, the other SMC-D only";
    RMBE_EC = 0x0305_0000, "the peer needs eyecatchers in its buffers";
    OPTUNSUPP = 0x0306_0000, "the program uses a socket option that SMC lacks (TFO)";
    DIFFPREFIX = 0x0307_0000, "the peers are in different IP subnets";
    GETVLANERR = 0x0308_0000, "the VLAN of the IP device could not be found";
    ISMVLANERR = 0x0309_0000, "the VLAN could not be registered at the ISM device";
    NOACTLINK = 0x030A_0000, "no active SMC-R link in the link group";
    NOSRVLINK = 0x030B_0000, "the server's SMC-R link was not found";
    VERSMISMAT = 0x030C_0000, "the peers have different versions of SMC", "not raised by Linux 7.3";
    MAX_DMB = 0x030D_0000, "the ISM device has no room for another DMB";
    NOROUTE = 0x030E_0000, "no route to the peer for SMC-R v2";
    NOINDIRECT = 0x030F_0000, "one side needs a gateway for SMC-R v2, the other none";
    SYNCERR = 0x0400_0000, "the peers differ about which link groups exist";
    PEERDECL = 0x0500_0000, "the peer declined", "local only, never sent";
    INTERR = 0x0999_0000, "internal error";
    ERR_RTOK = 0x0999_0001, "internal error: remote token";
    ERR_RDYLNK = 0x0999_0002, "internal error: link not ready";
    ERR_REGBUF = 0x0999_0003, "internal error: RDMA buffers not registered";
}

impl Diagnosis {
    /// No diagnosis: the further words of a version 2 Decline.
    pub const NONE: Self = Self(0);

    /// Linux's name without `SMC_CLC_DECL_`, if it is one of Linux's.
    pub fn name(self) -> Option<&'static str> {
        self.known().map(|(name, _)| name)
    }

    /// What it means, if it is one of Linux's.
    pub fn words(self) -> Option<&'static str> {
        self.known().map(|(_, words)| words)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let words = self.words().unwrap_or("unknown diagnosis");
        write!(f, "{words} ({:#010x})", self.0)
    }
}
