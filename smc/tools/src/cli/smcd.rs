// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line of `smcd`.
//!
//! Invariant: the objects and actions of smc-tools, abbreviated as there, and ours.

use clap::{Parser, Subcommand};

use crate::eid::Eid;

const EXAMPLES: &str = "\
Examples:
  smcd info
      which processes are members of which fabric, and what the kernel can do
  smcd fallback
      why connections were TCP, also those that are closed
  smcd -d linkgroup 100
      all of one link group
  smcd stats -d
      counters of each process by itself
  smcd stats --json
      the same for programs; every object has --json
  smcd ueid add VHOST-USER-ISM
      in both VMs: without it the kernel's SMC-D v2 is TCP on x86";

/// Show what processes under smc-run and the kernel's SMC do, and set the kernel's.
///
/// That is: sockets, why connections fell back to TCP, counters, link groups, devices. A process needs
/// no SMC in the kernel, and UEIDs and the SEID are the kernel's alone.
///
/// Why is a connection of a process under smc-run not SMC-D?
///   smcss -rp             says it at once
///   smcd fallback show    the same, counted, also of connections that are closed
///   smcd info             is the process a member of the daemon's fabric, and of the same as its peer?
///
/// Why is one of the kernel's not? In this order:
///   smcd info             does the kernel have SMC, and a device for SMC-D v2?
///   smcd ueid show        is there a UEID, the same as on the other side?
///   smcd socket show      which connections use SMC-D, which TCP, and why
///   smcd fallback show    the reasons of all fallbacks, counted
///   smcd linkgroup show   over which fabric (CHID) and to whom
///
/// Objects and actions may be abbreviated. Showing needs no privilege, changing CAP_NET_ADMIN.
#[derive(Debug, Parser)]
#[command(name = "smcd", version, disable_version_flag = true, infer_subcommands = true)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub struct Cli {
    /// Print the version.
    #[arg(short, long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,
    /// More: each process's counters by itself, each link group as a block.
    #[arg(short, long)]
    pub details: bool,
    /// As without: counters are never reset.
    #[arg(short, long)]
    pub absolute: bool,
    /// Only processes of this network namespace; without: of all that may be looked into.
    #[arg(long, global = true)]
    pub here: bool,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to show or set.
    #[command(subcommand)]
    pub object: Object,
}

