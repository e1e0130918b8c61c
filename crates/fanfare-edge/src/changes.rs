//! What a connection follows against what its URL names: the difference travels in its ids, so that a client which
//! comes back with its first URL still follows what it was changed to.

use std::collections::{HashMap, HashSet};

use fanfare_protocol::{Change, Channel};

/// What has to be changed in `base` to get `now`.
pub(crate) fn between(base: &[Channel], now: &[Channel]) -> Vec<(Change, Channel)> {
    let left = missing(base, now).map(|channel| (Change::Unsubscribe, channel));
    left.chain(missing(now, base).map(|channel| (Change::Subscribe, channel))).collect()
}

/// What follows from changes to `base`.
pub(crate) fn apply(base: &[Channel], changes: &[(Change, Channel)]) -> Vec<Channel> {
    shift(base, changes, Change::Subscribe)
}

/// What changes led away from to `now`.
pub(crate) fn revert(now: &[Channel], changes: &[(Change, Channel)]) -> Vec<Channel> {
    shift(now, changes, Change::Unsubscribe)
}

/// The channels of `some` that aren't among `others`.
pub(crate) fn missing(some: &[Channel], others: &[Channel]) -> impl Iterator<Item = Channel> {
    let others: HashSet<&Channel> = others.iter().collect();
    some.iter().filter(move |channel| !others.contains(channel)).cloned()
}

/// A cursor that was made up may name a channel more than once: the last time counts.
fn shift(channels: &[Channel], changes: &[(Change, Channel)], adds: Change) -> Vec<Channel> {
    let last: HashMap<&Channel, Change> = changes.iter().map(|(change, channel)| (channel, *change)).collect();
    let kept = channels.iter().filter(|channel| !last.contains_key(channel));
    let mut added = HashSet::new();
    let gone_over = changes.iter().map(|(_, channel)| channel);
    kept.chain(gone_over.filter(|channel| last[channel] == adds && added.insert(*channel))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_lead_from_the_urls_channels_to_those_of_now_and_back() {
        let channels = |names: &[&str]| -> Vec<Channel> {
            names.iter().map(|name| Channel::parse(name).expect("valid")).collect()
        };
        let sorted = |mut channels: Vec<Channel>| {
            channels.sort();
            channels
        };
        for (base, now) in [
            (&["a", "b"][..], &["b", "c"][..]),
            (&["a"], &["a"]),
            (&["a"], &["b"]),
            (&["a", "b", "c"], &["b"]),
            (&["a"], &["a", "b", "c"]),
        ] {
            let (base, now) = (channels(base), channels(now));
            let changes = between(&base, &now);
            assert_eq!((sorted(apply(&base, &changes)), sorted(revert(&now, &changes))), (now, base));
        }
    }

    #[test]
    fn of_what_is_changed_more_than_once_the_last_time_counts() {
        let channel = |name: &str| Channel::parse(name).expect("valid");
        let (add, leave) = (Change::Subscribe, Change::Unsubscribe);
        let changes = [(add, "b"), (add, "b"), (add, "c"), (leave, "c"), (leave, "a"), (add, "a")];
        let changes = changes.map(|(change, name)| (change, channel(name)));
        assert_eq!(apply(&[channel("a"), channel("d")], &changes), ["d", "b", "a"].map(channel));
    }
}
