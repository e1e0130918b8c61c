//! Publishes, and asks for anything else, over a connection that is kept alive.

use std::net::SocketAddr;

use fanfare_loadtest::http::Head;
use serde_json::{Value, json};

use crate::RawConnection;

/// A client of the publish API: what goes over one keeps its order.
#[derive(Debug)]
pub struct Publisher {
    address: SocketAddr,
    headers: String,
    connection: Option<RawConnection>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Status and headers.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn new(head: Head, body: Vec<u8>) -> Self {
        Self { status: head.status, head, body }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {}: {:?}", self.status, self.text()))
    }

    /// The id of what was published.
    ///
    /// # Panics
    /// Where it was not.
    pub fn id(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["id"].as_str().expect("a result has an id").to_owned()
    }
}

impl Publisher {
    /// A publisher of this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: String::new(), connection: None }
    }

    /// Sends a header with every request from now on: a key, an origin.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// `POST /notify`.
    pub async fn notify(&mut self, user: &str, message: impl Into<Value>) -> Answer {
        let message = message.into();
        self.post("/notify", &json!({"userId": user, "message": message})).await
    }

    /// `POST /broadcast`.
    pub async fn broadcast(&mut self, message: impl Into<Value>) -> Answer {
        let message = message.into();
        self.post("/broadcast", &json!({"message": message})).await
    }

    /// `POST /publish` of one event without a type.
    pub async fn publish(&mut self, channel: &str, data: impl Into<Value>) -> Answer {
        let data = data.into();
        self.post("/publish", &json!({"channel": channel, "data": data})).await
    }

    /// `POST` of any JSON.
    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/json")], body.to_string()).await
    }

    /// `GET`.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, &[], "").await
    }

    /// Any request. A kept connection that the server has closed meanwhile is opened anew, once.
    ///
    /// # Panics
    /// Where there is no answer.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        let body = body.as_ref();
        let mut head = format!("{method} {path} HTTP/1.1\r\n{}", self.headers);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        let request = [head.as_bytes(), b"\r\n", body].concat();
        let was_kept = self.connection.is_some();
        if let Some(answer) = self.try_request(&request).await {
            return answer;
        }
        let again = if was_kept { self.try_request(&request).await } else { None };
        again.unwrap_or_else(|| panic!("{method} {path}: closed without an answer"))
    }

    async fn try_request(&mut self, request: &[u8]) -> Option<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => RawConnection::open(self.address).await,
        };
        connection.send(request).await;
        let answer = connection.answer().await?;
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            self.connection = Some(connection);
        }
        Some(answer)
    }
}
