//! The binary: flags, configuration, signals, wiring. What Fanfare does is in the other crates.

mod args; // What can be typed.
mod config; // What can be set.
mod logging;

mod admin;
mod banner;
mod demo;
mod dev; // `fanfare dev`: everything in one process.
mod front; // Which request goes where, in `dev`.
mod lifecycle;
mod openapi; // The whole API, as a document. // Tasks, signals, the drain.

mod memory; // What is free goes back.
mod process; // What all services do alike.
mod redis; // Whether it will do.
mod role; // `fanfare edge` and `fanfare publish`.

mod check;
mod client; // The tools' side of HTTP.
mod health;
mod send;
mod tail;
mod terminal;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command, Usage};

/// Something failed while running.
const FAILED: u8 = 1;
/// What was typed or configured is wrong; nothing was started.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    run(Args::parse().command).unwrap_or_else(|error| {
        if error.is::<terminal::ReaderGone>() {
            return ExitCode::SUCCESS; // `fanfare tail demo | head -1` has what it wanted.
        }
        terminal::error(&error);
        let usage = error.is::<Usage>() || error.is::<config::Mistakes>();
        ExitCode::from(if usage { USAGE } else { FAILED })
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Dev(options) => dev::run(options),
        Command::Send(options) => client::run(send::send(options)),
        Command::Tail(options) => client::run(tail::tail(options)),
        Command::Config(options) => config::print(&options),
        Command::Health(options) => client::run(health::health(options)),
        Command::Token(options) => token::token(options),
        Command::Check(options) => client::run(check::check(options)),
        Command::Edge(options) => role::edge(options),
        Command::Publish(options) if options.words.is_empty() => role::publish(options.role),
        Command::Publish(options) => Err(Usage::publish(&options.words).into()),
    }
}
