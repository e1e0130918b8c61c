//! Tokens made by hand, right and wrong, and requests that carry them.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_auth::{Access, Admitted, AuthConfig, AuthError, Secrets, Subscriber};
use fanfare_http::{Problem, Query};
use fanfare_protocol::Channel;
use http::{HeaderMap, HeaderName, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

pub(crate) const SECRET: &str = "a secret of at least thirty-two bytes";

/// The second that tests take for now.
pub(crate) const NOW: u64 = 1_795_229_238;

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)
}

/// A configuration with one secret.
pub(crate) fn config() -> AuthConfig {
    AuthConfig { secret: Some(Secrets::parse(SECRET).expect("a secret")), ..AuthConfig::default() }
}

pub(crate) fn access() -> Access {
    config().edge_access().expect("a secret")
}

pub(crate) fn encode(part: &Value) -> String {
    URL_SAFE_NO_PAD.encode(part.to_string())
}

/// A token with any header and claims, its signature an HMAC with SHA-256.
pub(crate) fn forge(header: &Value, claims: &Value, secret: &str) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("signed");
    format!("{message}.{signature}")
}

/// A token as any issuer makes it.
pub(crate) fn token(claims: &Value) -> String {
    forge(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

/// A token that is good for a minute.
pub(crate) fn token_with(mut claims: Value) -> String {
    claims["exp"] = json!(NOW + 60);
    token(&claims)
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).expect("a name");
    pairs.iter().map(|(n, value)| (name(n), HeaderValue::from_str(value).expect("a value"))).collect()
}

pub(crate) fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

pub(crate) fn query(raw: &str) -> Query {
    Query::parse(Some(raw)).expect("a query")
}

pub(crate) fn authorise(access: &Access, headers: &HeaderMap, raw_query: &str) -> Result<Admitted, AuthError> {
    access.authorise(headers, &query(raw_query), now())
}

/// The bearer of a token in the header.
pub(crate) fn subscriber(access: &Access, token: &str) -> Subscriber {
    authorise(access, &bearer(token), "").expect("a good token").subscriber
}

/// What is said of a token in the header that isn't taken.
pub(crate) fn refusal(access: &Access, token: &str) -> Problem {
    let problem = Problem::from(authorise(access, &bearer(token), "").expect_err("a bad token"));
    assert_eq!(problem.status(), 401, "{problem:?}");
    assert_never_echoed(&problem, token);
    problem
}

pub(crate) fn assert_never_echoed(problem: &Problem, token: &str) {
    let said = serde_json::to_string(problem).expect("JSON");
    for part in token.split('.').filter(|part| part.len() > 4) {
        assert!(!said.contains(part), "{said} repeats {part}");
    }
}

pub(crate) fn channel(name: &str) -> Channel {
    Channel::parse(name).expect(name)
}

pub(crate) fn channels(names: &[&str]) -> Vec<Channel> {
    names.iter().map(|name| channel(name)).collect()
}

pub(crate) fn may(subscriber: &Subscriber, name: &str) -> bool {
    subscriber.may_follow(&channel(name))
}
