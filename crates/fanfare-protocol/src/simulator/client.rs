//! Clients, as browsers are: they come with a URL, remember the last id, and come back with it to any edge.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::plan::Plan;
use super::poller::Polled;
use super::{MS, Step, Time, World, tell};
use crate::rules::{Rule, on};
use crate::{
    ByNamespace, Change, Channel, ConnectionKey, Cursor, Epoch, Gap, Id, Outlet, Patch, Point, Position, Replayed,
    SharedEvent, Start, encode_changes, write_cursor,
};

/// How far ahead of its partition a made-up cursor is.
const FAR: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Client {
    url: Vec<Channel>,
    slow: bool,
    /// It asks for answers instead of streams.
    pub(super) polls: bool,
    /// Events that it doesn't want, if it polls: see `poller`.
    filter: Option<usize>,
    /// When it was last answered.
    pub(super) answered: Time,
    pub(super) conn: Option<usize>,
    /// Its own idea of what it got and what it was told. A page that is loaded anew begins with another one.
    pub(super) view: usize,
}

/// One connection of a client, both ends of it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: usize,
    pub(super) view: usize,
    pub(super) edge: usize,
    pub(super) life: u32,
    pub(super) shard: usize,
    pub(super) key: ConnectionKey,
    url: Vec<Channel>,
    /// None: a stream.
    pub(super) polled: Option<Polled>,
    /// What the edge has it follow.
    set: BTreeSet<Channel>,
    /// PATCHes that have arrived.
    patches: usize,
    /// Frames that wait to be written …
    backlog: VecDeque<Frame>,
    pub(super) write_pause: Time,
    pub(super) writing_until: Time,
    /// … and those that are.
    wire: VecDeque<Frame>,
    arriving_until: Time,
    cut_off: bool,
    /// Its socket takes what it gets at once.
    swift: bool,
    /// The machine has been told that it is gone.
    pub(super) left: bool,
}

/// What a client reads.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) id: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Connected { channels: BTreeSet<Channel> },
    Event { channel: Channel, pos: Position, entry: usize },
    Gap(Gap),
    Subscribed { channels: BTreeSet<Channel>, patches: usize },
    Heartbeat,
}

#[derive(Clone, Debug)]
pub(super) struct PatchRequest {
    subscribe: Vec<Channel>,
    unsubscribe: Vec<Channel>,
}

/// A shard's side of its connections: makes ids when frames are queued.
pub(super) struct Backlogs<'a> {
    pub(super) conns: &'a mut Vec<Conn>,
    pub(super) keys: &'a [Option<usize>],
    pub(super) plan: &'a Plan,
    pub(super) story: &'a mut Option<Vec<String>>,
    pub(super) now: Time,
    /// Connections that got a frame, once for each.
    pub(super) written: Vec<usize>,
    /// Polls that something happened to.
    pub(super) polled: Vec<usize>,
    pub(super) cut_off: Vec<usize>,
}

impl Backlogs<'_> {
    fn frame(&mut self, to: ConnectionKey, kind: Kind, id: Option<String>) {
        let index = self.keys[to as usize].expect("frames go to connections");
        let conn = &mut self.conns[index];
        if conn.left || (conn.cut_off && on(Rule::CutOff)) {
            return;
        }
        tell!(self, "client {} (conn {index}) is to get {kind:?} id {id:?}", conn.client);
        if conn.backlog.len() >= self.plan.backlog_max {
            if !conn.cut_off {
                self.cut_off.push(index);
            }
            conn.cut_off = true;
            return;
        }
        conn.backlog.push_back(Frame { kind, id });
        self.written.push(index);
    }
}

impl Backlogs<'_> {
    /// The poll that a frame goes to, if it is one.
    fn poll(&mut self, to: ConnectionKey) -> Option<&mut Polled> {
        let index = self.keys[to as usize].expect("frames go to connections");
        let polled = self.conns[index].polled.as_mut()?;
        self.polled.push(index);
        Some(polled)
    }
}

