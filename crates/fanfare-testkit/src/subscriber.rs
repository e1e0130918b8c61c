//! Follows channels as a browser would, over a socket that a test can break, starve and reset.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fanfare_loadtest::http::{Head, Part, Response};
use fanfare_protocol::sse::{Decoder, Message};
use serde_json::Value;

use crate::{PATIENCE, RawConnection};

/// Bytes of an event at most.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A subscription that is about to be opened.
#[derive(Clone, Debug)]
pub struct Subscribe {
    address: SocketAddr,
    method: &'static str,
    path: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    body: String,
    receive_buffer: Option<u32>,
    read_bytes: usize,
}

/// An open stream, or one that was.
#[derive(Debug)]
pub struct Subscriber {
    subscribe: Subscribe,
    connection: Option<RawConnection>,
    response: Response,
    head: Head,
    decoder: Decoder,
    /// What came and was not taken yet …
    messages: VecDeque<Message>,
    /// … and the id of the message that was taken last.
    taken_id: String,
    /// The body of the present connection, without what frames it.
    received: Vec<u8>,
}

/// What came, or did not.
#[derive(Debug)]
enum Progress {
    Came,
    Ended,
    TimedOut,
}

impl Subscribe {
    /// A `GET` of this path and query, as an EventSource sends it.
    pub fn new(address: SocketAddr, path: &str) -> Self {
        Self {
            address,
            method: "GET",
            path: path.to_owned(),
            version: "HTTP/1.1",
            headers: vec![("Accept".to_owned(), "text/event-stream".to_owned())],
            body: String::new(),
            receive_buffer: None,
            read_bytes: READ_BYTES,
        }
    }

    /// Sets a header, in place of one with that name.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(named, _)| !named.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends no header of that name.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(named, _)| !named.eq_ignore_ascii_case(name));
        self
    }

    /// Begins after an id, as one that comes back.
    #[must_use]
    pub fn after(self, id: &str) -> Self {
        self.header("Last-Event-ID", id)
    }

    /// A `POST` with a body, as `fetch` sends it.
    #[must_use]
    pub fn post(mut self, body: &Value) -> Self {
        (self.method, self.body) = ("POST", body.to_string());
        self.header("Content-Type", "application/json")
    }

    /// Speaks HTTP/1.0: a body without chunks that ends with the connection.
    #[must_use]
    pub fn http_1_0(mut self) -> Self {
        self.version = "HTTP/1.0";
        self
    }

    /// Has a receive buffer of so many bytes: one that stalls is noticed early.
    #[must_use]
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Reads at most so many bytes at once.
    #[must_use]
    pub fn read_bytes(mut self, bytes: usize) -> Self {
        self.read_bytes = bytes;
        self
    }

    /// Opens it and reads the head, whatever its status.
    ///
    /// # Panics
    /// Where no head comes.
    pub async fn open(self) -> Subscriber {
        let mut subscriber = Subscriber {
            head: Head { status: 0, headers: Vec::new() },
            connection: None,
            response: Response::new(),
            decoder: Decoder::new(EVENT_BYTES_MAX),
            messages: VecDeque::new(),
            taken_id: String::new(),
            received: Vec::new(),
            subscribe: self,
        };
        subscriber.connect().await;
        subscriber
    }

    /// Opens it, and waits for `connected`.
    ///
    /// # Panics
    /// Where it is refused, or something else comes first.
    pub async fn connected(self) -> Subscriber {
        let mut subscriber = self.open().await;
        subscriber.expect_connected().await;
        subscriber
    }

    fn request(&self, last_id: &str) -> String {
        let Self { method, path, version, body, .. } = self;
        let mut request = format!("{method} {path} {version}\r\n");
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in &self.headers {
            if last_id.is_empty() || !name.eq_ignore_ascii_case("last-event-id") {
                request += &format!("{name}: {value}\r\n");
            }
        }
        if !last_id.is_empty() {
            request += &format!("Last-Event-ID: {last_id}\r\n");
        }
        if !body.is_empty() {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        format!("{request}\r\n{body}")
    }
}

impl Subscriber {
    /// The response's status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// One of its headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// What a browser would send back as `Last-Event-ID`, had it seen what was taken so far.
    pub fn last_id(&self) -> &str {
        if self.messages.is_empty() { self.decoder.last_event_id() } else { &self.taken_id }
    }

    /// The pause that the stream asked for.
    pub fn retry(&self) -> Option<Duration> {
        self.decoder.retry()
    }

    /// The body of this connection as far as it was read: comments and `retry:` lines too.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    /// The next message, Fanfare's own included.
    ///
    /// # Panics
    /// Where none comes in time, or the stream ends.
    pub async fn next(&mut self) -> Message {
        match self.next_within(PATIENCE).await {
            Ok(Some(message)) => message,
            Ok(None) => panic!("the stream ended. It had:\n{}", self.received()),
            Err(_) => panic!("no event came. The stream had:\n{}", self.received()),
        }
    }

