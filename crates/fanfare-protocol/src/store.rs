//! One partition as its primary keeps it: what Redis does, as plain functions with the time passed in.
//!
//! The in-process backbone is this store behind a lock, the simulator runs it with replicas and failovers, and the
//! scripts that run inside Redis are held against it, operation by operation. So its shape follows Redis's: a few
//! keys, scripts that run whole or not at all, reads that promise nothing about the moment between two of them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use crate::rules::{Rule, on, visited};
use crate::{ByNamespace, Channel, Draft, Epoch, Event, Last, Point, Position, Purge, SharedEvent};

/// Forgotten channels that one publish sweeps, at most: more than it can add.
const SWEEP_MAX: usize = 2;
/// One publish in so many looks whether its channel's history has expired entries, and drops so many at most.
const POP_EVERY: u64 = 4;
const POP_MAX: usize = 16;
/// Expired histories and idempotency keys that one publish clears away, at most.
const EXPIRE_MAX: usize = 8;

/// What is kept of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Events at most.
    pub events_max: usize,
    /// Age at which a retained event may go, and with the newest one the whole history. None: it is kept until it is
    /// pushed out, and the channel isn't forgotten.
    pub age: Option<Duration>,
}

/// How long things are kept.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Events of channels.
    pub history: ByNamespace<Keep>,
    /// Age at which a channel's last position is forgotten and the partition's floor rises instead. At least every
    /// age in `history`.
    pub forget_age: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
}

/// Who the server says it is. Its history is its own as long as this stays the same (verdict 2 of
/// `docs/protocol.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Redis's `master_replid`: changes at every promotion and restart.
    pub replication: u64,
    /// Redis's `run_id`: changes at every restart.
    pub run: u64,
    /// Whether `master_replid2` is unset. A primary that gets its first replica changes `replication` harmlessly:
    /// `run` is still the same then, and this is true.
    pub first_history: bool,
}

/// What a script is called with besides its arguments: the server's own clock and identity, and random bits from
/// the caller, in case that a new epoch begins.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The server's clock, µs since 1970.
    pub now: Position,
    /// The server's identity.
    pub identity: Identity,
    /// Names the epoch that begins if one has to.
    pub new_epoch: Epoch,
}

/// The answer to one draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// It has its place now, and its subscribers are to hear it.
    Now(Point, SharedEvent),
    /// The same idempotency key had published it before, there.
    Before(Point),
    /// The idempotency key had published something else.
    Mismatch,
}

impl Retention {
    /// Twice the longest age, so that a client that was away for just that long is told so.
    pub fn forget_age(history: &ByNamespace<Keep>) -> Duration {
        history.all().filter_map(|keep| keep.age).max().unwrap_or_default() * 2
    }
}

/// What a barrier sends through the subscription: where the partition stood when it ran. Where it *arrives* in the
/// stream is the cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The nonce that the barrier was called with.
    pub nonce: u64,
    /// The partition's epoch.
    pub epoch: Epoch,
    /// The epoch before it, if there is one.
    pub previous: Option<Epoch>,
    /// Where the previous epoch ended, as far as this server knows.
    pub base: Position,
    /// Where the partition stands.
    pub last: Position,
    /// Channels that are unknown had their last event here or before.
    pub floor: Position,
    /// The channels that were asked for, each with the position of its newest event if it is known.
    pub lasts: Vec<(Channel, Option<Position>)>,
}

/// A page of a channel's history, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Whose history it is: the partition's epoch when it was read. None: there is nothing yet, or no more.
    pub epoch: Option<Epoch>,
    /// The events.
    pub events: Vec<SharedEvent>,
    /// Whether the page is full, so that more may follow.
    pub more: bool,
}

/// Bounds of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Events at most; at least 1.
    pub events_max: usize,
    /// Stop once this many bytes are reached; at least one event is given.
    pub bytes_max: usize,
}

