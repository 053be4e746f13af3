// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `smcd`: shows and sets what the kernel's SMC knows, and shows what processes under `smc-run` do, with
//! the habits of smc-tools.

#![forbid(unsafe_code)]

mod render;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use smc_tools::cli::smcd::{Cli, Object, SeidAction, StatsAction, UeidAction, Word};
use smc_tools::client::{Client, Error as Failed};
use smc_tools::processes::{self, Processes, Where};
use smc_tools::told::{self, Both};
use smc_tools::{nothing, view};

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
    let place = if cli.here { Where::Here } else { Where::Anywhere };
    let ask = || ask(place);
    let say_if = |is_empty: bool, processes: &Processes| {
        if is_empty {
            eprintln!("smcd: {}", nothing::why(processes, place));
        }
    };
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
        Object::Ueid { action } => ueid(json, action.unwrap_or(UeidAction::Show)),
        Object::Seid { action } => seid(json, &action.unwrap_or(SeidAction::Show)),
        Object::Linkgroup { details, words } => {
            let chosen = Word::chosen(&words)?;
            let mut groups = kernel(Client::link_groups)?.unwrap_or_default();
            let processes = ask();
            groups.extend(told::link_groups(&processes));
            groups.retain(|group| chosen.is_none_or(|id| id == group.id));
            say_if(groups.is_empty(), &processes);
            print(json, &groups, |groups| match details || cli.details {
                true => render::linkgroup::details(groups),
                false => render::linkgroup::table(groups),
            })
        }
        Object::Device { words } => {
            Word::chosen(&words)?;
            let mut devices = kernel(Client::devices)?.unwrap_or_default();
            let processes = ask();
            devices.extend(told::devices(&processes));
            say_if(devices.is_empty(), &processes);
            print(json, &devices, |devices| render::devices(devices))
        }
        Object::Stats { action, details, .. } => {
            let processes = ask();
            let both = Both { kernel: kernel(Client::stats)?, processes: told::stats(&processes) };
            say_if(both.is_empty(), &processes);
            if json || matches!(action, Some(StatsAction::Json)) {
                return print(true, &both, |_| String::new());
            }
            let fallbacks = kernel(Client::fallbacks)?.unwrap_or_default();
            print(false, &both, |both| {
                let kernel = both.kernel.as_ref().map(|stats| render::stats(stats, &fallbacks));
                let processes = render::process_stats(&both.processes, details || cli.details);
                render::after(kernel, &processes)
            })
        }
        Object::Fallback { .. } => {
            let processes = ask();
            let both =
                Both { kernel: kernel(Client::fallbacks)?, processes: told::stats(&processes) };
            say_if(both.is_empty(), &processes);
            print(json, &both, |both| {
                let kernel = both.kernel.as_ref().map(render::fallbacks);
                render::after(kernel, &render::process_fallbacks(&both.processes))
            })
        }
        Object::Socket { details, all, .. } => {
            let processes = ask();
            let mut sockets = view::sockets(&processes)?;
            sockets.retain(|socket| all || !matches!(socket.state_name(), "LISTEN" | "CLOSED"));
            say_if(sockets.is_empty(), &processes);
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
fn ask(place: Where) -> Processes {
    let processes = processes::ask_all(place);
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
