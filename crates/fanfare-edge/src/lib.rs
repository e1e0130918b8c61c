//! An edge: it holds connections, hears the backbone, and writes each event to everyone who follows its channel.
//!
//! Who owns what: a *feed* for each partition reads the backbone; *shards* own the connections and write to their
//! sockets; what a connection gets is decided by the pure machine inside its shard. The HTTP server parses the
//! request and lets go of the socket; from there on no task, no wake-up and no buffer belongs to a connection.

mod admission; // Its place on this edge.
mod asker; // Who asks, and how it is answered.
mod blocks; // Who was disconnected.
mod calls; // Requests that a backend answers with a stream.
mod changes; // What it follows against what its URL names.
mod client_id; // What it is called to the outside.
mod close; // Why connections end.
mod config;
mod control; // What edges say to each other.
mod directory; // Who listens here, told to all.
mod feed; // From backbone to stream.
mod head; // The response's head.
mod hearing; // Whether it hears itself.
mod history; // What channels retain.
mod metrics;
mod patch; // It changes.
mod refusal; // No place, no time.
mod registry; // Who is connected.
mod request_id; // What a connection is called in the log.
mod router; // Every path.
mod routes; // Paths of an application's own.
mod shard; // Connections and their sockets.
mod stats; // What operators see.
mod stream; // From feed to shard.
mod subscription; // What a subscriber asks for.
mod untold; // What the directory does not know yet.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_auth::Access;
use fanfare_backbone::{Backbone, NodeId};
use fanfare_http::{Cors, Peer, Problem, Reply, Request, full, options};
use fanfare_protocol::{Machine, MachineLimits, Poll, SHARDS_MAX, UserId};
use http::{Method, Response};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use admission::{Admission, Places};
use asker::{Asker, Wanted};
use blocks::Blocks;
use calls::{Call, Calls};
pub use close::CloseReason;
pub use config::{AddressLimit, AtUserLimit, EdgeConfig};
use control::{Control, Listener};
use feed::{FeedDriver, ShardPort};
use hearing::Hearing;
use metrics::EdgeMetrics;
use refusal::jittered;
pub use registry::Registry;
pub use router::ROUTES;
use router::Route;
pub use routes::{CALL_TIMEOUT, HeartbeatConfig, RouteConfig, RouteMistake, Routes};
use shard::{Adoption, Command, FeedPort, Hello, Lease, Opening, Shard, ShardParts, Style, Whereabouts};
use stats::ShardLoad;
pub use stats::{NamespaceStats, ShardStats, Stats, UserStats};
use stream::Stream;
pub use subscription::REPLAY_MAX;
use subscription::Subscription;

/// Commands that may wait for a shard. Past it new streams are refused.
const COMMANDS_MAX: usize = 4_096;

/// Descriptors that are left for everything but connections.
const DESCRIPTORS_RESERVED: usize = 256;

/// Streams at most that are refused and held open, see `refusal`; and of how many descriptors they get one.
const HELD_MAX: usize = 1_024;
const HELD_SHARE: usize = 16;

/// What a machine may hold in memory. A window of replay leaves room for what comes live behind it.
fn limits(config: &EdgeConfig) -> MachineLimits {
    MachineLimits {
        tail_events_max: 100,
        tail_bytes_max: 64 * 1024,
        page_events_max: 128,
        replay_bytes_max: config.backlog_bytes_max / 2,
        joins_reading_max: 256,
        join_buffer_bytes_max: 1024 * 1024,
        resync_bytes_max: 64 * 1024 * 1024,
        resync_reads_max: 64,
        hold_bytes_max: 16 * 1024 * 1024,
        fanout_events_max: 1_024,
        fanout_bytes_max: 4 * 1024 * 1024,
    }
}

