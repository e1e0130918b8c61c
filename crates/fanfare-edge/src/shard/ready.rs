//! Which connections have something to look at, where no epoll set can say so: those whose wire is a body.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Wake, Waker};

use tokio::sync::Notify;

use super::wheel::Visit;

/// The connections of a shard that are to be looked at. Each is there once at most, so it is bounded by them.
#[derive(Debug)]
pub(super) struct Ready {
    rings: Mutex<Vec<Arc<Ring>>>,
    /// The shard's.
    bell: Arc<Notify>,
}

/// Rung by one body: it takes bytes again, or its client has left.
#[derive(Debug)]
struct Ring {
    visit: Visit,
    listed: AtomicBool,
    ready: Arc<Ready>,
}

impl Ready {
    pub(super) fn new(bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { rings: Mutex::default(), bell })
    }

    /// Lists a connection whenever it is woken.
    pub(super) fn waker(self: &Arc<Self>, visit: Visit) -> Waker {
        Arc::new(Ring { visit, listed: AtomicBool::new(false), ready: self.clone() }).into()
    }

    /// Takes those that are to be looked at. One that is woken from here on is listed anew.
    pub(super) fn take(&self) -> impl Iterator<Item = Visit> {
        mem::take(&mut *self.lock()).into_iter().map(|ring| {
            ring.listed.store(false, Ordering::Release);
            ring.visit
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Ring>>> {
        self.rings.lock().expect("nobody panics while holding the list")
    }
}

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        if !self.listed.swap(true, Ordering::AcqRel) {
            let ready = self.ready.clone();
            ready.lock().push(self);
            ready.bell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_listed_once_however_often_it_is_woken() {
        let ready = Ready::new(Arc::default());
        let visits = [1, 2].map(|key| Visit { key, generation: 7 });
        let wakers = visits.map(|visit| ready.waker(visit));
        for waker in [&wakers[0], &wakers[1], &wakers[0]] {
            waker.wake_by_ref();
        }
        assert!(ready.take().eq(visits));
        assert_eq!(ready.take().count(), 0);
        wakers[1].wake_by_ref();
        assert!(ready.take().eq([visits[1]]));
    }
}
