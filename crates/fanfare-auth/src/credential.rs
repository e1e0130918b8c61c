//! Where in a request a token stands. The first place that has one decides, whether it is good or not: a request with
//! two of them must not be one user here and another one there.

use std::fmt;

use fanfare_http::Query;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};

use crate::access::{AuthError, TokenRules};
use crate::setting::CookieName;
use crate::token::TokenError;

const SCHEME: &str = "bearer";

/// Where a token stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer`.
    Header,
    /// `?token=` or `?auth=`.
    Query,
    /// The cookie of that name. A browser sends it from any page, so whoever acts on it must look at the `Origin`.
    Cookie(CookieName),
    /// The body of `PATCH /events/{clientId}`.
    Body,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the Authorization header"),
            Self::Query => f.write_str("the query"),
            Self::Cookie(name) => write!(f, "the cookie {name}"),
            Self::Body => f.write_str("the body"),
        }
    }
}

/// The Authorization header is there, but not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BearerError {
    Repeated,
    NotText,
}

/// The token that decides, and where it stands.
pub(crate) fn find<'a>(
    rules: &TokenRules,
    headers: &'a HeaderMap,
    query: &'a Query,
) -> Result<Option<(Source, &'a str)>, AuthError> {
    match bearer(headers) {
        Ok(None) => {}
        Ok(Some(token)) => return Ok(Some((Source::Header, token))),
        Err(BearerError::Repeated) => return Err(AuthError::Repeated("the Authorization header")),
        Err(BearerError::NotText) => return Err(AuthError::Token { from: Source::Header, error: TokenError::Shape }),
    }
    if query.get("ticket").is_some() {
        return Err(AuthError::Ticket);
    }
    let mut in_query = query.all("token").chain(query.all("auth"));
    match (in_query.next(), in_query.next()) {
        (None, _) => {}
        (Some(_), _) if !rules.query_token => return Err(AuthError::QueryToken),
        (Some(token), None) => return Ok(Some((Source::Query, token))),
        (Some(_), Some(_)) => return Err(AuthError::Repeated("a token in the query")),
    }
    match cookie(headers, rules.cookie.as_str()) {
        None => Ok(None),
        Some(token) => {
            let from = Source::Cookie(rules.cookie.clone());
            match str::from_utf8(token) {
                Ok(token) => Ok(Some((from, token))),
                Err(_) => Err(AuthError::Token { from, error: TokenError::Shape }),
            }
        }
    }
}

/// What stands in `Authorization: Bearer`. Other schemes are none of ours: a site behind a password sends its Basic
/// one along, beside the cookie that counts.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, BearerError> {
    let mut found = headers.get_all(AUTHORIZATION).iter().filter_map(|value| after_scheme(value.as_bytes()));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(token), None) => str::from_utf8(token).map(Some).map_err(|_| BearerError::NotText),
        (Some(_), Some(_)) => Err(BearerError::Repeated),
    }
}

/// Schemes are written in any case (RFC 9110 §11.1).
fn after_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.trim_ascii().split_at_checked(SCHEME.len()).unwrap_or_default();
    let is_ours = scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && rest.first().is_none_or(|byte| *byte == b' ');
    is_ours.then(|| rest.trim_ascii())
}

/// The first cookie of that name: browsers send the one of the nearest path first. An empty one is what logging out
/// leaves behind, and counts as none.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let rest = pair.strip_prefix(name.as_bytes())?.trim_ascii_start();
        Some(rest.strip_prefix(b"=")?.trim_ascii())
    });
    let value = values.next()?;
    let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (!unquoted.is_empty()).then_some(unquoted)
}
