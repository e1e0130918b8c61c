//! A publish key: who publishes, and how far that reaches.

use std::fmt;

use fanfare_protocol::{Channel, Pattern, UserId};

use crate::setting::write_joined;

/// Where one-off channels of calls begin, the only ones of Fanfare's own that are published to.
const CALL_PREFIX: &str = "$call:";

/// What a key may be good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Right {
    /// `/notify`, `/broadcast` and `/publish`.
    Publish,
    /// Channels, their history and who listens.
    Read,
    /// Tokens and tickets for subscribers.
    Mint,
    /// Closing a user's connections.
    Disconnect,
}

impl Right {
    /// All of them, as they are printed.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Mint, Self::Disconnect];

    /// As it is written in `;rights=`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Mint => "mint",
            Self::Disconnect => "disconnect",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A publisher: the name of their key, and what it may. The key itself isn't here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishKey {
    name: String,
    rights: Vec<Right>,
    /// None: everywhere.
    channels: Option<Vec<Pattern>>,
}

/// Why a good key isn't good for this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// It hasn't the right, wherever.
    #[error("the key {key} has no right to {right}")]
    Right {
        /// The key's name.
        key: String,
        /// What it would take.
        right: Right,
    },
    /// It has the right, but not there.
    #[error("the key {key} has no right to {right} {channel}")]
    Channel {
        /// The key's name.
        key: String,
        /// What was tried.
        right: Right,
        /// Where.
        channel: Channel,
    },
    /// One of Fanfare's own channels.
    #[error("{0} is one of Fanfare's own channels, nobody publishes to it")]
    PublishInternal(Channel),
    /// One of Fanfare's own channels.
    #[error("{0} is one of Fanfare's own channels, nobody reads it")]
    ReadInternal(Channel),
}

impl PublishKey {
    /// Who publishes where no keys are asked for.
    pub fn in_dev() -> Self {
        Self::new(String::new(), Right::ALL.to_vec(), None)
    }

    pub(crate) fn new(name: String, rights: Vec<Right>, channels: Option<Vec<Pattern>>) -> Self {
        Self { name, rights, channels }
    }

    /// What it is called; idempotency keys are its own. Empty in `dev`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The patterns that it is bound to. None: it isn't.
    pub fn channels(&self) -> Option<&[Pattern]> {
        self.channels.as_deref()
    }

    /// Whether it has a right, wherever.
    pub fn may(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }

    /// Whether it may publish to a channel.
    pub fn may_publish(&self, channel: &Channel) -> bool {
        self.check_publish(channel).is_ok()
    }

    /// Whether it may read a channel's state and history.
    pub fn may_read(&self, channel: &Channel) -> bool {
        self.check_read(channel).is_ok()
    }

    /// Whether everything that a pattern matches is within its reach.
    pub fn covers(&self, pattern: &Pattern) -> bool {
        self.channels.as_ref().is_none_or(|own| own.iter().any(|own| own.covers(pattern)))
    }

    /// Checks a right, wherever.
    ///
    /// # Errors
    /// It hasn't got it.
    pub fn check(&self, right: Right) -> Result<(), KeyRefusal> {
        match self.may(right) {
            true => Ok(()),
            false => Err(KeyRefusal::Right { key: self.name.clone(), right }),
        }
    }

    /// Checks a publish.
    ///
    /// # Errors
    /// Says whether the right or the channel is missing.
    pub fn check_publish(&self, channel: &Channel) -> Result<(), KeyRefusal> {
        let is_call = channel.as_str().strip_prefix(CALL_PREFIX).is_some_and(|id| !id.is_empty());
        match channel.is_internal() && !is_call {
            true => Err(KeyRefusal::PublishInternal(channel.clone())),
            false => self.check_at(Right::Publish, channel),
        }
    }

    /// Checks a read.
    ///
    /// # Errors
    /// Says whether the right or the channel is missing.
    pub fn check_read(&self, channel: &Channel) -> Result<(), KeyRefusal> {
        match channel.is_internal() {
            true => Err(KeyRefusal::ReadInternal(channel.clone())),
            false => self.check_at(Right::Read, channel),
        }
    }

    /// Checks closing a user's connections: whoever can't reach their inbox can't reach them.
    ///
    /// # Errors
    /// Says whether the right or the user's inbox is missing.
    pub fn check_disconnect(&self, user: &UserId) -> Result<(), KeyRefusal> {
        self.check_at(Right::Disconnect, &user.inbox())
    }

    fn check_at(&self, right: Right, channel: &Channel) -> Result<(), KeyRefusal> {
        self.check(right)?;
        match self.reaches(channel) {
            true => Ok(()),
            false => Err(KeyRefusal::Channel { key: self.name.clone(), right, channel: channel.clone() }),
        }
    }

    pub(crate) fn reaches(&self, channel: &Channel) -> bool {
        self.channels.as_ref().is_none_or(|own| own.iter().any(|pattern| pattern.matches(channel)))
    }
}

/// As a setting has it, the key masked.
impl fmt::Display for PublishKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=***", self.name)?;
        if let Some(channels) = &self.channels {
            f.write_str(";channels=")?;
            write_joined(f, channels.iter(), "|")?;
        }
        if self.rights.len() < Right::ALL.len() {
            f.write_str(";rights=")?;
            write_joined(f, self.rights.iter(), "|")?;
        }
        Ok(())
    }
}
