//! A connection's place on this edge: counted as long as it is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fanfare_protocol::UserId;

use crate::metrics::EdgeMetrics;
use crate::registry::Registry;

/// The places of an edge.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) registry: Arc<Registry>,
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) connections_max: usize,
    pub(crate) connections_per_user_max: usize,
    pub(crate) taken: AtomicUsize,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The edge is full.
    Edge,
    /// The user has too many already.
    User,
}

/// A place that is taken, and free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    places: Arc<Places>,
    user: Option<UserId>,
}

impl Places {
    /// Takes a place for a connection of this user.
    pub(crate) fn admit(self: &Arc<Self>, user: Option<UserId>) -> Result<Admission, NoPlace> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.connections_max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::Edge);
        }
        if let Some(user) = &user
            && !self.registry.admit(user, self.connections_per_user_max)
        {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(NoPlace::User);
        }
        self.metrics.connections.inc();
        Ok(Admission { places: self.clone(), user })
    }
}

impl Admission {
    /// Whose place it is.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        self.places.metrics.connections.dec();
        if let Some(user) = &self.user {
            self.places.registry.dismiss(user);
        }
    }
}
