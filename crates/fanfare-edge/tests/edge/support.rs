//! A real edge over real sockets, in this process, with the in-process backbone behind it.

use std::sync::Arc;
use std::time::Duration;

use fanfare_auth::Access;
use fanfare_backbone::Backbone;
use fanfare_edge::{Edge, EdgeConfig};
use fanfare_http::{Cors, Peer, ReplyFuture, Request, Server, listen};
use fanfare_protocol::sse::{Decoder, Message};
use fanfare_protocol::{ByNamespace, Channel, Content, Draft, EventType, Keep, Partitions, Point, Retention};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(Keep { events_max: 100, age: Some(Duration::from_secs(300)) }),
    forget_age: Duration::from_secs(600),
    idempotency_window: Duration::from_secs(300),
};

pub(crate) struct TestEdge {
    pub(crate) edge: Arc<Edge>,
    pub(crate) backbone: Backbone,
    pub(crate) metrics: prometheus::Registry,
    pub(crate) address: std::net::SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl TestEdge {
    pub(crate) async fn start() -> Self {
        Self::with(1, EdgeConfig::default()).await
    }

    pub(crate) async fn with(partitions: u16, config: EdgeConfig) -> Self {
        Self::on(Backbone::in_process(Partitions::new(partitions).expect("1 to 64"), RETENTION), config).await
    }

    pub(crate) async fn on(backbone: Backbone, config: EdgeConfig) -> Self {
        Self::guarded(backbone, config, Access::Dev(None)).await
    }

    pub(crate) async fn guarded(backbone: Backbone, config: EdgeConfig, access: Access) -> Self {
        Self::build(backbone, config, access, true).await
    }

    /// One whose shards and feeds have ended.
    pub(crate) async fn without_services() -> Self {
        let backbone = Backbone::in_process(Partitions::ONE, RETENTION);
        Self::build(backbone, EdgeConfig::default(), Access::Dev(None), false).await
    }

    async fn build(backbone: Backbone, config: EdgeConfig, access: Access, run: bool) -> Self {
        let metrics = prometheus::Registry::new();
        let cors = Arc::new(Cors::exactly(["https://app.example.com"]).expect("an origin"));
        let (edge, services) = Edge::new(backbone.clone(), config, access, cors, &metrics).expect("starts");
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        services.into_iter().filter(|_| run).for_each(|service| drop(tasks.spawn(service.future)));
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let handler = edge.clone();
        let handler = Arc::new(move |request: Request, peer: Peer| -> ReplyFuture {
            Box::pin(handler.clone().handle(request, peer))
        });
        tasks.spawn(Server::new(handler).serve(listener, stop.clone(), tasks.clone()));
        Self { edge, backbone, metrics, address, tasks, stop }
    }

    /// Publishes; answers where the event stands.
    pub(crate) async fn publish(&self, channel: &str, event_type: Option<&str>, data: &str) -> Point {
        let name = event_type.map(|name| EventType::parse(name).expect("a valid type"));
        let content = Content { name, key: None, ttl: None, data: data.into() };
        let channel = Channel::parse(channel).expect("a valid channel");
        let results = self.backbone.publish(vec![Draft { channel, content, idempotency: None }]).await;
        results[0].clone().expect("published").point
    }

    /// Publishes events of one channel, all at once.
    pub(crate) async fn publish_all(&self, channel: &str, datas: impl Iterator<Item = String>) {
        let channel = Channel::parse(channel).expect("a valid channel");
        let draft = |data: String| {
            let content = Content { name: None, key: None, ttl: None, data: data.into() };
            Draft { channel: channel.clone(), content, idempotency: None }
        };
        for result in self.backbone.publish(datas.map(draft).collect()).await {
            result.expect("published");
        }
    }

    pub(crate) async fn subscribe(&self, target: &str) -> Subscriber {
        Subscriber::get(self.address, target, "").await
    }

    /// Everything ends, and nothing is left.
    pub(crate) async fn stop(self) {
        self.edge.stop();
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait()).await.expect("every task ends when it is told to");
    }

    /// A metric's value, summed over its labels; of a histogram, how often it was observed.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let observed = |m: &prometheus::proto::Metric| m.get_histogram().get_sample_count() as f64;
        family.get_metric().iter().map(|m| m.get_counter().get_value() + m.get_gauge().get_value() + observed(m)).sum()
    }

    /// The value of a counter for one reason.
    pub(crate) fn metric_of(&self, name: &str, reason: &str) -> f64 {
        let families = self.metrics.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        let of_reason = |metric: &&prometheus::proto::Metric| metric.get_label()[0].value() == reason;
        family.get_metric().iter().find(of_reason).expect(reason).get_counter().get_value()
    }
}

