// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon: many VMs on one ISM fabric through vhost-user

fn main() {}
