//! Who listens, and to what they may.

use std::time::SystemTime;

use fanfare_protocol::{Channel, Pattern, PatternError, UserId};

use serde::{Deserialize, Serialize};

use crate::claims::Claims;
use crate::grants::Grants;
use crate::setting::Patterns;

/// Who listens, and what is open to them.
#[derive(Clone, Debug)]
pub struct Subscriber {
    user: Option<UserId>,
    reach: Reach,
    follow: Vec<Channel>,
    expires_at: Option<SystemTime>,
    issued_at: Option<SystemTime>,
}

/// Which channels are open to someone. `$…` never are. It can be written down and read elsewhere, and is no credential.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Reach(Open);

#[derive(Clone, Debug)]
enum Open {
    /// All: `dev` asks for no tokens.
    Everything,
    /// What is open to everyone.
    Anonymous(Patterns),
    /// What is open to everyone, and what a token opens.
    Token {
        anonymous: Patterns,
        /// The inbox, the broadcast, `channels`, `follow` and grants.
        own: Vec<Pattern>,
        /// Nothing of `own` outside of these.
        limit: Option<Vec<Pattern>>,
    },
}

/// A reach as it is written down: lists of patterns.
#[derive(Serialize, Deserialize)]
struct Written {
    everything: bool,
    anonymous: Vec<String>,
    own: Vec<String>,
    limit: Option<Vec<String>>,
}

impl From<Reach> for Written {
    fn from(Reach(open): Reach) -> Self {
        let texts = |patterns: &[Pattern]| patterns.iter().map(Pattern::to_string).collect();
        let listed = |patterns: &Patterns| patterns.iter().map(Pattern::to_string).collect();
        match open {
            Open::Everything => Self { everything: true, anonymous: vec![], own: vec![], limit: None },
            Open::Anonymous(open) => Self { everything: false, anonymous: listed(&open), own: vec![], limit: None },
            Open::Token { anonymous, own, limit } => Self {
                everything: false,
                anonymous: listed(&anonymous),
                own: texts(&own),
                limit: limit.as_deref().map(texts),
            },
        }
    }
}

impl TryFrom<Written> for Reach {
    type Error = PatternError;

    fn try_from(Written { everything, anonymous, own, limit }: Written) -> Result<Self, PatternError> {
        let read = |texts: Vec<String>| texts.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>, _>>();
        Ok(Self(match everything {
            true => Open::Everything,
            false => Open::Token {
                anonymous: read(anonymous)?.into_iter().collect(),
                own: read(own)?,
                limit: limit.map(read).transpose()?,
            },
        }))
    }
}

impl Reach {
    /// Whether a channel is open.
    pub fn opens(&self, channel: &Channel) -> bool {
        let any = |mut patterns: std::slice::Iter<'_, Pattern>| patterns.any(|pattern| pattern.matches(channel));
        if channel.is_internal() {
            return false;
        }
        match &self.0 {
            Open::Everything => true,
            Open::Anonymous(open) => open.iter().any(|pattern| pattern.matches(channel)),
            Open::Token { anonymous, own, limit } => {
                anonymous.iter().any(|pattern| pattern.matches(channel))
                    || (any(own.iter()) && limit.as_ref().is_none_or(|limit| any(limit.iter())))
            }
        }
    }
}

/// Why a channel may not be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelRefusal {
    /// One of Fanfare's own.
    #[error("{0} can't be subscribed to")]
    Internal(Channel),
    /// There is no token, and the channel isn't open without one.
    #[error("there is no token, and {0} is not open without one")]
    NeedsToken(Channel),
    /// The token is good, but not for this.
    #[error("the token does not allow {0}")]
    NotAllowed(Channel),
}

impl Subscriber {
    /// Whoever asks, where no tokens are asked for.
    pub(crate) fn in_dev(user: Option<UserId>) -> Self {
        Self { user, reach: Reach(Open::Everything), follow: Vec::new(), expires_at: None, issued_at: None }
    }

    /// The same, and all is open to them.
    pub(crate) fn with_everything(self) -> Self {
        Self { reach: Reach(Open::Everything), ..self }
    }

    /// Someone without a token.
    pub(crate) fn anonymous(open: Patterns) -> Self {
        Self { user: None, reach: Reach(Open::Anonymous(open)), follow: Vec::new(), expires_at: None, issued_at: None }
    }

    /// The bearer of a token.
    pub(crate) fn with_token(claims: Claims, grants: &Grants, anonymous: Patterns) -> Self {
        let Claims { user, channels, follow, limit, expires_at, issued_at, not_before: _, all } = claims;
        let mut own = channels;
        own.extend(grants.fill(&all));
        own.extend(follow.iter().cloned().map(Pattern::from));
        if let Some(user) = &user {
            own.extend([user.inbox(), Channel::broadcast()].map(Pattern::from));
        }
        let reach = Reach(Open::Token { anonymous, own, limit });
        Self { user, reach, follow, expires_at: Some(expires_at), issued_at }
    }

    /// The user, if the token names one (in `dev`, the URL).
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// When the token ends, and a stream with it. None: there is no token.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.expires_at
    }

    /// When the token was issued, if it says so. To a user who was disconnected, a token that doesn't say it is an
    /// old one.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.issued_at
    }

    /// Whether there is a token.
    pub fn has_token(&self) -> bool {
        matches!(self.reach, Reach(Open::Token { .. }))
    }

    /// Which channels are open to them.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Whether a channel is open to them.
    pub fn may_follow(&self, channel: &Channel) -> bool {
        self.reach.opens(channel)
    }

    /// Checks channels that they ask for.
    ///
    /// # Errors
    /// Names the first one that isn't open to them.
    pub fn check<'a>(&self, channels: impl IntoIterator<Item = &'a Channel>) -> Result<(), ChannelRefusal> {
        match channels.into_iter().find(|channel| !self.may_follow(channel)) {
            None => Ok(()),
            Some(channel) if channel.is_internal() => Err(ChannelRefusal::Internal(channel.clone())),
            Some(channel) if self.has_token() => Err(ChannelRefusal::NotAllowed(channel.clone())),
            Some(channel) => Err(ChannelRefusal::NeedsToken(channel.clone())),
        }
    }

    /// What a connection on `/events` gets without asking: the inbox, the broadcast and what the token's `follow`
    /// names, each once and as far as it is open to them.
    pub fn unasked(&self) -> Vec<Channel> {
        let inbox = self.user.as_ref().map(UserId::inbox);
        let mut channels: Vec<Channel> = Vec::new();
        for channel in inbox.into_iter().chain([Channel::broadcast()]).chain(self.follow.iter().cloned()) {
            if self.may_follow(&channel) && !channels.contains(&channel) {
                channels.push(channel);
            }
        }
        channels
    }
}