impl Outlet for Backlogs<'_> {
    fn connected(&mut self, to: ConnectionKey, _: bool, id: Id<'_>) {
        let channels = self.conns[self.keys[to as usize].expect("a connection")].set.clone();
        if let Some(polled) = self.poll(to) {
            polled.frames.push(Frame { kind: Kind::Connected { channels }, id: text(id, None) });
            return polled.poll.pass(id);
        }
        self.frame(to, Kind::Connected { channels }, text(id, None));
    }

    fn events(&mut self, to: ConnectionKey, epoch: Epoch, events: &[&SharedEvent], _: Replayed, before: Id<'_>) {
        for event in events {
            let (channel, pos, entry) = (event.channel.clone(), event.pos, entry_of(event));
            let id = before.at(Point { epoch, pos });
            if let Some(polled) = self.poll(to) {
                if !polled.wants(entry) {
                    polled.poll.pass(id);
                } else if polled.poll.take(event.cost(), id) {
                    polled
                        .frames
                        .push(Frame { id: text(id, Some(&channel)), kind: Kind::Event { channel, pos, entry } });
                }
                continue;
            }
            let id = text(id, Some(&channel));
            self.frame(to, Kind::Event { channel, pos, entry }, id);
        }
    }

    fn gap(&mut self, to: ConnectionKey, gap: &Gap, id: Id<'_>) {
        if let Some(polled) = self.poll(to) {
            if polled.poll.take_gap(id) {
                polled.frames.push(Frame { kind: Kind::Gap(gap.clone()), id: text(id, None) });
            }
            return;
        }
        self.frame(to, Kind::Gap(gap.clone()), text(id, None));
    }

    fn subscribed(&mut self, to: ConnectionKey, _: &[Channel], id: Id<'_>) {
        let conn = &self.conns[self.keys[to as usize].expect("a connection")];
        let (channels, patches) = (conn.set.clone(), conn.patches);
        // Without the rule, all that a PATCH gets is its HTTP answer.
        let id = if on(Rule::PatchId) { text(id, None) } else { None };
        self.frame(to, Kind::Subscribed { channels, patches }, id);
    }

    fn is_idle(&self, to: ConnectionKey) -> bool {
        let conn = &self.conns[self.keys[to as usize].expect("a connection")];
        match &conn.polled {
            Some(polled) => !polled.poll.is_full(),
            None => conn.backlog.len() < if conn.swift { 8 } else { 1 },
        }
    }
}

pub(super) fn entry_of(event: &SharedEvent) -> usize {
    event.content.data.parse().expect("payloads are numbers")
}

/// The `id:` line, as an edge writes it.
fn text(id: Id<'_>, channel: Option<&Channel>) -> Option<String> {
    let mut points = id.points();
    let first = points.next()?;
    if let Some(shared) = id.shared() {
        assert_eq!(shared, first.1, "the shared id is the id");
    }
    let mut text = Vec::new();
    write_cursor(&mut text, id.partitions(), first, points, id.changes(), None);
    let mut text = String::from_utf8(text).expect("a cursor is ASCII");
    if let Some(channel) = channel {
        text.push('@');
        text.push_str(channel.as_str());
    }
    Some(text)
}

impl World {
    pub(super) fn add_client(&mut self) {
        let url = self.some_url();
        let slow = self.chance(self.plan.slow_clients);
        let polls = self.chance(self.plan.polls);
        let filter = (polls && self.rng.bool()).then(|| self.rng.usize(1..4));
        let view = self.check.new_view(filter);
        self.clients.push(Client { url, slow, polls, filter, answered: 0, conn: None, view });
    }

    fn some_url(&mut self) -> Vec<Channel> {
        let mut channels = self.channels.clone();
        self.rng.shuffle(&mut channels);
        // Some are on what is busy, so that several share a channel.
        let busy = self.channels[0].clone();
        let count = self.rng.usize(1..5).min(channels.len());
        channels.truncate(count);
        if self.rng.bool() && !channels.contains(&busy) {
            channels.push(busy);
        }
        channels
    }

