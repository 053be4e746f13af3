// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon: many VMs on one ISM fabric through vhost-user.

mod bells;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod hub;
pub mod limits;
pub mod mapper;
pub mod memory;
pub mod port;
pub mod process;
pub mod ready;
mod ringer;
pub mod sandbox;
pub mod socket;
