//! The scripts, held against the pure store: the same random operations on both, compared one by one.
//!
//! The server's clock decides: each script answers with the time that it took, and the store is then asked with the
//! same. Keys expire by the millisecond in Redis and by the microsecond in the store, so an operation that falls right
//! onto the end of what it needs starts both anew.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::{
    ByNamespace, Caller, Channel, Content, Draft, Epoch, Event, EventType, Idempotency, Identity, Keep, Key, Message,
    PageLimit, Partitions, Position, Published, Retention, Store, decode_message,
};
use fastrand::Rng;
use futures_util::StreamExt as _;
use redis::Value;
use redis::aio::MultiplexedConnection;
use support::{FLAVOURS, Flavour, PATIENCE, Server};

use super::pool::words;
use super::scripts::{Answer, Call, SCRIPTS, Scripts, epoch, position};

/// As publishers of different minds would have it.
const KEEPS: [Keep; 4] = [
    Keep { events_max: 12, age: Some(Duration::from_millis(150)) },
    Keep { events_max: 3, age: None },
    Keep { events_max: 5, age: Some(Duration::from_millis(60)) },
    Keep { events_max: 30, age: None },
];

const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(KEEPS[0]),
    forget_age: Duration::from_millis(300),
    idempotency_window: Duration::from_millis(100),
};

/// Operations per server.
const OPERATIONS: usize = 6_000;

/// From the first operation on, something happens to the server once in so many.
const TROUBLE_EVERY: usize = 250;

/// Two clocks in one machine, and a millisecond that isn't over.
const BLUR: u64 = 3_000;

struct Both {
    server: Server,
    connection: MultiplexedConnection,
    heard: redis::aio::PubSub,
    scripts: Arc<Scripts>,
    identity: Identity,
    store: Store,
    rng: Rng,
    channels: Vec<Channel>,
    /// When keys end: of channels' histories, of idempotency keys.
    history_ends: HashMap<Channel, u64>,
    remembered_ends: HashMap<[u8; 16], u64>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    published: usize,
    repeated: usize,
    mismatched: usize,
    inexact: usize,
    epochs: usize,
    read: usize,
    paged: usize,
    forgotten: usize,
    blurred: usize,
    wiped: usize,
    purged: usize,
    /// Channels that are known only because they are never forgotten.
    kept: usize,
}

impl Both {
    async fn start(flavour: Flavour, seed: u64) -> Option<Self> {
        let server = Server::start(flavour).await?;
        let connection = server.connection().await;
        let heard = redis::Client::open(server.url()).expect("a URL").get_async_pubsub().await.expect("connects");
        let scripts = Scripts::new("random", 0, Partitions::ONE, RETENTION);
        let channels = (0..24).map(|n| Channel::parse(&format!("c:{n}")).expect("valid")).collect();
        let identity = Identity { replication: 0, run: 0, first_history: true };
        let mut both = Self {
            server,
            connection,
            heard,
            scripts,
            identity,
            store: Store::new(RETENTION),
            rng: Rng::with_seed(seed),
            channels,
            history_ends: HashMap::new(),
            remembered_ends: HashMap::new(),
            counts: Counts::default(),
        };
        both.connect().await;
        Some(both)
    }

