// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program of the target `cdc`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ism_fuzz_targets::cdc::run(data));
