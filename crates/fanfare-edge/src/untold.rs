//! What has changed since the directory was last told: noted as it happens, taken once a second.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use fanfare_backbone::Counted;

/// Changes that wait, of one connection more at most. Past it nothing is noted any more: everything has changed then.
const CHANGES_MAX: usize = 100_000;

/// What has changed. None: everything.
#[derive(Debug, Default)]
pub(crate) struct Untold(Mutex<Option<HashSet<Counted>>>);

impl Untold {
    /// These have changed, and can be counted as they are now.
    pub(crate) fn note(&self, counted: impl IntoIterator<Item = Counted>) {
        let mut changes = self.lock();
        let Some(noted) = &mut *changes else { return };
        noted.extend(counted);
        if noted.len() > CHANGES_MAX {
            *changes = None;
        }
    }

    /// Takes what has changed, and begins anew. None: everything has.
    pub(crate) fn take(&self) -> Option<HashSet<Counted>> {
        self.lock().replace(HashSet::new())
    }

    /// Everything has changed.
    pub(crate) fn everything(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashSet<Counted>>> {
        self.0.lock().expect("no one panics while holding the changes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::Channel;

    #[test]
    fn too_many_changes_become_everything() {
        let counted = |n| Counted::Channel(Channel::parse(&format!("c:{n}")).expect("valid"));
        let untold = Untold::default();
        assert_eq!(untold.take(), None, "at first, everything");
        untold.note((0..CHANGES_MAX).map(counted));
        untold.note((0..CHANGES_MAX).map(counted));
        assert_eq!(untold.take().map(|noted| noted.len()), Some(CHANGES_MAX));
        untold.note((0..=CHANGES_MAX).map(counted));
        untold.note([counted(0)]);
        assert_eq!(untold.take(), None);
        assert_eq!(untold.take(), Some(HashSet::new()));
    }
}
