//! A connection joins: it asks for a cut, is replayed what it missed up to there, and then it is live.
//!
//! Replay goes out in windows: as much as was read of every channel, merged by position, and the next pages only
//! once the connection has taken that. A connection that dawdles over it loses its place and gets a new cut later,
//! from where it is, so that a slow reader's replay costs no memory.

use std::mem;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::chain::Chain;
use super::connection::{Attempt, Connection, Follow, Id, Join, Resumed};
use super::{ConnectionKey, Gap, GapReason, Machine, Outlet, Replayed};
use crate::feed::Cut;
use crate::rules::{Rule, on, visited};
use crate::{Answer, ByNamespace, Channel, Cursor, PageLimit, Partition, Point, Position, Query, Read, SharedEvent};

/// Where a connection begins.
#[derive(Clone, Debug)]
pub enum Start {
    /// Now, or so many newest events before, of each channel as many as its namespace has here.
    Fresh {
        /// The newest events.
        replay: Arc<ByNamespace<u16>>,
    },
    /// After its cursor.
    Cursor(Cursor),
    /// Now, and it is told a gap: what it came back with is no cursor of this deployment.
    Unknown,
}

impl Machine {
    /// A connection comes. It follows at least one channel, each named once; `changes` is what its cursor says of
    /// channels changed since, in the cursor's spelling.
    pub fn join(&mut self, key: ConnectionKey, channels: &[Channel], start: Start, changes: Option<Box<str>>) {
        let start = match start {
            Start::Cursor(cursor) if cursor.partitions() != self.partitions => Start::Unknown,
            start => start,
        };
        let resumed = match start {
            Start::Fresh { .. } => Resumed::Fresh,
            Start::Cursor(_) => Resumed::Cursor,
            Start::Unknown => Resumed::Unknown,
        };
        let mut connection = Connection { follows: SmallVec::new(), connected: false, resumed, changes, adding: 0 };
        for channel in channels {
            let partition = self.partitions.of(channel);
            let part = &mut self.parts[usize::from(partition)];
            let index = part.channel(channel);
            if connection.follow(partition).is_none() {
                let replay = if let Start::Fresh { replay } = &start { Some(replay.clone()) } else { None };
                let point = if let Start::Cursor(cursor) = &start { cursor.point(partition) } else { None };
                let join = Some(Box::new(Join { no: 0, replay, attempt: None }));
                connection.follows.push(Follow { partition, point, seats: smallvec![], join });
            }
            let follow = connection.follow(partition).expect("added above");
            Self::seat(&mut self.parts, follow, key, index);
        }
        for follow in &mut connection.follows {
            let part = &mut self.parts[usize::from(follow.partition)];
            let unsynced = follow.seats.iter().map(|seat| &part.channels[seat.channel as usize]);
            let unsynced = unsynced.filter(|state| !state.synced).map(|state| state.name.clone());
            follow.join.as_mut().expect("made above").no = part.wishes().cut(unsynced);
            part.waiting.insert(key);
        }
        if self.connections.len() <= key as usize {
            self.connections.resize_with(key as usize + 1, || None);
        }
        let before = self.connections[key as usize].replace(Box::new(connection));
        assert!(before.is_none(), "a connection's number is used again only once it has left");
    }

    /// Whether joins are over in a moment, as far as can be told: the streams of all partitions are live.
    pub fn is_live(&self) -> bool {
        self.parts.iter().all(|part| matches!(part.state, super::State::Live))
    }

