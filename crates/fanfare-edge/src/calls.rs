//! Calls: a request whose body goes to a backend, and whose answer is a stream of what the backend publishes for it.
//!
//! The stream is an ordinary one, on a channel of its own that nobody can guess (see `shard::call` for how it ends).
//! The backend is asked only once that stream has joined: what it publishes at once would else be missed. All of a
//! call that is not its stream is one task here; it ends with the stream, and takes the backend's request with it.

mod backend; // One request to it.
mod ending; // What a stream says last.
mod target; // Where it is, as a route has it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use fanfare_auth::{Access, Admitted, AuthError, Source};
use fanfare_http::{Code, Cors, Incoming, Problem, Query, Request, accept_uncompressed, read_body};
use fanfare_protocol::Channel;
use http::HeaderMap;
use http::header::ORIGIN;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::blocks::Blocks;
use crate::close::CloseReason;
use crate::config::EdgeConfig;
use crate::shard::{CallStream, Command, Visit};
use crate::subscription::Subscription;
use backend::{Answer, Outgoing};
pub(crate) use ending::Ending;
pub(crate) use target::Target;

/// Bytes of a call's body at most: what a batch of events may have, too.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of all bodies that have not gone to their backends yet, in units of 1 KiB. Past it a call is answered with 503.
const BODIES_KIB_MAX: usize = 64 * 1024;

/// How long a backend may take to end its request when its events have ended the call already.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// The calls of an edge.
#[derive(Debug)]
pub(crate) struct Calls {
    places: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    queue: mpsc::Sender<Begun>,
}

/// A request for a call, from somebody who may make it. Its body is still to come.
#[derive(Debug)]
pub(crate) struct Wanted {
    target: Arc<Target>,
    headers: HeaderMap,
    body: Incoming,
}

/// A call that can be made.
#[derive(Debug)]
pub(crate) struct Call {
    target: Arc<Target>,
    request: Outgoing,
    /// Given back when the call is over.
    place: OwnedSemaphorePermit,
}

/// A call whose stream is being opened.
#[derive(Debug)]
struct Begun {
    call: Call,
    /// The shard that its stream belongs to.
    shard: mpsc::Sender<Command>,
    /// Tells where in the shard, once it has joined.
    joined: oneshot::Receiver<Visit>,
    /// Tells why the stream has ended; without a word the caller has left.
    ended: oneshot::Receiver<CloseReason>,
}

/// A body, and its share of what all of them may take. Both go when the last of its bytes is sent.
struct Body {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Calls {
    /// Room for so many, and the service that runs them until it is told to stop. Past it a call is answered with 503.
    pub(crate) fn new(calls_max: usize, stop: CancellationToken) -> (Self, impl Future<Output = ()> + Send) {
        // Whoever has a place has one in the queue.
        let (sender, queue) = mpsc::channel(calls_max.max(1));
        let places = Arc::new(Semaphore::new(calls_max));
        let calls = Self { places, bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)), queue: sender };
        (calls, run(queue, stop))
    }

    /// Makes a call of a request, whose stream has a place already.
    ///
    /// # Errors
    /// Says what is wrong with the body, or that there is no room for more calls.
    pub(crate) async fn read(&self, wanted: Wanted, stream: &Subscription) -> Result<Call, Problem> {
        let Wanted { target, headers, body } = wanted;
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Problem::new(Code::Overloaded, "this edge has as many calls as it can"))?;
        let body = self.body(body).await?;
        let request = Outgoing::new(&headers, &stream.channels[0], stream.user.as_ref(), body);
        Ok(Call { target, request, place })
    }

    /// Reads a call's body.
    ///
    /// # Errors
    /// 413 where it is too large, 503 where too many others wait for their backends, 408 and 400 where it doesn't come.
    async fn body(&self, body: Incoming) -> Result<Bytes, Problem> {
        let bytes_max =
            body.size_hint().exact().map_or(BODY_BYTES_MAX, |exact| exact.min(BODY_BYTES_MAX as u64) as usize);
        let share = u32::try_from(bytes_max.div_ceil(1024)).unwrap_or(u32::MAX);
        let Ok(share) = self.bodies.clone().try_acquire_many_owned(share) else {
            return Err(Problem::new(Code::Overloaded, "too many calls wait for their backends"));
        };
        let bytes = read_body(body, BODY_BYTES_MAX).await?;
        Ok(Bytes::from_owner(Body { bytes, _share: share }))
    }

    /// Begins a call, whose stream this shard is about to adopt. Dropped, the stream takes the call with it.
    pub(crate) fn begin(&self, call: Call, shard: mpsc::Sender<Command>) -> CallStream {
        let (has_joined, joined) = oneshot::channel();
        let (has_ended, ended) = oneshot::channel();
        let stream = CallStream::new(call.target.clone(), has_joined, has_ended);
        // It has a place, so only a queue that is closed refuses it: then the stream is cut off, too.
        _ = self.queue.try_send(Begun { call, shard, joined, ended });
        stream
    }
}

