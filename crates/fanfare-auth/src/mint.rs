//! Making tokens: for `POST /tokens`, within the reach of the key that asks, and for `fanfare token`.

use std::fmt;
use std::time::{Duration, SystemTime};

use fanfare_protocol::{Channel, Pattern, UserId};
use serde::Serialize;

use crate::key::{KeyRefusal, PublishKey, Right};
use crate::token::{Secrets, TOKEN_BYTES_MAX};

/// A hundred years: more is a mistake in the unit, and would end after the years that a date can have.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A token that someone wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenOrder {
    /// Whose it is: opens their inbox and the broadcast.
    pub user: Option<UserId>,
    /// What else it opens.
    pub channels: Vec<Pattern>,
    /// What its bearer gets without asking.
    pub follow: Vec<Channel>,
    /// How long it is good.
    pub ttl: Duration,
}

/// Why a token isn't made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// No time at all, or more than makes sense.
    #[error("a token is good for some time, at most 100 years")]
    Ttl,
    /// It names channels that nobody subscribes to.
    #[error("{0} can't be subscribed to, so a token can't open it")]
    Internal(String),
    /// The key may not mint.
    #[error(transparent)]
    Key(#[from] KeyRefusal),
    /// It names nothing.
    #[error("such a token would open nothing")]
    Nothing,
    /// It would reach further than the key.
    #[error("the key {key} does not reach {wanted}, so a token of it can't either")]
    BeyondKey {
        /// The key's name.
        key: String,
        /// The first pattern or channel outside of its scope.
        wanted: String,
    },
    /// Its own inbox and the broadcast are beyond the key, and it asks for nothing else.
    #[error("the key {key} reaches neither {inbox} nor the broadcast, so the token would open nothing")]
    OpensNothing {
        /// The key's name.
        key: String,
        /// The user's inbox.
        inbox: Channel,
    },
    /// More than an edge takes.
    #[error("the token would have {0} bytes, edges take at most {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    /// The library refused.
    #[error("the token can't be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
}

/// A token that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Minted {
    /// The token. Whoever has it is its user.
    pub token: String,
    /// When it ends, in whole seconds.
    pub expires_at: SystemTime,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    channels: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    follow: Vec<&'a str>,
    /// With milliseconds: a disconnect refuses tokens issued before it, and the next one may be of the same second.
    iat: f64,
    exp: u64,
    /// [`crate::claims::LIMIT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    fanfare_limit: Option<Vec<String>>,
}

impl TokenOrder {
    /// Makes the token, signed with the first secret.
    ///
    /// # Errors
    /// It would open nothing that exists, or be too long.
    pub fn mint(&self, secrets: &Secrets, now: SystemTime) -> Result<Minted, MintError> {
        self.sign(secrets, None, now)
    }

    /// Makes the token for the holder of a key. It reaches no further than the key: what it names must be within the
    /// key's scope, and the scope goes into the token, so that nothing else that tokens get (the inbox, the broadcast,
    /// grants) opens more.
    ///
    /// # Errors
    /// As [`TokenOrder::mint`], and where the key may not mint it.
    pub fn mint_for(&self, key: &PublishKey, secrets: &Secrets, now: SystemTime) -> Result<Minted, MintError> {
        key.check(Right::Mint)?;
        let beyond = |wanted: String| MintError::BeyondKey { key: key.name().to_owned(), wanted };
        if let Some(pattern) = self.channels.iter().find(|pattern| !key.covers(pattern)) {
            return Err(beyond(pattern.to_string()));
        }
        if let Some(channel) = self.follow.iter().find(|channel| !key.reaches(channel)) {
            return Err(beyond(channel.to_string()));
        }
        if let Some(inbox) = self.user.as_ref().map(UserId::inbox)
            && self.channels.is_empty()
            && self.follow.is_empty()
            && !key.reaches(&inbox)
            && !key.reaches(&Channel::broadcast())
        {
            return Err(MintError::OpensNothing { key: key.name().to_owned(), inbox });
        }
        self.sign(secrets, key.channels(), now)
    }

    fn sign(&self, secrets: &Secrets, limit: Option<&[Pattern]>, now: SystemTime) -> Result<Minted, MintError> {
        if self.user.is_none() && self.channels.is_empty() && self.follow.is_empty() {
            return Err(MintError::Nothing);
        }
        if self.ttl.is_zero() || self.ttl > TTL_MAX {
            return Err(MintError::Ttl);
        }
        let channels: Vec<_> = self.channels.iter().map(Pattern::to_string).collect();
        let follow: Vec<_> = self.follow.iter().map(Channel::as_str).collect();
        let named = channels.iter().map(String::as_str).chain(follow.iter().copied());
        if let Some(internal) = named.into_iter().find(|name| name.starts_with('$')) {
            return Err(MintError::Internal(internal.to_owned()));
        }
        let issued = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let expires = issued.saturating_add(self.ttl);
        // Rounded up, as every other reader of tokens expects them.
        let exp = expires.as_secs() + u64::from(expires.subsec_nanos() > 0);
        let claims = Written {
            sub: self.user.as_ref().map(UserId::as_str),
            channels,
            follow,
            iat: issued.as_millis() as f64 / 1000.0,
            exp,
            fanfare_limit: limit.map(|limit| limit.iter().map(Pattern::to_string).collect()),
        };
        let token = secrets.sign(&claims).map_err(MintError::Signing)?;
        match token.len() > TOKEN_BYTES_MAX {
            true => Err(MintError::TooLong(token.len())),
            false => Ok(Minted { token, expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(exp) }),
        }
    }
}