    /// Connects again and learns who the server says it is.
    async fn connect(&mut self) {
        self.connection = self.server.connection().await;
        let client = redis::Client::open(self.server.url()).expect("a URL");
        self.heard = client.get_async_pubsub().await.expect("connects");
        self.heard.psubscribe("random:{0}:c:*").await.expect("subscribes");
        for script in SCRIPTS {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.text).query_async::<Value>(&mut self.connection).await.expect("loads");
        }
        self.identify().await;
    }

    async fn identify(&mut self) {
        let info: String = redis::cmd("INFO").query_async(&mut self.connection).await.expect("tells");
        let field = |name: &str| {
            let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            found.expect("Redis tells it").trim().to_owned()
        };
        let hashed = |text: String| {
            let mut hasher = DefaultHasher::new();
            text.hash(&mut hasher);
            hasher.finish()
        };
        let first_history = field("master_replid2").bytes().all(|byte| byte == b'0');
        let (replication, run) = (hashed(field("master_replid")), hashed(field("run_id")));
        self.identity = Identity { replication, run, first_history };
    }

    async fn run(&mut self, call: &Call) -> Value {
        call.cmd().query_async(&mut self.connection).await.expect("the script runs")
    }

    fn new_epoch(&mut self) -> Epoch {
        Epoch::from_random(self.rng.u64(..))
    }

    fn caller(&self, now: Position, new_epoch: Epoch) -> Caller {
        Caller { now, identity: self.identity, new_epoch }
    }

    fn channel(&mut self) -> Channel {
        let index = self.rng.usize(..self.channels.len());
        // A few are busy, most are rare, so that some are forgotten.
        let index = if self.rng.u8(..4) > 0 { index % 5 } else { index };
        self.channels[index].clone()
    }

    fn draft(&mut self) -> Draft {
        let channel = self.channel();
        let name = (self.rng.u8(..4) == 0).then(|| EventType::parse("metrics:cpu größe").expect("valid"));
        let key = (self.rng.u8(..4) == 0).then(|| Key::parse("cpu 0").expect("valid"));
        let ttl = std::num::NonZeroU32::new(self.rng.u32(..3));
        let length = self.rng.usize(..60);
        let data: String = (0..length).map(|_| ['a', ' ', '\n', '\0', 'ß'][self.rng.usize(..5)]).collect();
        let content = Content { name, key, ttl, data: data.into() };
        let idempotency = (self.rng.u8(..3) == 0).then(|| {
            let digest = [self.rng.u8(..40); 16];
            Idempotency { digest, body: [digest[0] ^ u8::from(self.rng.u8(..5) == 0); 16] }
        });
        Draft { channel, content, idempotency }
    }

    /// Most are always kept the same way, until someone sets it otherwise.
    fn keep(&mut self, channel: &Channel) -> Keep {
        let own = self.channels.iter().position(|other| other == channel).unwrap_or_default();
        let index = if self.rng.u8(..8) == 0 { self.rng.usize(..) } else { own };
        KEEPS[index % KEEPS.len()]
    }

    fn blurred(&self, end: Option<&u64>, now: Position) -> bool {
        end.is_some_and(|end| now.0.abs_diff(*end) < BLUR)
    }

    /// The server's clock.
    async fn time(&mut self) -> Position {
        let time: (u64, u64) = redis::cmd("TIME").query_async(&mut self.connection).await.expect("tells");
        Position(time.0 * 1_000_000 + time.1)
    }

    async fn start_anew(&mut self) {
        let _: Value = redis::cmd("FLUSHALL").query_async(&mut self.connection).await.expect("flushes");
        self.store = Store::new(RETENTION);
        self.history_ends.clear();
        self.remembered_ends.clear();
    }

    async fn publish(&mut self) {
        let count = if self.rng.u8(..3) == 0 { self.rng.usize(1..9) } else { 1 };
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft()).collect();
        let drafts: Vec<_> = drafts.into_iter().map(|draft| (self.keep(&draft.channel), draft)).collect();
        let new_epoch = self.new_epoch();
        let value = self.run(&self.scripts.publish(new_epoch, drafts.iter().map(|(keep, draft)| (draft, *keep)))).await;
        let (now, answers) = self.scripts.published(words(&value)).expect("answers");
        let mut events = Vec::new();
        let mut blurred = false;
        for ((keep, draft), answer) in drafts.into_iter().zip(answers) {
            let remembered = draft.idempotency.map(|once| once.digest);
            blurred |= remembered.is_some_and(|digest| self.blurred(self.remembered_ends.get(&digest), now));
            blurred |= self.blurred(self.history_ends.get(&draft.channel), now);
            if blurred {
                break;
            }
            let expected = match self.store.publish(self.caller(now, new_epoch), draft.clone(), keep) {
                Published::Now(point, event) => {
                    self.counts.published += 1;
                    self.counts.inexact += usize::from(!event.prev.exact);
                    events.push((point.epoch, event));
                    match keep.age {
                        Some(age) => _ = self.history_ends.insert(draft.channel, now.0 + age.as_micros() as u64),
                        None => _ = self.history_ends.remove(&draft.channel),
                    }
                    if let Some(digest) = remembered {
                        let end = now.0 + RETENTION.idempotency_window.as_micros() as u64;
                        self.remembered_ends.insert(digest, end);
                    }
                    Answer::Now(point)
                }
                Published::Before(point) => {
                    self.counts.repeated += 1;
                    Answer::Before(point)
                }
                Published::Mismatch => {
                    self.counts.mismatched += 1;
                    Answer::Mismatch
                }
            };
            assert_eq!(answer, expected);
        }
        if blurred {
            self.counts.blurred += 1;
            self.start_anew().await;
            return self.connect().await; // And with it everything that is still to be heard.
        }
        for (epoch, event) in events {
            assert_eq!(self.hear().await, (epoch, Message::Event((*event).clone())));
        }
    }

    async fn purge(&mut self) {
        let channel = self.channel();
        let new_epoch = self.new_epoch();
        let value = self.run(&self.scripts.purge(new_epoch, &channel)).await;
        let (now, answers) = self.scripts.published(words(&value)).expect("answers");
        let (point, purge) = self.store.purge(self.caller(now, new_epoch), channel.clone());
        assert_eq!(answers, [Answer::Now(point)]);
        assert_eq!(self.hear().await, (point.epoch, Message::Purge(purge)));
        self.history_ends.remove(&channel);
        self.counts.purged += 1;
    }

    async fn hear(&mut self) -> (Epoch, Message) {
        let mut messages = self.heard.on_message();
        let next = messages.next();
        let message = tokio::time::timeout(PATIENCE, next).await.expect("in time").expect("still subscribed");
        let name = message.get_channel_name().strip_prefix("random:{0}:c:").expect("ours");
        let channel = Channel::parse(name).expect("valid");
        decode_message(channel, message.get_payload_bytes()).expect("an event or a purge")
    }

    async fn barrier(&mut self) {
        let channels = if self.rng.bool() { self.channels.clone() } else { Vec::new() };
        let (new_epoch, nonce) = (self.new_epoch(), self.rng.u64(..));
        let value = self.run(&self.scripts.barrier(new_epoch, None, nonce, &channels)).await;
        let (now, marker) = Scripts::stood(words(&value), channels.clone()).expect("answers");
        let marker = marker.expect("asked for");
        self.counts.epochs += usize::from(marker.epoch == new_epoch);
        self.counts.forgotten += marker.lasts.iter().filter(|(_, last)| last.is_none()).count();
        assert_eq!(marker, self.store.barrier(self.caller(now, new_epoch), nonce, channels));
    }

    async fn read(&mut self) {
        let channel = self.channel();
        let events_max = self.rng.usize(1..16);
        let bytes_max = self.rng.usize(1..6 * size_of::<Event>());
        let limit = PageLimit { events_max, bytes_max };
        let (lasts, ..) = self.store.lasts(std::slice::from_ref(&channel));
        let back = Position(self.rng.u64(..200_000));
        let after = match self.rng.u8(..4) {
            0 => None,
            1 => Some(Position(0)),
            2 => lasts[0],
            _ => lasts[0].map(|last| Position(last.0.saturating_sub(back.0))),
        };
        let now = self.time().await;
        let value = self.run(&self.scripts.history(&channel, after, limit)).await;
        let page = Scripts::page(&channel, words(&value)).expect("a page");
        let end = self.history_ends.get(&channel).copied();
        let over = self.time().await;
        if self.blurred(end.as_ref(), now) || end.is_some_and(|end| (now.0..=over.0).contains(&end)) {
            return self.counts.blurred += 1;
        }
        let expected = match after {
            Some(after) => self.store.history_after(&channel, after, limit, now),
            None => self.store.history_newest(&channel, limit, now),
        };
        self.counts.read += page.events.len();
        self.counts.paged += usize::from(page.more);
        assert_eq!(page, expected, "{channel} after {after:?}, {limit:?}");
    }

    async fn lasts(&mut self) {
        let (keys, channels) = (self.scripts.keys.clone(), self.channels.clone());
        let names: Vec<&str> = channels.iter().map(Channel::as_str).collect();
        let mut lasts = vec![None; channels.len()];
        for key in [keys.kept(), keys.lasts()] {
            let mut cmd = redis::cmd("ZMSCORE");
            let value: Value = cmd.arg(&key).arg(&names).query_async(&mut self.connection).await.expect("tells");
            for (last, word) in lasts.iter_mut().zip(words(&value)) {
                let position = word.map(|word| position(Some(word)).expect("one"));
                self.counts.kept += usize::from(key == keys.lasts() && last.is_some() && position.is_none());
                *last = (*last).max(position);
            }
        }
        let mut cmd = redis::cmd("HMGET");
        let value: Value =
            cmd.arg(keys.meta()).arg(&["f", "e"]).query_async(&mut self.connection).await.expect("tells");
        let mut words = words(&value);
        let floor = words.next().flatten().map_or(Position(0), |word| position(Some(word)).expect("one"));
        let epoch = words.next().flatten().map(|word| epoch(word).expect("one"));
        assert_eq!((lasts, floor, epoch), self.store.lasts(&channels));
    }

    /// Something happens to the server: the kinds take turns, so that none is left out.
    async fn trouble(&mut self, turn: usize, flavour: Flavour) {
        match turn % 4 {
            0 => {
                self.counts.wiped += 1;
                self.start_anew().await;
            }
            1 => {
                // A restart that keeps the data: another identity.
                let _: Value = redis::cmd("SAVE").query_async(&mut self.connection).await.expect("saves");
                self.server.kill();
                self.server.start_again().await;
                self.connect().await;
            }
            2 => {
                // A restart that loses them.
                self.server.kill();
                let fresh = Server::start(flavour).await.expect("it was installed a moment ago");
                self.server = fresh;
                self.store = Store::new(RETENTION);
                self.history_ends.clear();
                self.remembered_ends.clear();
                self.counts.wiped += 1;
                self.connect().await;
            }
            _ => {
                // The identity changes, the process doesn't: a promotion.
                let address = self.server.address();
                for to in [format!("{} {}", address.ip(), 1), "NO ONE".to_owned()] {
                    let (host, port) = to.split_once(' ').expect("two words");
                    let mut cmd = redis::cmd("REPLICAOF");
                    let _: Value = cmd.arg(host).arg(port).query_async(&mut self.connection).await.expect("obeys");
                }
                self.identify().await;
            }
        }
    }
}

