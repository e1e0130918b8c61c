//! Users who were disconnected, as this edge knows them: asked at every open and PATCH, in memory.
//!
//! The truth is the backbone's table; what is here came from there or by a message (see `control`), and is only ever
//! added to, until it is over.

use std::time::SystemTime;

use dashmap::DashMap;
use fanfare_auth::Subscriber;
use fanfare_backbone::Block;
use fanfare_http::{Code, Problem};
use fanfare_protocol::UserId;

/// Users that are remembered at most: several times what the backbone's table holds at once. Beyond it a disconnect
/// still closes connections, but refuses nobody here.
const USERS_MAX: usize = 100_000;

/// Blocks by user. Of one user several, if none of them refuses all that another does.
#[derive(Debug, Default)]
pub(crate) struct Blocks(DashMap<UserId, Vec<Block>>);

impl Blocks {
    /// Remembers a block.
    pub(crate) fn learn(&self, block: Block) {
        if self.0.len() >= USERS_MAX {
            return tracing::error!("too many users were disconnected lately to remember another one");
        }
        let mut blocks = self.0.entry(block.user.clone()).or_default();
        blocks.retain(|known| known.before > block.before || known.until > block.until);
        blocks.push(block);
    }

    /// Whether a token of this user, issued then, is refused now.
    pub(crate) fn refuse(&self, user: Option<&UserId>, issued_at: Option<SystemTime>, now: SystemTime) -> bool {
        self.any(user, |block| block.refuses(issued_at, now))
    }

    /// Checks a token that is not for a stream.
    ///
    /// # Errors
    /// It is refused.
    pub(crate) fn check(&self, subscriber: &Subscriber, now: SystemTime) -> Result<(), Problem> {
        match self.refuse(subscriber.user(), subscriber.issued_at(), now) {
            false => Ok(()),
            true => {
                let detail = "the user was disconnected, and the token was issued before that";
                Err(Problem::new(Code::AuthenticationFailed, detail).hint("get a new one"))
            }
        }
    }

    /// Whether a connection of this user, opened then with a token that was issued then, is to end.
    pub(crate) fn end(&self, user: Option<&UserId>, opened_at: SystemTime, issued_at: Option<SystemTime>) -> bool {
        let now = SystemTime::now();
        self.any(user, |block| block.ends(opened_at) || block.refuses(issued_at, now))
    }

    /// Forgets what is over.
    pub(crate) fn sweep(&self) {
        let now = SystemTime::now();
        self.0.retain(|_, blocks| {
            blocks.retain(|block| !block.is_over(now));
            !blocks.is_empty()
        });
    }

    fn any(&self, user: Option<&UserId>, applies: impl Fn(&Block) -> bool) -> bool {
        let Some(user) = user.filter(|_| !self.0.is_empty()) else { return false };
        self.0.get(user).is_some_and(|blocks| blocks.iter().any(applies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_any_block_refuses_is_refused_until_that_one_is_over() {
        let blocks = Blocks::default();
        let user = UserId::parse("42").expect("valid");
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let now = SystemTime::now();
        let long = Block::new(user.clone(), now - minutes(20), minutes(60));
        let short = Block::new(user.clone(), now - minutes(5), minutes(6));
        [&long, &short, &long].into_iter().for_each(|block| blocks.learn(block.clone()));
        let refused = |issued: u64, at| blocks.refuse(Some(&user), Some(now - minutes(issued)), at);
        assert!(refused(21, now) && refused(6, now) && !refused(4, now));
        assert!(refused(21, now + minutes(2)) && !refused(6, now + minutes(2)), "the short one is over");
        assert!(!blocks.refuse(None, None, now) && !blocks.refuse(UserId::parse("43").ok().as_ref(), None, now));
        assert!(
            blocks.end(Some(&user), now - minutes(6), Some(now))
                && !blocks.end(Some(&user), now + minutes(1), Some(now))
        );
        blocks.sweep();
        assert!(refused(6, now), "nothing is over yet");
    }
}
