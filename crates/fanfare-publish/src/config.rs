//! What can be set.

use std::num::NonZeroUsize;

use fanfare_protocol::ByNamespace;

/// How the publish API treats what it is sent. The variables' names are in the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishConfig {
    /// Bytes of one event's data at most, as it is delivered. An event is copied to every subscriber and kept in
    /// history, so what is larger belongs elsewhere and its address into the event.
    pub payload_bytes_max: ByNamespace<NonZeroUsize>,
    /// Whether edges tell who follows a channel. Never of the broadcast.
    pub presence: ByNamespace<bool>,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            payload_bytes_max: ByNamespace::everywhere(NonZeroUsize::new(64 * 1024).expect("not zero")),
            presence: ByNamespace::everywhere(false),
        }
    }
}

/// Entries of an array, channels of an entry, users of a notification, and events of one request, at most.
pub(crate) const EVENTS_MAX: usize = 1000;

/// Bytes of an array at most.
pub(crate) const ARRAY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes that the rest of an entry may have beside its data: a thousand channels.
const ENTRY_BYTES_BESIDE: usize = 256 * 1024;

/// JSON may spend six bytes (`\u0041`) on one.
const ESCAPED_BYTES_MAX: usize = 6;

impl PublishConfig {
    /// Bytes that an entry can have at most when its data is within its limit, in whichever namespace: that of one line.
    pub(crate) fn entry_bytes_max(&self) -> usize {
        let largest = self.payload_bytes_max.all().max().expect("there is one that holds elsewhere");
        largest.get().saturating_mul(ESCAPED_BYTES_MAX).saturating_add(ENTRY_BYTES_BESIDE)
    }

    /// Bytes of a body that is read whole.
    pub(crate) fn body_bytes_max(&self) -> usize {
        self.entry_bytes_max().max(ARRAY_BYTES_MAX)
    }
}