/// Reads a request for a call, but for its body: the stream that it asks for, and where the call goes.
///
/// # Errors
/// Says what is wrong with it, or that its sender may not make it.
pub(crate) fn read_head(
    request: Request,
    access: &Access,
    blocks: &Blocks,
    cors: &Cors,
    config: &EdgeConfig,
) -> Result<(Subscription, Wanted), Problem> {
    let (parts, body) = request.into_parts();
    let routed = config.routes.at(parts.uri.path());
    let Some((routed, target)) = routed.as_ref().and_then(|routed| Some((routed, routed.call()?))) else {
        return Err(Problem::no_such_path(parts.uri.path()));
    };
    let query = Query::parse(parts.uri.query())?;
    let now = SystemTime::now();
    let admitted = access.authorise(&parts.headers, &query, now)?;
    blocks.check(&admitted.subscriber, now)?;
    check_caller(&admitted, &parts.headers, access, cors)?;
    // The backend would get it without being told how to read it.
    accept_uncompressed(&parts.headers)?;
    let stream = Subscription::of_call(&admitted.subscriber, &query, routed.defaults(), one_off_channel())?;
    Ok((stream, Wanted { target: target.clone(), headers: parts.headers, body }))
}

/// Whether this caller may make calls.
fn check_caller(admitted: &Admitted, headers: &HeaderMap, access: &Access, cors: &Cors) -> Result<(), Problem> {
    match (access, &admitted.source) {
        // What is open to everyone is channels, not work.
        (Access::Tokens(rules), None) => {
            Err(AuthError::Missing { cookie: rules.cookie.clone(), named_user: false }.into())
        }
        // A browser sends a cookie from any page, and a page need not be allowed to read what it has caused.
        (_, Some(Source::Cookie(_))) if !headers.get(ORIGIN).is_some_and(|origin| cors.allows(origin)) => {
            Err(Problem::new(Code::Forbidden, "with a cookie, a call must come from a page of an allowed origin")
                .hint("FANFARE_CORS_ORIGINS lists them; other clients send Authorization: Bearer …"))
        }
        _ => Ok(()),
    }
}

/// A channel for one call, which nobody guesses.
fn one_off_channel() -> Channel {
    Channel::parse(&format!("$call:{:032x}", crate::random_secret())).expect("hex digits make a channel")
}

/// Runs calls until it is told to stop; those that still run are cut off then.
async fn run(mut queue: mpsc::Receiver<Begun>, stop: CancellationToken) {
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(call) = queue.recv() => drop(calls.spawn(call.run())),
            Some(ended) = calls.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a call has ended that should not have");
                }
            }
        }
    }
}

impl Begun {
    /// Asks the backend once the stream has joined, and tells the stream how it ends, if nothing else has ended it.
    async fn run(self) {
        let Self { call: Call { target, request, place: _place }, shard, joined, mut ended } = self;
        let Ok(stream) = joined.await else { return }; // It left before, or could not join.
        let deadline = Instant::now() + target.timeout;
        let mut asking = std::pin::pin!(backend::ask(&target, request));
        let answer = tokio::select! {
            answer = timeout_at(deadline, &mut asking) => answer,
            reason = &mut ended => {
                if reason == Ok(CloseReason::Answered) {
                    // The backend has published the end and is about to answer: it did nothing wrong.
                    _ = timeout(AFTERWARDS, asking).await;
                }
                return;
            }
        };
        let ending = match answer {
            Ok(Answer::Final(ending)) => ending,
            Ok(Answer::Accepted) => tokio::select! {
                () = sleep_until(deadline) => Ending::timeout(target.timeout),
                _ = ended => return,
            },
            Err(_) => Ending::timeout(target.timeout),
        };
        // Where the shard is gone, so is the stream.
        _ = shard.send(Command::Finish(stream, ending)).await;
    }
}
