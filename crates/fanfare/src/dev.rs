//! `fanfare dev`: edge, publish API, backbone and demo page in one process, on one listener.

use std::process::ExitCode;
use std::sync::Arc;

use fanfare_auth::{PublishAccess, Secrets, SettingError};
use fanfare_edge::Edge;
use fanfare_http::{Cors, LocalHosts};
use fanfare_publish::PublishApi;

use crate::admin::{self, Admin, Part};
use crate::args::{self, DevOptions, Usage};
use crate::config::{Config, Inputs, Mistakes, Role};
use crate::front::Front;
use crate::lifecycle::Lifecycle;
use crate::memory;
use crate::process::{self, catch_signals, drain_times, listen};
use crate::redis::{Pulse, look_first};
use crate::{banner, terminal};

/// Reads the configuration, then runs until a signal.
pub(crate) fn run(options: DevOptions) -> anyhow::Result<ExitCode> {
    let inputs = Inputs::with_file(options.config).flag("--listen", "edge.listen", options.listen).flag(
        "--redis",
        "redis.url",
        options.redis,
    );
    let config = Config::load(Role::Dev, &inputs)?;
    let hosts = options.allow_host.iter().map(|name| host(name)).collect::<Result<Vec<_>, _>>()?;
    process::run(&config, serve(&config, LocalHosts::and(hosts)))
}

async fn serve(config: &Config, hosts: LocalHosts) -> anyhow::Result<ExitCode> {
    let backbone = config.backbone().map_err(|errors| {
        let mut mistakes = Mistakes::default();
        errors.iter().for_each(|error| mistakes.tell(error));
        mistakes
    })?;
    let signals = catch_signals()?;
    let listener = listen(config.listen, "--listen")?;
    let address = listener.local_addr()?;
    let lifecycle = Lifecycle::default();
    look_first(config.redis(), &lifecycle).await?;

    let registry = admin::registry()?;
    let cors = Arc::new(Cors::loopback(hosts.clone()));
    let secrets = config.auth.secret.clone().map_or_else(made_up, Ok)?;
    let access = config.auth.dev_access(secrets.clone());
    let pulse = Pulse::start(config.unready_after, backbone.clone(), &lifecycle);
    let (edge, services) = Edge::new(backbone.clone(), config.edge.clone(), access, cors.clone(), &registry)?;
    let api = PublishApi::new(backbone, config.publish.clone(), PublishAccess::Dev, Some(secrets), &registry)?;
    let admin = Admin {
        part: Part::Edge(edge.clone(), pulse),
        registry,
        key: config.auth.admin_key.clone(),
        draining: lifecycle.draining().clone(),
    };
    for service in services {
        lifecycle.spawn_service(service.name, service.future);
    }
    lifecycle.spawn_service("memory", memory::give_back(edge.clone(), lifecycle.stopping().clone()));
    process::serve(&lifecycle, "server", listener, Arc::new(Front { hosts, cors, edge: edge.clone(), api, admin }));
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
    // Nobody needs to read it.
    _ = terminal::print(&banner::text(address, &program(), config.redis().is_some()));
    Ok(lifecycle.run(signals, &*edge, drain_times(config)).await)
}

/// A secret of this process, so that `/tokens` works here as it does elsewhere. Nobody needs to guess it: all is open.
fn made_up() -> Result<Secrets, SettingError> {
    Secrets::parse(&format!("{:032x}", fastrand::u128(..)))
}

/// A name that was added, without its port.
fn host(name: &str) -> Result<String, Usage> {
    match LocalHosts::name(name) {
        host if !host.is_empty() && !host.contains(['/', '*', '@', ' ']) => Ok(host.to_owned()),
        _ => Err(Usage::new(format!("--allow-host is {name:?}, expected a host's name, such as dev.example.com"))),
    }
}

/// How this program was called, so that the printed commands can be pasted.
fn program() -> String {
    std::env::args().next().map_or_else(|| "fanfare".to_owned(), |program| args::quoted(&program))
}
