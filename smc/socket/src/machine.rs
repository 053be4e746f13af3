// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a stack wants to know of the machine.
//!
//! Invariant: what the kernel does not say costs speed and nothing else.

use std::fs::read_to_string;

/// The CPUs of this host.
const ONLINE: &str = "/sys/devices/system/cpu/online";
/// The cache that a core has for itself, on all machines that this was written on: the second-level one.
const OWN_CACHE: &str = "/sys/devices/system/cpu/cpu0/cache/index2/size";

/// Whether there is one CPU. A process that may use one of many is no such case: its peer may use another.
pub(crate) fn has_one_cpu() -> bool {
    read_to_string(ONLINE).is_ok_and(|cpus| cpus.trim() == "0")
}

/// Bytes of the fastest ring (docs/host-speed.md).
pub(crate) fn receive_buffer() -> u32 {
    fastest(read_to_string(OWN_CACHE).ok().as_deref().and_then(kibibytes))
}

/// A ring that fits in a core's cache, with the buffers of the program, stays there, and lines go from core to core. If
/// the cache is too small for that, a ring is to be larger than it, so that the reader's lines leave by themselves.
fn fastest(own_cache_kib: Option<u32>) -> u32 {
    if own_cache_kib.is_some_and(|kib| kib >= 2 << 10) { 1 << 20 } else { 2 << 20 }
}

/// The kernel writes `2048K`.
fn kibibytes(size: &str) -> Option<u32> {
    size.trim().strip_suffix('K')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_half_of_a_large_cache_and_larger_than_a_small_one() {
        let ring = |size| fastest(kibibytes(size));
        assert_eq!([ring("2048K\n"), ring("3072K\n")], [1 << 20; 2]);
        assert_eq!([ring("1024K\n"), ring("512K\n"), ring(""), ring("much")], [2 << 20; 4]);
    }
}
