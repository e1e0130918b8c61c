//! The tools' side of HTTP: one request on a connection of its own, and what a server says when it refuses.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::args::Usage;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an answer that is read whole, at most.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Runs a tool on a runtime of its own. One thread does for it.
pub(crate) fn run(tool: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(tool);
    runtime.shutdown_background(); // A read of standard input may never end.
    result
}

/// Where the server is, and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// As it was given, for messages.
    url: String,
    host: String,
    port: u16,
    authority: HeaderValue,
    /// What the URL's path puts before ours.
    prefix: String,
    bearer: Option<HeaderValue>,
}

/// The server's answer, with its connection, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Answer {
    response: Response<Incoming>,
    _connection: JoinSet<()>,
}

/// The server refused.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    /// What `Retry-After` says.
    pub(crate) retry_after: Option<Duration>,
    detail: String,
    hint: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

impl Server {
    /// Reads a URL and a credential.
    ///
    /// # Errors
    /// It is not a URL that this client can speak to.
    pub(crate) fn new(url: &str, credential: Option<&str>) -> anyhow::Result<Self> {
        let refused = |why: &str| Usage::new(format!("--url is {url:?}, {why}"));
        let uri: Uri = url.parse().map_err(|_| refused("expected a URL such as http://127.0.0.1:8080"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(refused(
                    "but the tools of this version don't speak https; use http:// to a server or proxy that does",
                )
                .into());
            }
            _ => return Err(refused("expected a URL such as http://127.0.0.1:8080").into()),
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(|| refused("expected a host and perhaps a port after http://"))?;
        let bearer = match credential {
            Some(credential) => {
                let mut bearer = HeaderValue::try_from(format!("Bearer {credential}"))
                    .map_err(|_| Usage::new("the key or token has characters that can't be sent"))?;
                bearer.set_sensitive(true);
                Some(bearer)
            }
            None => None,
        };
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str()).expect("an authority is ASCII"),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            bearer,
        })
    }

    /// Sends a request for a path of ours. Whatever the status, it is an answer.
    ///
    /// # Errors
    /// The server can't be reached, or does not answer in time.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> anyhow::Result<Answer>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let answered = timeout(ANSWER_TIMEOUT, self.send_slowly(request)).await;
        answered.with_context(|| format!("{} does not answer within {ANSWER_TIMEOUT:?}", self.url))?
    }

    /// Sends a request whose body may take its time, and the answer with it.
    ///
    /// # Errors
    /// The server can't be reached.
    pub(crate) async fn send_slowly<B>(&self, mut request: Request<B>) -> anyhow::Result<Answer>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("{}{path}", self.prefix).parse()?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("fanfare/", env!("CARGO_PKG_VERSION"))));
        if let Some(bearer) = &self.bearer {
            headers.insert(AUTHORIZATION, bearer.clone());
        }
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect((&*self.host, self.port)))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))
            .and_then(|connected| connected)
            .with_context(|| {
                format!("no server answers at {} (is `fanfare dev` running? --url says where)", self.url)
            })?;
        stream.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
        SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            _ = connection.await; // Whoever waits for the answer or its body is told.
        });
        let answered = sender.send_request(request).await;
        let response = answered.with_context(|| format!("the connection to {} broke before the answer", self.url))?;
        Ok(Answer { response, _connection: task })
    }
}

impl Answer {
    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The next piece of the body; None at its end.
    ///
    /// # Errors
    /// The connection broke.
    pub(crate) async fn next_bytes(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some(frame) = self.response.body_mut().frame().await {
            if let Ok(bytes) = frame.context("the connection broke")?.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The whole body of a 200.
    ///
    /// # Errors
    /// [`Refused`], or it does not come whole and in time.
    pub(crate) async fn success(self) -> anyhow::Result<Bytes> {
        if self.status() != StatusCode::OK {
            return Err(self.refused().await.into());
        }
        self.whole().await
    }

    /// What any other status says.
    pub(crate) async fn refused(self) -> Refused {
        #[derive(Deserialize)]
        struct Problem {
            detail: String,
            hint: Option<String>,
        }
        let status = self.status();
        let retry_after = self.response.headers().get(http::header::RETRY_AFTER);
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let body = self.whole().await.unwrap_or_default();
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(&body);
            let line = text.lines().next().unwrap_or_default();
            Problem { detail: format!("the server answered {status} {line:.200}").trim_end().to_owned(), hint: None }
        });
        Refused {
            status,
            retry_after: seconds.map(Duration::from_secs),
            detail: crate::terminal::one_line(&problem.detail),
            hint: problem.hint.as_deref().map(crate::terminal::one_line),
        }
    }

    async fn whole(self) -> anyhow::Result<Bytes> {
        let Self { response, _connection } = self;
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        let body = timeout(ANSWER_TIMEOUT, body).await.context("the answer does not come whole in time")?;
        Ok(body.map_err(anyhow::Error::from_boxed).context("the answer broke off")?.to_bytes())
    }
}

/// A value in a URL's query: everything but unreserved characters is encoded.
pub(crate) fn in_query(value: &str) -> impl fmt::Display {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'/');
    utf8_percent_encode(value, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_perhaps_a_port_and_a_path() {
        let server = Server::new("http://[::1]:81/fanfare/", Some("k")).expect("a URL");
        assert_eq!((&*server.host, server.port, &*server.prefix), ("::1", 81, "/fanfare"));
        assert_eq!(Server::new("http://example.com", None).expect("a URL").port, 80);
        for url in ["", "127.0.0.1:8080", "ftp://example.com", "http://", "http://user@example.com", "https://a"] {
            let error = Server::new(url, None).expect_err(url);
            assert!(error.is::<Usage>() && error.to_string().contains(&format!("{url:?}")), "{error}");
        }
        assert!(Server::new("http://a", Some("a\nb")).is_err());
    }

    #[test]
    fn what_stands_in_a_query_can_be_read_back() {
        assert_eq!(in_query("a+b&c=ü:7/8").to_string(), "a%2Bb%26c%3D%C3%BC:7/8");
    }
}
