//! Whether what arrived is what should have: every delivery as it comes, everything together at the end (`judge`).
//!
//! As it comes: the id names a channel that the client follows and a place in its partition, ahead of all that the
//! client has seen there; the payload is whole and carries the channel's next number; all clients see an event at the
//! same place. At the end, against the ledger: each client has every acknowledged event that stands after its first
//! `connected`, and the places are those that the publisher was told.

mod fault;
mod judge;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use fanfare_protocol::sse::Message;
use fanfare_protocol::{Cursor, Partition, Partitions, Point};
use serde::Deserialize;

use crate::traffic::{ChannelIndex, FOLLOWS, Kind, Payload, ROLL_CALL, Traffic};
use crate::trouble::RollCall;
pub(crate) use fault::Faults;
pub use fault::{Fault, FaultKind};

/// Skipped stretches that are kept; more of them are a failure that needs no list.
const HOLES_MAX: usize = 1_000_000;

/// What one client has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    client: u32,
    follows: [Follow; FOLLOWS],
    /// Where its first `connected` said that it begins; empty before.
    start: Vec<(Partition, Point)>,
    /// How far its ids have come.
    reached: Vec<(Partition, Point)>,
}

#[derive(Clone, Copy, Debug)]
struct Follow {
    channel: ChannelIndex,
    got: Option<Got>,
}

/// Numbers of the first and the last event that came of a channel.
#[derive(Clone, Copy, Debug)]
struct Got {
    first: u32,
    last: u32,
}

impl Seen {
    pub(crate) fn new(client: u32, traffic: &Traffic) -> Self {
        let follows = traffic.follows(client).map(|channel| Follow { channel, got: None });
        Self { client, follows, start: Vec::new(), reached: Vec::new() }
    }
}

/// Sees every delivery of every client.
#[derive(Debug)]
pub(crate) struct Checker {
    pub(crate) traffic: Traffic,
    run: u64,
    allow_gaps: bool,
    partitions: Partitions,
    /// The channels' partitions.
    partition_of: Vec<Partition>,
    /// Where events stand, by channel and number, as the first client saw it.
    places: Vec<Vec<Option<Point>>>,
    /// Numbers that a client skipped.
    holes: HashMap<(u32, ChannelIndex), Vec<u32>>,
    hole_count: usize,
    /// Times, in ms since 1970, within which a client was told that events of a channel are gone.
    excuses: HashMap<(u32, ChannelIndex), Vec<RangeInclusive<u64>>>,
    /// Where trouble is made.
    pub(crate) roll_call: Option<RollCall>,
    faults: Faults,
    pub(crate) deliveries: u64,
    pub(crate) foreign: u64,
    pub(crate) gaps: u64,
    pub(crate) excused: u64,
    pub(crate) expected: u64,
}

/// The data of `/notify` and `/broadcast` as it is delivered.
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "type")]
    event: String,
    #[serde(rename = "userId")]
    user_id: Option<String>,
    message: String,
    timestamp: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connected {
    client_id: String,
    user_id: Option<String>,
    channels: Vec<String>,
    resumed: bool,
}

#[derive(Deserialize)]
struct GapTold {
    channels: Vec<String>,
    reason: String,
    from: u64,
    to: u64,
}

impl Checker {
    pub(crate) fn new(traffic: Traffic, run: u64, allow_gaps: bool) -> Self {
        let channels = traffic.channels() as usize;
        Self {
            traffic,
            run,
            allow_gaps,
            partitions: Partitions::ONE,
            partition_of: vec![0; channels],
            places: vec![Vec::new(); channels],
            holes: HashMap::new(),
            hole_count: 0,
            excuses: HashMap::new(),
            roll_call: None,
            faults: Faults::default(),
            deliveries: 0,
            foreign: 0,
            gaps: 0,
            excused: 0,
            expected: 0,
        }
    }

    pub(crate) fn partitions(&self) -> u16 {
        self.partitions.count()
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.faults.add(fault);
    }

    pub(crate) fn fault(
        &mut self,
        kind: FaultKind,
        client: u32,
        channel: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) {
        let (channel, expected, got) = (channel.to_owned(), expected.into(), got.into());
        self.add(Fault { kind, client: Some(client), channel, expected, got });
    }

