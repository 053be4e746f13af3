// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The daemon's program: options in, exit status out.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};
use vhost_user_ism::cli::{Cli, Command, Serve, capabilities};
use vhost_user_ism::control::{client, server};
use vhost_user_ism::daemon::Daemon;
use vhost_user_ism::limits;
use vhost_user_ism::ready::Ready;
use vhost_user_ism::sandbox;
use vhost_user_ism::socket::Listening;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => serve(cli.serve),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "vhost-user-ism",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Some(Command::Man) => {
            clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()).map_err(Into::into)
        }
        Some(Command::Ctl(ctl)) => {
            client::run(ctl).map(|text| print!("{text}")).map_err(Into::into)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vhost-user-ism: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn serve(options: Serve) -> Result<(), Failure> {
    if options.print_capabilities {
        println!("{}", capabilities());
        return Ok(());
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        // It has an error line for each wrong index or address: a guest could fill the log.
        .filter_module("virtio_queue", log::LevelFilter::Off)
        .init();
    let with_sandbox = !options.no_sandbox;
    let config = options.config()?;
    for doubt in config.doubts() {
        log::warn!("configuration: {doubt}");
    }
    limits::set()?;
    let mut signals = signal_hook::iterator::Signals::new(signal_hook::consts::TERM_SIGNALS)?;
    let control = config.control_socket.as_deref().map(Listening::bind).transpose()?.map(Arc::new);
    let vms = Daemon::bind(&config)?;
    let doors = Daemon::bind_doors(&config)?;
    let ready = Ready::from_environment();
    if with_sandbox {
        sandbox::enter(&config.socket_directories())?;
    }
    let daemon = Arc::new(Daemon::start(&config, vms)?);
    daemon.open_doors(doors)?;
    if let Some(listening) = &control {
        server::start(Arc::clone(&daemon), Arc::clone(listening))?;
    }
    ready.say();
    signals.forever().next();
    daemon.stop();
    if let Some(listening) = &control {
        listening.remove();
    }
    Ok(())
}