    pub(super) fn connect(&mut self, client: usize) {
        if self.clients[client].conn.is_some() {
            return;
        }
        let anew = !self.calm && self.chance(0.06);
        if anew {
            self.clients[client].url = self.some_url();
            self.clients[client].view = self.check.new_view(self.clients[client].filter);
        }
        let Client { url, slow, polls, filter, view, .. } = &self.clients[client];
        let (url, slow, polls, filter, view) = (url.clone(), *slow, *polls, *filter, *view);
        let (edge, shard) = (self.rng.usize(..self.edges.len()), self.rng.usize(..self.plan.shards));
        let nonsense = !self.calm && self.chance(self.plan.nonsense);
        if nonsense {
            self.check.views[view].last_id = Some(self.some_nonsense(view));
        }
        let last_id = self.check.views[view].last_id.clone();
        let cursor = last_id.as_deref().map(Cursor::parse);
        let mut set: BTreeSet<_> = url.iter().cloned().collect();
        let mut changes = None;
        let start = match cursor {
            None => Start::Fresh { replay: self.some_replay() },
            Some(Err(_)) => Start::Unknown,
            Some(Ok(cursor)) => {
                for (change, channel) in cursor.changes() {
                    match change {
                        Change::Subscribe => _ = set.insert(channel.clone()),
                        Change::Unsubscribe => _ = set.remove(channel),
                    }
                }
                let encoded = encode_changes(cursor.changes()).expect("they came from a cursor");
                changes = (!encoded.is_empty()).then(|| encoded.into());
                Start::Cursor(cursor)
            }
        };
        let swift = !slow && self.rng.bool();
        let conn = self.conns.len();
        let key = self.edges[edge].shards[shard].free_key(conn);
        // One that polls opens a stream now and then: the cursors of both are the same. A stream has no filter here.
        let polled = polls && (self.calm || filter.is_some() || self.chance(0.9));
        let polled = polled.then(|| Polled::new(&start, filter, &self.plan));
        let write_pause = if slow && !self.calm { 30 * MS } else { 2 * MS };
        self.conns.push(Conn {
            client,
            view,
            edge,
            life: self.edges[edge].life,
            shard,
            key,
            url,
            polled,
            set: set.clone(),
            patches: 0,
            backlog: VecDeque::new(),
            write_pause,
            writing_until: self.now,
            wire: VecDeque::new(),
            arriving_until: self.now,
            cut_off: false,
            swift,
            left: false,
        });
        self.clients[client].conn = Some(conn);
        self.stats.connections += 1;
        tell!(
            self,
            "client {client} (view {view}) connects as conn {conn} to {edge}/{shard}: {last_id:?} {start:?} {set:?}"
        );
        let replay = if let Start::Fresh { replay } = &start { Some(replay.clone()) } else { None };
        let unknown = match &start {
            Start::Fresh { .. } => false,
            Start::Cursor(cursor) => cursor.partitions() != self.partitions,
            Start::Unknown => true,
        };
        self.check.connects(self.now, view, conn, replay, unknown);
        let mut channels: Vec<_> = set.into_iter().collect();
        self.rng.shuffle(&mut channels);
        self.machine(edge, shard, |machine, _| machine.join(key, &channels, start, changes));
        if !self.calm {
            let pause = self.below(self.plan.life);
            self.after(pause, Step::Die { client, conn });
            if self.chance(self.plan.patches) {
                for _ in 0..2 {
                    let pause = self.below(self.plan.life);
                    self.after(pause, Step::Patch(client));
                }
            }
        }
        if self.conns[conn].polled.is_some() {
            let timeout = self.poll_timeout();
            return self.after(timeout, Step::PollEnds(conn));
        }
        let pause = self.below(100 * MS);
        self.after(pause, Step::Heartbeat(conn));
    }

    fn some_replay(&mut self) -> Arc<ByNamespace<u16>> {
        let mut replay = ByNamespace::everywhere(0);
        if self.chance(self.plan.replay) {
            replay.elsewhere = self.rng.u16(0..6);
            replay.own.insert("k".into(), self.rng.u16(0..4));
        }
        Arc::new(replay)
    }

    fn some_nonsense(&mut self, view: usize) -> String {
        let other = if self.plan.partitions == 1 { "5:0=abcdef-17" } else { "abcdef-17" };
        let known = self.check.views[view].last_id.as_deref().and_then(|id| Cursor::parse(id).ok());
        match (self.rng.u32(..4), known) {
            (0 | 1, Some(cursor)) => {
                let far = |&(partition, at): &(_, Point)| (partition, Point { pos: Position(at.pos.0 + FAR), ..at });
                let changes = cursor.changes().to_vec();
                let ahead = Cursor::new(cursor.partitions(), cursor.entries().iter().map(far), changes, None);
                ahead.expect("it only got larger").to_string()
            }
            (2, _) => other.to_owned(),
            (3, _) => String::new(),
            _ => "12345".to_owned(),
        }
    }

    pub(super) fn die(&mut self, client: usize, conn: usize) {
        if self.clients[client].conn != Some(conn) {
            return;
        }
        tell!(self, "client {client} loses conn {conn}");
        self.clients[client].conn = None;
        let (notices, returns) = (self.below(100 * MS), self.below(80 * MS));
        self.after(notices, Step::Leave(conn));
        self.after(returns, Step::Connect(client));
    }

    pub(super) fn leave(&mut self, conn: usize) {
        let Conn { edge, life, shard, key, left, .. } = self.conns[conn];
        if left || self.edges[edge].life != life {
            return;
        }
        tell!(self, "conn {conn} leaves");
        self.conns[conn].left = true;
        self.machine(edge, shard, |machine, _| machine.leave(key));
        self.edges[edge].shards[shard].keys[key as usize] = None;
    }