    /// Takes a `connected`; `sent` is the id that the client came back with.
    pub(crate) fn connected(&mut self, seen: &mut Seen, message: &Message, sent: Option<&str>) {
        let client = seen.client;
        let wrong = FaultKind::WrongConnected;
        match serde_json::from_str::<Connected>(&message.data) {
            Ok(connected) => {
                let user = format!("u{client}");
                let all = |channel: &Follow| connected.channels.contains(&self.traffic.name(channel.channel));
                let right = connected.user_id.as_deref() == Some(&user)
                    && !connected.client_id.is_empty()
                    && connected.resumed == sent.is_some()
                    && connected.channels.len() == FOLLOWS
                    && seen.follows.iter().all(all);
                if !right {
                    let expected = format!("user {user}, its {FOLLOWS} channels, resumed: {}", sent.is_some());
                    self.fault(wrong, client, "-", expected, &*message.data);
                }
            }
            Err(error) => self.fault(wrong, client, "-", format!("what it says ({error})"), &*message.data),
        }
        let Ok(cursor) = Cursor::parse(&message.id) else {
            return self.fault(FaultKind::WrongId, client, "-", "a cursor in connected", &*message.id);
        };
        match sent.map(Cursor::parse) {
            None => {
                self.learn(cursor.partitions());
                seen.start = cursor.entries().to_vec();
                seen.reached.clone_from(&seen.start);
                for follow in &seen.follows {
                    let partition = self.partition_of[follow.channel as usize];
                    if cursor.point(partition).is_none() {
                        let expected = format!("an id that names partition {partition}");
                        let name = self.traffic.name(follow.channel);
                        self.fault(FaultKind::WrongId, client, &name, expected, &*message.id);
                    }
                }
            }
            Some(Ok(own)) => {
                let same = own.entries().len() == cursor.entries().len()
                    && own.entries().iter().all(|(partition, point)| cursor.point(*partition) == Some(*point));
                if !same {
                    self.fault(wrong, client, "-", format!("its own cursor {own}"), &*message.id);
                }
            }
            Some(Err(_)) => {} // Told when it was about to be sent.
        }
    }

    /// Takes the id that a client is about to come back with: heartbeats may have moved it.
    pub(crate) fn resuming(&mut self, seen: &mut Seen, id: &str) {
        match Cursor::parse(id) {
            Ok(cursor) => self.advance(seen, &cursor, None, id),
            Err(error) => self.fault(FaultKind::WrongId, seen.client, "-", format!("a cursor ({error})"), id),
        }
    }

    /// Takes a `gap`.
    pub(crate) fn gap(&mut self, seen: &mut Seen, message: &Message, now: Duration) {
        self.gaps += 1;
        if let Some(roll_call) = &mut self.roll_call {
            roll_call.saw_gap(now);
        }
        let client = seen.client;
        let told = match serde_json::from_str::<GapTold>(&message.data) {
            Ok(told) if ["expired", "lost", "unknown-cursor"].contains(&&*told.reason) => told,
            _ => return self.fault(FaultKind::Gap, client, "-", "what a gap says", &*message.data),
        };
        if !self.allow_gaps {
            let got = format!("{} at {}", message.data, message.id);
            self.fault(FaultKind::Gap, client, &told.channels.join(","), "no gap", got);
        }
        for name in &told.channels {
            let Some(channel) = self.traffic.index(name) else { continue };
            self.excuses.entry((client, channel)).or_default().push(told.from..=told.to);
        }
        // What comes next may be of another epoch; within one, going back is never right.
        let Ok(cursor) = Cursor::parse(&message.id) else {
            return self.fault(FaultKind::WrongId, client, "-", "a cursor in a gap", &*message.id);
        };
        for (partition, point) in cursor.entries() {
            if let Some((_, reached)) = seen.reached.iter_mut().find(|(named, _)| named == partition)
                && reached.epoch != point.epoch
            {
                *reached = *point;
            }
        }
    }

    /// Takes an event that comes now, and tells to whom it went and when it was due, both times since the start of the
    /// run. `None` where it is not of this run, or can't be told.
    pub(crate) fn event(&mut self, seen: &mut Seen, message: &Message, now: Duration) -> Option<(Kind, Duration)> {
        self.deliveries += 1;
        let (client, id) = (seen.client, &*message.id);
        let (Ok(cursor), Some((_, name))) = (Cursor::parse(id), id.rsplit_once('@')) else {
            self.fault(FaultKind::WrongId, client, "?", "a cursor and @channel", id);
            return None;
        };
        let place = self.traffic.index(name).and_then(|channel| {
            seen.follows.iter().position(|follow| follow.channel == channel).map(|place| (place, channel))
        });
        let Some((place, channel)) = place else {
            self.fault(FaultKind::Stray, client, name, "only its own channels", id);
            return None;
        };
        let partition = self.partition_of[channel as usize];
        let (named, point) = cursor.entries()[0];
        if named != partition {
            self.fault(FaultKind::WrongId, client, name, format!("partition {partition} first"), id);
            return None;
        }
        self.advance(seen, &cursor, Some(partition), id);
        if let Some(roll_call) = &mut self.roll_call {
            roll_call.saw(point.pos, now);
        }
        let payload = match self.payload(channel, message) {
            Ok(payload) if payload.run == self.run => payload,
            Ok(_) => {
                self.foreign += 1;
                return None;
            }
            Err(Mismatch::Foreign) => {
                self.foreign += 1;
                return None;
            }
            Err(Mismatch::Corrupt) => {
                let expected = format!("{} of {} bytes", self.traffic.event_type(channel), self.traffic.payload_bytes);
                let got = format!("{id} {}: {:?}", message.event, message.data);
                self.fault(FaultKind::Corrupt, client, name, expected, got);
                return None;
            }
        };
        if payload.seq == ROLL_CALL {
            let is_first = self.roll_call.as_mut().is_some_and(|roll_call| roll_call.heard(client, point.pos, now));
            if !is_first {
                self.fault(FaultKind::Double, client, name, "one roll call", id);
            }
            return None;
        }
        self.sequence(seen, place, payload.seq, id);
        self.same_place(client, channel, payload.seq, point, id);
        Some((self.traffic.kind(channel), Duration::from_micros(payload.due_micros)))
    }