/// Asks for JSON; answers with the status and the body, `null` where there is none.
pub(crate) async fn ask(
    address: std::net::SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let mut socket = TcpStream::connect(address).await.expect("the edge listens");
    socket.write_all(request.as_bytes()).await.expect("the edge reads");
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// The client id that `connected` tells.
pub(crate) fn client_id(connected: &Message) -> String {
    let data: serde_json::Value = serde_json::from_str(&connected.data).expect("JSON");
    data["clientId"].as_str().expect("a client id").to_owned()
}

/// A client that reads as browsers do.
pub(crate) struct Subscriber {
    pub(crate) socket: TcpStream,
    pub(crate) head: String,
    pub(crate) chunked: bool,
    /// Chunks of the body so far.
    pub(crate) chunks: usize,
    raw: Vec<u8>,
    body: Vec<u8>,
    pub(crate) decoder: Decoder,
}

impl Subscriber {
    pub(crate) async fn get(address: std::net::SocketAddr, target: &str, headers: &str) -> Self {
        Self::request(address, &format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await
    }

    /// Subscribes with a body.
    pub(crate) async fn post(address: std::net::SocketAddr, body: &str) -> Self {
        let head = "POST /events HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: ";
        Self::request(address, &format!("{head}{}\r\n\r\n{body}", body.len())).await
    }

    pub(crate) async fn request(address: std::net::SocketAddr, request: &str) -> Self {
        let mut subscriber = Self::send(address, request).await;
        subscriber.read_head().await;
        subscriber
    }

    /// Asks, and doesn't wait for an answer.
    pub(crate) async fn send(address: std::net::SocketAddr, request: &str) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("the edge listens");
        socket.write_all(request.as_bytes()).await.expect("the edge reads");
        Self {
            socket,
            head: String::new(),
            chunked: false,
            chunks: 0,
            raw: Vec::new(),
            body: Vec::new(),
            decoder: Decoder::new(1 << 20),
        }
    }

    pub(crate) async fn read_head(&mut self) {
        if !self.head.is_empty() {
            return;
        }
        let end = loop {
            if let Some(end) = self.raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            assert!(timeout(PATIENCE, self.read()).await.expect("in time"), "the edge answers");
        };
        self.head = String::from_utf8(self.raw.drain(..end + 4).collect()).expect("a head is text");
        self.chunked = self.head.contains("transfer-encoding: chunked");
        self.unchunk();
    }

    /// The whole body, up to the end of the connection.
    pub(crate) async fn text(&mut self) -> String {
        timeout(PATIENCE, async { while self.read().await {} }).await.expect("it ends");
        String::from_utf8(std::mem::take(&mut self.body)).expect("text")
    }

    /// The next event, or none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        timeout(PATIENCE, async {
            loop {
                let mut read = &self.body[..];
                let message = self.decoder.next_message(&mut read).expect("events are of reasonable size");
                let taken = self.body.len() - read.len();
                self.body.drain(..taken);
                if message.is_some() {
                    return message;
                }
                if !self.read().await {
                    return None;
                }
            }
        })
        .await
        .expect("something comes")
    }

    /// The next event's data.
    pub(crate) async fn data(&mut self) -> String {
        self.next().await.expect("an event").data
    }

    /// The next event, which is of this type.
    pub(crate) async fn expect(&mut self, event_type: &str) -> Message {
        let message = self.next().await.expect("an event");
        assert_eq!(message.event, event_type, "{message:?}");
        message
    }

    /// The raw text of the stream, until it contains something.
    pub(crate) async fn text_until(&mut self, wanted: &str) -> String {
        timeout(PATIENCE, async {
            while !String::from_utf8_lossy(&self.body).contains(wanted) {
                assert!(self.read().await, "{wanted:?} comes before the end");
            }
            String::from_utf8_lossy(&self.body).into_owned()
        })
        .await
        .expect("something comes")
    }

    /// All that is still to come.
    pub(crate) async fn rest(&mut self) -> String {
        let end = async { while self.read().await {} };
        timeout(PATIENCE, end).await.expect("it ends");
        String::from_utf8(std::mem::take(&mut self.body)).expect("text")
    }

    /// What is sent back as `Last-Event-ID`.
    pub(crate) fn last_id(&self) -> String {
        self.decoder.last_event_id().to_owned()
    }

    /// Cuts the connection off as a crash would.
    pub(crate) fn reset(self) -> String {
        let id = self.last_id();
        self.socket.set_zero_linger().expect("a socket");
        id
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.raw.extend_from_slice(&buffer[..read]);
                if !self.head.is_empty() {
                    self.unchunk();
                }
                true
            }
        }
    }

    fn unchunk(&mut self) {
        if !self.chunked {
            self.body.append(&mut self.raw);
            return;
        }
        while let Some(line) = self.raw.windows(2).position(|window| window == b"\r\n") {
            let digits = std::str::from_utf8(&self.raw[..line]).expect("a chunk's size");
            let size = usize::from_str_radix(digits, 16).expect("a chunk's size");
            if self.raw.len() < line + 2 + size + 2 {
                return;
            }
            self.body.extend_from_slice(&self.raw[line + 2..line + 2 + size]);
            assert_eq!(&self.raw[line + 2 + size..line + 4 + size], b"\r\n", "a chunk ends where it says");
            self.raw.drain(..line + 4 + size);
            self.chunks += 1;
        }
    }
}
