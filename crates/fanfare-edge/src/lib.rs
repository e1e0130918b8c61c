//! An edge: it holds connections, hears the backbone, and writes each event to everyone who follows its channel.
//!
//! Who owns what: a *feed* for each partition reads the backbone; *shards* own the connections and write to their
//! sockets; what a connection gets is decided by the pure machine inside its shard. The HTTP server parses the
//! request and lets go of the socket; from there on no task, no wake-up and no buffer belongs to a connection.

mod admission; // Its place on this edge.
mod close; // Why connections end.
mod config;
mod feed; // From backbone to stream.
mod head; // The response's head.
mod metrics;
mod registry; // Who is connected.
mod router; // Every path.
mod routes; // Paths of an application's own.
mod shard; // Connections and their sockets.
mod stream; // From feed to shard.
mod subscription; // What a subscriber asks for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_auth::Access;
use fanfare_backbone::Backbone;
use fanfare_http::{Code, Cors, Peer, Pipe, Problem, REQUEST_ID, Reply, Request, TakeOver, full, options, request_id};
use fanfare_protocol::sse::{self, Framing};
use fanfare_protocol::{Machine, MachineLimits, SHARDS_MAX};
use http::header::{ACCEPT, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Response, Version};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use admission::Places;
pub use close::CloseReason;
pub use config::{AddressLimit, AtUserLimit, EdgeConfig};
use feed::{FeedDriver, ShardPort};
use metrics::EdgeMetrics;
pub use registry::Registry;
pub use routes::{HeartbeatConfig, RouteConfig, RouteMistake, Routes};
use shard::{Adoption, Command, FeedPort, Hello, Shard, ShardParts, Style, Whereabouts, Wire};
use stream::Stream;
use subscription::Subscription;

/// Commands that may wait for a shard. Past it a new connection is dropped, and its client comes back.
const COMMANDS_MAX: usize = 4_096;

/// Descriptors that are left for everything but connections.
const DESCRIPTORS_RESERVED: u64 = 256;

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
    }
}

