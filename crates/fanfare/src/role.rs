//! `fanfare edge` and `fanfare publish`: one role for each process, joined by a Redis that they share.
//!
//! Each has an address for its clients and another one for operators, which serves `Admin` alone.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use fanfare_auth::Missing;
use fanfare_backbone::Backbone;
use fanfare_edge::Edge;
use fanfare_http::{Cors, Handler, Peer, Problem, Reply, ReplyFuture, Request};
use fanfare_publish::PublishApi;
use http::header::ORIGIN;

use crate::admin::{self, Admin, Part};
use crate::args::RoleOptions;
use crate::config::{Config, Inputs, Mistakes, Role};
use crate::lifecycle::{Drained, Lifecycle};
use crate::memory;
use crate::openapi;
use crate::process::{self, catch_signals, drain_times, listen};
use crate::redis::{PUBLISHER_UNREADY_AFTER, Pulse, look_first};

/// `fanfare edge`.
pub(crate) fn edge(options: RoleOptions) -> anyhow::Result<ExitCode> {
    let config = load(options, "edge.listen")?;
    process::run(&config, serve_edge(&config))
}

/// `fanfare publish`.
pub(crate) fn publish(options: RoleOptions) -> anyhow::Result<ExitCode> {
    let config = load(options, "publish.listen")?;
    process::run(&config, serve_publish(&config))
}

fn load(options: RoleOptions, listen: &'static str) -> Result<Config, Mistakes> {
    let inputs = Inputs::with_file(options.config)
        .flag("--listen", listen, options.listen)
        .flag("--admin-listen", "admin.listen", options.admin_listen)
        .flag("--redis", "redis.url", options.redis);
    Config::load(Role::Service, &inputs)
}

async fn serve_edge(config: &Config) -> anyhow::Result<ExitCode> {
    let (backbone, access) = needed(config, config.auth.edge_access())?;
    let signals = catch_signals()?;
    let listener = listen(config.listen, "--listen")?;
    let admin_listener = listen(config.admin_listen, "--admin-listen")?;
    let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
    let lifecycle = Lifecycle::default();
    look_first(config.redis(), &lifecycle).await?;

    let registry = admin::registry()?;
    let cors = Arc::new(config.cors());
    let pulse = Pulse::start(config.unready_after, backbone.clone(), &lifecycle);
    let (edge, services) = Edge::new(backbone, config.edge.clone(), access, cors.clone(), &registry)?;
    for service in services {
        lifecycle.spawn_service(service.name, service.future);
    }
    lifecycle.spawn_service("memory", memory::give_back(edge.clone(), lifecycle.stopping().clone()));
    let admin = Admin {
        part: Part::Edge(edge.clone(), pulse),
        registry,
        key: config.auth.admin_key.clone(),
        draining: lifecycle.draining().clone(),
    };
    process::serve(&lifecycle, "server", listener, Arc::new(Open { cors, service: Service::Edge(edge.clone()) }));
    process::serve(&lifecycle, "admin server", admin_listener, Arc::new(admin));
    say_listening("edge", address, admin_address, config);
    Ok(lifecycle.run(signals, &*edge, drain_times(config)).await)
}

async fn serve_publish(config: &Config) -> anyhow::Result<ExitCode> {
    let (backbone, access) = needed(config, config.auth.publish_access())?;
    let signals = catch_signals()?;
    let listener = listen(config.publish_listen, "--listen")?;
    let admin_listener = listen(config.admin_listen, "--admin-listen")?;
    let (address, admin_address) = (listener.local_addr()?, admin_listener.local_addr()?);
    let lifecycle = Lifecycle::default();
    look_first(config.redis(), &lifecycle).await?;

    let registry = admin::registry()?;
    let api = PublishApi::new(backbone.clone(), config.publish.clone(), access, config.auth.secret.clone(), &registry)?;
    let pulse = Pulse::start(Some(PUBLISHER_UNREADY_AFTER), backbone, &lifecycle);
    let admin = Admin {
        part: Part::Publisher(pulse),
        registry,
        key: config.auth.admin_key.clone(),
        draining: lifecycle.draining().clone(),
    };
    let cors = Arc::new(config.cors());
    process::serve(&lifecycle, "server", listener, Arc::new(Open { cors, service: Service::Publish(api) }));
    process::serve(&lifecycle, "admin server", admin_listener, Arc::new(admin));
    say_listening("publish", address, admin_address, config);
    Ok(lifecycle.run(signals, &Publisher, drain_times(config)).await)
}

