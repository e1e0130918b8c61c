//! What every service of this binary does alike: a runtime, listeners, and the limit of open files.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use fanfare_edge::Edge;
use fanfare_http::{Handler, Server};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::lifecycle::{DrainTimes, Drained, Lifecycle, Signals};
use crate::logging;

/// Runs a service to its end, on a runtime of its own.
pub(crate) fn run(
    config: &Config,
    service: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    logging::start(config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        raise_file_limit();
        service.await
    });
    runtime.shutdown_background(); // Whatever had to end has ended.
    code
}

/// Catches the signals that end it. To be called before anything that takes time.
pub(crate) fn catch_signals() -> anyhow::Result<Signals> {
    Signals::catch().context("signals can't be caught")
}

/// How long the parts of a drain take.
pub(crate) fn drain_times(config: &Config) -> DrainTimes {
    DrainTimes { delay: config.drain_delay, window: config.drain_timeout }
}

/// Answers what comes to a listener, until services are to end.
pub(crate) fn serve(lifecycle: &Lifecycle, name: &'static str, listener: TcpListener, handler: Arc<dyn Handler>) {
    let server = Server::new(handler).leave_on(lifecycle.leaving().clone());
    let accepting = server.serve(listener, lifecycle.stopping().clone(), lifecycle.connections().clone());
    lifecycle.spawn_service(name, accepting);
}

/// Listens on an address, which `flag` can change.
pub(crate) fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    fanfare_http::listen(address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is in use: stop what listens there, or take another address with {flag} \
             (port 0 takes a free one)"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!(
                "{address} may not be listened on by this user; ports from 1024 may, for example {flag} 127.0.0.1:8080"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is no address of this machine; {flag} takes one of its own, or 0.0.0.0 for all")
        }
        _ => anyhow::Error::new(error).context(format!("{address} can't be listened on")),
    })
}

impl Drained for Edge {
    async fn drain(&self, window: Duration) {
        Self::drain(self, window).await;
    }

    fn stop(&self) {
        Self::stop(self);
    }
}

/// Every connection is a descriptor. The soft limit is low for programs that use `select(2)`, which we don't.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
