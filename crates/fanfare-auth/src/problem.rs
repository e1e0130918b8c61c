//! Refusals as clients see them. Each `match` is exhaustive, so that a new reason can't forget its status.

use fanfare_http::{Code, Problem};

use crate::access::AuthError;
use crate::admin::WrongAdminKey;
use crate::key::KeyRefusal;
use crate::keys::KeyError;
use crate::mint::MintError;
use crate::subscriber::ChannelRefusal;
use crate::token::TokenError;

const RESERVED_HINT: &str =
    "user:…, broadcast and $… are matched only by patterns that spell them out, * is not enough";

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let unauthorised = || Self::new(Code::AuthenticationFailed, error.to_string());
        match &error {
            AuthError::Missing { cookie, named_user } => {
                let also = if *named_user { "; ?user= names the user in `fanfare dev` only" } else { "" };
                unauthorised().hint(format!("send it as Authorization: Bearer …, or in the cookie {cookie}{also}"))
            }
            AuthError::Ticket => unauthorised().hint("use a token: Authorization: Bearer …"),
            AuthError::QueryToken => unauthorised().hint(
                "send it as Authorization: Bearer … or in a cookie; FANFARE_AUTH_QUERY_TOKEN=true allows ?token= and \
                 ?auth= (URLs end up in logs)",
            ),
            AuthError::Token { error, .. } => match token_hint(error) {
                Some(hint) => unauthorised().hint(hint),
                None => unauthorised(),
            },
            AuthError::Repeated(_) | AuthError::User(_) => Self::invalid(error.to_string()),
        }
    }
}

/// What to do about it.
fn token_hint(error: &TokenError) -> Option<&'static str> {
    match error {
        TokenError::Shape => Some("subscribing takes a token: POST /tokens and `fanfare token` make one"),
        TokenError::Signature => Some("whoever signs it and the edge must share a secret of FANFARE_AUTH_SECRET"),
        TokenError::Expired { .. } => Some("get a new one"),
        TokenError::NotYet { .. } => Some("the clocks of its issuer and of the edge may disagree"),
        TokenError::Empty
        | TokenError::TooLong(_)
        | TokenError::Header
        | TokenError::Algorithm
        | TokenError::Critical
        | TokenError::Claims
        | TokenError::Claim { .. }
        | TokenError::Milliseconds(_)
        | TokenError::NoExpiry => None,
    }
}

impl From<WrongAdminKey> for Problem {
    fn from(error: WrongAdminKey) -> Self {
        Self::new(Code::AuthenticationFailed, error.to_string()).hint("it is FANFARE_ADMIN_KEY of this process")
    }
}

impl From<ChannelRefusal> for Problem {
    fn from(refusal: ChannelRefusal) -> Self {
        let problem = |code| Self::new(code, refusal.to_string());
        match &refusal {
            ChannelRefusal::Internal(_) => {
                problem(Code::Forbidden).hint("channels that begin with $ are Fanfare's own")
            }
            ChannelRefusal::NeedsToken(_) => {
                problem(Code::AuthenticationFailed).hint("send a token that opens it: Authorization: Bearer …")
            }
            ChannelRefusal::NotAllowed(channel) => {
                let problem = problem(Code::Forbidden);
                if channel.is_reserved() { problem.hint(RESERVED_HINT) } else { problem }
            }
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        let problem = |code| Self::new(code, error.to_string());
        match error {
            KeyError::Missing => problem(Code::AuthenticationFailed).hint("send it as Authorization: Bearer <key>"),
            KeyError::Repeated => problem(Code::InvalidInput),
            KeyError::Unknown => {
                problem(Code::AuthenticationFailed).hint("it should be one of those in FANFARE_PUBLISH_KEYS")
            }
            KeyError::Token => {
                problem(Code::AuthenticationFailed).hint("publishing takes a key: Authorization: Bearer <key>")
            }
        }
    }
}

impl From<KeyRefusal> for Problem {
    fn from(refusal: KeyRefusal) -> Self {
        let problem = Self::new(Code::Forbidden, refusal.to_string());
        match &refusal {
            KeyRefusal::Right { right, .. } => {
                problem.hint(format!("a key's rights are in its setting: ;rights={right}"))
            }
            KeyRefusal::Channel { channel, .. } if channel.is_reserved() => problem.hint(RESERVED_HINT),
            KeyRefusal::Channel { .. } | KeyRefusal::PublishInternal(_) | KeyRefusal::ReadInternal(_) => problem,
        }
    }
}

impl From<MintError> for Problem {
    fn from(error: MintError) -> Self {
        let problem = |code| Self::new(code, error.to_string());
        match error {
            MintError::Key(refusal) => refusal.into(),
            MintError::Ttl | MintError::Internal(_) => problem(Code::InvalidInput),
            MintError::Nothing => problem(Code::InvalidInput).hint("name a user, channels or what to follow"),
            MintError::TooLong(_) => problem(Code::PayloadTooLarge).hint("name fewer channels, or a pattern for them"),
            MintError::BeyondKey { .. } | MintError::OpensNothing { .. } => {
                problem(Code::Forbidden).hint(RESERVED_HINT)
            }
            MintError::Signing(_) => problem(Code::Internal),
        }
    }
}
