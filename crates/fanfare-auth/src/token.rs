//! Subscriber tokens: JSON Web Tokens (RFC 7519), signed with HS256 and nothing else.
//!
//! The algorithm is ours and never the token's: its header is read only to say what is wrong. What the claims mean is
//! the job of `claims`; nothing in them is looked at before the signature has been verified.

use std::fmt;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::claims::Claims;
use crate::secret::Secret;
use crate::setting::{SettingError, read_from_text, read_list};

/// Bytes of a token at most. A longer one fits into no header that proxies let pass; it is not even read.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

const ALGORITHM: Algorithm = Algorithm::HS256;
const ALGORITHM_NAME: &str = "HS256";

/// How far a clock elsewhere may be ahead of ours, so that a token which begins now is good at once.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Secrets that tokens are signed with, as `FANFARE_AUTH_SECRET` lists them. Never empty.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Secrets {
    signing: EncodingKey,
    verifying: Vec<DecodingKey>,
    lengths: Vec<usize>,
}

/// Why a token isn't taken. It follows "the token" in a sentence, and holds nothing of the token itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// Longer than [`TOKEN_BYTES_MAX`].
    #[error("has {0} bytes, at most {TOKEN_BYTES_MAX} are taken")]
    TooLong(usize),
    /// Not the shape of a token.
    #[error("is malformed: expected three parts in base64url, with dots between them")]
    Shape,
    /// A header that isn't one.
    #[error("is malformed: its header is not JSON with an alg")]
    Header,
    /// `none`, RS256 and all others.
    #[error("is not signed with {ALGORITHM_NAME}")]
    Algorithm,
    /// Extensions that must be understood (RFC 7515 §4.1.11). There is none that we do.
    #[error("has a header with crit, and extensions are not understood")]
    Critical,
    /// Signed with another secret, or changed afterwards.
    #[error("is wrongly signed: no secret of this server made its signature")]
    Signature,
    /// Claims that aren't a JSON object.
    #[error("is malformed: its claims are not a JSON object")]
    Claims,
    /// A claim that isn't what it should be.
    #[error("is malformed: its {claim} is not {expected}")]
    Claim {
        /// The claim, with the number of the entry where it is a list.
        claim: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A date in milliseconds would be tens of thousands of years away, and the token good for ever.
    #[error("is malformed: its {0} is after the year 9999 (dates are in seconds since 1970, not in milliseconds)")]
    Milliseconds(&'static str),
    /// Tokens without an end aren't taken.
    #[error("has no exp, the time at which it ends")]
    NoExpiry,
    /// Over.
    #[error("expired {} ago", humantime::format_duration(*.ago))]
    Expired {
        /// Whole seconds since then.
        ago: Duration,
    },
    /// Its `nbf` is still to come.
    #[error("is not good yet, but in {}", humantime::format_duration(*.wait))]
    NotYet {
        /// Whole seconds until then.
        wait: Duration,
    },
}

/// The header, as far as it matters.
#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    crit: Option<IgnoredAny>,
}

impl Secrets {
    /// Reads `NEW,OLD`.
    ///
    /// # Errors
    /// Says which entries are empty, never what they are.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let secrets = read_list(text, |_, entry| Ok(Secret::from(entry)))?;
        let signing = EncodingKey::from_secret(secrets[0].expose().as_bytes());
        let verifying = secrets.iter().map(|secret| DecodingKey::from_secret(secret.expose().as_bytes())).collect();
        let lengths = secrets.iter().map(|secret| secret.expose().len()).collect();
        Ok(Self { signing, verifying, lengths })
    }

    /// Bytes of each.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.lengths.iter().copied()
    }

    /// Signs claims with the first secret.
    pub(crate) fn sign(&self, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(ALGORITHM), claims, &self.signing)
    }

    /// Takes a token for what it is worth now.
    pub(crate) fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(token.len()));
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Shape)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Shape)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Shape);
        check_header(&decode(header)?)?;
        let payload = decode(payload)?;
        let made_it = |key| jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, ALGORITHM);
        if !self.verifying.iter().any(|key| made_it(key).unwrap_or(false)) {
            return Err(TokenError::Signature);
        }
        let claims: Map<String, Value> = serde_json::from_slice(&payload).map_err(|_| TokenError::Claims)?;
        let claims = Claims::read(claims)?;
        check_times(&claims, now)?;
        Ok(claims)
    }
}

fn check_header(header: &[u8]) -> Result<(), TokenError> {
    let header: JoseHeader = serde_json::from_slice(header).map_err(|_| TokenError::Header)?;
    if header.alg != ALGORITHM_NAME {
        return Err(TokenError::Algorithm);
    }
    match header.crit {
        Some(_) => Err(TokenError::Critical),
        None => Ok(()),
    }
}

/// The end counts to the second, without leeway: a stream that is opened after it would be closed at once.
fn check_times(claims: &Claims, now: SystemTime) -> Result<(), TokenError> {
    let whole = |duration: Duration| Duration::from_secs(duration.as_secs());
    if let Ok(ago) = now.duration_since(claims.expires_at) {
        return Err(TokenError::Expired { ago: whole(ago) });
    }
    if let Some(not_before) = claims.not_before
        && let Ok(wait) = not_before.duration_since(now)
        && wait > CLOCK_SKEW
    {
        return Err(TokenError::NotYet { wait: whole(wait) });
    }
    Ok(())
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

read_from_text!(Secrets);