    /// A connection has nothing waiting any more: its replay goes on, if that is what it waits for.
    pub fn resume(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key as usize).and_then(Option::as_deref) else { return };
        for follow in &connection.follows {
            let part = &mut self.parts[usize::from(follow.partition)];
            let parked = follow.join.as_deref().is_some_and(|join| join.attempt.is_none());
            if parked && part.waiting.insert(key) {
                visited!("a parked join goes on");
                part.wishes().cut([]);
            }
        }
    }

    /// The joins that can take this cut do.
    pub(super) fn cut_joins(&mut self, partition: Partition, cut: &Cut, outlet: &mut impl Outlet) {
        for key in mem::take(&mut self.parts[usize::from(partition)].waiting) {
            if !self.cut_join(partition, key, cut) {
                self.parts[usize::from(partition)].waiting.insert(key);
                continue;
            }
            self.connect(key, outlet);
            self.advance(partition, key, outlet);
        }
    }

    /// Whether the join could take the cut.
    fn cut_join(&mut self, partition: Partition, key: ConnectionKey, cut: &Cut) -> bool {
        let tag = self.new_tag(u64::from(key));
        let Self { parts, heads, connections, limits, .. } = self;
        let (part, head) = (&mut parts[usize::from(partition)], &heads[usize::from(partition)]);
        let connection = connections[key as usize].as_deref_mut().expect("who waits is a connection");
        let resumed = connection.resumed;
        let follow = connection.follow(partition).expect("who waits follows");
        let join = follow.join.as_deref_mut().expect("who waits joins");
        let synced = |seat: &super::Seat| part.channels[seat.channel as usize].synced;
        if (join.no > cut.ack && on(Rule::CutAck)) || !follow.seats.iter().all(synced) {
            visited!("a join lets a cut pass");
            return false;
        }
        let marker = &cut.marker;
        let now = Point { epoch: head.epoch, pos: marker.last };
        let fresh = follow.point.is_none();
        let (start, gap) = match follow.point {
            None => (now.pos, None),
            Some(own) if own.epoch == now.epoch || !on(Rule::Epoch) => match own.pos > now.pos {
                true => {
                    visited!("a join's cursor is above the cut");
                    (now.pos, Some(GapReason::UnknownCursor))
                }
                false => (own.pos, None),
            },
            Some(own) if !on(Rule::EpochResume) => (own.pos.min(now.pos), Some(GapReason::Lost)),
            Some(own) if marker.previous == Some(own.epoch) => {
                visited!("a join comes from the previous epoch");
                (own.pos.min(marker.base), Some(GapReason::Lost))
            }
            Some(_) => {
                visited!("a join comes from an older epoch");
                (marker.base, Some(GapReason::Lost))
            }
        };
        // What it had not heard yet may be lost, also where the new epoch knows of nothing before its own beginning.
        let from = follow.point.map_or(start, |own| own.pos.min(start));
        let mut attempt = Attempt {
            tag,
            connection: cut.connection,
            epoch: now.epoch,
            start,
            cut: now.pos,
            gap: gap.map(|reason| (reason, from)),
            newest: false,
            chains: Vec::new(),
            reads: 0,
            history: Vec::new(),
            gaps: Vec::new(),
            buffer: Vec::new(),
            buffer_bytes: 0,
        };
        let mut queries = Vec::new();
        for seat in &follow.seats {
            let state = &part.channels[seat.channel as usize];
            if fresh {
                let replay = join.replay.as_deref().map_or(0, |replay| *replay.of(&state.name));
                if replay == 0 {
                    continue;
                }
                attempt.newest = true;
                match state.tail.newest(usize::from(replay)) {
                    Some(events) => {
                        visited!("the newest are in the tail");
                        attempt.history.extend(events.cloned());
                    }
                    None => {
                        visited!("the newest are read");
                        let bytes_max = limits.replay_bytes_max / follow.seats.len();
                        let limit = PageLimit { events_max: usize::from(replay), bytes_max };
                        queries.push(Query::Newest(state.name.clone(), limit));
                    }
                }
            } else if state.last.pos > start {
                match state.tail.after(start, on(Rule::TailFrom)) {
                    Some(events) => {
                        visited!("a join is served from the tail");
                        attempt.history.extend(events.cloned());
                    }
                    None => attempt.chains.push(Chain::new(state.name.clone(), start, state.last.pos, now.pos)),
                }
            }
        }
        let reads = queries.len() + attempt.chains.len();
        if reads > 0 && part.reading >= limits.joins_reading_max {
            visited!("a join is deferred");
            part.deferred = true;
            return false;
        }
        if fresh && !on(Rule::ConnectedAll) {
            follow.point = Some(now); // Else it has none until `connected`, and stays fresh if it must start again.
        }
        if !on(Rule::Connected) && resumed == Resumed::Cursor {
            follow.point = Some(now);
        }
        queries.extend(attempt.next_queries(limits.replay_bytes_max, limits.page_events_max));
        part.attempts.insert(tag, key);
        part.reading += usize::from(reads > 0);
        attempt.reads = reads;
        let mut wishes = part.wishes();
        for query in queries {
            wishes.read(Read { connection: cut.connection, tag, query });
        }
        drop(wishes);
        join.attempt = Some(attempt);
        true
    }

    pub(super) fn join_answer(
        &mut self,
        partition: Partition,
        key: ConnectionKey,
        answer: Answer,
        outlet: &mut impl Outlet,
    ) {
        let Some(attempt) = self.attempt(partition, key) else { return };
        if answer.epoch() != Some(attempt.epoch) && on(Rule::ReadEpoch) {
            visited!("a join reads another epoch's history");
            return self.restart_join(partition, key);
        }
        let Answer::Page(channel, page) = answer else { return };
        if attempt.newest {
            attempt.history.extend(page.events.into_iter().filter(|event| event.pos <= attempt.cut));
        } else if let Some(chain) = attempt.chains.iter_mut().find(|chain| chain.channel == channel) {
            chain.take(page, &mut attempt.history, &mut attempt.gaps);
        }
        attempt.reads -= 1;
        if attempt.reads > 0 {
            return;
        }
        self.parts[usize::from(partition)].reading -= 1;
        self.connect(key, outlet);
        self.advance(partition, key, outlet);
        self.undefer(partition);
    }

    /// Says `connected` once every partition has been cut, and lets those go on that had to wait for that.
    pub(super) fn connect(&mut self, key: ConnectionKey, outlet: &mut impl Outlet) {
        let connection = self.connections[key as usize].as_deref_mut().expect("who connects is a connection");
        if connection.connected || (!connection.is_cut() && on(Rule::ConnectedAll)) {
            return;
        }
        connection.connected = true;
        let resumed = connection.resumed;
        let unknown = resumed == Resumed::Unknown;
        let mut points = SmallVec::<[_; 1]>::new();
        for follow in &mut connection.follows {
            if let Some(attempt) = follow.join.as_deref().and_then(|join| join.attempt.as_ref())
                && follow.point.is_none()
            {
                let oldest = attempt.history.iter().map(|event| event.pos).min();
                let pos = oldest.map_or(attempt.cut, |oldest| Position(oldest.0 - 1));
                follow.point = Some(Point { epoch: attempt.epoch, pos });
            }
            points.push(follow.point);
            if unknown {
                follow.point = None; // `connected` must not lead the client past the gap that it is about to be told.
            }
        }
        let partitions: SmallVec<[Partition; 1]> = connection.follows.iter().map(|follow| follow.partition).collect();
        let id = Id::new(self.partitions, partitions[0], connection, &self.heads);
        outlet.connected(key, resumed != Resumed::Fresh, id);
        if unknown {
            visited!("an unknown cursor is told");
            self.tell_unknown(key, &points, outlet);
        }
        for partition in partitions {
            self.advance(partition, key, outlet);
        }
    }

    /// One gap for all channels in all partitions: a cursor that named some of them only would let the client come
    /// back as if it were new to the others.
    fn tell_unknown(&mut self, key: ConnectionKey, points: &[Option<Point>], outlet: &mut impl Outlet) {
        let connection = self.connections[key as usize].as_deref_mut().expect("who connects is a connection");
        let mut channels = Vec::new();
        for (follow, point) in connection.follows.iter_mut().zip(points) {
            follow.point = *point;
            let names = &self.parts[usize::from(follow.partition)].channels;
            channels.extend(follow.seats.iter().map(|seat| names[seat.channel as usize].name.clone()));
        }
        let to = points.iter().flatten().map(|point| point.pos).max().unwrap_or_default();
        let gap = Gap { channels, reason: GapReason::UnknownCursor, from: to, to };
        let first = connection.follows[0].partition;
        outlet.gap(key, &gap, Id::new(self.partitions, first, connection, &self.heads));
    }

    /// Sends what is complete of a join's replay, and lets it be live or reads on.
    fn advance(&mut self, partition: Partition, key: ConnectionKey, outlet: &mut impl Outlet) {
        let Self { parts, heads, connections, limits, partitions, .. } = self;
        let part = &mut parts[usize::from(partition)];
        let connection = connections[key as usize].as_deref_mut().expect("who joins is a connection");
        if !connection.connected {
            return;
        }
        let follow = connection.follow(partition).expect("who joins follows");
        let Some(attempt) = follow.join.as_deref_mut().and_then(|join| join.attempt.as_mut()) else { return };
        if attempt.reads > 0 {
            visited!("a join has its cut and still reads");
            return;
        }
        let (tag, epoch, cut, start) = (attempt.tag, attempt.epoch, attempt.cut, attempt.start);
        let window = attempt.take_window();
        let epoch_gap = attempt.gap.take();
        if let Some((reason, from)) = epoch_gap {
            let seats = &connection.follow(partition).expect("who joins follows").seats;
            let channels = seats.iter().map(|seat| part.channels[seat.channel as usize].name.clone()).collect();
            let gap = Gap { channels, reason, from, to: cut };
            let point = Point { epoch, pos: if on(Rule::GapId) { start } else { cut } };
            tell_point(connection, partition, point);
            outlet.gap(key, &gap, Id::new(*partitions, partition, connection, heads));
        }
        for (channel, from, to) in window.gaps {
            visited!("a join is told a gap");
            let gap = Gap { channels: vec![channel], reason: GapReason::Expired, from, to };
            if !on(Rule::GapId) {
                tell_point(connection, partition, Point { epoch, pos: to });
            }
            outlet.gap(key, &gap, Id::new(*partitions, partition, connection, heads));
        }
        let events: Vec<_> = window.events.iter().collect();
        if let Some(last) = events.last() {
            outlet.events(key, epoch, &events, Replayed::Replay, Id::new(*partitions, partition, connection, heads));
            tell_point(connection, partition, Point { epoch, pos: last.pos });
        }
        let follow = connection.follow(partition).expect("who joins follows");
        let attempt = follow.join.as_deref_mut().and_then(|join| join.attempt.as_mut()).expect("looked at above");
        if window.complete {
            let buffer = mem::take(&mut attempt.buffer);
            let own = follow.point.expect("who is cut has a point");
            let reached = Point { epoch, pos: if own.epoch == epoch { own.pos.max(cut) } else { cut } };
            tell_point(connection, partition, reached);
            let events: Vec<_> = buffer.iter().filter(|event| event.pos > cut).collect();
            if let Some(last) = events.last() {
                visited!("a join's buffer goes out");
                outlet.events(
                    key,
                    epoch,
                    &events,
                    Replayed::Replay,
                    Id::new(*partitions, partition, connection, heads),
                );
                tell_point(connection, partition, Point { epoch, pos: last.pos });
            }
            connection.follow(partition).expect("who joins follows").join = None;
            part.attempts.remove(&tag);
        } else if outlet.is_idle(key) && part.reading < limits.joins_reading_max {
            visited!("a join reads its next window");
            let queries: Vec<_> = attempt.next_queries(limits.replay_bytes_max, limits.page_events_max).collect();
            attempt.reads = queries.len();
            part.reading += 1;
            let connection = attempt.connection;
            let mut wishes = part.wishes();
            for query in queries {
                wishes.read(Read { connection, tag, query });
            }
        } else {
            // Lets go of everything; it gets a new cut once the connection has taken what it has (see `resume`).
            follow.join.as_deref_mut().expect("looked at above").attempt = None;
            part.attempts.remove(&tag);
            visited!("a join is parked");
            if outlet.is_idle(key) {
                visited!("a join gives way to others");
                part.waiting.insert(key);
                part.deferred = true;
            }
        }
    }

    /// A join loses its cut and waits for another one.
    pub(super) fn restart_join(&mut self, partition: Partition, key: ConnectionKey) {
        let part = &mut self.parts[usize::from(partition)];
        let connection = self.connections[key as usize].as_deref_mut().expect("who joins is a connection");
        let follow = connection.follow(partition).expect("who joins follows");
        let join = follow.join.as_deref_mut().expect("who has a cut joins");
        if let Some(attempt) = join.attempt.take() {
            part.attempts.remove(&attempt.tag);
            part.reading -= usize::from(attempt.reads > 0);
        }
        part.waiting.insert(key);
        let unsynced = follow.seats.iter().map(|seat| &part.channels[seat.channel as usize]);
        let unsynced: Vec<_> = unsynced.filter(|state| !state.synced).map(|state| state.name.clone()).collect();
        part.wishes().cut(unsynced);
    }

    /// All joins that have a cut lose it.
    pub(super) fn restart_joins(&mut self, partition: Partition) {
        let keys: Vec<_> = self.parts[usize::from(partition)].attempts.values().copied().collect();
        for key in keys {
            visited!("a join with a cut starts again");
            self.restart_join(partition, key);
        }
    }

    /// Asks for a cut for those who had to let one pass.
    pub(super) fn undefer(&mut self, partition: Partition) {
        let part = &mut self.parts[usize::from(partition)];
        if part.reading < self.limits.joins_reading_max && mem::take(&mut part.deferred) {
            visited!("deferred joins get another cut");
            part.wishes().cut([]);
        }
    }

    fn attempt(&mut self, partition: Partition, key: ConnectionKey) -> Option<&mut Attempt> {
        let connection = self.connections.get_mut(key as usize)?.as_deref_mut()?;
        connection.follow(partition)?.join.as_deref_mut()?.attempt.as_mut()
    }
}

