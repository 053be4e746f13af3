// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! cargo xtask: demo, test, bench and the other chores

fn main() {}
