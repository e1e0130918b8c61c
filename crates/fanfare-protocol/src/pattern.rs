//! Sets of names as tokens, keys and settings write them: one name, or a prefix and a `*`.
//!
//! A short pattern must not open what belongs to one user, to everyone or to Fanfare itself. So inboxes, the
//! broadcast and `$…` channels are matched only by patterns that spell their namespace out, up to its `:`.

use std::fmt;

use crate::{Channel, ChannelError, NAME_BYTES_MAX};

/// The type of an event that was published without one: what a browser calls it.
pub const DEFAULT_TYPE: &str = "message";

/// A set of channels: `server:7` alone, all that begin with `server:` (`server:*`), or all (`*`).
///
/// `user:…`, `broadcast` and `$…` are outside of it unless it spells their namespace out: `user:*` has all inboxes,
/// while `*` and `us*` have none. The broadcast, which has no `:`, is matched by its name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Shape);

/// What a pattern holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Shape {
    Channel(Channel),
    /// Without the `*`. Its characters are a channel's, and not more of them.
    Prefix(Box<str>),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing at all.
    #[error("a pattern can't be empty, all channels are \"*\"")]
    Empty,
    /// A `*` elsewhere than at the end.
    #[error("a pattern is a channel, or the beginning of one and a single \"*\" at the end")]
    Star,
    /// What it spells out can't be a channel or the beginning of one.
    #[error("a pattern is a channel, or the beginning of one and \"*\"")]
    Channel(#[source] ChannelError),
}

impl Pattern {
    /// Takes a pattern as it is written in a token, a key or a setting.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let prefix = text.strip_suffix('*');
        if prefix.unwrap_or(text).contains('*') {
            return Err(PatternError::Star);
        }
        let Some(prefix) = prefix else {
            return Channel::parse(text).map(Self::from).map_err(PatternError::Channel);
        };
        match Channel::parse(prefix) {
            // What is no channel yet may become one. Length and characters were looked at before these.
            Ok(_)
            | Err(
                ChannelError::Empty | ChannelError::Dots | ChannelError::InboxSpelling { .. } | ChannelError::Inbox(_),
            ) => Ok(Self(Shape::Prefix(prefix.into()))),
            Err(error @ (ChannelError::TooLong(_) | ChannelError::Character(_))) => Err(PatternError::Channel(error)),
        }
    }

    /// Whether the channel is in the set.
    pub fn matches(&self, channel: &Channel) -> bool {
        match &self.0 {
            Shape::Channel(own) => own == channel,
            Shape::Prefix(prefix) => {
                channel.as_str().starts_with(&**prefix) && (!channel.is_reserved() || spells_namespace_out(prefix))
            }
        }
    }

    /// What all names in the set begin with.
    pub fn prefix(&self) -> &str {
        match &self.0 {
            Shape::Channel(channel) => channel.as_str(),
            Shape::Prefix(prefix) => prefix,
        }
    }

    /// Whether everything that `other` matches is matched by this one too: who holds this may hand `other` on.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (_, Shape::Channel(channel)) => self.matches(channel),
            (Shape::Channel(_), Shape::Prefix(_)) => false,
            (Shape::Prefix(own), Shape::Prefix(other)) => {
                other.starts_with(&**own) && (!opens_reserved(other) || spells_namespace_out(own))
            }
        }
    }
}

/// Whether a namespace stands in the prefix to its end, and not only the beginning of one.
fn spells_namespace_out(prefix: &str) -> bool {
    prefix.contains(':')
}

/// Whether a prefix pattern can match reserved channels.
fn opens_reserved(prefix: &str) -> bool {
    spells_namespace_out(prefix) && (prefix.starts_with('$') || prefix.starts_with("user:"))
}

impl From<Channel> for Pattern {
    fn from(channel: Channel) -> Self {
        Self(Shape::Channel(channel))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::Channel(channel) => f.write_str(channel.as_str()),
            Shape::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// A set of event types, as `types=server:*,metrics:*` filters by: one type, or all that begin with a text.
///
/// Invariant: 1 to 100 bytes without control characters, or up to 100 of them before a `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TypePattern {
    /// Without the `*`.
    text: Box<str>,
    is_prefix: bool,
}

/// Why a text is no pattern of event types.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TypePatternError {
    /// Nothing, or more than [`NAME_BYTES_MAX`].
    #[error("an event type has 1 to {NAME_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A control character, which no event type has.
    #[error("an event type has no control characters")]
    Control,
    /// A `*` elsewhere than at the end.
    #[error("a filter is an event type, or the beginning of one and a single \"*\" at the end")]
    Star,
}