    /// The data of the next message.
    ///
    /// # Panics
    /// Where none comes in time, or the stream ends.
    pub async fn next_data(&mut self) -> String {
        self.next().await.data
    }

    /// The next message, `None` where the stream ends.
    ///
    /// # Errors
    /// Where none comes within the time.
    pub async fn next_within(&mut self, patience: Duration) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                self.taken_id.clone_from(&message.id);
                return Ok(Some(message));
            }
            match self.read(patience).await {
                Progress::Came => {}
                Progress::Ended if !self.messages.is_empty() => {} // What came with the end comes before it.
                Progress::Ended => return Ok(None),
                Progress::TimedOut => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    /// Reads until the body so far satisfies a condition: for what is no message, such as comments.
    ///
    /// # Panics
    /// Where it doesn't in time.
    pub async fn read_until(&mut self, text: &str) {
        while !self.received().contains(text) {
            let progress = self.read(PATIENCE).await;
            let came = matches!(progress, Progress::Came);
            assert!(came, "{progress:?} before {text:?} came. The stream had:\n{}", self.received());
        }
    }

    /// Waits for `connected` as the next message, and tells its data.
    ///
    /// # Panics
    /// Where something else comes.
    pub async fn expect_connected(&mut self) -> Value {
        assert_eq!(self.status(), 200, "{}", self.received());
        let message = self.next().await;
        assert_eq!(message.event, "connected", "{message:?}");
        serde_json::from_str(&message.data).expect("connected carries JSON")
    }

    /// Waits for the end of the stream, and tells the messages before it.
    ///
    /// # Panics
    /// Where it doesn't end in time.
    pub async fn ended(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            match self.next_within(PATIENCE).await {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => return messages,
                Err(_) => panic!("the stream goes on. It had:\n{}", self.received()),
            }
        }
    }

    /// Reads a body that is no stream, to its end.
    ///
    /// # Panics
    /// Where it doesn't end in time.
    pub async fn body(&mut self) -> String {
        while self.connection.is_some() {
            let progress = self.read(PATIENCE).await;
            assert!(!matches!(progress, Progress::TimedOut), "the body goes on:\n{}", self.received());
        }
        self.received()
    }

    /// Cuts the connection off with a reset. What came and was not taken is forgotten, as if it had not come.
    pub fn reset(&mut self) {
        self.forget();
        if let Some(connection) = self.connection.take() {
            connection.reset();
        }
    }

    /// Leaves in good order.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Comes back with the last id, and waits for the head.
    ///
    /// # Panics
    /// Where no head comes.
    pub async fn reconnect(&mut self) {
        self.connect().await;
    }

    /// Comes back to another address.
    ///
    /// # Panics
    /// Where no head comes.
    pub async fn reconnect_to(&mut self, address: SocketAddr) {
        self.subscribe.address = address;
        self.connect().await;
    }

    /// What came and was not taken has not come.
    fn forget(&mut self) {
        if !self.messages.is_empty() {
            self.messages.clear();
            self.decoder = Decoder::new(EVENT_BYTES_MAX);
            let id = format!("id: {}\n\n", self.taken_id);
            self.decoder.next_message(&mut id.as_bytes()).expect("an id is short");
        }
        self.decoder.reconnect();
    }

    async fn connect(&mut self) {
        self.connection = None;
        self.forget();
        self.received.clear();
        self.response = Response::new();
        self.head.status = 0;
        let Subscribe { address, receive_buffer, .. } = self.subscribe;
        let mut connection = RawConnection::with_receive_buffer(address, receive_buffer).await;
        connection.send(self.subscribe.request(self.decoder.last_event_id())).await;
        self.connection = Some(connection);
        while self.head.status == 0 {
            let progress = self.read(PATIENCE).await;
            let came = matches!(progress, Progress::Came) || self.head.status != 0;
            assert!(came, "{} {}: {progress:?} before a head", self.subscribe.method, self.subscribe.path);
        }
    }

    async fn read(&mut self, patience: Duration) -> Progress {
        let Some(connection) = &mut self.connection else { return Progress::Ended };
        let bytes = match connection.read(self.subscribe.read_bytes, patience).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Progress::TimedOut,
            Err(_) => Vec::new(),
        };
        if bytes.is_empty() {
            self.connection = None;
            return Progress::Ended;
        }
        let mut rest = &bytes[..];
        while let Some(part) = self.response.next_part(&mut rest).expect("an HTTP response") {
            match part {
                Part::Head(head) => self.head = head,
                Part::Body(mut data) => {
                    self.received.extend_from_slice(data);
                    while let Some(message) = self.decoder.next_message(&mut data).expect("no such large event") {
                        self.messages.push_back(message);
                    }
                }
                Part::End => {
                    self.connection = None;
                    return Progress::Ended;
                }
            }
        }
        Progress::Came
    }
}
