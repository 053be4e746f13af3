// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which bits of a message mean nothing.
//!
//! Invariant: written from `net/smc/smc_clc.h`, offset by offset, without the parser.

/// `bytes` of a message that was parsed, with its reserved bits cleared.
pub(crate) fn cleared(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match bytes[4] {
        1 => proposal(&mut bytes),
        4 => decline(&mut bytes),
        _ => accept_confirm(&mut bytes),
    }
    bytes
}

fn clear(bytes: &mut [u8], at: usize, len: usize) {
    bytes[at..at + len].fill(0);
}

fn proposal(bytes: &mut [u8]) {
    let v1 = bytes[7] >> 4 == 1;
    let (typev1, typev2) = (bytes[7] & 3, bytes[7] >> 2 & 3);
    let (offered_v1, offered_v2) = (typev1 != 2, !v1 && typev2 != 2);
    if v1 {
        bytes[7] &= !0x0C;
    }
    let area = if v1 && bytes[39] == 0 { 0 } else { 40 };
    if !offered_v1 {
        clear(bytes, 38, 2);
    }
    if area == 40 {
        clear(bytes, 60, 20);
        if !offered_v2 {
            clear(bytes, 50, 2);
        }
    }
    let mut at = 40 + area;
    if offered_v1 {
        clear(bytes, at + 5, 2);
        at += 8 + 17 * usize::from(bytes[at + 7]);
    }
    if offered_v2 {
        let (smcr, smcd) = (typev2 != 1, typev2 != 0);
        let behind = at + 40 + 32 * usize::from(bytes[at]);
        clear(bytes, at + 2, 1);
        clear(bytes, at + 4, 2);
        clear(bytes, at + 28, 12);
        bytes[at + 3] &= 0xF1;
        if !smcr {
            clear(bytes, at + 8, 18);
        }
        if smcd {
            clear(bytes, behind + 32, 16);
            if bytes[at + 3] & 1 == 0 {
                clear(bytes, behind, 32);
            }
        } else {
            bytes[at + 3] &= 0xF0;
            clear(bytes, at + 1, 1);
            clear(bytes, at + 6, 2);
        }
    }
}

fn accept_confirm(bytes: &mut [u8]) {
    bytes[7] &= !0x04;
    let (v1, first, smcd) = (bytes[7] >> 4 == 1, bytes[7] & 8 != 0, bytes[7] & 3 == 1);
    if smcd {
        bytes[25] &= 0xF0;
        clear(bytes, 26, 2);
        if v1 {
            clear(bytes, 32, 12);
        } else if bytes[32] != 0xFF {
            clear(bytes, 66, 8);
        }
    } else {
        clear(bytes, 51, 1);
        clear(bytes, 60, 1);
        if !v1 {
            clear(bytes, 96, 8);
        }
    }
    if v1 || !first {
        return;
    }
    let at = if smcd { 74 } else { 104 };
    bytes[at] &= 0x80;
    clear(bytes, at + 2, 2);
    let (release, rest) = (bytes[at + 1] & 0xF, bytes.len() - 4 - (at + 36));
    // In release 0 the 16 bytes of release 1 are missing if a list, or nothing, fits.
    let list = usize::from(bytes[at + 36]) * 16 + 4;
    let features = release > 0 || (rest != 0 && rest != list);
    if features {
        clear(bytes, at + 44, 8);
        if release == 0 {
            clear(bytes, at + 36, 8);
        }
    }
    let behind = at + 36 + if features { 16 } else { 0 };
    if behind + 4 < bytes.len() {
        clear(bytes, behind + 1, 3);
    }
}

fn decline(bytes: &mut [u8]) {
    bytes[7] &= !0x07;
    bytes[20] &= 0xF0;
    clear(bytes, 21, 3);
}
