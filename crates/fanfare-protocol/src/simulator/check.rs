//! The promise: per client and channel, every acknowledged event once, in order, or a gap told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::client::{Frame, Kind};
use super::poller::wants;
use super::{MS, Time, World};
use crate::{
    ByNamespace, Channel, Cursor, Epoch, Gap, GapReason, Partition, Partitions, Point, Position, Purge, SharedEvent,
};

/// How long one that polls may be without an answer, once all is calm.
const POLL_PATIENCE: Time = 2_000 * MS;

/// Something that a store took. A message that was taken twice has two.
#[derive(Debug)]
pub(super) struct Entry {
    message: usize,
    channel: Channel,
    partition: Partition,
    point: Point,
    time: Time,
    acknowledged: bool,
    /// Taken by a primary that had been deposed: its 200 is a lie (verdict 5).
    deposed: bool,
}

/// A history that a store emptied.
#[derive(Debug)]
struct Emptied {
    purge: Purge,
    time: Time,
    acknowledged: Option<Time>,
}

/// What a client knows, from the first load of its page until the next.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) last_id: Option<String>,
    cursor: Option<Cursor>,
    conn: Option<usize>,
    /// When it came.
    came: Time,
    connected: bool,
    /// It came new and wanted so many events from before.
    replay: Option<Arc<ByNamespace<u16>>>,
    /// It came back with something that it was never given.
    nonsense: bool,
    /// What it doesn't want, see `poller`.
    filter: Option<usize>,
    follows: BTreeMap<Channel, Follow>,
    /// It has asked to leave these, and not every PATCH is answered yet.
    leaving: BTreeSet<Channel>,
    /// What this connection was last said to follow, and what was asked for since.
    told: BTreeSet<Channel>,
    asked: BTreeSet<Channel>,
    patches: usize,
    /// When, and under which epoch's name.
    received: HashMap<usize, (Time, Epoch)>,
    gaps: Vec<Told>,
    /// The newest event on this connection, in each partition.
    newest: HashMap<Partition, Point>,
    /// The newest event ever, in each channel.
    newest_of: HashMap<Channel, Point>,
    /// The newest epoch that it was in, in each partition, by age.
    epochs: HashMap<Partition, usize>,
    /// When it was last told that it is in an older epoch than before: someone had held on to a deposed primary.
    went_back: HashMap<Partition, Time>,
}

/// Since when a client follows a channel.
#[derive(Clone, Debug)]
struct Follow {
    since: Time,
    start: Option<Point>,
    replay: Option<(Time, u16)>,
    /// The first event that it got.
    first: Option<Point>,
}

/// A gap, and what the client knew when it was told.
#[derive(Debug)]
struct Told {
    time: Time,
    gap: Gap,
    before: Option<Cursor>,
    after: Option<Cursor>,
}

#[derive(Debug, Default)]
pub(super) struct Check {
    pub(super) entries: Vec<Entry>,
    purges: Vec<Emptied>,
    pub(super) views: Vec<View>,
    pub(super) broken: Option<String>,
    /// What was purged never comes back.
    purges_last: bool,
    /// Each epoch's age in its partition, and the entries that it inherited.
    epochs: HashMap<Epoch, (usize, BTreeSet<usize>)>,
}

impl View {
    pub(super) fn is_connected(&self, conn: usize) -> bool {
        self.connected && self.conn == Some(conn)
    }
}

impl Check {
    pub(super) fn new(purges_last: bool) -> Self {
        Self { purges_last, ..Self::default() }
    }

    pub(super) fn new_view(&mut self, filter: Option<usize>) -> usize {
        self.views.push(View { filter, ..View::default() });
        self.views.len() - 1
    }

    pub(super) fn epoch(&mut self, _partition: Partition, epoch: Epoch, inherited: &BTreeSet<usize>) {
        let age = self.epochs.len();
        self.epochs.entry(epoch).or_insert_with(|| (age, inherited.clone()));
    }

    /// A store took a message.
    #[expect(clippy::too_many_arguments, reason = "everything that is to be known of an entry")]
    pub(super) fn accepted(
        &mut self,
        time: Time,
        partition: Partition,
        message: usize,
        point: Point,
        event: &SharedEvent,
        deposed: bool,
        lineage: &BTreeSet<usize>,
    ) {
        if let Some(first) = lineage.iter().find(|&&entry| self.entries[entry].message == message) {
            self.fail(format!("message {message} was published twice: entry {first} was there already"));
        }
        let channel = event.channel.clone();
        self.entries.push(Entry { message, channel, partition, point, time, acknowledged: false, deposed });
    }

