// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smcd`: shows and sets what the kernel's SMC knows, and shows what processes under `smc-run` do, with
//! the habits of smc-tools.

#![forbid(unsafe_code)]

mod render;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use smc_tools::client::{Client, Error as Failed};
use smc_tools::eid::Eid;
use smc_tools::processes::{self, Processes};
use smc_tools::told::{self, Both};
use smc_tools::view;

/// Shows and sets what the kernel's SMC knows: UEIDs, link groups, devices, counters, sockets and
/// why connections fell back to TCP; and shows the same of processes under smc-run.
///
/// Why is a connection not SMC-D? In this order:
///   smcd info             does the kernel have SMC, and a device for SMC-D v2?
///   smcd ueid show        is there a UEID, the same as on the other side?
///   smcd socket show      which connections use SMC-D, which TCP, and why
///   smcd fallback show    the reasons of all fallbacks, counted
///   smcd linkgroup show   over which fabric (CHID) and to whom
///
/// Objects and actions may be abbreviated. Showing needs no privilege, changing CAP_NET_ADMIN.
#[derive(Parser)]
#[command(version, disable_version_flag = true, infer_subcommands = true, verbatim_doc_comment)]
struct Cli {
    /// Print the version.
    #[arg(short, long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    object: Object,
}

#[derive(Subcommand)]
enum Object {
    /// What the kernel's SMC can do, and which processes are on which fabric.
    Info {
        #[command(subcommand)]
        action: Option<Show>,
    },
    /// User-defined enterprise ids: SMC-D between emulated devices needs one that both sides have.
    #[command(infer_subcommands = true)]
    Ueid {
        #[command(subcommand)]
        action: UeidAction,
    },
    /// The system's enterprise id (s390 only).
    #[command(infer_subcommands = true)]
    Seid {
        #[command(subcommand)]
        action: SeidAction,
    },
    /// SMC-D link groups: GIDs, fabric (CHID), VLAN, connections.
    Linkgroup {
        #[command(subcommand)]
        action: Option<Show>,
    },
    /// SMC-D devices, without the kernel's own loopback device.
    Device {
        #[command(subcommand)]
        action: Option<Show>,
    },
    /// Counters: the kernel's since boot, those of processes since they began.
    #[command(infer_subcommands = true)]
    Stats {
        /// Each process by itself.
        #[arg(short, long, global = true)]
        details: bool,
        /// As without: counters are never reset.
        #[arg(short, long, global = true)]
        absolute: bool,
        #[command(subcommand)]
        action: Option<StatsAction>,
    },
    /// Why connections fell back to TCP, with counts.
    Fallback {
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
        #[command(subcommand)]
        action: Option<Show>,
    },
}

#[derive(Subcommand)]
enum Show {
    /// Show them (the default).
    Show,
}

