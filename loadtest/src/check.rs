//! Whether what arrived is what should have: every delivery as it comes, everything together at the end.
//!
//! As it comes: the id names a channel that the client follows and a place in its partition, ahead of all that the
//! client has seen there; the payload is whole and carries the channel's next number; all clients see an event at the
//! same place. At the end, against the ledger: each client has every acknowledged event that stands after its first
//! `connected`, and the places are those that the publisher was told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, SystemTime};

use fanfare_auth::{Secrets, TokenOrder};
use fanfare_protocol::sse::Message;
use fanfare_protocol::{Cursor, Partition, Partitions, Pattern, Point, UserId};
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::ledger::Ledger;
use crate::traffic::{ChannelIndex, FOLLOWS, Kind, Payload, Traffic};

/// Faults that are kept in words; all are counted.
const FAULTS_KEPT: usize = 20;

/// Skipped stretches that are kept; more of them are a failure that needs no list.
const HOLES_MAX: usize = 1_000_000;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// An acknowledged event that a client never got.
    Missing,
    /// An event that a client got again.
    Double,
    /// An event that came after a later one of its channel.
    Reordered,
    /// An id that is not ahead of what the client had seen in that partition.
    Backwards,
    /// An id that is none, or names another place than it should.
    WrongId,
    /// An event of a channel that the client doesn't follow.
    Stray,
    /// An event whose type or data is not what was published.
    Corrupt,
    /// A `connected` that doesn't say what it should.
    WrongConnected,
    /// A gap where none may be.
    Gap,
    /// A result of a publish that is not what it should be.
    WrongResult,
    /// A publish that was not answered with 200.
    NotPublished,
    /// A stream that is no proper response.
    BadStream,
    /// A client that could not connect, or not come back, in time.
    NotConnected,
    /// The run itself could not do what it was to do.
    Unfinished,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_value(self).expect("a name");
        f.write_str(text.as_str().unwrap_or_default())
    }
}