    /// Moves what a client has reached; an event's own partition must move, and none may go back.
    fn advance(&mut self, seen: &mut Seen, cursor: &Cursor, event: Option<Partition>, id: &str) {
        for (partition, point) in cursor.entries() {
            let Some((_, reached)) = seen.reached.iter_mut().find(|(named, _)| named == partition) else {
                self.fault(FaultKind::WrongId, seen.client, "-", "only the partitions that it follows", id);
                continue;
            };
            let ahead = if event == Some(*partition) { point.pos > reached.pos } else { point.pos >= reached.pos };
            if reached.epoch == point.epoch && ahead {
                *reached = *point;
                continue;
            }
            let (kind, expected) = (FaultKind::Backwards, format!("beyond {partition}={reached}"));
            let name = id.rsplit_once('@').map_or("-", |(_, name)| name);
            self.fault(kind, seen.client, name, expected, id);
        }
        if cursor.entries().len() != seen.reached.len() {
            let expected = format!("all {} partitions that it follows", seen.reached.len());
            self.fault(FaultKind::WrongId, seen.client, "-", expected, id);
        }
    }

    fn payload(&self, channel: ChannelIndex, message: &Message) -> Result<Payload, Mismatch> {
        let parse = |text: &str| {
            if !Payload::is_marked(text) {
                return Err(Mismatch::Foreign);
            }
            Payload::parse(text, self.traffic.payload_bytes).ok_or(Mismatch::Corrupt)
        };
        let expected = self.traffic.event_type(channel);
        let user = match self.traffic.kind(channel) {
            Kind::Shared(_) => {
                let payload = parse(&message.data)?;
                return if message.event == expected { Ok(payload) } else { Err(Mismatch::Corrupt) };
            }
            Kind::Inbox(client) => Some(format!("u{client}")),
            Kind::Broadcast => None,
        };
        let notification = serde_json::from_str::<Notification>(&message.data).map_err(|_| Mismatch::Foreign)?;
        let payload = parse(&notification.message)?;
        let right = message.event == expected
            && notification.event == expected
            && notification.user_id == user
            && notification.timestamp > 0;
        if right { Ok(payload) } else { Err(Mismatch::Corrupt) }
    }

    fn sequence(&mut self, seen: &mut Seen, place: usize, seq: u32, id: &str) {
        let (client, follow) = (seen.client, &mut seen.follows[place]);
        let Some(got) = &mut follow.got else {
            follow.got = Some(Got { first: seq, last: seq });
            return;
        };
        if seq > got.last {
            let skipped = got.last + 1..seq;
            got.last = seq;
            if !skipped.is_empty() && self.hole_count < HOLES_MAX {
                self.hole_count += skipped.len();
                self.holes.entry((client, follow.channel)).or_default().extend(skipped);
            }
            return;
        }
        let expected = format!("number {}", got.last + 1);
        let late = self.holes.get_mut(&(client, follow.channel)).is_some_and(|holes| {
            let hole = holes.iter().position(|hole| *hole == seq);
            hole.map(|hole| holes.swap_remove(hole)).is_some()
        });
        let before_first = seq < got.first;
        if before_first {
            self.holes.entry((client, follow.channel)).or_default().extend(seq + 1..got.first);
            got.first = seq;
        }
        let kind = if late || before_first { FaultKind::Reordered } else { FaultKind::Double };
        let name = self.traffic.name(follow.channel);
        self.fault(kind, client, &name, expected, format!("number {seq} at {id}"));
    }

    fn same_place(&mut self, client: u32, channel: ChannelIndex, seq: u32, point: Point, id: &str) {
        let places = &mut self.places[channel as usize];
        if places.len() <= seq as usize {
            places.resize(seq as usize + 1, None);
        }
        let place = *places[seq as usize].get_or_insert(point);
        if !self.is_same(place, point) {
            let name = self.traffic.name(channel);
            let expected = format!("number {seq} at {place}, where another client saw it");
            self.fault(FaultKind::WrongId, client, &name, expected, id);
        }
    }

    /// Whether two points are one place. Where history may be lost a new epoch may begin, and keeps the positions of
    /// what it takes over.
    fn is_same(&self, one: Point, other: Point) -> bool {
        one.pos == other.pos && (one.epoch == other.epoch || self.allow_gaps)
    }

    /// Learns from the first cursor how many partitions there are.
    fn learn(&mut self, partitions: Partitions) {
        if partitions != self.partitions {
            self.partitions = partitions;
            let of = |channel| partitions.of(&self.traffic.channel(channel));
            self.partition_of = (0..self.traffic.channels()).map(of).collect();
        }
    }
}

enum Mismatch {
    /// Not written by this program.
    Foreign,
    Corrupt,
}

#[cfg(test)]
mod tests;
