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
    MEM = 0x0101_0000, "insufficient memory resources";
    TIMEOUT_CL = 0x0201_0000, "timeout waiting for a link's confirmation";
    TIMEOUT_AL = 0x0202_0000, "timeout waiting for a link to be added", "not raised by Linux 7.3";
    CNFERR = 0x0300_0000, "configuration error";
    PEERNOSMC = 0x0301_0000, "the peer did not indicate SMC";
    IPSEC = 0x0302_0000, "IPsec is used";
    NOSMCDEV = 0x0303_0000, "no SMC device, neither SMC-R nor SMC-D";
    NOSMCDDEV = 0x0303_0001, "no SMC-D device";
    NOSMCRDEV = 0x0303_0002, "no SMC-R device";
    NOISM2SUPP = 0x0303_0003, "the ISM device does not support version 2";
    NOV2EXT = 0x0303_0004, "the peer sent no version 2 extension";
    NOV2DEXT = 0x0303_0005, "the peer sent no SMC-D version 2 extension";
    NOSEID = 0x0303_0006, "the peer sent no system enterprise id", "not raised by Linux 7.3";
    NOSMCD2DEV = 0x0303_0007, "no SMC-D version 2 device";
    NOUEID = 0x0303_0008, "the peer sent no user-defined enterprise id";
    RELEASEERR = 0x0303_0009, "no agreement on the release";
    MAXCONNERR = 0x0303_000A, "no agreement on the number of connections";
    MAXLINKERR = 0x0303_000B, "no agreement on the number of links";
    MODEUNSUPP = 0x0304_0000, "no mode, SMC-R or SMC-D, in common";
    RMBE_EC = 0x0305_0000, "the peer has eyecatchers in its RMBEs";
    OPTUNSUPP = 0x0306_0000, "a socket option is not supported";
    DIFFPREFIX = 0x0307_0000, "the subnets differ";
    GETVLANERR = 0x0308_0000, "the interface's VLAN could not be determined";
    ISMVLANERR = 0x0309_0000, "the VLAN could not be registered at the ISM device";
    NOACTLINK = 0x030A_0000, "no active link in the link group";
    NOSRVLINK = 0x030B_0000, "the server's link was not found";
    VERSMISMAT = 0x030C_0000, "the SMC versions do not match", "not raised by Linux 7.3";
    MAX_DMB = 0x030D_0000, "the ISM device has no more DMBs";
    NOROUTE = 0x030E_0000, "no route to the peer's RoCE port";
    NOINDIRECT = 0x030F_0000, "one end needs a gateway, the other does not";
    SYNCERR = 0x0400_0000, "link groups out of sync";
    PEERDECL = 0x0500_0000, "the peer declined", "local only, never sent";
    INTERR = 0x0999_0000, "internal error";
    ERR_RTOK = 0x0999_0001, "an RMB's key could not be stored";
    ERR_RDYLNK = 0x0999_0002, "the link could not be made ready";
    ERR_REGBUF = 0x0999_0003, "buffers could not be registered";
}

impl Diagnosis {
    /// No diagnosis: the further words of a version 2 Decline.
    pub const NONE: Self = Self(0);

    /// Linux's name without `SMC_CLC_DECL_`, if it is one of Linux's.
    pub fn name(self) -> Option<&'static str> {
        self.known().map(|(name, _)| name)
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let words = self.known().map_or("unknown diagnosis", |(_, words)| words);
        write!(f, "{words} ({:#010x})", self.0)
    }
}
