//! Which pages of other origins may read what we answer.
//!
//! The policy is data: it says which header pairs an `Origin` is owed, for responses that hyper writes and for heads
//! that an edge writes itself. An allowed origin gets itself back, never `*`: a browser refuses `*` where cookies
//! travel. Whether a request is *served* is not decided here, because CORS only ever keeps pages from reading.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};

use crate::response::{Response, empty};

/// Methods that a page may use, besides the simple ones.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PATCH, DELETE");
/// Request headers that a page may set.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, Last-Event-ID, Idempotency-Key");
/// Response headers that a page may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, X-Request-Id");
/// Two hours: browsers remember a preflight's answer no longer (Chromium's bound).
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("7200");
const TRUE: HeaderValue = HeaderValue::from_static("true");
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// A policy: whose pages may read answers.
#[derive(Clone, Debug)]
pub struct Cors {
    allowed: Allowed,
}

#[derive(Clone, Debug)]
enum Allowed {
    Local(LocalHosts),
    Exactly(Vec<String>),
}

/// What was given as an origin is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an origin; expected scheme, host and port, such as https://app.example.com")]
pub struct OriginError(String);

impl Cors {
    /// Pages of this machine, whatever their port (a Vite or Next server beside us), and of the named hosts.
    pub fn loopback(hosts: LocalHosts) -> Self {
        Self { allowed: Allowed::Local(hosts) }
    }

    /// Pages of exactly these origins.
    ///
    /// # Errors
    /// One of them is not an origin, as a browser would send it.
    pub fn exactly<S: AsRef<str>>(origins: impl IntoIterator<Item = S>) -> Result<Self, OriginError> {
        let origins = origins.into_iter().map(|origin| parse_origin(origin.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { allowed: Allowed::Exactly(origins) })
    }

    /// Pages of no other origin.
    pub fn nobody() -> Self {
        Self { allowed: Allowed::Exactly(Vec::new()) }
    }

    /// Whether pages of this origin may read what we answer. `null` (sandboxed frames, files) never may: anybody can
    /// be it.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        match &self.allowed {
            Allowed::Exactly(origins) => origins.iter().any(|allowed| allowed == origin),
            Allowed::Local(hosts) => match origin.split_once("://") {
                Some(("http" | "https", authority)) => hosts.allow(authority),
                _ => false,
            },
        }
    }

    /// The headers that any answer to this origin gets, errors too. `Vary` also stands where nobody is allowed:
    /// a cache must not hand this answer to somebody who is.
    pub fn headers(&self, origin: Option<&HeaderValue>) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let allowed = origin.filter(|origin| self.allows(origin)).cloned();
        let for_the_page = allowed.into_iter().flat_map(|origin| {
            [
                (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                (ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE),
                (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            ]
        });
        std::iter::once((VARY, VARY_ORIGIN)).chain(for_the_page)
    }

    /// Adds [`Cors::headers`] to an answer's.
    pub fn decorate(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        for (name, value) in self.headers(origin) {
            if name != VARY {
                headers.insert(name, value);
            } else if !headers.get_all(VARY).iter().any(|there| there == value) {
                headers.append(name, value);
            }
        }
    }

    /// Answers a preflight: what a browser asks before a request that a form could not have sent. None: it isn't one.
    pub fn preflight<B>(&self, request: &Request<B>) -> Option<Response> {
        let headers = request.headers();
        let origin = headers.get(ORIGIN)?;
        if request.method() != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            return None;
        }
        let mut answer = empty(StatusCode::NO_CONTENT);
        self.decorate(Some(origin), answer.headers_mut());
        if self.allows(origin) {
            answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
            answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            answer.headers_mut().insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        }
        Some(answer)
    }
}

/// The names under which this machine is asked for: the loopback ones, and those that were added.
///
/// A page of a foreign site can point a name of its own at 127.0.0.1 (DNS rebinding); its requests carry that name in
/// `Host`, which is how they are told apart.
#[derive(Clone, Debug, Default)]
pub struct LocalHosts {
    added: Vec<String>,
}

impl LocalHosts {
    /// The loopback names (`localhost`, `*.localhost`, `127.0.0.0/8`, `[::1]`) and these, without their ports.
    pub fn and(added: impl IntoIterator<Item = String>) -> Self {
        Self { added: added.into_iter().map(|host| normal(&host)).collect() }
    }

    /// The host of an authority, without port and brackets; nothing where it is not one.
    pub fn name(authority: &str) -> &str {
        let (host, rest) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').unwrap_or(("", "")),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = rest.strip_prefix(':').unwrap_or(rest);
        if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { "" }
    }

    /// Whether this is one of them. Any port will do.
    pub fn allow(&self, authority: &str) -> bool {
        let host = normal(Self::name(authority));
        is_loopback(&host) || self.added.contains(&host)
    }
}

