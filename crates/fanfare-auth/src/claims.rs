//! What a token says, once its signature is known to be good. A claim of the wrong kind makes the whole token
//! malformed: half a token is not what its issuer meant.

use std::time::{Duration, SystemTime};

use fanfare_protocol::{Channel, Pattern, UserId};
use serde_json::{Map, Value};

use crate::token::TokenError;

/// A claim of our own: the scope of the publish key that minted the token, which is the token's too. Whatever else
/// opens channels (the inbox, grants), opens none outside of it.
pub(crate) const LIMIT: &str = "fanfare_limit";

/// The last second of the year 9999.
const DATE_SECONDS_MAX: f64 = 253_402_300_799.0;

/// A token's claims.
#[derive(Debug)]
pub(crate) struct Claims {
    pub(crate) user: Option<UserId>,
    pub(crate) channels: Vec<Pattern>,
    pub(crate) follow: Vec<Channel>,
    pub(crate) limit: Option<Vec<Pattern>>,
    pub(crate) expires_at: SystemTime,
    pub(crate) issued_at: Option<SystemTime>,
    pub(crate) not_before: Option<SystemTime>,
    /// All of them, known or not: grants are filled from these.
    pub(crate) all: Map<String, Value>,
}

impl Claims {
    pub(crate) fn read(all: Map<String, Value>) -> Result<Self, TokenError> {
        let pattern = |text: &str| Pattern::parse(text).ok();
        let user = match given(&all, "sub") {
            None => None,
            Some(Value::String(id)) => Some(
                UserId::parse(id).map_err(|_| wrong("sub", "a user id (no control characters, at most 195 bytes)"))?,
            ),
            Some(_) => return Err(wrong("sub", "a text")),
        };
        let limit = match all.contains_key(LIMIT) {
            // Even `null`: what narrows a token must not be overlooked.
            true => Some(list(all.get(LIMIT), LIMIT, "a pattern", pattern)?),
            false => None,
        };
        Ok(Self {
            user,
            channels: list(given(&all, "channels"), "channels", "a pattern", pattern)?,
            follow: list(given(&all, "follow"), "follow", "a channel", |text| Channel::parse(text).ok())?,
            limit,
            expires_at: date(&all, "exp")?.ok_or(TokenError::NoExpiry)?,
            issued_at: date(&all, "iat")?,
            not_before: date(&all, "nbf")?,
            all,
        })
    }
}

/// A claim that is there. Many issuers write `null` for one that isn't.
fn given<'a>(all: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    all.get(claim).filter(|value| !value.is_null())
}

fn list<T>(
    value: Option<&Value>,
    claim: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, TokenError> {
    let entries = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(wrong(claim, "a list of texts")),
    };
    let read = |(index, entry): (usize, &Value)| {
        entry.as_str().and_then(&read).ok_or_else(|| wrong(&format!("{claim}[{index}]"), expected))
    };
    entries.iter().enumerate().map(read).collect()
}

/// A NumericDate (RFC 7519 §2): seconds since 1970, perhaps with a fraction. Taken to the millisecond.
fn date(all: &Map<String, Value>, claim: &'static str) -> Result<Option<SystemTime>, TokenError> {
    let Some(value) = given(all, claim) else { return Ok(None) };
    let seconds = value.as_f64().ok_or_else(|| wrong(claim, "a number"))?;
    if seconds > DATE_SECONDS_MAX {
        return Err(TokenError::Milliseconds(claim));
    }
    // What is before 1970 is over just as much as 1970.
    let ms = (seconds.max(0.0) * 1000.0).round() as u64;
    Ok(Some(SystemTime::UNIX_EPOCH + Duration::from_millis(ms)))
}

fn wrong(claim: &str, expected: &'static str) -> TokenError {
    TokenError::Claim { claim: claim.to_owned(), expected }
}
