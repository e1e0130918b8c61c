//! A connection changes while it is open: what it follows, how long its token lasts, or whether its user may stay.

use std::collections::HashSet;
use std::time::SystemTime;

use fanfare_protocol::{Channel, ConnectionKey, Patch, UserId, decode_changes, encode_changes};

use super::connection::{Lease, Phase};
use super::{Connection, Shard, Visit};
use crate::changes;
use crate::close::CloseReason;
use crate::patch::{Order, Outcome};

impl Shard {
    /// Carries out an order, all of it or nothing. A second time it changes nothing, and the stream says again what it
    /// follows.
    pub(super) fn patch(&mut self, order: Order) -> Outcome {
        let Order { client, user, subscribe, unsubscribe, renewal } = order;
        let Some(connection) = self.sockets.connections.get_mut(client.key as usize) else { return Outcome::NotFound };
        if connection.secret.bits() != client.secret || connection.phase != Phase::Open {
            return Outcome::NotFound;
        }
        if connection.admission.user() != user.as_ref() {
            return Outcome::OtherUser;
        }
        let before = &self.machine.channels(client.key);
        let unsubscribe: HashSet<_> = unsubscribe.into_iter().collect();
        // No token opens the channel of a call, which is this connection's alone.
        let opens = |channel: &Channel| {
            channel.is_internal() || renewal.as_ref().is_none_or(|renewal| renewal.reach.opens(channel))
        };
        let kept = before.iter().filter(|channel| !unsubscribe.contains(*channel) && opens(channel)).cloned();
        let mut known = HashSet::new();
        let now: Vec<_> = kept.chain(subscribe).filter(|channel| known.insert(channel.clone())).collect();
        if now.is_empty() {
            return Outcome::NothingLeft;
        }
        if now.len() > self.config.channels_max {
            return Outcome::TooMany(now.len());
        }
        let changed = decode_changes(self.machine.changes(client.key)).expect("the machine has what we gave it");
        let changed = match encode_changes(&changes::between(&changes::revert(before, &changed), &now)) {
            Ok(changed) => (!changed.is_empty()).then(|| changed.into_boxed_str()),
            Err(error) => return Outcome::TooLong(error.0),
        };
        let patch = Patch {
            subscribe: changes::missing(&now, before).collect(),
            unsubscribe: changes::missing(before, &now).collect(),
            changes: changed,
        };
        if let Some(renewal) = renewal {
            connection.lease = Lease::new(renewal.issued_at, renewal.expires_at);
            let visit = Visit { key: client.key, generation: connection.generation };
            self.visit_in(1, visit); // The next look may have been meant for later than it is needed now.
        }
        self.registry.follow(user.as_ref(), &patch.subscribe);
        self.registry.unfollow(user.as_ref(), &patch.unsubscribe);
        self.machine.patch(client.key, patch, &mut self.sockets);
        Outcome::Done(now)
    }

    /// Ends the connections that disconnects concern: of one user, or of all.
    pub(super) fn disconnect(&mut self, only: Option<&UserId>) {
        let opened_at =
            |connection: &Connection| SystemTime::now().checked_sub(connection.age()).unwrap_or(SystemTime::UNIX_EPOCH);
        for (key, connection) in &self.sockets.connections {
            let user = connection.admission.user();
            if user.is_some()
                && only.is_none_or(|only| user == Some(only))
                && connection.phase == Phase::Open
                && self.blocks.end(user, opened_at(connection), connection.lease.issued_at())
            {
                self.sockets.ended.push((key as ConnectionKey, CloseReason::Disconnected));
            }
        }
    }
}
