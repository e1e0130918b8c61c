//! Where calls go: a backend's address, what it is told beside the call, and when a call is over.

use std::time::Duration;

use fanfare_auth::Secret;
use fanfare_protocol::EventType;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::backend::{CHANNEL, IDEMPOTENCY_KEY, USER};

/// Headers that are Fanfare's own to set, or the connection's.
const OWN: [HeaderName; 12] = [
    CHANNEL,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    IDEMPOTENCY_KEY,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER,
    fanfare_http::REQUEST_ID,
];

/// Where a route's calls go, and when they are over.
#[derive(Debug)]
pub(crate) struct Target {
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) path: PathAndQuery,
    /// `Host`, and the configured ones.
    pub(super) headers: HeaderMap,
    /// From the time when the backend is asked.
    pub(crate) timeout: Duration,
    /// Event types after which the stream ends.
    pub(crate) end_on: Box<[EventType]>,
}

impl Target {
    /// Reads an address such as `http://tasks.internal/run`.
    ///
    /// # Errors
    /// Says what is wrong, as it follows the setting in a sentence. Never repeats the address: it may have a password
    /// in it that should not be there.
    pub(crate) fn parse(address: &str) -> Result<Self, &'static str> {
        let expected = "is no address, expected one such as http://tasks.internal/run";
        if address.contains('@') {
            return Err("has a user or a password in it, which belong into forward_headers");
        }
        let uri: Uri = address.parse().map_err(|_| expected)?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(expected) };
        if *scheme == Scheme::HTTPS {
            return Err("needs TLS, which is not spoken to backends yet; expected http://…");
        }
        if *scheme != Scheme::HTTP || authority.host().is_empty() {
            return Err(expected);
        }
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| expected)?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self {
            // An IPv6 address stands in brackets in a URL alone.
            host: authority.host().trim_start_matches('[').trim_end_matches(']').into(),
            port: authority.port_u16().unwrap_or(80),
            path,
            headers: HeaderMap::from_iter([(HOST, host)]),
            timeout: Duration::ZERO,
            end_on: Box::default(),
        })
    }

    /// In place of one that is wrong, so that what else is wrong can be told.
    pub(crate) fn nowhere() -> Self {
        Self::parse("http://invalid/").expect("an address")
    }

    /// Adds a header that every request of the route gets.
    ///
    /// # Errors
    /// Says what is wrong, as it follows the header's name in a sentence. Never repeats the value.
    pub(crate) fn header(&mut self, name: &str, value: &Secret) -> Result<(), &'static str> {
        let name = HeaderName::try_from(name).map_err(|_| "is no name of a header")?;
        if OWN.contains(&name) {
            return Err("is set by Fanfare itself");
        }
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| "has a value that no header can have")?;
        value.set_sensitive(true); // It prints as `Sensitive`.
        match self.headers.insert(name, value) {
            None => Ok(()),
            Some(_) => Err("stands there twice, once in other letters"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_with_a_host() {
        for (address, host, port, path) in [
            ("http://tasks.internal/run", "tasks.internal", 80, "/run"),
            ("http://127.0.0.1:8000", "127.0.0.1", 8000, "/"),
            ("http://[::1]:8000/a?b=c", "::1", 8000, "/a?b=c"),
        ] {
            let target = Target::parse(address).expect(address);
            assert_eq!((&*target.host, target.port, target.path.as_str()), (host, port, path));
        }
        for (address, part) in [
            ("https://tasks.internal/run", "TLS"),
            ("tasks.internal/run", "no address"),
            ("/run", "no address"),
            ("", "no address"),
            ("ftp://tasks.internal", "no address"),
            ("http://", "no address"),
            ("http://me:hunter2@tasks.internal", "forward_headers"),
        ] {
            let error = Target::parse(address).expect_err(address);
            assert!(error.contains(part) && !error.contains("hunter2"), "{address}: {error}");
        }
    }

    #[test]
    fn configured_headers_are_neither_fanfares_own_nor_ever_printed() {
        let mut target = Target::parse("http://tasks.internal").expect("an address");
        let secret = Secret::from("hunter2");
        assert_eq!(target.header("X-Fanfare-Secret", &secret), Ok(()));
        assert!(target.header("x-fanfare-secret", &secret).is_err(), "twice");
        for name in ["Host", "Content-Type", "X-Request-Id", "Fanfare-User", "Transfer-Encoding", "a b", ""] {
            assert!(target.header(name, &secret).is_err(), "{name}");
        }
        assert!(target.header("X-Other", &Secret::from("a\nb")).is_err());
        assert_eq!(target.headers.len(), 2);
        assert!(!format!("{target:?}").contains("hunter2"));
    }
}