fn tell_point(connection: &mut Connection, partition: Partition, point: Point) {
    connection.follow(partition).expect("who joins follows").point = Some(point);
}

/// What can go out of a replay.
struct Window {
    gaps: Vec<(Channel, Position, Position)>,
    events: Vec<SharedEvent>,
    /// Nothing is left to read.
    complete: bool,
}

impl Attempt {
    /// Takes what is read of *every* channel: gaps first, events merged by position.
    fn take_window(&mut self) -> Window {
        let unread = self.chains.iter().filter(|chain| !chain.done).map(|chain| chain.at).min();
        let end = unread.unwrap_or(Position::MAX);
        if on(Rule::Merge) {
            self.history.sort_by_key(|event| event.pos);
        }
        let mut events = mem::take(&mut self.history);
        if let Some(end) = unread {
            visited!("a window holds back what others haven't read");
            events.sort_by_key(|event| event.pos);
            self.history = events.split_off(events.partition_point(|event| event.pos <= end));
        }
        // A gap goes out before the cursor enters it, even where it ends beyond the window.
        let gaps = self.gaps.extract_if(.., |(_, from, _)| *from < end).collect();
        Window { gaps, events, complete: unread.is_none() }
    }

    /// The next page of each channel that has more.
    fn next_queries(&self, replay_bytes_max: usize, page_events_max: usize) -> impl Iterator<Item = Query> {
        let unread = self.chains.iter().filter(|chain| !chain.done);
        let limit =
            PageLimit { events_max: page_events_max, bytes_max: replay_bytes_max / unread.clone().count().max(1) };
        unread.map(move |chain| Query::After(chain.channel.clone(), chain.at, limit))
    }
}
