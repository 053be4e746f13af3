// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! smcd: show and set the kernel's SMC state

fn main() {}