/// One thing that went wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// What it is.
    pub kind: FaultKind,
    /// The client that saw it.
    pub client: Option<u32>,
    /// The channel it was on.
    pub channel: String,
    /// What should have come.
    pub expected: String,
    /// What came.
    pub got: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        if let Some(client) = self.client {
            write!(f, " client {client},")?;
        }
        write!(f, " channel {}: expected {}, got {}", self.channel, self.expected, self.got)
    }
}

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
    traffic: Traffic,
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
    /// Time, in ms since 1970, within which a client was told that events of a channel are gone.
    excuses: HashMap<(u32, ChannelIndex), (u64, u64)>,
    faults: BTreeMap<FaultKind, u64>,
    first_faults: Vec<Fault>,
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
            faults: BTreeMap::new(),
            first_faults: Vec::new(),
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

    pub(crate) fn faults(&self) -> (&BTreeMap<FaultKind, u64>, &[Fault]) {
        (&self.faults, &self.first_faults)
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        *self.faults.entry(fault.kind).or_default() += 1;
        // Each kind keeps a place, so that the first flood doesn't hide the second.
        let of_kind = self.first_faults.iter().filter(|kept| kept.kind == fault.kind).count();
        if of_kind < FAULTS_KEPT / 4 && self.first_faults.len() < FAULTS_KEPT {
            self.first_faults.push(fault);
        }
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

    /// The request with which a client subscribes.
    pub(crate) fn request(
        &self,
        seen: &Seen,
        endpoint: &Endpoint,
        secret: Option<&Secrets>,
        last_id: Option<&str>,
    ) -> Vec<u8> {
        let (path, host, client) = (endpoint.path(), endpoint.authority(), seen.client);
        let mut request = format!("GET {path}/events?user=u{client}");
        for follow in &seen.follows {
            if let Kind::Shared(number) = self.traffic.kind(follow.channel) {
                request += &format!("&channel=load:{number}");
            }
        }
        request += &format!(" HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n");
        if let Some(secret) = secret {
            request += &format!("Authorization: Bearer {}\r\n", token(client, secret));
        }
        if let Some(id) = last_id {
            request += &format!("Last-Event-ID: {id}\r\n");
        }
        request += "\r\n";
        request.into_bytes()
    }

    /// Takes the id that a client is about to come back with: heartbeats may have moved it.
    pub(crate) fn resuming(&mut self, seen: &mut Seen, id: &str) {
        match Cursor::parse(id) {
            Ok(cursor) => self.advance(seen, &cursor, None, id),
            Err(error) => self.fault(FaultKind::WrongId, seen.client, "-", format!("a cursor ({error})"), id),
        }
    }

    /// Takes a `gap`.
    pub(crate) fn gap(&mut self, seen: &mut Seen, message: &Message) {
        self.gaps += 1;
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
            let (from, to) = self.excuses.entry((client, channel)).or_insert((told.from, told.to));
            (*from, *to) = ((*from).min(told.from), (*to).max(told.to));
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

    /// Takes an event, and tells to whom it went and when it was due, since the start of the run. `None` where it is not of this run, or
    /// can't be told.
    pub(crate) fn event(&mut self, seen: &mut Seen, message: &Message) -> Option<(Kind, Duration)> {
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
        if place != point {
            let name = self.traffic.name(channel);
            let expected = format!("number {seq} at {place}, where another client saw it");
            self.fault(FaultKind::WrongId, client, &name, expected, id);
        }
    }

    /// Learns from the first cursor how many partitions there are.
    fn learn(&mut self, partitions: Partitions) {
        if partitions != self.partitions {
            self.partitions = partitions;
            let of = |channel| partitions.of(&self.traffic.channel(channel));
            self.partition_of = (0..self.traffic.channels()).map(of).collect();
        }
    }

    /// Whether a client has the last acknowledged event of each channel, as far as it stands after where it began.
    pub(crate) fn is_complete(&self, seen: &Seen, ledger: &Ledger) -> bool {
        !seen.start.is_empty()
            && seen.follows.iter().all(|Follow { channel, got }| {
                let Some((last, point)) = ledger.last_acknowledged(*channel) else { return true };
                let partition = self.partition_of[*channel as usize];
                let began_after = |(named, start): &(Partition, Point)| *named == partition && start.pos >= point.pos;
                got.is_some_and(|got| got.last >= last)
                    || seen.start.iter().any(began_after)
                    || self.is_excused(seen.client, *channel, point)
            })
    }

    fn is_excused(&self, client: u32, channel: ChannelIndex, point: Point) -> bool {
        let excuse = self.excuses.get(&(client, channel));
        excuse.is_some_and(|(from, to)| (*from..=*to).contains(&point.pos.millis()))
    }

    /// Holds everything that the clients have seen against what was published.
    pub(crate) fn judge<'a>(&mut self, clients: impl Iterator<Item = &'a Seen>, ledger: &Ledger) {
        for seen in clients {
            self.judge_client(seen, ledger);
        }
        for channel in 0..self.traffic.channels() {
            let mut before = None::<Point>;
            for (seq, outcome) in ledger.channel(channel).iter().enumerate() {
                let Some(point) = outcome.point() else { continue };
                let wrong = |expected: String, got: Point| Fault {
                    kind: FaultKind::WrongResult,
                    client: None,
                    channel: self.traffic.name(channel),
                    expected,
                    got: format!("number {seq} at {got}"),
                };
                let ascends = before.is_none_or(|before| before.epoch != point.epoch || before.pos < point.pos);
                let seen = self.places[channel as usize].get(seq).copied().flatten();
                let fault = match (ascends, seen) {
                    (false, _) => Some(wrong("positions that ascend".to_owned(), point)),
                    (true, Some(seen)) if seen != point => {
                        Some(wrong(format!("the place of the result, {point}"), seen))
                    }
                    (true, _) => None,
                };
                before = Some(point);
                if let Some(fault) = fault {
                    self.add(fault);
                }
            }
        }
    }

    fn judge_client(&mut self, seen: &Seen, ledger: &Ledger) {
        let client = seen.client;
        for Follow { channel, got } in seen.follows {
            let partition = self.partition_of[channel as usize];
            let start = seen.start.iter().find(|(named, _)| *named == partition);
            let Some(&(_, start)) = start else {
                // That it never connected, or with a cursor that lacks the partition, was told before.
                continue;
            };
            let from = ledger.first_after(channel, start);
            let events = ledger.channel(channel);
            let holes = self.holes.remove(&(client, channel)).unwrap_or_default();
            for (seq, outcome) in (from..).zip(&events[from as usize..]) {
                let Some(point) = outcome.point() else { continue };
                self.expected += 1;
                if got.is_some_and(|got| (got.first..=got.last).contains(&seq)) && !holes.contains(&seq) {
                    continue;
                }
                if self.is_excused(client, channel, point) {
                    self.excused += 1;
                    continue;
                }
                let name = self.traffic.name(channel);
                let got = match got {
                    None => "nothing of this channel".to_owned(),
                    Some(Got { first, last }) => format!("numbers {first} to {last} but for {holes:?}"),
                };
                let expected = format!("number {seq} at {partition}={point} (began at {start})");
                self.fault(FaultKind::Missing, client, &name, expected, got);
            }
        }
    }
}