    /// Which entry it was that a repeated publish met.
    pub(super) fn find(&self, message: usize, point: Point, lineage: &BTreeSet<usize>) -> Option<usize> {
        let same = |entry: &Entry| entry.message == message && entry.point == point;
        lineage.iter().copied().find(|&entry| same(&self.entries[entry]))
    }

    pub(super) fn acknowledged(&mut self, entry: usize) {
        self.entries[entry].acknowledged = true;
    }

    /// A store emptied a history.
    pub(super) fn purged(&mut self, time: Time, purge: &Purge) -> usize {
        self.purges.push(Emptied { purge: purge.clone(), time, acknowledged: None });
        self.purges.len() - 1
    }

    pub(super) fn purge_acknowledged(&mut self, now: Time, purge: usize) {
        self.purges[purge].acknowledged.get_or_insert(now);
    }

    pub(super) fn connects(
        &mut self,
        now: Time,
        view: usize,
        conn: usize,
        replay: Option<Arc<ByNamespace<u16>>>,
        nonsense: bool,
    ) {
        let view = &mut self.views[view];
        view.conn = Some(conn);
        view.came = now;
        view.connected = false;
        view.replay = replay.filter(|replay| replay.all().any(|count| *count > 0));
        view.nonsense = nonsense;
        view.newest.clear();
        view.leaving.clear();
        view.told.clear();
        view.asked.clear();
        view.patches = 0;
    }

    /// A client sends a PATCH. What it leaves it can't expect any more.
    pub(super) fn patches(&mut self, view: usize, asks: &[Channel], leaves: &[Channel]) {
        let view = &mut self.views[view];
        view.patches += 1;
        view.asked.extend(asks.iter().cloned());
        view.leaving.extend(leaves.iter().cloned());
        view.follows.retain(|channel, _| !leaves.contains(channel));
    }

    pub(super) fn receives(&mut self, now: Time, partitions: Partitions, view: usize, conn: usize, frame: Frame) {
        let Frame { kind, id } = frame;
        let at = &mut self.views[view];
        let mut failure = None;
        if at.conn == Some(conn) && !at.connected && !matches!(kind, Kind::Connected { .. }) {
            failure = Some(format!("{kind:?} before connected"));
        }
        let before = at.cursor.clone();
        if let Some(id) = &id {
            match Cursor::parse(id) {
                Ok(cursor) => at.cursor = Some(cursor),
                Err(error) => failure = Some(format!("the id {id:?} is none: {error}")),
            }
            at.last_id = Some(id.clone());
        }
        let after = id.as_ref().and(at.cursor.clone());
        for (partition, point) in after.iter().flat_map(Cursor::entries) {
            let age = self.epochs.get(&point.epoch).map_or(0, |(age, _)| *age);
            let newest = at.epochs.entry(*partition).or_insert(age);
            let held = before.as_ref().and_then(|before| before.point(*partition));
            if age < *newest && held.is_none_or(|held| held.epoch != point.epoch) {
                at.went_back.insert(*partition, now);
            }
            *newest = age.max(*newest);
        }
        match kind {
            Kind::Connected { channels } => {
                if at.connected {
                    failure = Some("connected twice".to_owned());
                }
                at.connected = true;
                at.told.clone_from(&channels);
                failure = failure.or(at.follow(now, partitions, &channels, after.as_ref()));
            }
            Kind::Subscribed { channels, patches } => {
                if patches == at.patches {
                    at.leaving.clear();
                    at.asked.clear();
                }
                at.told.clone_from(&channels);
                failure = failure.or(at.follow(now, partitions, &channels, after.as_ref()));
            }
            Kind::Gap(gap) => at.gaps.push(Told { time: now, gap, before, after }),
            Kind::Event { channel, pos, entry } => {
                // Where nothing is ever lost, a purge isn't either.
                let gone = |emptied: &&Emptied| emptied.purge.channel == channel && pos < emptied.purge.pos;
                let before = |emptied: &Emptied| emptied.acknowledged.is_some_and(|time| time < at.came);
                if self.purges_last && self.purges.iter().filter(gone).any(before) {
                    failure = Some(format!("entry {entry} at {pos} had been purged before"));
                }
                let partition = partitions.of(&channel);
                match after.as_ref().and_then(|after| after.point(partition)) {
                    None => failure = Some(format!("entry {entry} has no id")),
                    Some(own) => {
                        failure = failure.or(at.event(now, partition, Point { epoch: own.epoch, pos }, channel, entry))
                    }
                }
            }
            Kind::Heartbeat => {}
        }
        if let Some(failure) = failure {
            self.fail(format!("view {view}: {failure}"));
        }
    }