/// A part of the edge that must outlive every connection: a feed or a shard. Whoever starts the edge runs it; if it
/// ends early, the process should drain.
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
    config: Arc<EdgeConfig>,
    access: Access,
    cors: Arc<Cors>,
    places: Arc<Places>,
    shards: Vec<mpsc::Sender<Command>>,
    next_shard: AtomicUsize,
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
        let shards = config.shards.unwrap_or(cores).clamp(1, SHARDS_MAX);
        let connections = Arc::new(Registry::default());
        let bells: Vec<_> = partitions.all().map(|_| Arc::new(Notify::new())).collect();
        let mut services = Vec::new();
        let mut ports: Vec<Vec<ShardPort>> = bells.iter().map(|_| Vec::new()).collect();
        let mut commands = Vec::new();
        for index in 0..shards {
            let bell = Arc::new(Notify::new());
            let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
            commands.push(sender);
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
            let shard = Shard::new(ShardParts {
                index,
                config: config.clone(),
                machine: Machine::new(partitions, limits(&config), wishes),
                feeds,
                bell,
                commands: receiver,
                registry: connections.clone(),
                metrics: metrics.clone(),
            });
            let shard = shard.map_err(StartError::Sockets)?;
            let future = Box::pin(shard.run(stop.clone()));
            services.push(Service { name: format!("shard {index}"), future });
        }
        for ((partition, shards), bell) in partitions.all().zip(ports).zip(bells) {
            let driver = FeedDriver { partition, backbone: backbone.clone(), shards, bell, metrics: metrics.clone() };
            let future = Box::pin(driver.run(stop.clone()));
            services.push(Service { name: format!("feed {partition}"), future });
        }
        let connections_max = config.connections_max.unwrap_or_else(connections_by_file_limit);
        metrics.connections_limit.set(i64::try_from(connections_max).unwrap_or(i64::MAX));
        let places = Places {
            registry: connections,
            metrics,
            connections_max,
            connections_per_user_max: config.connections_per_user_max,
            at_user_limit: config.at_user_limit,
            connections_per_address_max: config.address_max(),
            taken: AtomicUsize::new(0),
        };
        let edge = Self {
            config,
            access,
            cors,
            places: Arc::new(places),
            shards: commands,
            next_shard: AtomicUsize::new(0),
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
        let configured = || Some((router::Route::Events, self.config.routes.at(path)?.allow()));
        let Some((route, allow)) = router::route(path).or_else(configured) else {
            return Problem::no_such_path(path).into();
        };
        if request.method() == Method::OPTIONS {
            return options(allow).into();
        }
        if !router::allows(allow, request.method()) {
            return Problem::method_not_allowed(request.method(), allow).into();
        }
        match route {
            router::Route::Events => self.open(request, peer).await.unwrap_or_else(Reply::from),
        }
    }

    /// Whether new connections are welcome.
    pub fn is_ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }

    /// Who is connected.
    pub fn registry(&self) -> &Registry {
        &self.places.registry
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

    /// Opens a stream.
    async fn open(self: Arc<Self>, request: Request, peer: Peer) -> Result<Reply, Problem> {
        let method = request.method().clone();
        let origin = request.headers().get(ORIGIN).cloned();
        let address = self.config.trusted_proxies.client(peer.address.ip(), request.headers());
        let id = request_id(request.headers());
        let from_event_source = method == Method::GET && is_event_source(request.headers());
        let version = request.version();
        let framing = match version {
            Version::HTTP_11 => Framing::Chunked,
            _ => Framing::Identity, // HTTP/1.0 knows nothing else, and HTTP/2 frames what it carries by itself.
        };
        let subscription = Subscription::read(request, &self.access, &self.config).await?;
        let mut headers = head::headers();
        let request_id = String::from_utf8_lossy(id.as_bytes()).into();
        headers.insert(REQUEST_ID, id);
        if method == Method::HEAD {
            let mut response = Response::new(full(""));
            *response.headers_mut() = headers;
            return Ok(response.into());
        }
        if !self.is_ready() {
            return Ok(self.refuse(CloseReason::Draining, "this edge is shutting down", headers, from_event_source));
        }
        let (admission, instead_of) = match self.places.admit(subscription.user.clone(), address) {
            Ok(admitted) => admitted,
            Err(no_place) => {
                return Ok(self.refuse(CloseReason::Limit, no_place.detail(), headers, from_event_source));
            }
        };
        if let Some(Whereabouts { shard, visit }) = instead_of {
            // Where a shard is too busy to listen, the user has one more for now.
            _ = self.shards[shard].try_send(Command::Close(visit, CloseReason::Replaced));
        }
        self.cors.decorate(origin.as_ref(), &mut headers);
        let Subscription { channels, expires_at, types, naming, heartbeat, start, changes, .. } = subscription;
        let style = Style { framing, naming, heartbeat, types: types.into(), request_id, expires_at };
        let hello = Hello { client_id: client_id(), channels: channels.into() };
        let shard = self.next_shard.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let retry = retry_pause(CloseReason::ClientLeft);
        if version == Version::HTTP_2 {
            let (pipe, body) = Pipe::new();
            let (wire, head) = (Wire::Body(pipe), head::first_line(retry));
            let adoption = Adoption { wire, head, style, admission, hello, start, changes };
            if self.shards[shard].try_send(Command::Adopt(Box::new(adoption))).is_err() {
                let detail = "this edge has more to do than it can";
                return Ok(self.refuse(CloseReason::Overloaded, detail, headers, from_event_source));
            }
            let mut response = Response::new(body);
            *response.headers_mut() = headers;
            return Ok(response.into());
        }
        let head = head::head(&headers, framing, retry);
        Ok(Reply::TakeOver(TakeOver::new(move |taken| {
            // What was read ahead is another request: it can't be answered on this connection any more.
            let Ok(socket) = taken.stream.into_std() else { return };
            let wire = Wire::socket(socket, self.config.send_buffer_bytes);
            let adoption = Adoption { wire, head, style, admission, hello, start, changes };
            if self.shards[shard].try_send(Command::Adopt(Box::new(adoption))).is_err() {
                self.places.metrics.refused(CloseReason::Overloaded);
            }
        })))
    }

    /// Refuses a stream in the form that its client survives: an EventSource gives up for good on any status but 200.
    fn refuse(
        &self,
        reason: CloseReason,
        detail: &'static str,
        headers: HeaderMap<HeaderValue>,
        from_event_source: bool,
    ) -> Reply {
        self.places.metrics.refused(reason);
        let pause = retry_pause(reason);
        if !from_event_source {
            let code = if reason == CloseReason::Limit { Code::RateLimitExceeded } else { Code::Overloaded };
            return Problem::new(code, detail).retry_after(pause).into();
        }
        let data = format!(r#"{{"reason":"{}"}}"#, reason.as_str());
        let goodbye = sse::control("closing", &data, None, Some(pause), Framing::Identity);
        let mut response = Response::new(full(goodbye));
        *response.headers_mut() = headers;
        response.into()
    }
}

/// A browser's EventSource asks for exactly this.
fn is_event_source(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept == "text/event-stream")
}

/// After what pause a client is to come back: soon where this was nobody's fault, later where there are too many.
fn retry_pause(reason: CloseReason) -> Duration {
    let millis = match reason {
        CloseReason::ClientLeft
        | CloseReason::TooSlow
        | CloseReason::TokenExpired
        | CloseReason::Idle
        | CloseReason::MaxAge
        | CloseReason::Draining => 1_000..=3_000,
        CloseReason::Replaced | CloseReason::Limit | CloseReason::Overloaded | CloseReason::Unavailable => {
            15_000..=60_000
        }
    };
    Duration::from_millis(fastrand::u64(millis))
}

/// 128 random bits: whoever knows it may change the connection, so it is never logged.
fn client_id() -> String {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).expect("the kernel has random bits");
    format!("{:032x}", u128::from_ne_bytes(bits))
}

/// The time, as positions count it.
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn connections_by_file_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let left = limit.map_or(u64::MAX, |limit| limit.saturating_sub(DESCRIPTORS_RESERVED));
    usize::try_from(left).unwrap_or(usize::MAX)
}
