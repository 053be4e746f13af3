// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whole-system tests: a front-end that drives the daemon as QEMU does, and VMs