    fn fail(&mut self, what: String) {
        self.broken.get_or_insert(what);
    }

    /// Whether an epoch's history has, or had, an entry.
    fn in_lineage(&self, epoch: Epoch, entry: usize) -> bool {
        self.entries[entry].point.epoch == epoch
            || self.epochs.get(&epoch).is_some_and(|(_, inherited)| inherited.contains(&entry))
    }

    /// Whether a view was to get an entry.
    fn is_due(&self, view: &View, index: usize) -> bool {
        let entry = &self.entries[index];
        let Some(follow) = view.follows.get(&entry.channel) else { return false };
        if !wants(view.filter, index) {
            return false;
        }
        if entry.time > follow.since {
            return true;
        }
        let after = |start: Point| self.in_lineage(start.epoch, index) && entry.point.pos > start.pos;
        match (follow.replay, follow.start, follow.first) {
            (None, Some(start), _) => after(start),
            // Of those that were replayed none is missing in between.
            (Some(_), _, Some(first)) => after(first),
            _ => false,
        }
    }

    /// Whether a new client got fewer of the newest events than there were.
    fn replayed_too_few(&self, view: &View, channel: &Channel, follow: &Follow) -> bool {
        let Some((came, wanted)) = follow.replay else { return false };
        let of_channel = || self.entries.iter().enumerate().filter(|(_, entry)| entry.channel == *channel);
        let purged = |entry: &Entry| self.purges.iter().any(|emptied| emptied.took(entry));
        // A replay that breaks off may go on only after a purge.
        let there = of_channel().filter(|(_, entry)| entry.time < came && !purged(entry)).count();
        let early = of_channel().filter(|(_, entry)| entry.time < follow.since);
        early.filter(|(number, _)| view.received.contains_key(number)).count() < there.min(usize::from(wanted))
    }

    /// Whether a gap comes from what was emptied, or its channels had never had anything: of one that isn't known
    /// nobody knows that. In worlds that lose nothing, of channels of which everything is kept.
    fn is_harmless(&self, told: &Told) -> bool {
        let Told { time, gap, .. } = told;
        let emptied = |emptied: &Emptied| gap.channels.contains(&emptied.purge.channel) && emptied.time <= *time;
        let had = |entry: &Entry| gap.channels.contains(&entry.channel) && entry.point.pos <= gap.to;
        gap.reason == GapReason::Expired && (self.purges.iter().any(emptied) || !self.entries.iter().any(had))
    }

    fn is_excused(&self, told: &Told, index: usize) -> bool {
        let entry = &self.entries[index];
        if !told.gap.channels.contains(&entry.channel) || told.time < entry.time {
            return false;
        }
        let within = told.gap.from < entry.point.pos && entry.point.pos <= told.gap.to;
        let point = |cursor: &Option<Cursor>| cursor.as_ref().and_then(|cursor| cursor.point(entry.partition));
        let (before, after) = (point(&told.before), point(&told.after));
        let outside_from = |epoch: Epoch, from: Position| !self.in_lineage(epoch, index) || entry.point.pos <= from;
        match (told.gap.reason, after) {
            (GapReason::Expired, _) => within,
            (GapReason::Lost, Some(after))
                if let Some(before) = before.filter(|before| before.epoch != after.epoch) =>
            {
                // What the new epoch has taken itself must come. What of the old one does not, though the client's cursor
                // (not all are genuine) stands before it, is after `from`.
                let lacks = self.in_lineage(before.epoch, index) && before.pos < entry.point.pos;
                let covered = !lacks || told.gap.from < entry.point.pos;
                entry.point.epoch != after.epoch && outside_from(after.epoch, after.pos) && covered
            }
            (GapReason::Lost, _) => within,
            (GapReason::UnknownCursor, Some(after)) => outside_from(after.epoch, after.pos),
            (GapReason::UnknownCursor, None) => false,
        }
    }
}

