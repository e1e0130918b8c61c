//! Who is connected to this edge: a sharded map, keyed by user, by address and by channel.
//!
//! Shards write it as connections come and go; limits read it. Only closures touch an entry, so that no guard lives
//! longer than a line and none is held while something is awaited or sent. What has changed is noted for the directory,
//! which is told by `directory`.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;

use dashmap::DashMap;
use fanfare_backbone::Counted;
use fanfare_protocol::{ByNamespace, Channel, UserId, has_slack};

use crate::config::AtUserLimit;
use crate::shard::Whereabouts;
use crate::stats::NamespaceStats;
use crate::untold::Untold;

/// The connections of an edge, counted.
#[derive(Debug)]
pub struct Registry {
    users: DashMap<UserId, u32>,
    /// Where a user's connections are, the oldest first. Kept only where an edge closes the oldest for a new one, and
    /// then no more than a user may have. Locked after the user's entry, never before.
    whereabouts: DashMap<UserId, VecDeque<Whereabouts>>,
    addresses: DashMap<IpAddr, u32>,
    channels: DashMap<Channel, u32>,
    /// Who follows a channel, only where that is to be told. None: those that are nobody's.
    listeners: DashMap<(Channel, Option<UserId>), u32>,
    presence: ByNamespace<bool>,
    untold: Untold,
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
    /// Nobody is connected yet. `presence` says of which channels it is to be told who follows them.
    pub(crate) fn new(presence: ByNamespace<bool>) -> Self {
        let (users, whereabouts, addresses, channels, listeners) = Default::default();
        Self { users, whereabouts, addresses, channels, listeners, presence, untold: Untold::default() }
    }

    /// Counts a connection of a user in. Where there are `max` already, the oldest goes for it or it is refused; so it
    /// is where those that went are twice as many and haven't gone yet. Answers with the user, as all its connections
    /// share it.
    pub(crate) fn admit(&self, user: UserId, max: usize, at_limit: AtUserLimit) -> (UserId, Entry) {
        let (user, entry) = self.count_in(user, max, at_limit);
        self.untold.note([Counted::User(user.clone())]);
        (user, entry)
    }

    fn count_in(&self, user: UserId, max: usize, at_limit: AtUserLimit) -> (UserId, Entry) {
        let mut user = self.users.entry(user).or_default();
        let connections = *user as usize;
        let entry = match at_limit {
            _ if connections < max => Entry::Admitted,
            AtUserLimit::ReplaceOldest if connections < 2 * max => {
                let oldest = self.whereabouts.get_mut(user.key()).and_then(|mut all| all.pop_front());
                oldest.map_or(Entry::Refused, Entry::InsteadOf)
            }
            AtUserLimit::ReplaceOldest | AtUserLimit::Reject => Entry::Refused,
        };
        *user += u32::from(entry != Entry::Refused);
        (user.key().clone(), entry)
    }

    /// A connection of a user is gone.
    pub(crate) fn dismiss(&self, user: &UserId) {
        decrement(&self.users, user);
        self.untold.note([Counted::User(user.clone())]);
    }

    /// Where a user's newest connection is.
    pub(crate) fn settle(&self, user: &UserId, at: Whereabouts) {
        self.whereabouts.entry(user.clone()).or_default().push_back(at);
    }