/// What to show or set.
#[derive(Debug, Subcommand)]
pub enum Object {
    /// Which processes are on which fabric, and what the kernel's SMC can do.
    Info {
        /// What to do.
        #[command(subcommand)]
        action: Option<Show>,
    },
    /// SMC-D link groups: GIDs, fabric (CHID), VLAN, connections
    ///
    /// Of a process under smc-run (its number and name are under Of) there is one for each peer, and
    /// for each 255 connections with it. It stays for up to ten minutes after its last connection. There:
    ///   LG-ID             counted in each process by itself: others have the same numbers
    ///   CHID              the fabric of the daemon's group in which both are members
    ///   GID, Peer-GID     the process's address on it, and the peer's, whose row has them crossed
    ///   EID               what the peer must have too; a kernel gets it by smcd ueid add
    ///   DMB               with -d: receive buffers, one a connection, kept for later ones
    ///   Sndbuf            with -d: always 0, for a send writes into the peer's DMB
    ///   VLAN, PNET-ID, Peer-Host, Peer-Rel
    ///                     0 or nothing: no network device is involved
    #[command(verbatim_doc_comment)]
    Linkgroup {
        /// Each as a block, with peers and buffers.
        #[arg(short, long)]
        details: bool,
        /// "show" (may be left out), then which: "all", or a number as LG-ID shows it.
        #[arg(num_args = 0..=2, value_name = "show|all|LG-ID", value_parser = Word::group)]
        words: Vec<Word>,
    },
    /// SMC-D devices, without the kernel's own loopback device
    ///
    /// Each process under smc-run that is a member of the daemon's fabric is one (Of). There:
    ///   InUse             whether it has link groups
    ///   #LGs              how many (smcd linkgroup)
    ///   FID, Type, PCI-ID, PCHID, PNET-ID
    ///                     0 or nothing: there is no PCI device, but a socket of the daemon's
    /// smcd info has the GID and CHID of each, and those that are no members.
    #[command(verbatim_doc_comment)]
    Device {
        /// "show" and "all" (both may be left out).
        #[arg(num_args = 0..=2, value_name = "show|all", value_parser = Word::plain)]
        words: Vec<Word>,
    },
    /// Counters: the kernel's since boot, those of processes since they began
    ///
    /// Of processes under smc-run, added up without -d; those of one that has ended are gone. There:
    ///   Total connections handled   over SMC-D, or fallen back to TCP
    ///   v1, v2                      the version of SMC-D by which both ends agreed
    ///   Handshake errors            the connection failed: it is neither SMC-D nor TCP
    ///   Requests                    calls that moved bytes, each once; below by size: what was asked to
    ///                               be sent, and what came
    ///   Buffers                     DMBs, in which a process receives; it sends into its peers', so
    ///                               that all of Sent's are 0
    ///   Buffers downgraded          smaller than wished: a limit of the daemon's (bytes, dmbs) was met
    ///   Sent, Buffer full           a send found no room, since the peer had not read
    ///   Sent, Request larger        of sends that found no room
    /// Always 0: splice and sendfile, TCP_CORK, TCP_NODELAY, and Received's Buffer full and Request larger.
    #[command(infer_subcommands = true, verbatim_doc_comment)]
    Stats {
        /// Each process by itself.
        #[arg(short, long, global = true)]
        details: bool,
        /// As without: counters are never reset.
        #[arg(short, long, global = true)]
        absolute: bool,
        /// What to do.
        #[command(subcommand)]
        action: Option<StatsAction>,
    },
    /// Why connections fell back to TCP, with counts.
    Fallback {
        /// What to do.
        #[command(subcommand)]
        action: Option<Show>,
    },
    /// SMC sockets: state, addresses and what carries them (as smcss).
    Socket {
        /// Also GIDs and tokens of SMC-D connections.
        #[arg(short = 'D', long, global = true)]
        details: bool,
        /// Also listening and closed sockets.
        #[arg(short, long, global = true)]
        all: bool,
        /// What to do.
        #[command(subcommand)]
        action: Option<Show>,
    },
    /// User-defined enterprise ids (the kernel's only): SMC-D v2 needs one that both sides have.
    #[command(infer_subcommands = true)]
    Ueid {
        /// What to do.
        #[command(subcommand)]
        action: Option<UeidAction>,
    },
    /// The system's enterprise id (the kernel's only, on s390).
    #[command(infer_subcommands = true)]
    Seid {
        /// What to do.
        #[command(subcommand)]
        action: Option<SeidAction>,
    },
}

/// What can be done with most.
#[derive(Debug, Subcommand)]
pub enum Show {
    /// Show them (the default).
    Show,
}

/// What can be done with UEIDs.
#[derive(Debug, Subcommand)]
pub enum UeidAction {
    /// Show them (the default).
    Show,
    /// Add one; the kernel holds four. One that is there already is no error.
    Add {
        /// 1 to 32 of A-Z, 0-9, '.' and '-', beginning with a letter or digit.
        ueid: Eid,
    },
    /// Remove one; it must be there.
    Del {
        /// The UEID.
        ueid: Eid,
    },
    /// Remove all.
    Flush,
}

/// What can be done with the SEID.
#[derive(Debug, Subcommand)]
pub enum SeidAction {
    /// Show it (the default).
    Show,
    /// Use it.
    Enable,
    /// Do not use it.
    Disable,
}

