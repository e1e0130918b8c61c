//! How a connection becomes a shard's.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use fanfare_protocol::sse::{Framing, Naming};
use fanfare_protocol::{ConnectionKey, Start};

use super::{CallStream, Connection, Hello, Lease, Phase, Polled, Shard, Style, Visit, Whereabouts, Wire};
use crate::admission::Admission;
use crate::close::CloseReason;
use crate::request_id::RequestId;

/// A connection that has been let in.
#[derive(Debug)]
pub(crate) struct Adoption {
    pub(crate) wire: Wire,
    pub(crate) opening: Opening,
    pub(crate) style: Style,
    pub(crate) lease: Lease,
    pub(crate) admission: Admission,
    pub(crate) hello: Hello,
    pub(crate) start: Start,
    /// What the cursor says of channels changed since the URL was opened.
    pub(crate) changes: Option<Box<str>>,
    /// The call that it answers.
    pub(crate) call: Option<Box<CallStream>>,
}

/// What a connection is to be.
#[derive(Debug)]
pub(crate) enum Opening {
    /// A stream, with what is written first: the response's head and the first line.
    Stream(Bytes),
    /// One answer.
    Poll(Box<Polled>),
}

/// A stream that is refused.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) wire: Wire,
    /// All that it gets.
    pub(crate) first: Bytes,
    pub(crate) framing: Framing,
    pub(crate) admission: Admission,
    /// How long it is held open.
    pub(crate) pause: Duration,
}

impl Shard {
    /// A connection that has been let in is the shard's from now on.
    pub(super) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { wire, opening, style, lease, admission, hello, start, changes, call } = adoption;
        let Some(visit) = self.take_in(wire, style, admission) else { return };
        let connection = &mut self.sockets.connections[visit.key as usize];
        let channels = hello.channels.clone();
        connection.lease = lease;
        connection.call = call;
        let head = match opening {
            Opening::Stream(head) => {
                connection.hello = Some(Box::new(hello));
                head
            }
            Opening::Poll(polled) => {
                connection.polled = Some(polled);
                Bytes::new()
            }
        };
        connection.admission.settle(Whereabouts { shard: self.index, visit });
        self.registry.follow(connection.admission.user(), &channels);
        self.metrics.opened.inc();
        self.machine.join(visit.key, &channels, start, changes);
        if !head.is_empty() {
            if self.machine.is_live() {
                self.sockets.connections[visit.key as usize].wire.hold_back(); // It joins in a moment.
            }
            self.sockets.send(visit.key, &head);
        }
        let user = self.sockets.connections[visit.key as usize].admission.user();
        if self.blocks.refuse(user, lease.issued_at(), SystemTime::now()) {
            self.sockets.ended.push((visit.key, CloseReason::Disconnected)); // It happened on the way here.
        }
    }

    /// A stream that is refused stays open until its client may come back.
    pub(super) fn hold(&mut self, holding: Holding) {
        let Holding { wire, first, framing, admission, pause } = holding;
        let style = Style::new(framing, Naming::Named, RequestId::new(b""));
        let Some(visit) = self.take_in(wire, style, admission) else { return };
        self.sockets.connections[visit.key as usize].phase = Phase::Held(Instant::now() + pause);
        self.sockets.send(visit.key, &first);
    }

    /// A wire is the shard's from now on. None: it can't be watched; it is closed, and the client comes back.
    fn take_in(&mut self, mut wire: Wire, style: Style, admission: Admission) -> Option<Visit> {
        let entry = self.sockets.connections.vacant_entry();
        let key = entry.key() as ConnectionKey;
        self.generations = self.generations.wrapping_add(1);
        let visit = Visit { key, generation: self.generations };
        wire.watch(&self.sockets.registry, &self.ready, visit).ok()?;
        entry.insert(Connection::new(wire, visit.generation, style, admission, self.sockets.wheel.now()));
        self.visit_in(1, visit);
        if let Some(drain) = &mut self.drain {
            drain.add(visit);
        }
        Some(visit)
    }
}
