//! Who is connected to this edge: a sharded map, keyed by user, by address and by channel.
//!
//! Shards write it as connections come and go; limits read it. Only closures touch an entry, so that no guard lives
//! longer than a line and none is held while something is awaited or sent.

use std::collections::VecDeque;
use std::net::IpAddr;

use dashmap::DashMap;
use fanfare_protocol::{Channel, UserId};

use crate::config::AtUserLimit;
use crate::shard::Whereabouts;

/// The connections of an edge, counted.
#[derive(Debug, Default)]
pub struct Registry {
    users: DashMap<UserId, User>,
    addresses: DashMap<IpAddr, u32>,
    channels: DashMap<Channel, u32>,
}

/// The connections of one user.
#[derive(Debug, Default)]
struct User {
    connections: u32,
    /// Where they are, the oldest first. Kept only where an edge closes the oldest for a new one, and then no more
    /// than a user may have.
    whereabouts: VecDeque<Whereabouts>,
}

/// What became of a user's new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is counted in.
    Admitted,
    /// The same, and this one is to be closed for it.
    InsteadOf(Whereabouts),
    /// There are too many.
    Refused,
}

impl Registry {
    /// Counts a connection of a user in. Where there are `max` already, the oldest goes for it or it is refused; so it
    /// is where those that went are twice as many and haven't gone yet.
    pub(crate) fn admit(&self, user: &UserId, max: usize, at_limit: AtUserLimit) -> Entry {
        let mut user = self.users.entry(user.clone()).or_default();
        let connections = user.connections as usize;
        let entry = match at_limit {
            _ if connections < max => Entry::Admitted,
            AtUserLimit::ReplaceOldest if connections < 2 * max => {
                user.whereabouts.pop_front().map_or(Entry::Refused, Entry::InsteadOf)
            }
            AtUserLimit::ReplaceOldest | AtUserLimit::Reject => Entry::Refused,
        };
        user.connections += u32::from(entry != Entry::Refused);
        entry
    }

    /// A connection of a user is gone.
    pub(crate) fn dismiss(&self, user: &UserId) {
        if let Some(mut user) = self.users.get_mut(user) {
            user.connections = user.connections.saturating_sub(1);
        }
        self.users.remove_if(user, |_, user| user.connections == 0);
    }

    /// Where a user's newest connection is.
    pub(crate) fn settle(&self, user: &UserId, at: Whereabouts) {
        if let Some(mut user) = self.users.get_mut(user) {
            user.whereabouts.push_back(at);
        }
    }

    /// A user's connection is there no more.
    pub(crate) fn unsettle(&self, user: &UserId, at: Whereabouts) {
        if let Some(mut user) = self.users.get_mut(user) {
            user.whereabouts.retain(|other| *other != at);
        }
    }

    /// Counts a connection of a client address in, unless there are `max` already.
    pub(crate) fn admit_address(&self, address: IpAddr, max: usize) -> bool {
        let mut connections = self.addresses.entry(address).or_insert(0);
        let admitted = (*connections as usize) < max;
        *connections += u32::from(admitted);
        admitted
    }

    /// A connection of an address is gone.
    pub(crate) fn dismiss_address(&self, address: IpAddr) {
        decrement(&self.addresses, &address);
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
        self.users.get(user).map_or(0, |user| user.connections as usize)
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
        let admit = || registry.admit(&user, 2, AtUserLimit::Reject);
        assert_eq!([admit(), admit(), admit()], [Entry::Admitted, Entry::Admitted, Entry::Refused]);
        registry.dismiss(&user);
        assert_eq!(admit(), Entry::Admitted);
        assert_eq!(registry.connections(&user), 2);
    }

    #[test]
    fn the_oldest_goes_for_a_new_one_as_long_as_those_that_go_are_not_too_many() {
        let registry = Registry::default();
        let user = UserId::parse("42").expect("valid");
        let admit = || registry.admit(&user, 2, AtUserLimit::ReplaceOldest);
        let at = |shard| Whereabouts { shard, ..Whereabouts::default() };
        for shard in 0..2 {
            assert_eq!(admit(), Entry::Admitted);
            registry.settle(&user, at(shard));
        }
        assert_eq!(admit(), Entry::InsteadOf(at(0)));
        registry.settle(&user, at(2));
        registry.unsettle(&user, at(1));
        assert_eq!(admit(), Entry::InsteadOf(at(2)));
        assert_eq!(admit(), Entry::Refused, "nobody has gone yet");
        (0..4).for_each(|_| registry.dismiss(&user));
        assert!(registry.users.is_empty());
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
