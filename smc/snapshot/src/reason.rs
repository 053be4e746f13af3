// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a connection was never proposed to be one of SMC: what no CLC message says, in numbers like its
//! diagnosis codes.
//!
//! Invariant: none of Linux's numbers; each has a name and words. [`PEERNOSMC`] alone is Linux's, for
//! Linux decides it in the same way.

/// Linux's number for a peer that did not say in the TCP handshake that it speaks SMC.
pub const PEERNOSMC: u32 = 0x0301_0000;

/// Declares the numbers and the table of their names and words.
macro_rules! reasons {
    ($($name:ident = $code:literal, $words:literal;)*) => {
        $(#[doc = concat!($words, ".")] pub const $name: u32 = $code;)*

        /// Each of them, with its name and its words.
        pub const ALL: &[(u32, &str, &str)] = &[$(($name, stringify!($name), $words)),*];
    };
}

reasons! {
    POLICY = 0x03ff_0001, "the policy file keeps this connection on TCP";
    BADPOLICY = 0x03ff_0002, "the policy file cannot be used, so all connections are TCP";
    FORCED = 0x03ff_0003, "the program was started to stay on TCP (SMC_MODE=tcp)";
    NODAEMON = 0x03ff_0004, "no device: the daemon was not there, or did not let this user in";
    NOTSERVED = 0x03ff_0005, "nobody serves SMC's TCP option here (smc-discovery)";
    LATE = 0x03ff_0006, "the listener was there before the library";
    UNASKED = 0x03ff_0007, "the connection failed or ended before its peer could be asked";
    UNMET = 0x03ff_0008, "the other end was not met on the fabric's board in time";
    AMBIGUOUS = 0x03ff_0009, "more than one connection on the fabric's board has these addresses";
    NOBOARD = 0x03ff_000a, "the fabric's board is full or lost";
    NOTUNIQUE = 0x03ff_000b, "the policy file does not say that these addresses are unique";
    ABSENT = 0x03ff_000c, "the peer is not on the fabric's board, and nobody serves SMC's TCP option here";
    PASSED = 0x03ff_000d, "the program passed the connection on before its handshake";
}

/// The name and the words of a number, if it is one of these.
pub fn words(code: u32) -> Option<(&'static str, &'static str)> {
    if code == PEERNOSMC {
        return Some(("PEERNOSMC", "the peer does not speak SMC"));
    }
    ALL.iter().find(|(it, ..)| *it == code).map(|(_, name, words)| (*name, *words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_not_linuxs() {
        assert!(ALL.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(ALL.iter().all(|(code, ..)| code & 0xffff_0000 == 0x03ff_0000));
    }

    #[test]
    fn each_has_words() {
        assert_eq!(words(PEERNOSMC).unwrap().1, "the peer does not speak SMC");
        assert_eq!(words(POLICY).unwrap().0, "POLICY");
        assert_eq!(words(0x0303_0007), None);
    }
}