    /// A user's connection is there no more.
    pub(crate) fn unsettle(&self, user: &UserId, at: Whereabouts) {
        if let Some(mut all) = self.whereabouts.get_mut(user) {
            all.retain(|other| *other != at);
        }
        self.whereabouts.remove_if(user, |_, all| all.is_empty());
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

    /// A connection of this user follows these channels.
    pub(crate) fn follow(&self, user: Option<&UserId>, channels: &[Channel]) {
        for channel in channels {
            *self.channels.entry(channel.clone()).or_insert(0) += 1;
            if self.tells_who_follows(channel) {
                *self.listeners.entry((channel.clone(), user.cloned())).or_insert(0) += 1;
            }
        }
        self.untold.note(self.counted(user, channels));
    }

    /// A connection of this user follows these channels no longer.
    pub(crate) fn unfollow(&self, user: Option<&UserId>, channels: &[Channel]) {
        for channel in channels {
            decrement(&self.channels, channel);
            if self.tells_who_follows(channel) {
                decrement(&self.listeners, &(channel.clone(), user.cloned()));
            }
        }
        self.untold.note(self.counted(user, channels));
    }

    /// What the directory is to be told: whatever has changed, with its count now. None: everything, see
    /// [`Registry::everything`].
    pub(crate) fn changes(&self) -> Option<Vec<(Counted, u32)>> {
        let count = |counted: Counted| {
            let count = match &counted {
                Counted::Channel(channel) => count(&self.channels, channel),
                Counted::User(user) => count(&self.users, user),
                Counted::Listener(channel, user) => count(&self.listeners, &(channel.clone(), user.clone())),
            };
            (counted, count)
        };
        Some(self.untold.take()?.into_iter().map(count).collect())
    }

    /// All that is counted. What changes meanwhile is noted.
    pub(crate) fn everything(&self) -> Vec<(Counted, u32)> {
        let mut all = Vec::new();
        all.extend(self.users.iter().map(|user| (Counted::User(user.key().clone()), *user)));
        let channels = self.channels.iter().filter(|channel| !channel.key().is_internal());
        all.extend(channels.map(|channel| (Counted::Channel(channel.key().clone()), *channel)));
        all.extend(self.listeners.iter().map(|listener| {
            let (channel, user) = listener.key().clone();
            (Counted::Listener(channel, user), *listener)
        }));
        all
    }

    /// What was taken got lost: everything has to be told anew.
    pub(crate) fn everything_has_changed(&self) {
        self.untold.everything();
    }

    /// Gives back the room of those who have left.
    pub(crate) fn release(&self) {
        release(&self.users);
        release(&self.whereabouts);
        release(&self.addresses);
        release(&self.channels);
        release(&self.listeners);
    }

    /// Of the broadcast it is only told how many follow it: it would list everybody.
    fn tells_who_follows(&self, channel: &Channel) -> bool {
        *self.presence.of(channel) && !channel.is_broadcast() && !channel.is_internal()
    }

    fn counted(&self, user: Option<&UserId>, channels: &[Channel]) -> impl Iterator<Item = Counted> {
        let told = channels.iter().filter(|channel| !channel.is_internal());
        told.flat_map(move |channel| {
            let listener = || Counted::Listener(channel.clone(), user.cloned());
            [Some(Counted::Channel(channel.clone())), self.tells_who_follows(channel).then(listener)]
        })
        .flatten()
    }

    /// Connections of a user on this edge.
    pub fn connections(&self, user: &UserId) -> usize {
        count(&self.users, user) as usize
    }

    /// Connections on this edge that follow a channel.
    pub fn listeners(&self, channel: &Channel) -> usize {
        count(&self.channels, channel) as usize
    }

    /// Users with connections on this edge.
    pub(crate) fn users(&self) -> usize {
        self.users.len()
    }

    /// Every user with connections on this edge, and how many.
    pub(crate) fn all_users(&self) -> Vec<(UserId, u32)> {
        self.users.iter().map(|user| (user.key().clone(), *user)).collect()
    }

    /// Channels and listeners of each namespace.
    pub(crate) fn namespaces(&self) -> Vec<NamespaceStats> {
        let mut namespaces: HashMap<String, (usize, u64)> = HashMap::new();
        for channel in &self.channels {
            let namespace = channel.key().namespace();
            if !namespaces.contains_key(namespace) {
                namespaces.insert(namespace.to_owned(), (0, 0));
            }
            let (channels, listeners) = namespaces.get_mut(namespace).expect("it is there by now");
            *channels += 1;
            *listeners += u64::from(*channel);
        }
        let stats = |(namespace, (channels, listeners))| NamespaceStats { namespace, channels, listeners };
        namespaces.into_iter().map(stats).collect()
    }

    /// Channels with listeners on this edge.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }
}

fn count<K: Hash + Eq>(counts: &DashMap<K, u32>, key: &K) -> u32 {
    counts.get(key).map_or(0, |count| *count)
}

fn release<K: Hash + Eq, V>(map: &DashMap<K, V>) {
    if has_slack(map.capacity(), map.len()) {
        map.shrink_to_fit();
    }
}

fn decrement<K: Hash + Eq>(counts: &DashMap<K, u32>, key: &K) {
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
        let registry = Registry::new(ByNamespace::everywhere(false));
        let user = UserId::parse("42").expect("valid");
        let admit = || registry.admit(user.clone(), 2, AtUserLimit::Reject).1;
        assert_eq!([admit(), admit(), admit()], [Entry::Admitted, Entry::Admitted, Entry::Refused]);
        registry.dismiss(&user);
        assert_eq!(admit(), Entry::Admitted);
        assert_eq!(registry.connections(&user), 2);
    }