#[derive(Subcommand)]
enum UeidAction {
    /// Show them.
    Show,
    /// Add one; one that is there already is no error. The kernel holds four.
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

#[derive(Subcommand)]
enum SeidAction {
    /// Show it.
    Show,
    /// Use it.
    Enable,
    /// Do not use it.
    Disable,
}

#[derive(Subcommand)]
enum StatsAction {
    /// Show them (the default).
    Show,
    /// As show --json.
    Json,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that has seen enough is no failure.
            if matches!(error.downcast_ref::<io::Error>(), Some(e) if e.kind() == io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            eprintln!("smcd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    let json = cli.json;
    match cli.object {
        Object::Info { .. } => {
            let kernel = kernel(Client::system)?;
            let both = Both { kernel, processes: told::infos(&ask()) };
            print(json, &both, |both| {
                let none = || "This kernel has no SMC.\n".to_owned();
                let kernel = both.kernel.as_ref().map_or_else(none, render::system);
                format!("{kernel}\n{}", render::processes(&both.processes))
            })
        }
        Object::Ueid { action } => ueid(json, action),
        Object::Seid { action } => seid(json, &action),
        Object::Linkgroup { .. } => {
            let mut groups = kernel(Client::link_groups)?.unwrap_or_default();
            groups.extend(told::link_groups(&ask()));
            print(json, &groups, |groups| render::link_groups(groups))
        }
        Object::Device { .. } => {
            let mut devices = kernel(Client::devices)?.unwrap_or_default();
            devices.extend(told::devices(&ask()));
            print(json, &devices, |devices| render::devices(devices))
        }
        Object::Stats { action, details, .. } => {
            let both = Both { kernel: kernel(Client::stats)?, processes: told::stats(&ask()) };
            if json || matches!(action, Some(StatsAction::Json)) {
                return print(true, &both, |_| String::new());
            }
            let fallbacks = kernel(Client::fallbacks)?.unwrap_or_default();
            print(false, &both, |both| {
                let kernel = both.kernel.as_ref().map(|stats| render::stats(stats, &fallbacks));
                kernel.unwrap_or_default() + &render::process_stats(&both.processes, details)
            })
        }
        Object::Fallback { .. } => {
            let both = Both { kernel: kernel(Client::fallbacks)?, processes: told::stats(&ask()) };
            print(json, &both, |both| {
                let kernel = both.kernel.as_ref().map(render::fallbacks);
                kernel.unwrap_or_default() + &render::process_fallbacks(&both.processes)
            })
        }
        Object::Socket { details, all, .. } => {
            let mut sockets = view::sockets(&ask())?;
            sockets.retain(|socket| all || !matches!(socket.state_name(), "LISTEN" | "CLOSED"));
            print(json, &sockets, |sockets| render::sockets(sockets, details))
        }
    }
}

/// Asks the kernel, if it has SMC.
fn kernel<T>(ask: impl FnOnce(&mut Client) -> Result<T, Failed>) -> Result<Option<T>, Failed> {
    match Client::open().and_then(|mut client| ask(&mut client)) {
        Ok(answer) => Ok(Some(answer)),
        Err(Failed::NoSmc) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Asks the processes; what went wrong is said.
fn ask() -> Processes {
    let processes = processes::ask_all();
    processes.problems.iter().for_each(|problem| eprintln!("smcd: {problem}"));
    processes
}

fn ueid(json: bool, action: UeidAction) -> Result<(), Box<dyn Error>> {
    let mut client = Client::open()?;
    match action {
        UeidAction::Show => {
            return print(json, &client.ueids()?, |ueids| {
                ueids.iter().map(|ueid| format!("{ueid}\n")).collect()
            });
        }
        UeidAction::Add { ueid } => {
            client.add_ueid(&ueid).map_err(|error| match error.refusal() {
                Some(rustix::io::Errno::RANGE) => {
                    "the kernel holds four UEIDs already; remove one first".into()
                }
                _ => Box::<dyn Error>::from(error),
            })?;
        }
        UeidAction::Del { ueid } => {
            if !client.remove_ueid(&ueid)? {
                return Err("there is no such UEID".into());
            }
        }
        UeidAction::Flush => client.flush_ueids()?,
    }
    Ok(())
}

fn seid(json: bool, action: &SeidAction) -> Result<(), Box<dyn Error>> {
    let mut client = Client::open()?;
    match action {
        SeidAction::Show => print(json, &client.seid()?, render::seid),
        SeidAction::Enable => Ok(client.set_seid(true)?),
        SeidAction::Disable => Ok(client.set_seid(false)?),
    }
}

fn print<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Box<dyn Error>> {
    let mut stdout = io::stdout().lock();
    if json {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(stdout, "{text}")?;
    } else {
        stdout.write_all(text(value).as_bytes())?;
    }
    Ok(stdout.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

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
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        let error = Cli::try_parse_from(["smcd", "ueid", "add", "pool"]).err().unwrap();
        assert!(error.to_string().contains("a UEID begins with A-Z or 0-9"), "{error}");
    }
}
