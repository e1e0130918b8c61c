//! Who an edge lets in.

use std::time::SystemTime;

use fanfare_http::Query;
use fanfare_protocol::{UserId, UserIdError};
use http::HeaderMap;

use crate::credential::{self, Source};
use crate::grants::Grants;
use crate::setting::{CookieName, Patterns};
use crate::subscriber::Subscriber;
use crate::token::{Secrets, TokenError};

/// Who an edge lets in, and to what.
#[derive(Clone, Debug)]
pub enum Access {
    /// Everyone, to everything but `$…`. `?user=` names the user; else a good token does where there are rules for
    /// them, so that a front end that has one needs no other URL here. Only where nobody else can reach us.
    Dev(Option<Box<TokenRules>>),
    /// Whoever has a token, to what it opens.
    Tokens(Box<TokenRules>),
}

/// Which tokens count, where they may stand, and what is open without one.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// Secrets that tokens are signed with.
    pub secrets: Secrets,
    /// Patterns that every token gets.
    pub grants: Grants,
    /// The cookie that holds a token.
    pub cookie: CookieName,
    /// Whether `?token=` and `?auth=` are taken.
    pub query_token: bool,
    /// Patterns that are open to everyone.
    pub anonymous_channels: Patterns,
}

/// Someone who was let in.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Who, and to what.
    pub subscriber: Subscriber,
    /// Where the token stood. None: there was none, and none was needed.
    pub source: Option<Source>,
}

/// Why someone isn't let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No token, and nothing is open without one.
    #[error("there is no token")]
    Missing {
        /// The cookie that would have been looked at.
        cookie: CookieName,
        /// Whether `?user=` was there instead, as `dev` takes it.
        named_user: bool,
    },
    /// `?ticket=`, which isn't taken yet.
    #[error("tickets are not taken by this version")]
    Ticket,
    /// `?token=` or `?auth=` where that isn't allowed.
    #[error("a token in the query is not taken here")]
    QueryToken,
    /// It stands there twice, and nothing says which one counts.
    #[error("{0} is there more than once")]
    Repeated(&'static str),
    /// The token that decides isn't good.
    #[error("the token in {from} {error}")]
    Token {
        /// Where it stood.
        from: Source,
        /// What is wrong with it. Not a `source`: it is part of the sentence.
        error: TokenError,
    },
    /// In `dev`: `?user=` is no user id.
    #[error("user in the query: {0}")]
    User(UserIdError),
}

impl Access {
    /// Lets a request in, or says why not. Which channels it may have is asked of the [`Subscriber`].
    ///
    /// # Errors
    /// There is no credential where one is needed, or the first one isn't good.
    pub fn authorise(&self, headers: &HeaderMap, query: &Query, now: SystemTime) -> Result<Admitted, AuthError> {
        match self {
            Self::Dev(rules) => in_dev(rules.as_deref(), headers, query, now),
            Self::Tokens(rules) => rules.authorise(headers, query, now),
        }
    }

    /// Takes a token that came in a body, to renew a connection. None: in `dev` without a secret there are none.
    ///
    /// # Errors
    /// It isn't good.
    pub fn renew(&self, token: &str, now: SystemTime) -> Result<Option<Subscriber>, AuthError> {
        match self {
            Self::Dev(None) => Ok(None),
            Self::Dev(Some(rules)) => Ok(Some(rules.verify(token, Source::Body, now)?.with_everything())),
            Self::Tokens(rules) => rules.verify(token, Source::Body, now).map(Some),
        }
    }
}

impl TokenRules {
    fn authorise(&self, headers: &HeaderMap, query: &Query, now: SystemTime) -> Result<Admitted, AuthError> {
        match credential::find(self, headers, query)? {
            Some((source, token)) => {
                let subscriber = self.verify(token, source.clone(), now)?;
                Ok(Admitted { subscriber, source: Some(source) })
            }
            None if self.anonymous_channels.is_empty() => {
                Err(AuthError::Missing { cookie: self.cookie.clone(), named_user: query.get("user").is_some() })
            }
            None => Ok(Admitted { subscriber: Subscriber::anonymous(self.anonymous_channels.clone()), source: None }),
        }
    }

    fn verify(&self, token: &str, from: Source, now: SystemTime) -> Result<Subscriber, AuthError> {
        let claims = self.secrets.verify(token, now).map_err(|error| AuthError::Token { from, error })?;
        Ok(Subscriber::with_token(claims, &self.grants, self.anonymous_channels.clone()))
    }
}

fn in_dev(
    rules: Option<&TokenRules>,
    headers: &HeaderMap,
    query: &Query,
    now: SystemTime,
) -> Result<Admitted, AuthError> {
    let named = user(query)?;
    match rules.filter(|_| named.is_none()).map(|rules| rules.authorise(headers, query, now)) {
        Some(Ok(admitted)) if admitted.source.is_some() => {
            Ok(Admitted { subscriber: admitted.subscriber.with_everything(), ..admitted })
        }
        // It is one of ours. All others are not looked at: a browser has cookies of whatever else runs here.
        Some(Err(error @ AuthError::Token { error: TokenError::Expired { .. }, .. })) => Err(error),
        _ => Ok(Admitted { subscriber: Subscriber::in_dev(named), source: None }),
    }
}

fn user(query: &Query) -> Result<Option<UserId>, AuthError> {
    let mut named = query.all("user");
    match (named.next(), named.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => UserId::parse(id).map(Some).map_err(AuthError::User),
        (Some(_), Some(_)) => Err(AuthError::Repeated("user in the query")),
    }
}
