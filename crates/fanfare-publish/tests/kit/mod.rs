//! The publish API on a free port over an in-process backbone, and a client that speaks raw HTTP.

#![allow(dead_code, reason = "each test file uses its part")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use fanfare_auth::{PublishAccess, PublishKeys, Secrets};
use fanfare_backbone::Backbone;
use fanfare_http::{Server, listen};
use fanfare_protocol::{ByNamespace, Channel, Keep, PageLimit, Partitions, Retention, SharedEvent};
use fanfare_publish::{PublishApi, PublishConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct TestApi {
    address: std::net::SocketAddr,
    pub(crate) backbone: Backbone,
    pub(crate) registry: prometheus::Registry,
}

impl TestApi {
    pub(crate) async fn start() -> Self {
        Self::with(Partitions::ONE, 100, PublishConfig::default()).await
    }

    pub(crate) async fn with_payload_bytes_max(bytes: usize) -> Self {
        let payload_bytes_max = ByNamespace::everywhere(NonZeroUsize::new(bytes).expect("not zero"));
        Self::with(Partitions::ONE, 100, PublishConfig { payload_bytes_max, ..PublishConfig::default() }).await
    }

    /// With these keys, as their setting has them, and perhaps a secret that signs tokens.
    pub(crate) async fn guarded(partitions: Partitions, keys: &str, secret: Option<&str>) -> Self {
        let keys = PublishAccess::Keys(PublishKeys::parse(keys).expect("keys"));
        let secrets = secret.map(|secret| Secrets::parse(secret).expect("a secret"));
        Self::over(partitions, 100, PublishConfig::default(), keys, secrets).await
    }

    pub(crate) async fn with(partitions: Partitions, history_size: usize, config: PublishConfig) -> Self {
        Self::over(partitions, history_size, config, PublishAccess::Dev, None).await
    }

    async fn over(
        partitions: Partitions,
        history_size: usize,
        config: PublishConfig,
        access: PublishAccess,
        secrets: Option<Secrets>,
    ) -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let retention = Retention {
            history: ByNamespace::everywhere(Keep { events_max: history_size, age: Some(minutes(5)) }),
            forget_age: minutes(10),
            idempotency_window: minutes(5),
        };
        let backbone = Backbone::in_process(partitions, retention);
        let registry = prometheus::Registry::new();
        let api = PublishApi::new(backbone.clone(), config, access, secrets, &registry).expect("a new registry");
        let listener = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serving = Server::new(Arc::new(api)).serve(listener, CancellationToken::new(), TaskTracker::new());
        TaskTracker::new().spawn(serving);
        Self { address, backbone, registry }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client { socket: TcpStream::connect(self.address).await.expect("listening"), buffer: vec![] }
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, "Content-Type: application/json\r\n", body).await
    }

    /// Posts with these header lines.
    pub(crate) async fn post_with(&self, path: &str, headers: &str, body: &str) -> Answer {
        self.request(&format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    pub(crate) async fn request(&self, request: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(request).await;
        client.answer().await
    }

    /// What a channel retains.
    pub(crate) async fn events(&self, channel: &str) -> Vec<SharedEvent> {
        let channel = Channel::parse(channel).expect("a channel");
        let limit = PageLimit { events_max: 1000, bytes_max: usize::MAX };
        self.backbone.history(&channel, None, limit).await.expect("in process").events
    }

    /// The data of what a channel retains.
    pub(crate) async fn data(&self, channel: &str) -> Vec<String> {
        self.events(channel).await.iter().map(|event| event.content.data.to_string()).collect()
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The id of a single success.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        let answer = self.json();
        assert_eq!(answer["success"], true);
        answer["id"].as_str().expect("an id").to_owned()
    }

    /// Holds it against what a problem has to be.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str, detail: &str) {
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert!(self.head.contains("content-type: application/problem+json\r\n"), "{}", self.head);
        assert_eq!(problem["status"], status);
        assert_eq!(problem["detail"], problem["message"]);
        let said = problem["detail"].as_str().expect("text");
        assert!(said.contains(detail), "{said:?} doesn't say {detail:?}");
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).await.expect("taken");
    }

    /// Sends a chunk of a chunked body.
    pub(crate) async fn send_chunk(&mut self, text: &str) {
        self.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end.as_bytes()) {
                return self.take(at + end.len());
            }
            self.read().await;
        }
    }

    /// Reads a response; of a chunked one, only the head.
    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").await.to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a number"));
        while self.buffer.len() < length {
            self.read().await;
        }
        Answer { status, head, body: self.take(length) }
    }

    /// Reads a chunk; an empty one ends the body.
    pub(crate) async fn chunk(&mut self) -> String {
        let size = self.until("\r\n").await;
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a size");
        while self.buffer.len() < size + 2 {
            self.read().await;
        }
        let mut chunk = self.take(size + 2);
        chunk.truncate(size);
        chunk
    }

    async fn read(&mut self) {
        assert_ne!(self.socket.read_buf(&mut self.buffer).await.expect("open"), 0, "closed too early");
    }

    fn take(&mut self, count: usize) -> String {
        let rest = self.buffer.split_off(count);
        String::from_utf8(std::mem::replace(&mut self.buffer, rest)).expect("UTF-8")
    }
}
