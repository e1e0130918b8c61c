//! `fanfare token`: a subscriber token, alone on standard output.

use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use fanfare_auth::{Missing, TokenOrder};
use fanfare_protocol::{Channel, Pattern, UserId};

use crate::args::{TokenOptions, Usage};
use crate::config::{Config, Inputs, Mistakes, Role};
use crate::role::what_to_do;
use crate::terminal;

/// Signs one with the first secret.
pub(crate) fn token(options: TokenOptions) -> anyhow::Result<ExitCode> {
    let order = read(&options)?;
    let config = Config::load(Role::Service, &Inputs::with_file(options.config))?;
    let Some(secrets) = &config.auth.secret else {
        let mut mistakes = Mistakes::default();
        mistakes.tell(what_to_do(Missing::Secret));
        return Err(mistakes.into());
    };
    let minted = order.mint(secrets, SystemTime::now()).context("no token is made")?;
    terminal::print(&format!("{}\n", minted.token))?;
    Ok(ExitCode::SUCCESS)
}

fn read(options: &TokenOptions) -> Result<TokenOrder, Usage> {
    let wrong = |flag: &str, value: &str, error: &dyn std::error::Error| {
        let cause = error.source().map_or(String::new(), |source| format!(" ({source})"));
        Usage::new(format!("{flag} is {value:.100?}: {error}{cause}"))
    };
    let user = options.user.as_deref().map(|user| UserId::parse(user).map_err(|error| wrong("--user", user, &error)));
    let channels = options.channel.iter();
    let channels = channels.map(|text| Pattern::parse(text).map_err(|error| wrong("--channel", text, &error)));
    let follow = options.follow.iter();
    let follow = follow.map(|text| Channel::parse(text).map_err(|error| wrong("--follow", text, &error)));
    let order = TokenOrder {
        user: user.transpose()?,
        channels: channels.collect::<Result<_, _>>()?,
        follow: follow.collect::<Result<_, _>>()?,
        ttl: options.ttl,
    };
    if order.user.is_none() && order.channels.is_empty() && order.follow.is_empty() {
        return Err(Usage::new("such a token would open nothing: add --user, --channel or --follow"));
    }
    Ok(order)
}
