//! One request to a backend: what it is told, and what its answer means.
//!
//! Each request has a connection of its own: dropping it is how HTTP/1.1 says that nobody waits any more, and a
//! connection that nobody shared can't be stale.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fanfare_http::{REQUEST_ID, media_type};
use fanfare_protocol::{Channel, UserId};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::IgnoredAny;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ending::{CallError, Ending, in_one_line};
use super::target::Target;

/// Where the backend publishes what belongs to the call.
pub(super) const CHANNEL: HeaderName = HeaderName::from_static("fanfare-channel");
/// Whose call it is.
pub(super) const USER: HeaderName = HeaderName::from_static("fanfare-user");
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// What is taken over from the caller's request. Nothing else is: credentials, cookies and addresses stay here.
const OF_THE_CALLER: [HeaderName; 3] = [CONTENT_TYPE, IDEMPOTENCY_KEY, REQUEST_ID];

/// How long a backend may take to accept a connection. One that is there takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer at most. It goes out as one event, whole.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What a user id may not have in a header: a backend would take ` 42` for `42`, and read other than ASCII in
/// its own way. The percent sign keeps it reversible.
const ENCODED_IN_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// What goes to a backend.
#[derive(Debug)]
pub(crate) struct Outgoing {
    headers: HeaderMap,
    body: Bytes,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answer {
    /// The backend publishes what it has to say.
    Accepted,
    /// There is nothing more to wait for.
    Final(Ending),
}

impl Outgoing {
    /// A call as its backend gets it.
    pub(crate) fn new(caller: &HeaderMap, channel: &Channel, user: Option<&UserId>, body: Bytes) -> Self {
        let mut headers = HeaderMap::with_capacity(8);
        for name in OF_THE_CALLER {
            if let Some(value) = caller.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let ascii = |text: &str| HeaderValue::from_str(text).expect("visible ASCII");
        headers.insert(CHANNEL, ascii(channel.as_str()));
        if let Some(user) = user {
            headers.insert(USER, ascii(&utf8_percent_encode(user.as_str(), ENCODED_IN_HEADER).to_string()));
        }
        Self { headers, body }
    }
}

/// Asks a backend. Dropped, it breaks the connection off.
pub(super) async fn ask(target: &Target, request: Outgoing) -> Answer {
    match exchange(target, request).await {
        Ok(answer) => answer,
        Err(message) => Answer::Final(Ending::failed(message)),
    }
}

/// The request and its answer, or a sentence for the caller: no address, nobody else's error texts.
async fn exchange(target: &Target, outgoing: Outgoing) -> Result<Answer, &'static str> {
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect((&*target.host, target.port)));
    let Ok(Ok(socket)) = connecting.await else { return Err("the backend can't be reached") };
    _ = socket.set_nodelay(true); // A socket that refuses works all the same.
    let broke_off = "the backend broke off";
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(|_| broke_off)?;

    let Outgoing { headers, body } = outgoing;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone().into();
    *request.headers_mut() = headers;
    request.headers_mut().extend(target.headers.clone());
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|_| broke_off)?;
        read(response).await
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => return answer,
        _ = connection => {} // Nothing more comes; what came already is still to be read.
    }
    exchange.await
}

async fn read(response: Response<Incoming>) -> Result<Answer, &'static str> {
    let (status, media_type) = (response.status(), media_type(response.headers()));
    if status == StatusCode::ACCEPTED {
        return Ok(Answer::Accepted);
    }
    let mut incoming = response.into_body();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|_| "the backend broke off in the middle of its answer")?.into_data() else {
            continue;
        };
        if body.len() + data.len() > ANSWER_BYTES_MAX {
            return Err("the backend's answer is too large for one event");
        }
        body.extend_from_slice(&data);
    }
    if status != StatusCode::OK {
        return Ok(Answer::Final(match CallError::read(&body) {
            Some(error) => error.into(),
            None => Ending::failed(format!("the backend answered with the status {}", status.as_u16())),
        }));
    }
    let is_json = media_type == "application/json" || media_type.ends_with("+json");
    match str::from_utf8(&body) {
        Ok(json) if is_json && serde_json::from_str::<IgnoredAny>(json).is_ok() => {
            Ok(Answer::Final(Ending::Result(in_one_line(json.trim()))))
        }
        _ => Err("the backend's answer is not JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_told_what_it_needs_and_nothing_else_of_the_caller() {
        let caller: HeaderMap = [
            ("content-type", "application/json"),
            ("idempotency-key", "\"k\""),
            ("x-request-id", "r"),
            ("authorization", "Bearer secret"),
            ("cookie", "fanfare_token=secret"),
            ("x-forwarded-for", "192.0.2.1"),
            ("forwarded", "for=192.0.2.1"),
            ("user-agent", "browser"),
            ("origin", "https://app.example.com"),
            ("fanfare-user", "somebody else"),
            ("fanfare-channel", "$call:other"),
            ("host", "edge.example.com"),
            ("accept", "text/event-stream"),
        ]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
        let channel = Channel::parse("$call:0a").expect("valid");
        let user = UserId::parse("alice@example.com").expect("valid");
        let outgoing = Outgoing::new(&caller, &channel, Some(&user), Bytes::new());
        let mut told: Vec<_> = outgoing.headers.iter().map(|(n, v)| (n.as_str(), v.to_str().expect("ASCII"))).collect();
        told.sort_unstable();
        let expected = [
            ("content-type", "application/json"),
            ("fanfare-channel", "$call:0a"),
            ("fanfare-user", "alice@example.com"),
            ("idempotency-key", "\"k\""),
            ("x-request-id", "r"),
        ];
        assert_eq!(told, expected);
        let anonymous = Outgoing::new(&caller, &channel, None, Bytes::new());
        assert_eq!(anonymous.headers.get(USER), None, "whatever the caller says");
    }

    #[test]
    fn no_two_users_are_one_in_a_header() {
        let told = |user: &str| {
            let user = UserId::parse(user).expect("valid");
            let channel = Channel::parse("$call:0a").expect("valid");
            let outgoing = Outgoing::new(&HeaderMap::new(), &channel, Some(&user), Bytes::new());
            outgoing.headers[USER].to_str().expect("ASCII").to_owned()
        };
        for (user, header) in
            [("42", "42"), (" 42", "%2042"), ("42 ", "42%20"), ("%42", "%2542"), ("grün", "gr%C3%BCn")]
        {
            assert_eq!(told(user), header);
        }
    }
}
