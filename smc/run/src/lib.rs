// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! LD_PRELOAD library that turns TCP sockets into the kernel's AF_SMC