enum Mismatch {
    /// Not written by this program.
    Foreign,
    Corrupt,
}

/// What opens a client's inbox, the broadcast and the shared channels, for longer than any run.
fn token(client: u32, secret: &Secrets) -> String {
    let order = TokenOrder {
        user: UserId::parse(&format!("u{client}")).ok(),
        channels: Pattern::parse("load:*").into_iter().collect(),
        follow: Vec::new(),
        ttl: Duration::from_secs(24 * 60 * 60),
    };
    order.mint(secret, SystemTime::now()).expect("a user and a pattern make a token").token
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Outcome;
    use crate::traffic::Mix;
    use fanfare_protocol::{Epoch, Position};

    const RUN: u64 = 0xabc;

    /// One client on one channel of interest, and four events of it, published at 110, 120, 130 and 140.
    struct Scene {
        checker: Checker,
        seen: Seen,
        ledger: Ledger,
        channel: ChannelIndex,
        name: String,
    }

    fn point(pos: u64) -> Point {
        Point { epoch: Epoch::parse("k3f9x2").expect("valid"), pos: Position(pos) }
    }

    impl Scene {
        fn new() -> Self {
            let mix = Mix { shared: 0.1, broadcast: 0.1 };
            let traffic = Traffic {
                seed: 1,
                clients: 1,
                shared_channels: 3,
                events_per_second: 1.0,
                duration: Duration::from_secs(1),
                payload_bytes: 0,
                mix,
            };
            let (seen, channel) = (Seen::new(0, &traffic), 1);
            let mut ledger = Ledger::new(traffic.channels());
            for pos in [110, 120, 130, 140] {
                ledger.push(channel, Outcome::Acknowledged(point(pos)));
            }
            let name = traffic.name(channel);
            let mut scene = Self { checker: Checker::new(traffic, RUN, false), seen, ledger, channel, name };
            scene.connected("k3f9x2-100", None);
            scene
        }

        fn connected(&mut self, id: &str, sent: Option<&str>) {
            let names = self.seen.follows.map(|follow| self.checker.traffic.name(follow.channel));
            let data = serde_json::json!({
                "clientId": "c", "userId": "u0", "channels": names, "resumed": sent.is_some()
            });
            let message = Message { id: id.to_owned(), event: "connected".to_owned(), data: data.to_string() };
            self.checker.connected(&mut self.seen, &message, sent);
        }

        fn gets(&mut self, seq: u32, pos: u64) {
            let id = format!("k3f9x2-{pos}@{}", self.name);
            let event = self.checker.traffic.event_type(self.channel).to_owned();
            let message = Message { id, event, data: format!("load {RUN:x} {seq} 5\n") };
            self.checker.event(&mut self.seen, &message);
        }

        fn faults(mut self) -> Vec<(FaultKind, u64)> {
            let complete = self.checker.is_complete(&self.seen, &self.ledger);
            self.checker.judge(std::iter::once(&self.seen), &self.ledger);
            let faults = self.checker.faults.into_iter().collect::<Vec<_>>();
            assert!(complete || faults.iter().any(|(kind, _)| *kind == FaultKind::Missing));
            faults
        }
    }

    #[test]
    fn every_event_once_and_in_order_is_right() {
        let mut scene = Scene::new();
        for (seq, pos) in (0..).zip([110, 120, 130, 140]) {
            scene.gets(seq, pos);
        }
        assert_eq!(scene.faults(), []);
    }

    #[test]
    fn what_was_published_before_the_start_is_not_missed_and_what_came_after_is() {
        let mut scene = Scene::new();
        scene.seen.start[0].1 = point(115);
        assert_eq!(scene.faults(), [(FaultKind::Missing, 3)]);
    }

    #[test]
    fn an_event_that_was_left_out_is_missed_wherever_it_stood() {
        for left_out in 0..4 {
            let mut scene = Scene::new();
            for (seq, pos) in (0..).zip([110, 120, 130, 140]).filter(|(seq, _)| *seq != left_out) {
                scene.gets(seq, pos);
            }
            assert_eq!(scene.faults(), [(FaultKind::Missing, 1)], "{left_out}");
        }
    }

    #[test]
    fn an_event_that_comes_again_is_double_even_under_another_id() {
        let mut scene = Scene::new();
        for (seq, pos) in [(0, 110), (1, 120), (1, 120), (2, 130), (3, 140), (3, 150)] {
            scene.gets(seq, pos);
        }
        let expected = [(FaultKind::Double, 2), (FaultKind::Backwards, 1), (FaultKind::WrongId, 1)];
        assert_eq!(scene.faults(), expected);
    }

    #[test]
    fn an_event_that_comes_after_a_later_one_is_reordered_and_not_missed() {
        for order in [[0, 2, 1, 3], [1, 0, 2, 3], [0, 1, 3, 2]] {
            let mut scene = Scene::new();
            for seq in order {
                scene.gets(seq, 110 + 10 * u64::from(seq));
            }
            assert_eq!(scene.faults(), [(FaultKind::Reordered, 1), (FaultKind::Backwards, 1)], "{order:?}");
        }
    }

    #[test]
    fn an_event_stands_where_its_publisher_was_told() {
        let mut scene = Scene::new();
        for (seq, pos) in [(0, 110), (1, 121), (2, 130), (3, 140)] {
            scene.gets(seq, pos);
        }
        assert_eq!(scene.faults(), [(FaultKind::WrongResult, 1)]);
    }

    #[test]
    fn an_event_without_an_acknowledgement_may_come_or_not() {
        for comes in [true, false] {
            let mut scene = Scene::new();
            scene.ledger.push(scene.channel, Outcome::Unknown);
            for (seq, pos) in (0..).zip([110, 120, 130, 140]) {
                scene.gets(seq, pos);
            }
            if comes {
                scene.gets(4, 150);
            }
            assert_eq!(scene.faults(), []);
        }
    }

    #[test]
    fn a_resumed_connection_says_the_cursor_that_the_client_came_with() {
        let mut scene = Scene::new();
        scene.connected("k3f9x2-100", Some("k3f9x2-100@load:0"));
        scene.connected("k3f9x2-105", Some("k3f9x2-100@load:0"));
        assert_eq!(scene.checker.faults().0.get(&FaultKind::WrongConnected), Some(&1));
    }

    #[test]
    fn a_gap_is_a_fault_unless_allowed_and_then_excuses_what_it_names() {
        for allowed in [false, true] {
            let mut scene = Scene::new();
            scene.checker.allow_gaps = allowed;
            scene.gets(0, 110);
            let data = format!(r#"{{"channels":["{}"],"reason":"lost","from":0,"to":0,"retryInMs":1}}"#, scene.name);
            let message = Message { id: "k3f9x2-110".to_owned(), event: "gap".to_owned(), data };
            scene.checker.gap(&mut scene.seen, &message);
            scene.gets(3, 140);
            assert_eq!(scene.checker.gaps, 1);
            let expected = if allowed { vec![] } else { vec![(FaultKind::Gap, 1)] };
            assert_eq!(scene.faults(), expected, "two were in the first millisecond, and excused");
        }
    }
}