impl TypePattern {
    /// Takes one entry of a filter.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn parse(text: &str) -> Result<Self, TypePatternError> {
        let prefix = text.strip_suffix('*');
        let (text, is_prefix) = (prefix.unwrap_or(text), prefix.is_some());
        if text.contains('*') {
            return Err(TypePatternError::Star);
        }
        if text.len() > NAME_BYTES_MAX || (text.is_empty() && !is_prefix) {
            return Err(TypePatternError::Length(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(TypePatternError::Control);
        }
        Ok(Self { text: text.into(), is_prefix })
    }

    /// Whether the type is in the set. An event that was published without one has [`DEFAULT_TYPE`].
    pub fn matches(&self, event_type: &str) -> bool {
        if self.is_prefix { event_type.starts_with(&*self.text) } else { *self.text == *event_type }
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, channel: &str) -> bool {
        Pattern::parse(pattern).expect(pattern).matches(&Channel::parse(channel).expect(channel))
    }

    #[test]
    fn a_pattern_is_a_channel_or_a_prefix() {
        assert!(matches("server:7", "server:7"));
        assert!(!matches("server:7", "server:71"));
        assert!(matches("server:*", "server:7"));
        assert!(matches("server:*", "server:"));
        assert!(!matches("server:*", "servers:7"));
        assert!(matches("ser*", "server:7"));
        assert!(matches("*", "stock-prices"));
        for pattern in ["server:7", "server:*", "*", "$call:*", "broadcast", ".*"] {
            assert_eq!(Pattern::parse(pattern).expect(pattern).to_string(), pattern);
        }
    }

    #[test]
    fn what_is_reserved_must_be_spelled_out() {
        for (pattern, channel) in [
            ("user:*", "user:42"),
            ("user:4*", "user:42"),
            ("user:42", "user:42"),
            ("user:alice%2*", "user:alice%2F"),
            ("broadcast", "broadcast"),
            ("$call:*", "$call:0a"),
            ("$call:0*", "$call:0a"),
            ("$log", "$log"),
            ("broad*", "broadcasting"),
            ("us*", "users:1"),
        ] {
            assert!(matches(pattern, channel), "{pattern} has {channel}");
        }
        for (pattern, channel) in [
            ("*", "user:42"),
            ("us*", "user:42"),
            ("user*", "user:42"),
            ("*", "broadcast"),
            ("broad*", "broadcast"),
            ("broadcast*", "broadcast"),
            ("*", "$call:0a"),
            ("$*", "$call:0a"),
            ("$call*", "$call:0a"),
            ("$lo*", "$log"),
        ] {
            assert!(!matches(pattern, channel), "{pattern} hasn't {channel}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        assert_eq!(Pattern::parse(""), Err(PatternError::Empty));
        for text in ["*a", "a*b", "**", "a**", "server:*:cpu"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Star), "{text}");
        }
        assert_eq!(Pattern::parse("a b*"), Err(PatternError::Channel(ChannelError::Character(' '))));
        assert_eq!(Pattern::parse("user:a@b*"), Err(PatternError::Channel(ChannelError::Character('@'))));
        assert_eq!(Pattern::parse(".."), Err(PatternError::Channel(ChannelError::Dots)));
        let long = "x".repeat(201);
        assert_eq!(Pattern::parse(&format!("{long}*")), Err(PatternError::Channel(ChannelError::TooLong(201))));
        assert!(Pattern::parse(&format!("{}*", &long[1..])).is_ok());
    }

    #[test]
    fn a_pattern_covers_what_it_may_hand_on() {
        let covers =
            |own: &str, other: &str| Pattern::parse(own).expect(own).covers(&Pattern::parse(other).expect(other));
        assert!(covers("server:*", "server:7"));
        assert!(covers("server:*", "server:7*"));
        assert!(covers("*", "server:*"));
        assert!(covers("user:*", "user:4*"));
        assert!(!covers("*", "user:*"));
        assert!(!covers("$*", "$call:*"));
        assert!(!covers("*", "broadcast"));
        assert!(!covers("server:7", "server:7*"));
        assert!(!covers("server:7*", "server:*"));
    }

    #[test]
    fn a_filter_chooses_by_event_type() {
        let matches = |pattern: &str, event_type| TypePattern::parse(pattern).expect(pattern).matches(event_type);
        assert!(matches("metrics:*", "metrics:cpu"));
        assert!(!matches("metrics:*", "metrics"));
        assert!(matches("metrics:cpu", "metrics:cpu"));
        assert!(!matches("metrics:cpu", "metrics:cpus"));
        assert!(matches("message", DEFAULT_TYPE));
        assert!(matches("*", DEFAULT_TYPE));
        assert!(matches("größe: *", "größe: 1"));
    }

    #[test]
    fn what_is_no_filter_says_why() {
        assert_eq!(TypePattern::parse(""), Err(TypePatternError::Length(0)));
        assert_eq!(TypePattern::parse(&"x".repeat(101)), Err(TypePatternError::Length(101)));
        assert!(TypePattern::parse(&format!("{}*", "x".repeat(100))).is_ok());
        assert_eq!(TypePattern::parse("a\nb"), Err(TypePatternError::Control));
        assert_eq!(TypePattern::parse("*:cpu"), Err(TypePatternError::Star));
    }

    /// Few letters, so that patterns and channels meet; some of them inside reserved names.
    fn patterns() -> impl Strategy<Value = Pattern> {
        "(user:|us|user|\\$|\\$call:|\\$call|broadcast|broad|server:|)[a:]{0,2}\\*?"
            .prop_filter_map("no pattern", |text| Pattern::parse(&text).ok())
    }

    fn channels() -> impl Strategy<Value = Channel> {
        "(user:|users|\\$|\\$call:|broadcast|broad|server:|)[a:]{0,3}"
            .prop_filter_map("no channel", |text| Channel::parse(&text).ok())
    }

    proptest! {
        #[test]
        fn a_pattern_is_read_as_it_was_written(pattern in patterns()) {
            prop_assert_eq!(Pattern::parse(&pattern.to_string()), Ok(pattern));
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error(text: String) {
            _ = Pattern::parse(&text);
            _ = TypePattern::parse(&text);
        }

        #[test]
        fn what_covers_a_pattern_matches_all_that_it_matches(
            own in patterns(), other in patterns(), channel in channels(),
        ) {
            if own.covers(&other) && other.matches(&channel) {
                prop_assert!(own.matches(&channel));
            }
        }
    }
}