    #[test]
    fn the_oldest_goes_for_a_new_one_as_long_as_those_that_go_are_not_too_many() {
        let registry = Registry::new(ByNamespace::everywhere(false));
        let user = UserId::parse("42").expect("valid");
        let admit = || registry.admit(user.clone(), 2, AtUserLimit::ReplaceOldest).1;
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
        let registry = Registry::new(ByNamespace::everywhere(false));
        let channels = [Channel::broadcast(), Channel::parse("server:7").expect("valid")];
        registry.follow(None, &channels);
        registry.follow(None, &channels[..1]);
        assert_eq!((registry.listeners(&channels[0]), registry.channels()), (2, 2));
        registry.unfollow(None, &channels);
        assert_eq!((registry.listeners(&channels[0]), registry.channels()), (1, 1));
    }

    #[test]
    fn what_has_changed_is_told_once_with_its_count_of_now_and_who_follows_only_where_asked_for() {
        let mut presence = ByNamespace::everywhere(false);
        for namespace in ["room", "broadcast", "$call"] {
            presence.own.insert(namespace.into(), true);
        }
        let registry = Registry::new(presence);
        assert!(registry.changes().is_none(), "at first, everything");
        let alice = UserId::parse("alice").expect("valid");
        let channels = ["room:1", "server:7", "broadcast", "$call:1"].map(|name| Channel::parse(name).expect("valid"));
        let [room, server, broadcast, _] = &channels;
        registry.admit(alice.clone(), 9, AtUserLimit::Reject);
        registry.follow(Some(&alice), &channels);
        registry.follow(None, &channels[..1]);
        let sorted = |mut told: Vec<(Counted, u32)>| {
            told.sort_by_key(|(counted, _)| format!("{counted:?}"));
            told
        };
        let told = [
            (Counted::Channel(broadcast.clone()), 1),
            (Counted::Channel(room.clone()), 2),
            (Counted::Channel(server.clone()), 1),
            (Counted::Listener(room.clone(), None), 1),
            (Counted::Listener(room.clone(), Some(alice.clone())), 1),
            (Counted::User(alice.clone()), 1),
        ];
        assert_eq!(sorted(registry.changes().expect("differences")), told);
        assert_eq!(sorted(registry.everything()), told);
        assert_eq!(registry.changes(), Some(vec![]), "once");

        registry.unfollow(Some(&alice), &channels);
        registry.dismiss(&alice);
        registry.unfollow(None, &channels[..1]);
        registry.follow(None, &channels[..1]);
        let told = told.map(|(counted, _)| {
            let left =
                matches!(&counted, Counted::Channel(channel) | Counted::Listener(channel, None) if channel == room);
            (counted, u32::from(left))
        });
        assert_eq!(sorted(registry.changes().expect("differences")), told);
        registry.everything_has_changed();
        registry.follow(None, &channels[1..2]);
        assert!(registry.changes().is_none());
    }

    #[test]
    fn what_was_told_while_connections_come_and_go_ends_up_right() {
        let registry = Registry::new(ByNamespace::everywhere(true));
        let shared = Channel::parse("shared").expect("valid");
        let mut told: HashMap<Counted, u32> = HashMap::new();
        let mut tell = || match registry.changes() {
            Some(changes) => changes.into_iter().for_each(|(counted, count)| match count {
                0 => drop(told.remove(&counted)),
                count => drop(told.insert(counted, count)),
            }),
            None => told = registry.everything().into_iter().collect(),
        };
        std::thread::scope(|scope| {
            // Each has users and channels of its own, which nothing else puts right later.
            let come_and_go = |thread: usize| {
                let (registry, shared) = (&registry, &shared);
                move || {
                    for n in 0..5_000 {
                        let user = UserId::parse(&format!("{thread}.{n}")).expect("valid");
                        let channels = [user.inbox(), shared.clone()];
                        registry.admit(user.clone(), 1, AtUserLimit::Reject);
                        registry.follow(Some(&user), &channels);
                        if n % 100 > 0 {
                            registry.unfollow(Some(&user), &channels);
                            registry.dismiss(&user);
                        }
                    }
                }
            };
            let threads: Vec<_> = (0..4).map(|thread| scope.spawn(come_and_go(thread))).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                tell();
            }
        });
        tell();
        assert_eq!(told.len(), 4 * 50 * 4 + 1, "a user, their inbox, and them on both channels");
        assert_eq!(told, registry.everything().into_iter().collect());
    }
}