/// Hosts are the same in any case, and with the root's dot.
fn normal(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// An origin as browsers write it: lower case, no path, no default port.
fn parse_origin(text: &str) -> Result<String, OriginError> {
    let refused = || OriginError(text.to_owned());
    let uri: Uri = text.parse().map_err(|_| refused())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(refused()) };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(refused()),
    };
    if uri.path() != "/" || text.ends_with('/') || uri.query().is_some() || authority.as_str().contains(['@', '*']) {
        return Err(refused());
    }
    let host = authority.host().to_ascii_lowercase();
    Ok(match authority.port_u16() {
        Some(port) if port != default_port => format!("{scheme}://{host}:{port}"),
        _ => format!("{scheme}://{host}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).expect("a header value")
    }

    #[test]
    fn pages_of_this_machine_and_of_added_hosts_are_allowed_and_no_others() {
        let cors = Cors::loopback(LocalHosts::and(["Dev.Example.com".to_owned()]));
        let allowed = [
            "http://localhost",
            "http://localhost:5173",
            "https://app.localhost:3000",
            "http://127.0.0.1:8080",
            "http://127.8.9.1",
            "http://[::1]:3000",
            "http://LOCALHOST:1",
            "https://dev.example.com:8443",
        ];
        let refused = [
            "null",
            "",
            "http://example.com",
            "http://localhost.example.com",
            "http://notlocalhost",
            "http://127.0.0.1.example.com",
            "http://localhost:80@example.com",
            "http://localhost:x",
            "file://",
            "http://[::1",
            "http://128.0.0.1",
            "chrome-extension://localhost",
            "http://a.dev.example.com",
        ];
        for origin in allowed {
            assert!(cors.allows(&value(origin)), "{origin}");
        }
        for origin in refused {
            assert!(!cors.allows(&value(origin)), "{origin}");
        }
    }

    #[test]
    fn an_allowed_origin_gets_itself_back_and_everyone_gets_vary() {
        let cors = Cors::exactly(["https://app.example.com"]).expect("an origin");
        let mut headers = HeaderMap::new();
        headers.insert(VARY, value("Accept"));
        cors.decorate(Some(&value("https://app.example.com")), &mut headers);
        cors.decorate(Some(&value("https://app.example.com")), &mut headers); // Twice is as good as once.
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(headers[ACCESS_CONTROL_EXPOSE_HEADERS], "Retry-After, X-Request-Id");
        assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), ["Accept", "Origin"]);

        for origin in [None, Some(value("https://evil.example.com")), Some(value("http://app.example.com"))] {
            let pairs: Vec<_> = cors.headers(origin.as_ref()).collect();
            assert_eq!(pairs, [(VARY, VARY_ORIGIN)], "{origin:?}");
        }
    }

    #[test]
    fn a_preflight_is_answered_with_what_a_page_may_send() {
        let cors = Cors::exactly(["https://app.example.com"]).expect("an origin");
        let request = |method: Method, origin: &str| {
            let request = Request::builder().method(method).header(ORIGIN, origin);
            request.header(ACCESS_CONTROL_REQUEST_METHOD, "PATCH").body(()).expect("a request")
        };
        let answer = cors.preflight(&request(Method::OPTIONS, "https://app.example.com")).expect("a preflight");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "https://app.example.com");
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST, PATCH, DELETE");
        assert_eq!(
            answer.headers()[ACCESS_CONTROL_ALLOW_HEADERS],
            "Authorization, Content-Type, Last-Event-ID, Idempotency-Key"
        );
        assert_eq!(answer.headers()[ACCESS_CONTROL_MAX_AGE], "7200");

        let refused = cors.preflight(&request(Method::OPTIONS, "https://evil.example.com")).expect("a preflight");
        assert_eq!(refused.headers().keys().collect::<Vec<_>>(), [VARY]);
        assert!(cors.preflight(&request(Method::GET, "https://app.example.com")).is_none());
        let plain_options = Request::builder().method(Method::OPTIONS).body(()).expect("a request");
        assert!(cors.preflight(&plain_options).is_none());
    }

    #[test]
    fn origins_are_taken_as_browsers_write_them() {
        for (text, origin) in [
            ("https://App.Example.com", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:8080", "http://app.example.com:8080"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(parse_origin(text).as_deref(), Ok(origin));
        }
        for text in ["*", "null", "", "app.example.com", "https://app.example.com/", "https://*.example.com", "ws://a"]
        {
            assert_eq!(parse_origin(text), Err(OriginError(text.to_owned())));
        }
        assert!(Cors::exactly(["https://a.example", "nonsense"]).is_err());
    }
}
