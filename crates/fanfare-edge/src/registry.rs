//! Who is connected to this edge: a sharded map, keyed by user and by channel.
//!
//! Shards write it as connections come and go; limits read it. Only closures touch an entry, so that no guard lives
//! longer than a line and none is held while something is awaited or sent.

use dashmap::DashMap;
use fanfare_protocol::{Channel, UserId};

/// The connections of an edge, counted.
#[derive(Debug, Default)]
pub struct Registry {
    users: DashMap<UserId, u32>,
    channels: DashMap<Channel, u32>,
}

impl Registry {
    /// Counts a connection of a user in, unless there are `max` already.
    pub(crate) fn admit(&self, user: &UserId, max: usize) -> bool {
        let mut connections = self.users.entry(user.clone()).or_insert(0);
        let admitted = (*connections as usize) < max;
        *connections += u32::from(admitted);
        admitted
    }

    /// A connection of a user is gone.
    pub(crate) fn dismiss(&self, user: &UserId) {
        decrement(&self.users, user);
    }

    /// A connection follows these channels.
    pub(crate) fn follow<'a>(&self, channels: impl IntoIterator<Item = &'a Channel>) {
        for channel in channels {
            *self.channels.entry(channel.clone()).or_insert(0) += 1;
        }
    }

    /// A connection follows these channels no longer.
    pub(crate) fn unfollow<'a>(&self, channels: impl IntoIterator<Item = &'a Channel>) {
        for channel in channels {
            decrement(&self.channels, channel);
        }
    }

    /// Connections of a user on this edge.
    pub fn connections(&self, user: &UserId) -> usize {
        self.users.get(user).map_or(0, |connections| *connections as usize)
    }

    /// Connections on this edge that follow a channel.
    pub fn listeners(&self, channel: &Channel) -> usize {
        self.channels.get(channel).map_or(0, |listeners| *listeners as usize)
    }

    /// Channels with listeners on this edge.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &DashMap<K, u32>, key: &K) {
    if let Some(mut count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
    }
    counts.remove_if(key, |_, count| *count == 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_admitted_up_to_the_limit_and_again_when_one_left() {
        let registry = Registry::default();
        let user = UserId::parse("42").expect("valid");
        assert!(registry.admit(&user, 2) && registry.admit(&user, 2) && !registry.admit(&user, 2));
        registry.dismiss(&user);
        assert!(registry.admit(&user, 2));
        assert_eq!(registry.connections(&user), 2);
    }

    #[test]
    fn what_nobody_follows_is_forgotten() {
        let registry = Registry::default();
        let channels = [Channel::broadcast(), Channel::parse("server:7").expect("valid")];
        registry.follow(&channels);
        registry.follow(&channels[..1]);
        assert_eq!((registry.listeners(&channels[0]), registry.channels()), (2, 2));
        registry.unfollow(&channels);
        assert_eq!((registry.listeners(&channels[0]), registry.channels()), (1, 1));
    }
}
