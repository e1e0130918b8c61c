//! Publishes to one partition: takes whatever waits and hands it to Redis in one script call, one call after another.
//!
//! One call under way is what keeps the order of events that one caller hands in: with two, the second could succeed
//! where the first has to be repeated. Under load it costs nothing, since what comes meanwhile shares the next call.

use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::{Draft, Epoch, Partition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::RedisError;
use super::config::Server;
use super::error::is_no_script;
use super::resp::{self, Item};
use super::scripts::{Answer, Call, Scripts};
use super::wire::{ANSWER_TIMEOUT, REPLICA_TIMEOUT, Wire};
use crate::{BackboneError, PublishError, Receipt};

/// A publish is answered within this time, if only with "outcome unknown".
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Jobs and bytes that may wait for one partition. Where either is full a publish is refused at once: its caller is
/// told to come back, and memory stays bounded while Redis is slow.
const JOBS_MAX: usize = 16 * 1024;
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Drafts and bytes of one script call, so that Redis is never busy with one for more than some milliseconds.
const CALL_DRAFTS_MAX: usize = 256;
const CALL_BYTES_MAX: usize = 1024 * 1024;

/// A connection that was idle for so long is tried with a PING before it is used again …
const IDLE_MAX: Duration = Duration::from_secs(1);
/// … which is answered at once, or another one is opened while there is still time for the call.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// What a draft was answered with.
pub(crate) type Outcome = Result<Receipt, PublishError>;

/// Drafts of one caller, in order.
struct Job {
    drafts: Vec<Draft>,
    deadline: Instant,
    answer: oneshot::Sender<Vec<Outcome>>,
    _room: OwnedSemaphorePermit,
}

/// Where drafts of one partition are handed in.
#[derive(Debug)]
pub(crate) struct Counter {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

/// Where they are answered.
pub(crate) struct Answers(Result<oneshot::Receiver<Vec<Outcome>>, BackboneError>, usize);

impl Counter {
    /// A partition's counter, and the work that has to run behind it.
    pub(crate) fn open(
        partition: Partition,
        scripts: Arc<Scripts>,
        server: Server,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let publisher = Publisher { partition, scripts, server, held: None };
        (Self { jobs, room: Arc::new(Semaphore::new(BYTES_MAX)) }, publisher.work(queue))
    }

    /// Hands drafts in.
    pub(crate) fn hand_in(&self, drafts: Vec<Draft>, deadline: Instant) -> Answers {
        let count = drafts.len();
        let bytes: usize = drafts.iter().map(bytes).sum();
        let room = u32::try_from(bytes).ok().and_then(|bytes| self.room.clone().try_acquire_many_owned(bytes).ok());
        let Some(room) = room else { return Answers(Err(BackboneError::Busy), count) };
        let (answer, answers) = oneshot::channel();
        match self.jobs.try_send(Job { drafts, deadline, answer, _room: room }) {
            Ok(()) => Answers(Ok(answers), count),
            Err(_) => Answers(Err(BackboneError::Busy), count),
        }
    }
}

impl Answers {
    /// Waits for the answers, until the deadline.
    pub(crate) async fn wait(self, deadline: Instant) -> Vec<Outcome> {
        let Self(answers, count) = self;
        let failure = match answers {
            Ok(answers) => match timeout_at(deadline, answers).await {
                Ok(Ok(outcomes)) => return outcomes,
                Ok(Err(_)) | Err(_) => BackboneError::Redis(RedisError::TimedOut),
            },
            Err(failure) => failure,
        };
        all_failed(&failure, count)
    }
}

struct Publisher {
    partition: Partition,
    scripts: Arc<Scripts>,
    server: Server,
    /// A connection of our own, held over many calls, and when it was last used.
    held: Option<(Wire, Instant)>,
}

impl Publisher {
    async fn work(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::new();
        while queue.recv_many(&mut jobs, CALL_DRAFTS_MAX).await > 0 {
            let now = Instant::now();
            // Nobody waits for these any more: what isn't sent can't surprise anyone.
            jobs.retain(|job| job.deadline > now && !job.answer.is_closed());
            let mut outcomes = self.publish(&jobs).await.into_iter();
            for job in jobs.drain(..) {
                let own = outcomes.by_ref().take(job.drafts.len()).collect();
                _ = job.answer.send(own);
            }
        }
    }

    /// Publishes in as many calls as it takes. After one that fails, the rest isn't tried: it would overtake.
    async fn publish(&mut self, jobs: &[Job]) -> Vec<Outcome> {
        let drafts: Vec<&Draft> = jobs.iter().flat_map(|job| &job.drafts).collect();
        let mut outcomes = Vec::with_capacity(drafts.len());
        while outcomes.len() < drafts.len() {
            let rest = &drafts[outcomes.len()..];
            let batch = &rest[..call_len(rest)];
            match self.call(batch).await {
                Ok(answers) if answers.len() == batch.len() => {
                    outcomes.extend(answers.into_iter().map(|answer| self.outcome(answer)));
                }
                Ok(_) => {
                    let failure = RedisError::Unexpected("not as many answers as events".to_owned());
                    outcomes.extend(all_failed(&failure.into(), rest.len()));
                }
                Err(failure) => outcomes.extend(all_failed(&failure.into(), rest.len())),
            }
        }
        outcomes
    }

    /// Publishes drafts in one call. After a failure the connection is gone: its late answer is nobody's.
    async fn call(&mut self, drafts: &[&Draft]) -> Result<Vec<Answer>, RedisError> {
        let drafts = drafts.iter().map(|draft| (*draft, self.scripts.keep(&draft.channel)));
        let call = self.scripts.publish(Epoch::from_random(fastrand::u64(..)), drafts);
        let called = timeout(ANSWER_TIMEOUT, async {
            let mut wire = self.connection().await?;
            let answers = self.run(&mut wire, &call).await?;
            Ok((wire, answers))
        });
        let (mut wire, answers) = called.await.unwrap_or(Err(RedisError::TimedOut))?;
        let wanted = self.server.min_replicas;
        let have = if wanted == 0 { 0 } else { wait_for_replicas(&mut wire, wanted).await? };
        self.held = Some((wire, Instant::now()));
        if have < wanted { Err(RedisError::Replicas { have, wanted }) } else { Ok(answers) }
    }

    /// A connection that answers.
    async fn connection(&mut self) -> Result<Wire, RedisError> {
        if let Some((mut wire, used)) = self.held.take()
            && (used.elapsed() < IDLE_MAX || matches!(timeout(PING_TIMEOUT, wire.ask(&[b"PING"])).await, Ok(Ok(_))))
        {
            return Ok(wire);
        }
        Wire::open(&self.server).await
    }

    /// Runs the script, loading it where it isn't known.
    async fn run(&self, wire: &mut Wire, call: &Call) -> Result<Vec<Answer>, RedisError> {
        let mut bytes = Vec::new();
        call.write(&mut bytes);
        loop {
            wire.send(&bytes).await?;
            let answers = wire.read(|reply| match reply.error() {
                Some(text) if is_no_script(&text) => Ok(None),
                Some(text) => Err(self.scripts.error(&text)),
                None => self.scripts.published(reply.words()).map(|(_, answers)| Some(answers)),
            });
            if let Some(answers) = answers.await?? {
                return Ok(answers);
            }
            let mut load = Vec::new();
            call.script.write_load(&mut load);
            wire.send(&load).await?;
            wire.answer().await?;
        }
    }

    fn outcome(&self, answer: Answer) -> Outcome {
        let receipt = |point, repeated| Ok(Receipt { partition: self.partition, point, repeated });
        match answer {
            Answer::Now(point) => receipt(point, false),
            Answer::Before(point) => receipt(point, true),
            Answer::Mismatch => Err(PublishError::Mismatch),
            Answer::Refused(error) => Err(PublishError::Unavailable(error.into())),
        }
    }
}

/// Waits until so many replicas have whatever was written before on this connection, or was there already: Redis notes
/// after each command how far its history is. So it also counts for an event that was published before: its repeated
/// publish is answered with what the first one was. Says how many have it.
async fn wait_for_replicas(wire: &mut Wire, wanted: u16) -> Result<u16, RedisError> {
    let (wanted, within) = (wanted.to_string(), REPLICA_TIMEOUT.as_millis().to_string());
    let mut bytes = Vec::new();
    resp::command(&mut bytes, &[b"WAIT", wanted.as_bytes(), within.as_bytes()]);
    let have = timeout(REPLICA_TIMEOUT * 2, async {
        wire.send(&bytes).await?;
        wire.read(|reply| match (reply.items(), reply.error()) {
            ([Item::Integer(have)], _) => Ok(u16::try_from(*have).unwrap_or(u16::MAX)),
            (_, Some(text)) => Err(RedisError::of(&text, 0)),
            _ => Err(RedisError::Unexpected("no number of replicas".to_owned())),
        })
        .await?
    });
    have.await.unwrap_or(Err(RedisError::TimedOut))
}

/// How many of these go into one call; at least one.
fn call_len(drafts: &[&Draft]) -> usize {
    let mut total = 0;
    let fit = drafts.iter().take(CALL_DRAFTS_MAX).take_while(|draft| {
        total += bytes(draft);
        total <= CALL_BYTES_MAX
    });
    fit.count().max(1)
}

/// What a draft costs while it waits, roughly.
fn bytes(draft: &Draft) -> usize {
    size_of::<Draft>() + draft.channel.as_str().len() + draft.content.data.len()
}

fn all_failed(failure: &BackboneError, count: usize) -> Vec<Outcome> {
    (0..count).map(|_| Err(PublishError::Unavailable(failure.clone()))).collect()
}