#[derive(Clone, Debug)]
struct Meta {
    epoch: Epoch,
    previous: Option<Epoch>,
    base: Position,
    identity: Identity,
    last: Position,
    floor: Position,
}

#[derive(Clone, Debug)]
struct Remembered {
    point: Point,
    body: [u8; 16],
    expires: Position,
}

#[derive(Clone, Debug, Default)]
struct History {
    events: VecDeque<SharedEvent>,
    bytes: usize,
    expires: Position,
}

impl History {
    fn push(&mut self, event: SharedEvent) {
        self.bytes += event.cost();
        self.events.push_back(event);
    }

    fn pop(&mut self) {
        self.bytes -= self.events.pop_front().map_or(0, |event| event.cost());
    }
}

/// One partition's keys.
#[derive(Clone, Debug)]
pub struct Store {
    retention: Retention,
    meta: Option<Meta>,
    lasts: HashMap<Channel, Position>,
    lasts_by_age: BTreeSet<(Position, Channel)>,
    /// Channels that are never forgotten: their last positions, where `lasts` no longer has them.
    kept: HashMap<Channel, Position>,
    histories: HashMap<Channel, History>,
    retained_bytes: usize,
    histories_by_expiry: BTreeSet<(Position, Channel)>,
    remembered: HashMap<[u8; 16], Remembered>,
    remembered_by_expiry: BTreeSet<(Position, [u8; 16])>,
}

