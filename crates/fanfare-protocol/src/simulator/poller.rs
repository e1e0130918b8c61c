//! Clients that poll: each answer comes whole or not at all, and whoever gets none asks again with the same cursor.

use super::client::{Conn, Frame, Kind};
use super::plan::Plan;
use super::{MS, Step, Time, World, tell};
use crate::{Poll, Start};

/// An answer on its way to being one, and the frames that are in it.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) poll: Poll,
    pub(super) frames: Vec<Frame>,
    /// Of so many events it doesn't want one.
    filter: Option<usize>,
}

impl Polled {
    pub(super) fn new(start: &Start, filter: Option<usize>, plan: &Plan) -> Self {
        Self { poll: Poll::with_bounds(start, plan.poll_events_max, plan.poll_bytes_max), frames: Vec::new(), filter }
    }

    pub(super) fn wants(&self, entry: usize) -> bool {
        wants(self.filter, entry)
    }
}

/// Whether a client wants an event of a certain type, as it were.
pub(super) fn wants(filter: Option<usize>, entry: usize) -> bool {
    filter.is_none_or(|filter| !entry.is_multiple_of(filter))
}

impl World {
    /// Something went into a poll's answer, or passed it by.
    pub(super) fn look_at_poll(&mut self, conn: usize) {
        let Conn { edge, shard, key, left, .. } = self.conns[conn];
        let live = self.edges[edge].shards[shard].machine.id(key).is_some();
        if !left && self.conns[conn].polled.as_ref().is_some_and(|polled| polled.poll.is_due(live)) {
            self.answer_poll(conn);
        }
    }

    /// A poll has waited long enough, or its edge wants to be rid of it.
    pub(super) fn poll_ends(&mut self, conn: usize) {
        let Conn { edge, life, left, .. } = self.conns[conn];
        if !left && self.edges[edge].life == life {
            self.answer_poll(conn);
        }
    }

    fn answer_poll(&mut self, conn: usize) {
        let Conn { edge, shard, key, client, .. } = self.conns[conn];
        let polled = self.conns[conn].polled.as_mut().expect("a poll");
        let mut frames = std::mem::take(&mut polled.frames);
        let connected = polled.poll.is_connected();
        if connected {
            let machine = &self.edges[edge].shards[shard].machine;
            let (cursor, more) = polled.poll.end(machine.id(key));
            let cursor = cursor.to_owned();
            tell!(self, "client {client} (conn {conn}) is answered: {frames:?}, cursor {cursor}, more {more}");
            frames.push(Frame { kind: Kind::Heartbeat, id: Some(cursor) });
        }
        self.leave(conn);
        let lost = !self.calm && self.chance(0.15);
        if !connected || lost {
            let pause = self.below(60 * MS);
            return self.after(pause, Step::Die { client, conn });
        }
        self.conns[conn].polled.as_mut().expect("a poll").frames = frames;
        let delay = self.delay();
        self.after(delay, Step::Answer(conn));
    }

    /// An answer arrives, all of it at once.
    pub(super) fn answer_arrives(&mut self, conn: usize) {
        let Conn { client, view, .. } = self.conns[conn];
        if self.clients[client].conn != Some(conn) {
            return; // It had stopped waiting for it.
        }
        let polled = self.conns[conn].polled.as_mut().expect("a poll");
        for frame in std::mem::take(&mut polled.frames) {
            self.client_receives(client, conn, view, frame);
        }
        self.clients[client].conn = None;
        self.clients[client].answered = self.now;
        let pause = self.below(30 * MS);
        self.after(pause, Step::Connect(client));
    }

    /// Until when a poll is answered at the latest; now and then it is much earlier.
    pub(super) fn poll_timeout(&mut self) -> Time {
        let timeout = self.plan.poll_timeout;
        if self.chance(0.2) { self.below(timeout) } else { timeout }
    }
}
