//! One edge with very many channels: Redis dies and comes back, all of them are subscribed again and miss nothing, and
//! meanwhile every stream beats on.
//!
//! The usual run is scaled down; `FANFARE_FULL=1` has 50,000 channels.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fanfare_testkit::{Message, Subscribe};
use serde_json::{Value, json};
use support::redis::Redis;
use support::role::{KEY, Role, token};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const CHANNELS_PER_CONNECTION: usize = 50;

/// One of so many channels is published to.
const SAMPLE: usize = 100;

/// Each stream has a heartbeat in any ten intervals, of 1 s each.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// All streams, and what came of them.
struct Audience {
    arriving: mpsc::Receiver<(usize, Message)>,
    connected: usize,
    beats: Vec<Vec<Instant>>,
    gaps: Vec<usize>,
    /// Data by channel.
    heard: BTreeMap<String, Vec<String>>,
    _streams: JoinSet<()>,
}

impl Audience {
    fn open(edge: &Role, connections: usize) -> Self {
        let token = token(&["--channel", "many:*"]);
        // What comes waits here while the test does something else; nobody is slowed down before it is full.
        let (sender, arriving) = mpsc::channel(64 * 1024);
        let mut streams = JoinSet::new();
        for connection in 0..connections {
            let first = connection * CHANNELS_PER_CONNECTION;
            let names = (first..first + CHANNELS_PER_CONNECTION).map(|channel| format!("many:{channel}"));
            let path = format!("/events?heartbeat=event&channels={}", names.collect::<Vec<_>>().join(","));
            streams.spawn(listen(edge.subscribe(&path, &token), connection, sender.clone()));
        }
        let (beats, gaps) = (vec![Vec::new(); connections], vec![0; connections]);
        Self { arriving, connected: 0, beats, gaps, heard: BTreeMap::new(), _streams: streams }
    }

    /// Takes what comes until that is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let next = timeout(PATIENCE.saturating_sub(start.elapsed()), self.arriving.recv()).await;
            let (connection, message) = next.unwrap_or_else(|_| panic!("not in time: {what}")).expect("streams go on");
            self.take(connection, message);
        }
    }

    /// Takes what comes for so long.
    async fn during(&mut self, duration: Duration) {
        let mut end = std::pin::pin!(sleep(duration));
        loop {
            tokio::select! {
                () = &mut end => return,
                next = self.arriving.recv() => {
                    let (connection, message) = next.expect("streams go on");
                    self.take(connection, message);
                }
            }
        }
    }

    fn take(&mut self, connection: usize, message: Message) {
        match &*message.event {
            "connected" => self.connected += 1,
            "heartbeat" => self.beats[connection].push(Instant::now()),
            "gap" => self.gaps[connection] += 1,
            "message" => {
                let (_, channel) = message.id.rsplit_once('@').expect("events name their channel");
                self.heard.entry(channel.to_owned()).or_default().push(message.data);
            }
            _ => panic!("connection {connection}: {message:?}"),
        }
    }

    fn all_heard(&self, data: &[&str], samples: usize) -> bool {
        self.heard.len() == samples && self.heard.values().all(|heard| heard.len() >= data.len())
    }

    fn longest_pause(&self) -> Duration {
        let pauses = self.beats.iter().flat_map(|beats| beats.windows(2).map(|pair| pair[1] - pair[0]));
        pauses.max().expect("there were heartbeats")
    }
}

/// Passes on what comes of a stream, until nobody asks any more. A stream that ends leaves the test waiting in vain.
async fn listen(subscribe: Subscribe, connection: usize, sender: mpsc::Sender<(usize, Message)>) {
    let mut stream = subscribe.open().await;
    while let Ok(Some(message)) = stream.next_within(PATIENCE).await {
        if sender.send((connection, message)).await.is_err() {
            return;
        }
    }
    panic!("connection {connection} ended: {}", stream.received());
}

fn entries(samples: usize, data: &str) -> Value {
    (0..samples).map(|sample| json!({"channel": format!("many:{}", sample * SAMPLE), "data": data})).collect()
}

/// The channels that edges talk over.
const EDGES_OWN: usize = 2;

/// Whether as many channels as that are subscribed, each confirmed, and the subscription is in force.
fn is_confirmed(edge: &Role, channels: usize) -> bool {
    let of = |state: &str| edge.metric(&format!("fanfare_subscriptions{{state=\"{state}\"}}"));
    edge.metric("fanfare_backbone_up{partition=\"0\"}") > 0.0
        && of("confirmed") as usize == channels + EDGES_OWN
        && of("pending") as usize == 0
}

async fn confirmed(audience: &mut Audience, edge: &Role, channels: usize) -> Duration {
    let start = Instant::now();
    while !is_confirmed(edge, channels) {
        assert!(start.elapsed() < PATIENCE, "not all of {channels} channels are confirmed");
        audience.during(Duration::from_millis(20)).await;
    }
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_channels_of_an_edge_outlive_the_death_of_redis_and_every_stream_beats_on() {
    let Some(mut redis) = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]) else { return };
    let connections = if std::env::var_os("FANFARE_FULL").is_some() { 1_000 } else { 100 };
    let channels = connections * CHANNELS_PER_CONNECTION;
    let samples = channels / SAMPLE;
    let mut edge = Role::start_with("edge", &redis.url(), &[("FANFARE_HEARTBEAT_INTERVAL", "1s")]);
    let publisher = Role::start("publish", &redis.url());
    let mut backend = publisher.publisher(KEY);

    let mut audience = Audience::open(&edge, connections);
    audience.until("all are connected", |audience| audience.connected == connections).await;
    confirmed(&mut audience, &edge, channels).await;
    assert_eq!(backend.post("/publish", &entries(samples, "before")).await.status, 200);
    audience.until("what is published first", |audience| audience.all_heard(&["before"], samples)).await;

    // Answered, and perhaps not yet with the edge: it has to be replayed.
    assert_eq!(backend.post("/publish", &entries(samples, "at the last moment")).await.status, 200);
    redis.kill();
    edge.process.err.find("the link to the backbone broke");
    audience.during(Duration::from_secs(3)).await;
    redis.restart();
    let took = confirmed(&mut audience, &edge, channels).await;

    assert_eq!(backend.post("/publish", &entries(samples, "after")).await.status, 200);
    let story = ["before", "at the last moment", "after"];
    audience.until("all that was published", |audience| audience.all_heard(&story, samples)).await;
    audience.until("everybody told", |audience| audience.gaps.iter().all(|gaps| *gaps > 0)).await;
    let end = Instant::now();
    let beats_on = |beats: &Vec<Instant>| beats.last().is_some_and(|beat| *beat > end);
    audience.until("another heartbeat each", |audience| audience.beats.iter().all(beats_on)).await;
    let pause = audience.longest_pause();
    println!("{channels} channels: {took:.1?} from Redis being back until all were confirmed");
    println!("{connections} streams: longest pause between two heartbeats {pause:.1?}, of 1 s each");

    assert!(audience.heard.values().all(|heard| *heard == story), "each event once, in order: {:?}", audience.heard);
    assert!(audience.gaps.iter().all(|gaps| *gaps == 1), "told once: {:?}", audience.gaps);
    assert!(pause < PAUSE_MAX, "a stream was silent for {pause:?}");
    assert_eq!(edge.metric("fanfare_connections") as usize, connections, "nobody was disconnected");
}