async fn compare(flavour: Flavour) {
    let seed = fastrand::u64(..);
    let Some(mut both) = Both::start(flavour, seed).await else { return };
    eprintln!("{flavour:?}, seed {seed}");
    for operation in 0..OPERATIONS {
        if operation % TROUBLE_EVERY == 0 {
            both.trouble(operation / TROUBLE_EVERY, flavour).await;
            // A barrier as well as a publish may be what first sees it.
            if both.rng.bool() {
                both.barrier().await;
            }
        }
        match both.rng.u8(..100) {
            0..2 => {
                let pause = both.rng.u64(1..200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            2..4 => both.purge().await,
            4..55 => both.publish().await,
            55..70 => both.barrier().await,
            70..95 => both.read().await,
            _ => both.lasts().await,
        }
    }
    eprintln!("{:?}", both.counts);
    let Counts { published, repeated, mismatched, inexact, epochs, read, paged, forgotten, .. } = both.counts;
    for (what, count) in [("published", published), ("repeated", repeated), ("mismatched", mismatched)] {
        assert!(count > 10, "nothing was {what}: the test proves too little");
    }
    for (what, count) in [("inexact", inexact), ("epochs", epochs), ("read", read), ("paged", paged)] {
        assert!(count > 2, "{what}: the test proves too little");
    }
    for (what, count) in [("purged", both.counts.purged), ("kept", both.counts.kept)] {
        assert!(count > 10, "nothing was {what}: the test proves too little");
    }
    assert!(forgotten > 10, "nothing was forgotten: the test proves too little");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_do_what_the_store_does_on_redis_6() {
    compare(FLAVOURS[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_do_what_the_store_does_on_redis_7() {
    compare(FLAVOURS[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scripts_do_what_the_store_does_on_valkey() {
    compare(FLAVOURS[2]).await;
}
