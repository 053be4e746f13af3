// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Runs commands in a guest for the host, over a virtio-serial port

fn main() {}
