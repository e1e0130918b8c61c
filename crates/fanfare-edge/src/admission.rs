//! A connection's place on this edge: counted as long as it is held.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_http::client_network;
use fanfare_protocol::UserId;

use crate::config::AtUserLimit;
use crate::metrics::EdgeMetrics;
use crate::registry::{Entry, Registry};
use crate::shard::Whereabouts;

/// The places of an edge.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_user_max: usize,
    pub(crate) at_user_limit: AtUserLimit,
    /// None: any number.
    pub(crate) connections_per_address_max: Option<usize>,
    pub(crate) taken: AtomicUsize,
    pub(crate) held_max: usize,
    pub(crate) held: AtomicUsize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The edge is full.
    Edge,
    /// The user has too many already.
    User,
    /// The client's address has too many already.
    Address,
}

impl NoPlace {
    /// A sentence for the client.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::Edge => "this edge holds as many connections as it can",
            Self::User => "this user has as many connections as one may have",
            Self::Address => "this address has as many connections as one may have",
        }
    }
}

/// A place that is taken, and free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Places>,
    kind: Kind,
    user: Option<UserId>,
    /// Where addresses are counted.
    address: Option<Box<IpAddr>>,
}

/// What a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connection,
    /// A stream that is refused and held open. It counts for no limit but its own.
    Held,
}

impl Places {
    /// Takes a place for a connection of this user from this address. Another one may have to go for it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        user: Option<UserId>,
        address: IpAddr,
    ) -> Result<(Admission, Option<Whereabouts>), NoPlace> {
        if !take(&self.taken, self.connections_max) {
            return Err(NoPlace::Edge);
        }
        self.metrics.connections.inc();
        let mut admission = Admission { places: self.clone(), kind: Kind::Connection, user: None, address: None };
        if let Some(max) = self.connections_per_address_max {
            let address = client_network(address);
            if !self.registry.admit_address(address, max) {
                return Err(NoPlace::Address);
            }
            admission.address = Some(Box::new(address));
        }
        let Some(user) = user else { return Ok((admission, None)) };
        let (user, entry) = self.registry.admit(user, self.connections_per_user_max, self.at_user_limit);
        let instead_of = match entry {
            Entry::Admitted => None,
            Entry::InsteadOf(oldest) => Some(oldest),
            Entry::Refused => return Err(NoPlace::User),
        };
        admission.user = Some(user);
        Ok((admission, instead_of))
    }

    /// Takes a place for a stream that is refused. None: there is no room to hold it open.
    pub(crate) fn hold(self: &Arc<Self>) -> Option<Admission> {
        let places = || self.clone();
        take(&self.held, self.held_max).then(|| Admission {
            places: places(),
            kind: Kind::Held,
            user: None,
            address: None,
        })
    }
}

impl Admission {
    /// Whose place it is.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// It is known now where the connection is.
    pub(crate) fn settle(&self, at: Whereabouts) {
        if let Some(user) = self.replaceable() {
            self.places.registry.settle(user, at);
        }
    }

    /// The connection is not to be closed for another one any more.
    pub(crate) fn unsettle(&self, at: Whereabouts) {
        if let Some(user) = self.replaceable() {
            self.places.registry.unsettle(user, at);
        }
    }

    fn replaceable(&self) -> Option<&UserId> {
        self.user.as_ref().filter(|_| self.places.at_user_limit == AtUserLimit::ReplaceOldest)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        match self.kind {
            Kind::Connection => {
                self.places.taken.fetch_sub(1, Ordering::Relaxed);
                self.places.metrics.connections.dec();
            }
            Kind::Held => _ = self.places.held.fetch_sub(1, Ordering::Relaxed),
        }
        if let Some(user) = &self.user {
            self.places.registry.dismiss(user);
        }
        if let Some(address) = &self.address {
            self.places.registry.dismiss_address(**address);
        }
    }
}

/// Counts one in, unless there are `max` already.
fn take(taken: &AtomicUsize, max: usize) -> bool {
    let has_room = taken.fetch_add(1, Ordering::Relaxed) < max;
    if !has_room {
        taken.fetch_sub(1, Ordering::Relaxed);
    }
    has_room
}