impl Store {
    /// An empty one.
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            meta: None,
            lasts: HashMap::new(),
            lasts_by_age: BTreeSet::new(),
            kept: HashMap::new(),
            histories: HashMap::new(),
            retained_bytes: 0,
            histories_by_expiry: BTreeSet::new(),
            remembered: HashMap::new(),
            remembered_by_expiry: BTreeSet::new(),
        }
    }

    /// Gives a draft its place, keeps it for as long as is asked, and answers with it. Whoever calls this sends the
    /// event to its subscribers before anything else happens to the store.
    pub fn publish(&mut self, caller: Caller, draft: Draft, keep: Keep) -> Published {
        let now = caller.now;
        self.expire(now);
        if let Some(idempotency) = draft.idempotency
            && on(Rule::Idempotency)
            && let Some(hit) = self.remembered.get(&idempotency.digest).filter(|hit| hit.expires > now)
        {
            visited!("a repeated publish");
            return if hit.body == idempotency.body { Published::Before(hit.point) } else { Published::Mismatch };
        }
        self.ensure(caller);
        self.sweep(now);
        let (point, prev) = self.take_place(now, &draft.channel);
        let event = SharedEvent::new(Event { channel: draft.channel, pos: point.pos, prev, content: draft.content });
        self.retain(now, &event, keep);
        match keep.age {
            None => _ = self.kept.insert(event.channel.clone(), point.pos),
            Some(_) => _ = self.kept.remove(&event.channel),
        }
        if let Some(idempotency) = draft.idempotency {
            let expires = after(now, self.retention.idempotency_window);
            self.remembered.insert(idempotency.digest, Remembered { point, body: idempotency.body, expires });
            self.remembered_by_expiry.insert((expires, idempotency.digest));
        }
        Published::Now(point, event)
    }

    /// Empties a channel's history. That takes a place of its own in the channel's chain, so that whoever comes back
    /// from below it is told. Whoever calls this sends the purge to the channel's subscribers before anything else
    /// happens to the store.
    pub fn purge(&mut self, caller: Caller, channel: Channel) -> (Point, Purge) {
        self.expire(caller.now);
        self.ensure(caller);
        let before = self.last(&channel);
        let (mut point, prev) = self.take_place(caller.now, &channel);
        if !on(Rule::PurgeLast)
            && let Some(before) = before
        {
            point.pos = before;
            self.set_last(&channel, before);
        }
        if let Some(history) = self.histories.remove(&channel) {
            self.histories_by_expiry.remove(&(history.expires, channel.clone()));
            self.retained_bytes -= history.bytes;
        }
        self.kept.remove(&channel);
        (point, Purge { channel, pos: point.pos, prev })
    }

    /// The next place in the partition, taken by this channel, and where the channel stood before.
    fn take_place(&mut self, now: Position, channel: &Channel) -> (Point, Last) {
        let prev = self.last(channel);
        let meta = self.meta.as_mut().expect("ensured above");
        let pos = Position((meta.last.0 + 1).max(now.0));
        let prev = match prev {
            Some(pos) => Last { pos, exact: true },
            None if on(Rule::FloorPrev) => {
                visited!("an unknown channel takes a place");
                Last { pos: meta.floor, exact: false }
            }
            None => Last { pos: Position(0), exact: false },
        };
        meta.last = pos;
        let point = Point { epoch: meta.epoch, pos };
        self.set_last(channel, pos);
        (point, prev)
    }

    /// Where a channel stands, if that is known.
    fn last(&self, channel: &Channel) -> Option<Position> {
        let recent = self.lasts.get(channel);
        let kept = || {
            let kept = self.kept.get(channel).filter(|_| on(Rule::Kept));
            visited!("a channel is known only because it is kept", if kept.is_some());
            kept
        };
        recent.or_else(kept).copied()
    }

    /// Says where the partition and some of its channels stand. Whoever calls this sends the marker through the
    /// asking feed's own subscription before anything else happens to the store.
    pub fn barrier(&mut self, caller: Caller, nonce: u64, channels: Vec<Channel>) -> Marker {
        if on(Rule::EnsureInBarrier) || self.meta.is_none() {
            self.ensure(caller);
        }
        let meta = self.meta.as_ref().expect("ensured above");
        Marker {
            nonce,
            epoch: meta.epoch,
            previous: meta.previous,
            base: meta.base,
            last: meta.last,
            floor: meta.floor,
            lasts: channels.into_iter().map(|channel| (channel.clone(), self.last(&channel))).collect(),
        }
    }

    /// Events of a channel after a position, oldest first: a plain read, which changes nothing.
    pub fn history_after(&self, channel: &Channel, after: Position, limit: PageLimit, now: Position) -> Page {
        let Some(history) = self.readable(channel, now) else { return self.page([], limit) };
        let begin = history.events.partition_point(|event| event.pos <= after);
        self.page(history.events.range(begin..), limit)
    }

    /// The newest events of a channel, oldest first: a plain read, which changes nothing.
    pub fn history_newest(&self, channel: &Channel, limit: PageLimit, now: Position) -> Page {
        let Some(history) = self.readable(channel, now) else { return self.page([], limit) };
        let mut newest = self.page(history.events.iter().rev(), limit);
        newest.events.reverse();
        newest
    }

    /// Where some channels stand, and then the floor and the epoch: plain reads, the channels first.
    pub fn lasts(&self, channels: &[Channel]) -> (Vec<Option<Position>>, Position, Option<Epoch>) {
        let lasts = channels.iter().map(|channel| self.last(channel)).collect();
        let meta = self.meta.as_ref();
        (lasts, meta.map_or(Position(0), |meta| meta.floor), meta.map(|meta| meta.epoch))
    }

    fn page<'a>(&self, events: impl IntoIterator<Item = &'a SharedEvent>, limit: PageLimit) -> Page {
        let mut page = Page { epoch: self.meta.as_ref().map(|meta| meta.epoch), ..Page::default() };
        let mut bytes = 0;
        for event in events {
            let full = page.events.len() >= limit.events_max || bytes >= limit.bytes_max;
            if full && !page.events.is_empty() {
                visited!("a page is full");
                page.more = true;
                break;
            }
            bytes += event.cost();
            page.events.push(event.clone());
        }
        page
    }

    /// Begins a new epoch where the history isn't the one that the keys tell of.
    fn ensure(&mut self, caller: Caller) {
        let Caller { now, identity, new_epoch } = caller;
        match &mut self.meta {
            None => {
                self.meta = Some(Meta { epoch: new_epoch, previous: None, base: now, identity, last: now, floor: now });
            }
            Some(meta) if meta.identity == identity => {}
            Some(meta) => {
                let same = meta.identity.replication == identity.replication
                    || (meta.identity.run == identity.run && identity.first_history);
                if !same && on(Rule::Ident) && on(Rule::Epoch) {
                    visited!("a new epoch");
                    meta.previous = Some(meta.epoch);
                    meta.epoch = new_epoch;
                    meta.base = meta.last;
                }
                visited!("a first replica is no new epoch", if same);
                meta.identity = identity;
            }
        }
    }

    /// Forgets channels that nobody published to for long, and raises the floor instead. What is kept is known all the
    /// same: it leaves the queue like everything else, so that nothing ever waits behind it.
    fn sweep(&mut self, now: Position) {
        for _ in 0..SWEEP_MAX {
            let Some((pos, _)) = self.lasts_by_age.first() else { return };
            if after(*pos, self.retention.forget_age) >= now {
                return;
            }
            let (pos, channel) = self.lasts_by_age.pop_first().expect("looked at above");
            visited!("a channel is forgotten");
            self.lasts.remove(&channel);
            if let Some(meta) = &mut self.meta
                && on(Rule::Floor)
            {
                meta.floor = meta.floor.max(pos);
            }
        }
    }

    fn set_last(&mut self, channel: &Channel, pos: Position) {
        if let Some(old) = self.lasts.insert(channel.clone(), pos) {
            self.lasts_by_age.remove(&(old, channel.clone()));
        }
        self.lasts_by_age.insert((pos, channel.clone()));
    }

    fn retain(&mut self, now: Position, event: &SharedEvent, keep: Keep) {
        if keep.events_max == 0 {
            return;
        }
        let channel = &event.channel;
        let history = self.histories.entry(channel.clone()).or_default();
        self.histories_by_expiry.remove(&(history.expires, channel.clone()));
        self.retained_bytes -= history.bytes;
        if history.expires <= now {
            visited!("a history has expired");
            (history.events, history.bytes) = (VecDeque::new(), 0);
        }
        history.push(event.clone());
        while history.events.len() > keep.events_max {
            visited!("a history is trimmed");
            history.pop();
        }
        let looks = event.pos.0.is_multiple_of(POP_EVERY);
        for _ in 0..if looks { POP_MAX } else { 0 } {
            match (history.events.front(), keep.age) {
                (Some(oldest), Some(age)) if after(oldest.pos, age) < now => history.pop(),
                _ => break,
            };
        }
        self.retained_bytes += history.bytes;
        history.expires = keep.age.map_or(Position::MAX, |age| after(now, age));
        self.histories_by_expiry.insert((history.expires, channel.clone()));
    }

    fn readable(&self, channel: &Channel, now: Position) -> Option<&History> {
        self.histories.get(channel).filter(|history| history.expires > now)
    }

    /// Bytes of the retained events, roughly.
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }

    /// Clears away some of what has expired, as Redis does in the background and each publish does, too.
    pub fn expire(&mut self, now: Position) {
        for _ in 0..EXPIRE_MAX {
            match self.histories_by_expiry.first() {
                Some((expires, _)) if *expires <= now => {
                    let (_, channel) = self.histories_by_expiry.pop_first().expect("looked at above");
                    self.retained_bytes -= self.histories.remove(&channel).map_or(0, |history| history.bytes);
                }
                _ => break,
            }
        }
        for _ in 0..EXPIRE_MAX {
            match self.remembered_by_expiry.first() {
                Some((expires, _)) if *expires <= now => {
                    let (expires, digest) = self.remembered_by_expiry.pop_first().expect("looked at above");
                    if self.remembered.get(&digest).is_some_and(|kept| kept.expires == expires) {
                        self.remembered.remove(&digest);
                    }
                }
                _ => break,
            }
        }
    }
}

fn after(pos: Position, age: Duration) -> Position {
    Position(pos.0.saturating_add(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)))
}
