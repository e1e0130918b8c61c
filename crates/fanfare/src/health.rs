//! `fanfare health`: is the server on this machine alive? For container health checks.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use tokio::time::timeout;

use crate::args::HealthOptions;
use crate::client::Server;
use crate::config::{Config, Inputs, Role};
use crate::terminal;

/// Shorter than the timeout of usual health checks, so that it is us who say why.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks once: where it was told to, or else where a role's operators ask and, if nobody is there, where `dev` listens.
pub(crate) async fn health(options: HealthOptions) -> anyhow::Result<ExitCode> {
    let asked = match options.url {
        Some(url) => ask(&url).await,
        None => {
            let config = Config::load(Role::Dev, &Inputs::with_file(options.config))?;
            let [admin, main] = [config.admin_listen, config.listen].map(|listen| format!("http://{}", local(listen)));
            match ask(&admin).await {
                Ok(()) => Ok(()),
                Err(error) => ask(&main).await.map_err(|of_main| error.context(format!("{of_main:#}"))),
            }
        }
    };
    asked?;
    terminal::print("healthy\n")?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(url: &str) -> anyhow::Result<()> {
    let server = Server::new(url, None)?;
    let request = Request::get("/healthz").body(Empty::<Bytes>::new())?;
    let asked = async { server.send(request).await?.success().await };
    timeout(TIMEOUT, asked).await.with_context(|| format!("{url} does not answer within {TIMEOUT:?}"))??;
    Ok(())
}

/// How a server that listens there is reached from its own machine.
pub(crate) fn local(listen: SocketAddr) -> SocketAddr {
    let mut address = listen;
    if listen.ip().is_unspecified() {
        address.set_ip(if listen.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}
