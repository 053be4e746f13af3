// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Boots VMs, fabrics and networks for tests, demo and benchmarks