    pub(super) fn write(&mut self, conn: usize) {
        let Conn { edge, life, shard, key, left, .. } = self.conns[conn];
        if self.edges[edge].life != life {
            return;
        }
        let Some(mut frame) = self.conns[conn].backlog.pop_front() else { return };
        if !left && !on(Rule::LazyQueued) {
            let machine = &self.edges[edge].shards[shard].machine;
            frame.id = machine.id(key).and_then(|id| text(id, None)).or(frame.id);
        }
        let delay = self.delay();
        let at = &mut self.conns[conn];
        at.wire.push_back(frame);
        at.arriving_until = at.arriving_until.max(self.now + delay);
        let (idle, arrives) = (at.backlog.is_empty(), at.arriving_until);
        self.at(arrives, Step::Receive(conn));
        if idle && !left {
            self.machine(edge, shard, |machine, _| machine.resume(key));
        }
    }

    pub(super) fn receive(&mut self, conn: usize) {
        let frame = self.conns[conn].wire.pop_front().expect("one step a frame");
        let Conn { client, view, .. } = self.conns[conn];
        if self.clients[client].conn == Some(conn) {
            self.client_receives(client, conn, view, frame);
        }
    }

    pub(super) fn client_receives(&mut self, client: usize, conn: usize, view: usize, frame: Frame) {
        tell!(self, "client {client} (conn {conn}) receives {:?} id {:?}", frame.kind, frame.id);
        if let Kind::Gap(gap) = &frame.kind {
            *self.stats.gaps.entry(gap.reason.as_str()).or_default() += 1;
        }
        self.check.receives(self.now, self.partitions, view, conn, frame);
    }

    pub(super) fn heartbeat(&mut self, conn: usize) {
        let Conn { edge, life, shard, key, left, .. } = self.conns[conn];
        if left || self.edges[edge].life != life {
            return;
        }
        self.machine(edge, shard, |machine, out| {
            if let Some(id) = machine.id(key) {
                out.frame(key, Kind::Heartbeat, text(id, None));
            }
        });
        let pause = 20 * MS + self.below(150 * MS);
        self.after(pause, Step::Heartbeat(conn));
    }

    /// The client asks for other channels.
    pub(super) fn patch(&mut self, client: usize) {
        let Client { conn, view, .. } = self.clients[client];
        let Some(conn) = conn.filter(|&conn| self.check.views[view].is_connected(conn)) else { return };
        let mut channels = self.channels.clone();
        self.rng.shuffle(&mut channels);
        let (plus, minus) = (self.rng.usize(..3), self.rng.usize(..3));
        let (some, others) = channels.split_at(channels.len() / 2);
        let subscribe = some.iter().take(plus).cloned().collect();
        let unsubscribe = others.iter().take(minus).cloned().collect();
        let request = PatchRequest { subscribe, unsubscribe };
        tell!(self, "client {client} (conn {conn}) asks for {request:?}");
        self.check.patches(view, &request.subscribe, &request.unsubscribe);
        self.patches.push(request);
        let delay = self.delay();
        self.after(delay, Step::PatchArrives { conn, patch: self.patches.len() - 1 });
    }

    pub(super) fn patch_arrives(&mut self, conn: usize, patch: usize) {
        let Conn { edge, life, shard, key, left, ref url, ref mut set, ref mut patches, .. } = self.conns[conn];
        if left || self.edges[edge].life != life {
            return;
        }
        *patches += 1;
        let PatchRequest { mut subscribe, mut unsubscribe } = self.patches[patch].clone();
        subscribe.retain(|channel| set.insert(channel.clone()));
        unsubscribe.retain(|channel| set.len() > 1 && set.remove(channel));
        let minus = url.iter().filter(|channel| !set.contains(*channel));
        let plus = set.iter().filter(|channel| !url.contains(channel));
        let minus = minus.map(|channel| (Change::Unsubscribe, channel.clone()));
        let changes: Vec<_> = minus.chain(plus.map(|channel| (Change::Subscribe, channel.clone()))).collect();
        let changes = encode_changes(&changes).expect("a few short names");
        let changes = (!changes.is_empty()).then(|| changes.into());
        tell!(self, "conn {conn} is patched: +{subscribe:?} -{unsubscribe:?}");
        let patch = Patch { subscribe, unsubscribe, changes };
        self.machine(edge, shard, |machine, out| machine.patch(key, patch, out));
    }
}
