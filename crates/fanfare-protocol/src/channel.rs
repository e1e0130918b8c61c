//! Names that arrive from outside: channels, user ids and the inboxes made from them.
//!
//! They are checked here, once, and trusted everywhere else. What a caller *may* do with a channel is not decided
//! here but by patterns (see `pattern`).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Bytes of a channel's name at most.
pub const CHANNEL_BYTES_MAX: usize = 200;

/// Bytes of a user id at most, once percent-encoded, so that `user:` and it fit into a channel's name.
pub const USER_ID_BYTES_MAX: usize = CHANNEL_BYTES_MAX - INBOX_PREFIX.len();

const BROADCAST: &str = "broadcast";
const INBOX_PREFIX: &str = "user:";

/// Bytes that a user id keeps in the name of its inbox: `[A-Za-z0-9_.~-]`, the unreserved ones of RFC 3986 §2.3.
const ENCODED_IN_INBOX: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'.').remove(b'~').remove(b'-');

/// Name of a stream of events, such as `server:7`.
///
/// Invariant: 1 to 200 bytes of ASCII letters, digits and `_-.:/~%+=`, or the same after a leading `$`; neither
/// `.` nor `..`; and `user:` is followed by the one spelling of a user id. [`Channel::parse`] is the only way in,
/// so nothing else checks it. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Why a text is no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Nothing at all.
    #[error("a channel's name can't be empty")]
    Empty,
    /// Longer than [`CHANNEL_BYTES_MAX`].
    #[error("a channel's name has at most {CHANNEL_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A character outside the alphabet.
    #[error("a channel's name is made of ASCII letters, digits and _-.:/~%+=, not {0:?}")]
    Character(char),
    /// `.` and `..`, which URLs swallow.
    #[error("a channel can't be named \".\" or \"..\"")]
    Dots,
    /// An inbox whose user id isn't spelled as [`UserId::inbox`] spells it: it would be a second name for one inbox.
    #[error(
        "the inbox of a user is spelled {expected:?} (every byte outside A-Z a-z 0-9 _ . ~ - as %XX in upper case)"
    )]
    InboxSpelling {
        /// The one right spelling.
        expected: String,
    },
    /// `user:` and then no user id.
    #[error("not the inbox of a user: {0}")]
    Inbox(#[source] UserIdError),
}

impl Channel {
    /// Takes a channel's name as it is written in a body, a query or a decoded path segment.
    ///
    /// # Errors
    /// Says which rule the name breaks.
    pub fn parse(name: &str) -> Result<Self, ChannelError> {
        if name.is_empty() {
            return Err(ChannelError::Empty);
        }
        if name.len() > CHANNEL_BYTES_MAX {
            return Err(ChannelError::TooLong(name.len()));
        }
        let stray = |c: &char| !(c.is_ascii_alphanumeric() || "_-.:/~%+=".contains(*c));
        if let Some(c) = name.strip_prefix('$').unwrap_or(name).chars().find(stray) {
            return Err(ChannelError::Character(c));
        }
        if name == "." || name == ".." {
            return Err(ChannelError::Dots);
        }
        if let Some(encoded) = name.strip_prefix(INBOX_PREFIX) {
            let decoded = percent_decode_str(encoded).decode_utf8_lossy();
            let inbox = UserId::parse(&decoded).map_err(ChannelError::Inbox)?.inbox();
            if inbox.as_str() != name {
                return Err(ChannelError::InboxSpelling { expected: inbox.0.to_string() });
            }
        }
        Ok(Self(name.into()))
    }

    /// The channel that everyone is on.
    pub fn broadcast() -> Self {
        Self(BROADCAST.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `:`, or all of it. Options are set per namespace.
    pub fn namespace(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(namespace, _)| namespace)
    }

    /// The user whose inbox this is.
    pub fn user(&self) -> Option<UserId> {
        let encoded = self.0.strip_prefix(INBOX_PREFIX)?;
        let id = percent_decode_str(encoded).decode_utf8().ok()?;
        Some(UserId(id.into()))
    }

    /// Whether this is the broadcast.
    pub fn is_broadcast(&self) -> bool {
        &*self.0 == BROADCAST
    }

    /// Whether the name begins with `$`: Fanfare's own channels, which nobody subscribes to by name.
    pub fn is_internal(&self) -> bool {
        self.0.starts_with('$')
    }

    /// Whether patterns must spell this channel's namespace out to match it: inboxes, the broadcast and `$…`.
    pub fn is_reserved(&self) -> bool {
        self.is_internal() || self.is_broadcast() || self.0.starts_with(INBOX_PREFIX)
    }
}

/// Tables of channels are searched by name. A channel hashes and compares as its name does.
impl Borrow<str> for Channel {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A user, as the application names them.
///
/// Invariant: not empty, UTF-8 without control characters, at most 195 bytes once percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// Why a text is no user id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserIdError {
    /// Nothing at all.
    #[error("a user id can't be empty")]
    Empty,
    /// Longer than [`USER_ID_BYTES_MAX`] once encoded.
    #[error(
        "a user id has at most {USER_ID_BYTES_MAX} bytes (those outside A-Z a-z 0-9 _ . ~ - count three times), this one has {0}"
    )]
    TooLong(usize),
    /// A control character, which no log line or header could carry.
    #[error("a user id has no control characters")]
    Control,
}

