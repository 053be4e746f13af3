// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The repository's own rules: which folder may depend on which, how a source file begins, what of SMC is tested,
//! and that links in documents lead somewhere.
//!
//! Invariant: rules are about folders and kinds of files, so whatever is added is held to them
//! without being named here.

mod conformance;
mod documents;
mod files;
mod layering;
mod sources;