/// A part of the edge that must outlive every connection: a feed, a shard, what tells the directory. Whoever starts
/// the edge runs it; if it ends early, the process should drain.
pub struct Service {
    /// For logs.
    pub name: String,
    /// The work.
    pub future: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Why an edge can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A shard has no epoll set.
    #[error("a shard can't watch sockets")]
    Sockets(#[source] std::io::Error),
    /// Another edge has registered its metrics already.
    #[error("the metrics can't be registered")]
    Metrics(#[source] prometheus::Error),
}

/// An edge. Its services do the work; this handle lets connections in and out.
#[derive(Debug)]
pub struct Edge {
    backbone: Backbone,
    config: Arc<EdgeConfig>,
    access: Access,
    cors: Arc<Cors>,
    places: Arc<Places>,
    node: NodeId,
    control: Arc<Control>,
    blocks: Arc<Blocks>,
    shards: Vec<mpsc::Sender<Command>>,
    loads: Vec<Arc<ShardLoad>>,
    next_shard: AtomicUsize,
    calls: Calls,
    hearing: Arc<Hearing>,
    draining: AtomicBool,
    stop: CancellationToken,
}

impl Edge {
    /// Makes an edge and the services that must be run for it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(
        backbone: Backbone,
        config: EdgeConfig,
        access: Access,
        cors: Arc<Cors>,
        registry: &prometheus::Registry,
    ) -> Result<(Arc<Self>, Vec<Service>), StartError> {
        let metrics = Arc::new(EdgeMetrics::new(registry).map_err(StartError::Metrics)?);
        let config = Arc::new(config);
        let stop = CancellationToken::new();
        let partitions = backbone.partitions();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // To the feeds, whoever listens to other nodes is one more shard.
        let shards = config.shards.unwrap_or(cores).clamp(1, SHARDS_MAX - 1);
        let connections = Arc::new(Registry::new(config.presence.clone()));
        let (node, blocks) = (NodeId::random(), Arc::new(Blocks::default()));
        let bells: Vec<_> = partitions.all().map(|_| Arc::new(Notify::new())).collect();
        let mut services = Vec::new();
        let mut ports: Vec<Vec<ShardPort>> = bells.iter().map(|_| Vec::new()).collect();
        let mut open_feeds = |bell: &Arc<Notify>| -> (Vec<FeedPort>, Machine) {
            let mut feeds = Vec::new();
            for (ports, feed_bell) in ports.iter_mut().zip(&bells) {
                let port = ShardPort { wishes: Arc::default(), stream: Arc::new(Stream::new(bell.clone())) };
                feeds.push(FeedPort {
                    stream: port.stream.clone(),
                    wishes: port.wishes.clone(),
                    bell: feed_bell.clone(),
                });
                ports.push(port);
            }
            let wishes = feeds.iter().map(|feed| feed.wishes.clone()).collect();
            (feeds, Machine::new(partitions, limits(&config), wishes))
        };
        let mut commands = Vec::new();
        let loads: Vec<Arc<ShardLoad>> = (0..shards).map(|_| Arc::default()).collect();
        for (index, load) in loads.iter().enumerate() {
            let bell = Arc::new(Notify::new());
            let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
            commands.push(sender);
            let (feeds, machine) = open_feeds(&bell);
            let shard = Shard::new(ShardParts {
                node,
                index,
                config: config.clone(),
                machine,
                feeds,
                bell,
                commands: receiver,
                registry: connections.clone(),
                blocks: blocks.clone(),
                metrics: metrics.clone(),
                load: load.clone(),
            });
            let shard = shard.map_err(StartError::Sockets)?;
            let future = Box::pin(shard.run(stop.clone()));
            services.push(Service { name: format!("shard {index}"), future });
        }
        let control = Arc::new(Control::new(node, backbone.clone()));
        let bell = Arc::new(Notify::new());
        let (feeds, machine) = open_feeds(&bell);
        let listener = Listener {
            control: control.clone(),
            machine,
            feeds,
            bell,
            shards: commands.clone(),
            blocks: blocks.clone(),
            metrics: metrics.clone(),
        };
        services.push(Service { name: "control".to_owned(), future: Box::pin(listener.run(stop.clone())) });
        let hearing = Arc::new(Hearing::new(partitions));
        for ((partition, shards), bell) in partitions.all().zip(ports).zip(bells) {
            let (backbone, metrics, hearing) = (backbone.clone(), metrics.clone(), hearing.clone());
            let driver = FeedDriver { partition, backbone, shards, bell, metrics, hearing };
            let future = Box::pin(driver.run(stop.clone()));
            services.push(Service { name: format!("feed {partition}"), future });
        }
        let telling = directory::run(backbone.node(node), connections.clone(), stop.clone());
        services.push(Service { name: "directory".to_owned(), future: Box::pin(telling) });
        let descriptors = descriptors();
        // A call has a second socket, to its backend.
        let calls_max = if config.routes.have_calls() { config.calls_max.min(descriptors / 4) } else { 0 };
        let (calls, running) = Calls::new(calls_max, stop.clone());
        services.push(Service { name: "calls".to_owned(), future: Box::pin(running) });
        let held_max = config.held_max.unwrap_or_else(|| HELD_MAX.min(descriptors / HELD_SHARE));
        let by_descriptors = descriptors.saturating_sub(DESCRIPTORS_RESERVED + held_max + calls_max);
        let connections_max = config.connections_max.unwrap_or(by_descriptors);
        metrics.connections_limit.set(i64::try_from(connections_max).unwrap_or(i64::MAX));
        let places = Places {
            registry: connections,
            metrics,
            connections_max,
            connections_per_user_max: config.connections_per_user_max,
            at_user_limit: config.at_user_limit,
            connections_per_address_max: config.address_max(),
            taken: AtomicUsize::new(0),
            held_max,
            held: AtomicUsize::new(0),
        };
        let edge = Self {
            backbone,
            config,
            access,
            cors,
            places: Arc::new(places),
            node,
            control,
            blocks,
            shards: commands,
            loads,
            next_shard: AtomicUsize::new(0),
            calls,
            hearing,
            draining: AtomicBool::new(false),
            stop,
        };
        Ok((Arc::new(edge), services))
    }

    /// Whether a path is one of every edge's.
    pub fn routes(path: &str) -> bool {
        router::route(path).is_some()
    }

    /// Whether a path is one of this edge's, configured ones included.
    pub fn serves(&self, path: &str) -> bool {
        Self::routes(path) || self.config.routes.has(path)
    }

    /// Answers a request for one of the edge's paths. Only the edge's own streams carry the CORS headers already.
    pub async fn handle(self: Arc<Self>, request: Request, peer: Peer) -> Reply {
        let path = request.uri().path();
        let configured = self.config.routes.at(path);
        let is_call = configured.as_ref().is_some_and(|routed| routed.call().is_some());
        let of_configured = configured.map(|routed| (Route::Events, routed.allow()));
        let Some((route, allow)) = router::route(path).or(of_configured) else {
            return Problem::no_such_path(path).into();
        };
        if request.method() == Method::OPTIONS {
            return options(allow).into();
        }
        if !router::allows(allow, request.method()) {
            return Problem::method_not_allowed(request.method(), allow).into();
        }
        match route {
            Route::Events if request.method() == Method::PATCH => self.patch(request).await.unwrap_or_else(Reply::from),
            Route::Events if is_call => self.call(request, peer).await.unwrap_or_else(Reply::from),
            Route::Events => self.open(request, peer, Wanted::Stream).await.unwrap_or_else(Reply::from),
            Route::Poll => self.open(request, peer, Wanted::Answer).await.unwrap_or_else(Reply::from),
            Route::History => {
                let answer = history::history(&request, &self.access, &self.blocks, &self.backbone).await;
                answer.map_or_else(Reply::from, Reply::from)
            }
        }
    }

    /// Whether new connections are welcome.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// How long its own markers have not come back to it, in the partition that is worst off. A second or two is
    /// usual; where Redis is away, it is as long as that has been.
    pub fn unheard_for(&self) -> Duration {
        self.hearing.silence()
    }

    /// Who is connected.
    pub fn registry(&self) -> &Registry {
        &self.places.registry
    }

    /// Connections that have come so far, and those that have gone.
    pub fn turnover(&self) -> u64 {
        let come = self.places.metrics.opened.get();
        let gone = come.saturating_sub(self.places.taken.load(Ordering::Relaxed) as u64);
        come + gone
    }

    /// What it holds just now; who its busiest users are only if that is asked for.
    pub fn stats(&self, with_users: bool) -> Stats {
        let registry = &self.places.registry;
        Stats {
            connections: self.places.taken.load(Ordering::Relaxed),
            connections_max: self.places.connections_max,
            channels: registry.channels(),
            users: registry.users(),
            namespaces: stats::largest(registry.namespaces()),
            shards: self.loads.iter().map(|load| load.stats()).collect(),
            busiest_users: with_users.then(|| stats::busiest(registry.all_users())),
        }
    }

    /// Turns unready: from here on new streams are told to come back later.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Lets all connections go, spread over a window, and waits until they have gone, or a little longer than that.
    pub async fn drain(&self, window: Duration) {
        self.begin_drain();
        let mut waits = Vec::new();
        for shard in &self.shards {
            let (done, wait) = oneshot::channel();
            if shard.send(Command::Drain(window, done)).await.is_ok() {
                waits.push(wait);
            }
        }
        let all = async {
            for wait in waits {
                _ = wait.await; // A shard that is gone has no connections either.
            }
        };
        if timeout(window + Duration::from_secs(6), all).await.is_err() {
            tracing::warn!("some connections did not go in time and are cut off");
        }
    }

    /// Stops the services. Whoever is still connected is cut off.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Opens a stream, or lets a poll wait for its answer.
    async fn open(self: Arc<Self>, request: Request, peer: Peer, wanted: Wanted) -> Result<Reply, Problem> {
        let method = request.method().clone();
        let asker = Asker::of(&request, wanted);
        let address = self.config.trusted_proxies.client(peer.address.ip(), request.headers());
        let subscription = Subscription::read(request, &self.access, &self.config).await?;
        if self.blocks.refuse(subscription.user.as_ref(), subscription.issued_at, SystemTime::now()) {
            return Ok(self.turn_away(&asker));
        }
        if method == Method::HEAD {
            let mut response = Response::new(full(""));
            *response.headers_mut() = match wanted {
                Wanted::Stream => asker.headers(),
                Wanted::Answer => asker.named(shard::answer_head().headers),
            };
            return Ok(response.into());
        }
        Ok(match self.admit(subscription.user.clone(), address) {
            Ok(admission) => self.begin(&asker, subscription, admission, wanted, None).await,
            Err((reason, detail)) => self.refuse(reason, detail, &asker),
        })
    }

    /// Opens the stream of a call, and begins the call.
    async fn call(self: Arc<Self>, request: Request, peer: Peer) -> Result<Reply, Problem> {
        let asker = Asker::of(&request, Wanted::Stream);
        let address = self.config.trusted_proxies.client(peer.address.ip(), request.headers());
        let (subscription, head) = calls::read_head(request, &self.access, &self.blocks, &self.cors, &self.config)?;
        // Before the body is read: who has no place here takes no memory either.
        let admission = match self.admit(subscription.user.clone(), address) {
            Ok(admission) => admission,
            Err((reason, detail)) => return Ok(self.refuse(reason, detail, &asker)),
        };
        let call = self.calls.read(head, &subscription).await?;
        Ok(self.begin(&asker, subscription, admission, Wanted::Stream, Some(call)).await)
    }

    /// Takes a place for a stream of this user, or says why there is none.
    fn admit(&self, user: Option<UserId>, address: IpAddr) -> Result<Admission, (CloseReason, &'static str)> {
        if !self.is_ready() {
            return Err((CloseReason::Draining, "this edge is shutting down"));
        }
        let admitted = self.places.admit(user, address);
        let (admission, instead_of) = admitted.map_err(|no_place| (CloseReason::Limit, no_place.detail()))?;
        if let Some(Whereabouts { shard, visit }) = instead_of {
            // Where a shard is too busy to listen, the user has one more for now.
            _ = self.shards[shard].try_send(Command::Close(visit, CloseReason::Replaced));
        }
        Ok(admission)
    }

    /// Hands a stream or a poll that has a place to a shard.
    async fn begin(
        &self,
        asker: &Asker,
        subscription: Subscription,
        admission: Admission,
        wanted: Wanted,
        call: Option<Call>,
    ) -> Reply {
        let shard = &self.shards[self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len()];
        let Ok(permit) = shard.clone().try_reserve_owned() else {
            return self.refuse(CloseReason::Overloaded, "this edge has too much to do just now", asker);
        };
        let call = call.map(|call| Box::new(self.calls.begin(call, shard.clone())));
        let Subscription { channels, issued_at, expires_at, types, naming, heartbeat, start, changes, .. } =
            subscription;
        let (framing, request_id) = (asker.framing(), asker.request_id());
        let style = Style::new(framing, naming, request_id).with(heartbeat, types);
        let lease = Lease::new(issued_at, expires_at);
        let hello = Hello { channels: channels.into() };
        let poll = Poll::new(&start);
        let begin = move |wire, opening| {
            let adoption = Adoption { wire, opening, style, lease, admission, hello, start, changes, call };
            permit.send(Command::Adopt(Box::new(adoption)));
        };
        match wanted {
            Wanted::Stream => {
                let first = head::first_line(retry_pause(CloseReason::ClientLeft));
                self.stream(asker, first, |wire, head| begin(wire, Opening::Stream(head)))
            }
            Wanted::Answer => self.answer(asker, poll, |wire, polled| begin(wire, Opening::Poll(polled))).await,
        }
    }
}

/// After what pause a client is to come back: soon where this was nobody's fault, later where there are too many.
fn retry_pause(reason: CloseReason) -> Duration {
    let seconds = match reason {
        CloseReason::ClientLeft
        | CloseReason::TooSlow
        | CloseReason::TokenExpired
        | CloseReason::Disconnected
        | CloseReason::Idle
        | CloseReason::MaxAge
        | CloseReason::Answered
        | CloseReason::CallFailed
        | CloseReason::Draining => 1..=3,
        CloseReason::Replaced | CloseReason::Limit | CloseReason::Overloaded | CloseReason::Unavailable => 15..=60,
    };
    jittered(&(Duration::from_secs(*seconds.start())..=Duration::from_secs(*seconds.end())))
}

/// The time, as positions count it.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// 128 random bits, which nobody guesses.
fn random_secret() -> u128 {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the kernel has random bits");
    u128::from_ne_bytes(bits)
}

/// Descriptors that this process may have.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}
