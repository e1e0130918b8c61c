//! What can be set, from one TOML file, from `FANFARE_*` variables over it, and from flags over both.
//!
//! `settings` has one table that everything else is made from: what is accepted, what is refused, and what
//! `fanfare config` prints. Every mistake is found before anything starts, and all are told at once.

mod mistakes;
mod namespaces;
mod parts;
mod print;
mod routes;
mod settings;
mod sources;
mod units;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fanfare_auth::AuthConfig;
use fanfare_backbone::{Backbone, RedisConfig, RedisError};
use fanfare_edge::{EdgeConfig, RouteConfig};
use fanfare_http::Cors;
use fanfare_protocol::{ByNamespace, Keep, Partitions, Retention};
use fanfare_publish::PublishConfig;

pub(crate) use mistakes::Mistakes;
pub(crate) use namespaces::Namespace;
pub(crate) use print::print;

/// How much is kept of what edges say to each other, and for how long where events are kept without an end: PATCHes are
/// ignored when they are older than a minute, and what a disconnect says is in a table as well.
const CONTROL_MESSAGES_MAX: usize = 1_000;
const CONTROL_MESSAGES_AGE: Duration = Duration::from_secs(5 * 60);

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where the edge listens; in `dev` everything.
    pub(crate) listen: SocketAddr,
    /// Where the publish API listens, as a process of its own.
    pub(crate) publish_listen: SocketAddr,
    /// Where these two are asked how they are.
    pub(crate) admin_listen: SocketAddr,
    /// The Redis that joins the processes. Its partitions are those below.
    pub(crate) redis: RedisConfig,
    /// Whose tokens and keys count.
    pub(crate) auth: AuthConfig,
    /// Whose pages may read answers.
    pub(crate) cors_origins: Vec<String>,
    /// How many partitions the backbone has.
    pub(crate) partitions: Partitions,
    /// How long the backbone keeps things elsewhere than in `namespaces`. `forget_age` follows from the others.
    pub(crate) retention: Retention,
    /// How an edge treats its connections.
    pub(crate) edge: EdgeConfig,
    /// What the publish API takes.
    pub(crate) publish: PublishConfig,
    /// Paths of an application's own, as they are written.
    pub(crate) routes: Vec<RouteConfig>,
    /// What namespaces set of their own, by their names.
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    /// Time between turning unready and the first goodbye.
    pub(crate) drain_delay: Duration,
    /// Time over which the goodbyes are spread.
    pub(crate) drain_timeout: Duration,
    /// Time without Redis after which an edge turns unready. None: it stays ready.
    pub(crate) unready_after: Option<Duration>,
    /// Which log lines are written, as `tracing` directives.
    pub(crate) log: String,
    /// How they are written.
    pub(crate) log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    Text,
    Json,
}

/// Which process the defaults are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A service behind a load balancer.
    Service,
    /// One process on a developer's machine.
    Dev,
}

/// What a configuration is read from, lowest first.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    pub(crate) file: Option<PathBuf>,
    pub(crate) environment: Vec<(std::ffi::OsString, std::ffi::OsString)>,
    /// The flag, the key that it sets, and the value.
    pub(crate) flags: Vec<(&'static str, &'static str, String)>,
}

impl Inputs {
    /// A file, and this process's environment.
    pub(crate) fn with_file(file: Option<PathBuf>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), flags: Vec::new() }
    }

    /// A flag over them.
    pub(crate) fn flag(mut self, flag: &'static str, key: &'static str, value: Option<String>) -> Self {
        self.flags.extend(value.map(|value| (flag, key, value)));
        self
    }
}

impl Config {
    /// What holds where nothing is set.
    pub(crate) fn default_for(role: Role) -> Self {
        let (listen, drain_delay) = match role {
            // The delay is the time that load balancers need to notice that it isn't ready any more.
            Role::Service => (([0, 0, 0, 0], 8080).into(), Duration::from_secs(5)),
            // Loopback: there are no tokens. And nothing balances in front.
            Role::Dev => (([127, 0, 0, 1], 8080).into(), Duration::ZERO),
        };
        Self {
            listen,
            publish_listen: ([0, 0, 0, 0], 8081).into(),
            admin_listen: ([0, 0, 0, 0], 9091).into(),
            redis: RedisConfig::default(),
            auth: AuthConfig::default(),
            cors_origins: Vec::new(),
            partitions: Partitions::ONE,
            retention: Retention {
                history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(5 * 60)) }),
                forget_age: Duration::from_secs(10 * 60),
                idempotency_window: Duration::from_secs(5 * 60),
            },
            edge: EdgeConfig::default(),
            publish: PublishConfig::default(),
            routes: Vec::new(),
            namespaces: BTreeMap::new(),
            drain_delay,
            drain_timeout: Duration::from_secs(20),
            unready_after: None,
            log: "info".to_owned(),
            log_format: LogFormat::Auto,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Every mistake in every input.
    pub(crate) fn load(role: Role, inputs: &Inputs) -> Result<Self, Mistakes> {
        sources::read(Self::default_for(role), inputs).map(|(config, _)| config)
    }

    /// Where Redis is. None: there is none.
    pub(crate) fn redis(&self) -> Option<RedisConfig> {
        let is_set = !self.redis.url.reveal().is_empty();
        is_set.then(|| RedisConfig { partitions: self.partitions.count(), ..self.redis.clone() })
    }

    /// How long the backbone keeps things, with what namespaces have of their own.
    fn retention(&self) -> Retention {
        let mut retention = self.retention.clone();
        let history = &mut retention.history;
        // What edges say to each other outlives a break, however few events are kept.
        for control in ["$edge", "$edges"] {
            let keep =
                Keep { events_max: CONTROL_MESSAGES_MAX, age: history.elsewhere.age.or(Some(CONTROL_MESSAGES_AGE)) };
            history.own.insert(control.into(), keep);
        }
        for (name, namespace) in &self.namespaces {
            history.own.insert(name.as_str().into(), namespace.keep(history.elsewhere));
        }
        retention.forget_age = Retention::forget_age(history);
        retention
    }

    /// The backbone that this asks for. Must be called inside the runtime.
    ///
    /// # Errors
    /// Everything that is wrong with how Redis is reached, as far as that shows without asking it.
    pub(crate) fn backbone(&self) -> Result<Backbone, Vec<RedisError>> {
        let retention = self.retention();
        match self.redis() {
            Some(redis) => Backbone::redis(&redis, retention),
            None => Ok(Backbone::in_process(self.partitions, retention)),
        }
    }

    /// Whose pages may read what a role answers.
    pub(crate) fn cors(&self) -> Cors {
        Cors::exactly(&self.cors_origins).expect("each was checked when it was set")
    }
}