impl UserId {
    /// Takes a user id as the application writes it.
    ///
    /// # Errors
    /// Says which rule the id breaks.
    pub fn parse(id: &str) -> Result<Self, UserIdError> {
        if id.is_empty() {
            return Err(UserIdError::Empty);
        }
        if id.chars().any(char::is_control) {
            return Err(UserIdError::Control);
        }
        let encoded_len = utf8_percent_encode(id, ENCODED_IN_INBOX).map(str::len).sum();
        if encoded_len > USER_ID_BYTES_MAX {
            return Err(UserIdError::TooLong(encoded_len));
        }
        Ok(Self(id.into()))
    }

    /// The id as the application writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The channel that only this user follows: `user:` and the id, percent-encoded in upper-case hex.
    pub fn inbox(&self) -> Channel {
        Channel(format!("{INBOX_PREFIX}{}", utf8_percent_encode(&self.0, ENCODED_IN_INBOX)).into())
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_taken_as_it_is_written() {
        let longest = "x".repeat(200);
        for name in ["server:7", "a", "azAZ09_-.:/~%+=", "$call:0a", "broadcast", "user:42", "...", &longest] {
            assert_eq!(Channel::parse(name).expect(name).as_str(), name);
        }
        assert_eq!(Channel::parse("server:7:cpu").expect("valid").namespace(), "server");
        assert_eq!(Channel::parse("campaigns").expect("valid").namespace(), "campaigns");
    }

    #[test]
    fn what_is_no_channel_says_why() {
        assert_eq!(Channel::parse(""), Err(ChannelError::Empty));
        assert_eq!(Channel::parse(&"x".repeat(201)), Err(ChannelError::TooLong(201)));
        assert_eq!(Channel::parse("a b"), Err(ChannelError::Character(' ')));
        assert_eq!(Channel::parse("a$b"), Err(ChannelError::Character('$')));
        assert_eq!(Channel::parse("prices*"), Err(ChannelError::Character('*')));
        assert_eq!(Channel::parse("grün"), Err(ChannelError::Character('ü')));
        assert_eq!(Channel::parse("."), Err(ChannelError::Dots));
        assert_eq!(Channel::parse(".."), Err(ChannelError::Dots));
        assert_eq!(Channel::parse("user:"), Err(ChannelError::Inbox(UserIdError::Empty)));
    }

    #[test]
    fn an_inbox_has_one_spelling() {
        let alice = UserId::parse("alice@example.com").expect("valid");
        assert_eq!(alice.inbox().as_str(), "user:alice%40example.com");
        assert_eq!(alice.inbox().user(), Some(alice.clone()));
        for (id, inbox) in
            [("50%", "user:50%25"), ("aZ0_.~-", "user:aZ0_.~-"), ("zoë +/:", "user:zo%C3%AB%20%2B%2F%3A")]
        {
            assert_eq!(UserId::parse(id).expect("valid").inbox().as_str(), inbox);
        }
        let expected = "user:alice%2Fx".to_owned();
        assert_eq!(Channel::parse("user:alice%2fx"), Err(ChannelError::InboxSpelling { expected: expected.clone() }));
        assert_eq!(Channel::parse("user:alice/x"), Err(ChannelError::InboxSpelling { expected }));
    }

    #[test]
    fn a_user_id_fits_into_its_inbox() {
        assert_eq!(UserId::parse(&"x".repeat(195)).map(|id| id.inbox().as_str().len()), Ok(200));
        assert!(UserId::parse(&"@".repeat(65)).is_ok());
        assert_eq!(UserId::parse(&"@".repeat(66)), Err(UserIdError::TooLong(198)));
        for control in ["a\nb", "\0", "a\u{7f}", "a\u{85}"] {
            assert_eq!(UserId::parse(control), Err(UserIdError::Control), "{control:?}");
        }
    }
}
