// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device model without I/O: a fabric of members, their DMBs and signals