impl Emptied {
    fn took(&self, entry: &Entry) -> bool {
        self.purge.channel == entry.channel && entry.point.pos < self.purge.pos
    }
}

impl View {
    /// What the client is told that it follows.
    fn follow(
        &mut self,
        now: Time,
        partitions: Partitions,
        channels: &BTreeSet<Channel>,
        cursor: Option<&Cursor>,
    ) -> Option<String> {
        let lost = self.follows.keys().find(|channel| !channels.contains(*channel));
        let lost = lost.filter(|_| !self.nonsense).map(|channel| format!("{} is no longer followed", channel.as_str()));
        self.follows.retain(|channel, _| channels.contains(channel));
        for channel in channels.difference(&self.leaving) {
            let start = cursor.and_then(|cursor| cursor.point(partitions.of(channel)));
            let replay = self.replay.as_deref().map(|replay| (self.came, *replay.of(channel)));
            self.follows.entry(channel.clone()).or_insert(Follow { since: now, start, replay, first: None });
        }
        self.replay = None;
        lost
    }

    fn event(
        &mut self,
        now: Time,
        partition: Partition,
        point: Point,
        channel: Channel,
        entry: usize,
    ) -> Option<String> {
        let Point { epoch, pos } = point;
        if !self.told.contains(&channel) && !self.asked.contains(&channel) {
            return Some(format!("entry {entry} is on {}, which the stream does not follow", channel.as_str()));
        }
        let back = self.went_back.get(&partition).copied();
        if let Some((before, _)) = self.received.insert(entry, (now, epoch))
            && back.is_none_or(|back| before >= back)
        {
            return Some(format!("entry {entry} came twice, before at {before}"));
        }
        if let Some(newest) = self.newest.insert(partition, point)
            && newest.epoch == epoch
            && newest.pos >= pos
        {
            return Some(format!("entry {entry} at {point} came after {newest} on the same connection"));
        }
        if let Some(follow) = self.follows.get_mut(&channel) {
            follow.first.get_or_insert(point);
        }
        let newest = self.newest_of.insert(channel, point);
        newest
            .filter(|newest| back.is_none() && newest.epoch == epoch && newest.pos >= pos)
            .map(|newest| format!("entry {entry} at {point} came after {newest}"))
    }
}

impl World {
    /// All is over: whatever is still missing now is missing.
    pub(super) fn check_end(&mut self) -> Option<String> {
        let told = self.check.views.iter().flat_map(|view| &view.gaps);
        let of_ample = |told: &&Told| told.gap.channels.iter().any(|channel| self.plan.loses_nothing(channel));
        if let Some(Told { time, gap, .. }) = told.filter(of_ample).find(|told| !self.check.is_harmless(told)) {
            return Some(format!("a gap at {time} though nothing is lost: {gap:?}"));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let view = &self.check.views[client.view];
            let connected = match client.polls {
                true => client.answered + POLL_PATIENCE > self.now,
                false => client.conn.is_some_and(|conn| view.is_connected(conn)),
            };
            if !connected {
                return Some(format!("view {}: client {index} is not connected", client.view));
            }
            for (channel, follow) in &view.follows {
                let is_ample = self.plan.is_ample(channel) && view.filter.is_none();
                if is_ample && self.check.replayed_too_few(view, channel, follow) {
                    let channel = channel.as_str();
                    return Some(format!("view {}: {channel} was replayed less than was asked for", client.view));
                }
            }
            for (number, entry) in self.check.entries.iter().enumerate() {
                let lie = entry.deposed && !self.plan.ack_replica;
                if !entry.acknowledged || lie || view.received.contains_key(&number) {
                    continue;
                }
                let excused = || view.gaps.iter().any(|told| self.check.is_excused(told, number));
                if self.check.is_due(view, number) && !excused() {
                    let channel = entry.channel.as_str();
                    return Some(format!(
                        "view {}: client {index} never got entry {number} on {channel} at {}, nor a gap",
                        client.view, entry.point
                    ));
                }
            }
        }
        None
    }
}