/// What a role can't start without; every mistake at once.
fn needed<A>(config: &Config, access: Result<A, Missing>) -> Result<(Backbone, A), Mistakes> {
    let mut mistakes = Mistakes::default();
    let access = access.map_err(|missing| mistakes.tell(what_to_do(missing))).ok();
    if config.redis().is_none() {
        mistakes.tell(NO_REDIS);
    }
    let backbone = config.backbone().map_err(|errors| errors.iter().for_each(|error| mistakes.tell(error))).ok();
    match (backbone, access) {
        (Some(backbone), Some(access)) if mistakes.is_empty() => Ok((backbone, access)),
        _ => Err(mistakes),
    }
}

pub(crate) const NO_REDIS: &str = "FANFARE_REDIS_URL is not set: edges and publish APIs meet in Redis, expected an \
                                   address such as redis://127.0.0.1:6379 (`fanfare dev` needs none)";

/// What is missing, and how one comes by it.
pub(crate) fn what_to_do(missing: Missing) -> String {
    match missing {
        Missing::Secret => format!("{missing} (`openssl rand -hex 32` makes one; `fanfare dev` needs none)"),
        Missing::PublishKeys => {
            format!("{missing} (`openssl rand -hex 32` makes a key; `fanfare dev` needs none)")
        }
    }
}

fn say_listening(role: &str, address: std::net::SocketAddr, admin: std::net::SocketAddr, config: &Config) {
    for warning in config.auth.warnings() {
        tracing::warn!("{warning}");
    }
    tracing::info!(role, %address, admin_address = %admin, version = env!("CARGO_PKG_VERSION"), "listening");
}

/// A publish API holds nobody: requests that run are answered, and that is all.
#[derive(Debug)]
struct Publisher;

impl Drained for Publisher {
    async fn drain(&self, _: Duration) {}

    fn stop(&self) {}
}

/// A role as its clients see it.
struct Open {
    cors: Arc<Cors>,
    service: Service,
}

enum Service {
    Edge(Arc<Edge>),
    Publish(PublishApi),
}

impl Handler for Open {
    fn handle(self: Arc<Self>, request: Request, peer: Peer) -> ReplyFuture {
        Box::pin(async move {
            let origin = request.headers().get(ORIGIN).cloned();
            let mut reply = self.answer(request, peer).await;
            // A stream's head is written by the edge, with these headers.
            if let Reply::Response(response) = &mut reply {
                self.cors.decorate(origin.as_ref(), response.headers_mut());
            }
            reply
        })
    }
}

impl Open {
    async fn answer(&self, request: Request, peer: Peer) -> Reply {
        if let Some(answer) = self.cors.preflight(&request) {
            return answer.into();
        }
        let path = request.uri().path();
        match &self.service {
            _ if path == openapi::PATH => openapi::answer(request.method()).map_or_else(Reply::from, Reply::from),
            Service::Edge(edge) if edge.serves(path) => edge.clone().handle(request, peer).await,
            Service::Publish(api) if PublishApi::handles(path) => api.handle(request, peer).await.into(),
            Service::Edge(_) if PublishApi::handles(path) => Problem::no_such_path(path)
                .hint("this is an edge: publish APIs have it (port 8081, if unchanged)")
                .into(),
            Service::Publish(_) if Edge::routes(path) => Problem::no_such_path(path)
                .hint("this is a publish API: edges have it (port 8080, if unchanged)")
                .into(),
            _ => Problem::no_such_path(path).into(),
        }
    }
}