/// What can be done with counters.
#[derive(Debug, Subcommand)]
pub enum StatsAction {
    /// Show them (the default).
    Show,
    /// As show --json.
    Json,
}

/// A word after an object that has no actions but showing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `show`.
    Show,
    /// `all`.
    All,
    /// A link group's number.
    Group(u32),
}

impl Word {
    fn plain(text: &str) -> Result<Self, String> {
        let abbreviates = |word: &str| !text.is_empty() && word.starts_with(text);
        match (abbreviates("show"), abbreviates("all")) {
            (true, _) => Ok(Self::Show),
            (_, true) => Ok(Self::All),
            _ => Err("it is neither show nor all".to_owned()),
        }
    }

    fn group(text: &str) -> Result<Self, String> {
        let number = || u32::from_str_radix(text.trim_start_matches("0x"), 16).map(Self::Group);
        let wrong = |_| "it is neither show nor all, nor a number in hexadecimal".to_owned();
        Self::plain(text).or_else(|_| number().map_err(wrong))
    }

    /// The link group that words name; none: all.
    ///
    /// # Errors
    /// They are in the wrong order.
    pub fn chosen(words: &[Self]) -> Result<Option<u32>, String> {
        match words {
            [] | [Self::Show | Self::All] | [Self::Show, Self::All] => Ok(None),
            [Self::Group(id)] | [Self::Show, Self::Group(id)] => Ok(Some(*id)),
            _ => Err("after show comes all, or one number".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn objects_can_be_abbreviated_and_json_is_accepted_everywhere() {
        for line in [
            "smcd linkgroup show --json",
            "smcd link --json",
            "smcd --json dev",
            "smcd stats json",
            "smcd ueid add POOL.1",
            "smcd u del POOL.1",
            "smcd ueid flush",
            "smcd socket show -D --all",
            "smcd socket -Da",
            "smcd stats -d",
            "smcd stats show -da",
            "smcd fallback",
            "smcd info show",
            "smcd seid show",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
        let error = parse("smcd ueid add pool").err().unwrap();
        assert!(error.to_string().contains("a UEID begins with A-Z or 0-9"), "{error}");
    }

    /// Its own usage texts, line by line.
    #[test]
    fn what_smc_tools_accepts_is_accepted() {
        for line in [
            "smcd info",
            "smcd ueid",
            "smcd ueid show",
            "smcd seid",
            "smcd seid enable",
            "smcd seid disable",
            "smcd linkgroup",
            "smcd linkgroup all",
            "smcd linkgroup show all",
            "smcd linkgroup 00000100",
            "smcd -d linkgroup sh 100",
            "smcd --details linkgroup",
            "smcd device",
            "smcd device all",
            "smcd -d device show all",
            "smcd -a stats",
            "smcd -ad stats show",
            "smcd -da stats",
            "smcd --absolute stats",
            "smcd -d info",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
        }
        for (line, kind) in [
            ("smcd -v", clap::error::ErrorKind::DisplayVersion),
            ("smcd help", clap::error::ErrorKind::DisplayHelp),
        ] {
            assert_eq!(parse(line).err().map(|error| error.kind()), Some(kind), "{line}");
        }
    }

    #[test]
    fn one_link_group_can_be_chosen() {
        let chosen = |line: &str| match parse(line).map(|cli| cli.object) {
            Ok(Object::Linkgroup { words, .. }) => Word::chosen(&words),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(chosen("smcd linkgroup 0100"), Ok(Some(0x100)));
        assert_eq!(chosen("smcd linkgroup show 0xa"), Ok(Some(10)));
        assert_eq!(chosen("smcd linkgroup sho al"), Ok(None));
        for wrong in ["x", "all show", "100 all", "show show", "all 100", "1 2 3"] {
            assert!(chosen(&format!("smcd linkgroup {wrong}")).is_err(), "{wrong}");
        }
        assert!(parse("smcd device 100").is_err());
    }
}
