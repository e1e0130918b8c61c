//! Users who were disconnected, as the backbone remembers them: what edges that start later, or were cut off when it
//! happened, read whole. What is published beside it, to all edges, is only the nudge.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_protocol::{Channel, Content, Draft, UserId};
use serde::{Deserialize, Serialize};

use crate::NodeId;

/// Blocks that are remembered at most. Where there are so many, a further one is refused until some have ended.
pub(crate) const BLOCKS_MAX: usize = 10_000;

/// A block is remembered for so long at least, also where it refuses nothing: for edges that can't be told just now.
const REMEMBERED_MIN: Duration = Duration::from_secs(10 * 60);

/// The table goes when nobody was disconnected for so long, which no block outlives.
pub(crate) const TABLE_AGE: Duration = Duration::from_secs(2 * Block::DURATION_MAX.as_secs());

const VERSION: u32 = 1;

/// A user was disconnected: connections that were opened before then end, and tokens that were issued before then are
/// refused for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Who.
    pub user: UserId,
    /// When, to the millisecond.
    pub before: SystemTime,
    /// Until when old tokens are refused, to the millisecond.
    pub until: SystemTime,
}

/// How a block is written, in the table and in the message.
#[derive(Serialize, Deserialize)]
struct Written {
    v: u32,
    kind: String,
    user: String,
    before: u64,
    until: u64,
}

impl Block {
    /// What its message is called among those to edges.
    pub const KIND: &str = "disconnect";

    /// The longest block.
    pub const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

    /// A block from now on.
    pub fn new(user: UserId, now: SystemTime, duration: Duration) -> Self {
        let before = since_1970(now);
        let until = before + duration.min(Self::DURATION_MAX).as_millis() as u64;
        Self { user, before: at(before), until: at(until) }
    }

    /// Whether it is still in force for a token that was issued then: in the same millisecond, too, since nobody knows
    /// which came first. One that doesn't say when counts as old.
    pub fn refuses(&self, issued_at: Option<SystemTime>, now: SystemTime) -> bool {
        now < self.until && issued_at.is_none_or(|issued_at| since_1970(issued_at) <= since_1970(self.before))
    }

    /// Whether a connection that was opened then is to end: in the same millisecond, too.
    pub fn ends(&self, opened_at: SystemTime) -> bool {
        since_1970(opened_at) <= since_1970(self.before)
    }

    /// Whether it may be forgotten.
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.remembered_until() <= since_1970(now)
    }

    /// As text, for the table and for the message.
    pub fn encode(&self) -> String {
        let written = Written {
            v: VERSION,
            kind: Self::KIND.to_owned(),
            user: self.user.as_str().to_owned(),
            before: since_1970(self.before),
            until: since_1970(self.until),
        };
        serde_json::to_string(&written).expect("texts and numbers become JSON")
    }

    /// Reads the text. None: it isn't one, or of a version to come.
    pub fn decode(text: &str) -> Option<Self> {
        let written: Written = serde_json::from_str(text).ok()?;
        let user = UserId::parse(&written.user).ok()?;
        let known = written.v == VERSION && written.kind == Self::KIND;
        known.then(|| Self { user, before: at(written.before), until: at(written.until) })
    }

    /// When it may be forgotten, in milliseconds since 1970.
    pub(crate) fn remembered_until(&self) -> u64 {
        since_1970(self.until.max(self.before + REMEMBERED_MIN))
    }

    /// The message that tells edges of it at once.
    pub(crate) fn draft(&self) -> Draft {
        let content = Content { name: None, key: None, ttl: None, data: self.encode().into() };
        Draft { channel: all_edges(), content, idempotency: None }
    }
}

/// The channel that all edges listen to themselves.
pub fn all_edges() -> Channel {
    Channel::parse("$edges").expect("a channel's name")
}

/// The channel that one node alone listens to.
pub fn one_edge(node: NodeId) -> Channel {
    Channel::parse(&format!("$edge:{node}")).expect("hex digits make a channel's name")
}

/// Milliseconds since 1970.
pub(crate) fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// What another node wrote may be any number.
fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_refuses_what_was_issued_before_it_until_it_ends() {
        let now = UNIX_EPOCH + Duration::from_micros(1_795_229_238_111_222);
        let block = Block::new(UserId::parse("42").expect("valid"), now, Duration::from_secs(60));
        let second = Duration::from_secs(1);
        assert!(block.refuses(Some(now - second), now) && block.refuses(None, now));
        let later = now + Duration::from_millis(1);
        assert!(block.refuses(Some(now), now) && !block.refuses(Some(later), now), "in the same millisecond, too");
        assert!(!block.refuses(None, now + 61 * second));
        assert!(!Block::new(block.user, now, Duration::ZERO).refuses(None, now), "it closes, and refuses nothing");
    }

    #[test]
    fn a_block_is_read_as_it_was_written_and_what_is_to_come_is_ignored() {
        let block = Block::new(UserId::parse("alice \"@\"").expect("valid"), SystemTime::now(), Duration::from_secs(5));
        assert_eq!(Block::decode(&block.encode()), Some(block.clone()));
        let with_more = block.encode().replace("{\"v\":1", "{\"v\":1,\"because\":[1]");
        assert_eq!(Block::decode(&with_more), Some(block.clone()));
        assert_eq!(Block::decode(&block.encode().replace("\"v\":1", "\"v\":2")), None);
        for text in ["", "{}", "[]", r#"{"v":1,"kind":"disconnect","user":"","before":1,"until":2}"#] {
            assert_eq!(Block::decode(text), None, "{text}");
        }
        let far =
            r#"{"v":1,"kind":"disconnect","user":"a","before":18446744073709551615,"until":18446744073709551615}"#;
        assert!(Block::decode(far).is_some(), "no number panics");
    }
}
