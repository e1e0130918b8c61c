//! `fanfare dev`: edge, publish API, backbone and demo page in one process, on one listener.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use fanfare_edge::Edge;
use fanfare_http::{Cors, LocalHosts, Server};
use fanfare_publish::PublishApi;
use tokio::net::{TcpListener, TcpSocket};

use crate::admin::{self, Admin};
use crate::args::{self, DevOptions, Usage};
use crate::config::{Config, Inputs, Role};
use crate::front::Front;
use crate::lifecycle::{DrainTimes, Drained, Lifecycle, Signals};
use crate::{banner, logging, terminal};

/// Connections that may wait to be accepted: after a restart everybody comes back at once. The kernel's own bound
/// (`net.core.somaxconn`) holds too.
const ACCEPT_BACKLOG: u32 = 4096;

/// Reads the configuration, then runs until a signal.
pub(crate) fn run(options: DevOptions) -> anyhow::Result<ExitCode> {
    let inputs = Inputs::with_file(options.config).flag("--listen", "edge.listen", options.listen);
    let config = Config::load(Role::Dev, &inputs)?;
    let hosts = options.allow_host.iter().map(|name| host(name)).collect::<Result<Vec<_>, _>>()?;
    logging::start(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(serve(config, LocalHosts::and(hosts)));
    runtime.shutdown_background(); // Whatever had to end has ended.
    code
}

async fn serve(config: Config, hosts: LocalHosts) -> anyhow::Result<ExitCode> {
    let signals = Signals::catch().context("signals can't be caught")?;
    raise_file_limit();
    let listener = listen(config.listen)?;
    let address = listener.local_addr()?;

    let lifecycle = Lifecycle::default();
    let registry = admin::registry()?;
    let backbone = config.backbone();
    let cors = Arc::new(Cors::loopback(hosts.clone()));
    let (edge, services) = Edge::new(backbone.clone(), config.edge.clone(), cors.clone(), &registry)?;
    let api = PublishApi::new(backbone, config.publish.clone(), &registry)?;
    let admin = Admin { edge: edge.clone(), registry, draining: lifecycle.draining().clone() };
    let server = Server::new(Arc::new(Front { hosts, cors, edge: edge.clone(), api, admin }));

    for service in services {
        lifecycle.spawn_service(service.name, service.future);
    }
    let accepting = server.serve(listener, lifecycle.stopping().clone(), lifecycle.connections().clone());
    lifecycle.spawn_service("server", accepting);
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    // Nobody needs to read it.
    _ = terminal::print(&banner::text(address, &program()));

    let times = DrainTimes { delay: config.drain_delay, window: config.drain_timeout };
    Ok(lifecycle.run(signals, &*edge, times).await)
}

impl Drained for Edge {
    async fn drain(&self, window: Duration) {
        Self::drain(self, window).await;
    }

    fn stop(&self) {
        Self::stop(self);
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?; // Else a restart would have to wait for the connections of before.
        socket.bind(address)?;
        socket.listen(ACCEPT_BACKLOG)
    };
    bind().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "{address} is in use: stop what listens there, or take another address with --listen \
             (port 0 takes a free one)"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("{address} may not be listened on by this user; ports from 1024 may, for example --listen 127.0.0.1:8080")
        }
        io::ErrorKind::AddrNotAvailable => {
            anyhow!("{address} is no address of this machine; --listen takes one of its own, or 0.0.0.0 for all")
        }
        _ => anyhow::Error::new(error).context(format!("{address} can't be listened on")),
    })
}

/// A name that was added, without its port.
fn host(name: &str) -> Result<String, Usage> {
    match LocalHosts::name(name) {
        host if !host.is_empty() && !host.contains(['/', '*', '@', ' ']) => Ok(host.to_owned()),
        _ => Err(Usage::new(format!("--allow-host is {name:?}, expected a host's name, such as dev.example.com"))),
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

/// How this program was called, so that the printed commands can be pasted.
fn program() -> String {
    std::env::args().next().map_or_else(|| "fanfare".to_owned(), |program| args::quoted(&program))
}
