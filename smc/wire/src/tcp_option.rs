// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The TCP option by which each end of a new connection says that it speaks SMC.
//!
//! Invariant: found where Linux finds it and nowhere else.

/// The experimental kind that other protocols use too (`TCPOPT_EXP`).
pub const KIND: u8 = 254;

/// "SMCR" in EBCDIC, which makes the experimental option SMC's (`TCPOPT_SMC_MAGIC`).
pub const MAGIC: [u8; 4] = [0xE2, 0xD4, 0xC3, 0xD9];

/// The option as Linux writes it into SYN and SYN-ACK: two NOPs, kind, length, magic
/// (`smc_options_write`).
pub const OPTION: [u8; 8] = {
    let [s, m, c, r] = MAGIC;
    [NOP, NOP, KIND, 6, s, m, c, r]
};

const END: u8 = 0;
const NOP: u8 = 1;

/// Whether the options of a segment that has SYN set say that its sender speaks SMC.
///
/// `options` is what follows the TCP header's 20 bytes. The option counts with any even length from
/// 6 on; a truncated option ends the search, as does the end of the list (`tcp_parse_options`,
/// `smc_parse_options`). The option means nothing in a segment without SYN.
pub fn is_offered(options: &[u8]) -> bool {
    let mut rest = options;
    while let [kind, after @ ..] = rest {
        rest = match (*kind, after) {
            (END, _) => return false,
            (NOP, _) => after,
            (kind, [len, ..]) => {
                let len = usize::from(*len);
                // The length counts kind and length too.
                let Some((option, next)) = rest.split_at_checked(len) else { return false };
                if len < 2 {
                    return false;
                }
                if kind == KIND && len % 2 == 0 && option.get(2..6) == Some(&MAGIC) {
                    return true;
                }
                next
            }
            (_, []) => return false,
        };
    }
    false
}
