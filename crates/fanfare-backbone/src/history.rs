//! Retained events as they are read over HTTP: a page, and whether it tells everything.
//!
//! The publish API and edges answer with the same page to the same question, so both, and the form of their answer, are
//! here. Who may ask, and how errors are told, is theirs.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_protocol::{
    Channel, Cursor, CursorError, Epoch, EventType, Key, Marker, Page, PageLimit, Partition, Partitions, Point,
    Position, SharedEvent, write_cursor,
};
use serde::{Serialize, Serializer};

use crate::{Backbone, BackboneError};

/// Bytes of events after which a page ends, whatever its limit.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A page of a channel's retained events.
#[derive(Clone, Debug)]
pub struct History {
    /// The epoch that the events' positions belong to.
    pub epoch: Epoch,
    /// Where the partition stood: a cursor of now.
    pub now: Position,
    /// The events, oldest first.
    pub events: Vec<SharedEvent>,
    /// The page is full; more may follow after its last event.
    pub more: bool,
    /// Events between the asked-for point and the page are gone, or may be.
    pub gap: bool,
}

/// The position to read from: a point of an epoch that is over counts up to where that epoch is known to have ended.
pub(crate) fn start(marker: &Marker, after: Point) -> Position {
    if after.epoch == marker.epoch {
        after.pos
    } else if marker.previous == Some(after.epoch) {
        after.pos.min(marker.base)
    } else {
        marker.base
    }
}

impl History {
    pub(crate) fn new(marker: &Marker, after: Option<Point>, start: Option<Position>, page: Page) -> Self {
        let gap = match (after, start) {
            (Some(after), Some(start)) => {
                let (_, last) = marker.lasts.first().expect("the marker was asked for this channel");
                let begins_late = match page.events.first() {
                    Some(first) => first.prev.pos > start,
                    None => last.unwrap_or(marker.floor) > start,
                };
                after.epoch != marker.epoch || start > marker.last || begins_late
            }
            _ => false,
        };
        Self { epoch: marker.epoch, now: marker.last, events: page.events, more: page.more, gap }
    }
}

/// What may be asked of a channel's history: what follows a point, or else the newest; and how much at most.
#[derive(Clone, Debug)]
pub struct HistoryQuery {
    after: Option<Cursor>,
    limit: usize,
}

/// What was given to read on from is no cursor, and no event's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after: it is no event id and no cursor ({0}); take one from an event or an earlier answer as it is")]
pub struct AfterError(CursorError);

impl HistoryQuery {
    /// Reads what `after` says.
    ///
    /// # Errors
    /// It is no cursor.
    pub fn parse(after: Option<&str>, limit: usize) -> Result<Self, AfterError> {
        let after = after.map(Cursor::parse).transpose().map_err(AfterError)?;
        Ok(Self { after, limit })
    }
}

/// A page as it is answered: `{"channel","events":[…],"cursor","more","gap"}`, oldest first. `cursor` is where to go on
/// from, `more` that events after it are there already.
#[derive(Clone, Debug)]
pub struct HistoryPage {
    channel: Channel,
    partitions: Partitions,
    partition: Partition,
    epoch: Epoch,
    events: Vec<SharedEvent>,
    cursor: String,
    more: bool,
    gap: bool,
}

impl Backbone {
    /// Answers a question about a channel's history.
    ///
    /// # Errors
    /// The backbone can't be reached.
    pub async fn history_page(&self, channel: &Channel, asked: &HistoryQuery) -> Result<HistoryPage, BackboneError> {
        let partitions = self.partitions();
        let partition = partitions.of(channel);
        // A cursor of other partitions says nothing of this channel: all that is retained may be new to its owner.
        let after = match &asked.after {
            None => None,
            Some(cursor) => match cursor.point(partition).filter(|_| cursor.partitions() == partitions) {
                Some(point) => Some((point, false)),
                None => Some((Point { epoch: self.standing(channel).await?.epoch, pos: Position(0) }, true)),
            },
        };
        let limits = PageLimit { events_max: asked.limit, bytes_max: PAGE_BYTES_MAX };
        let page = self.history(channel, after.map(|(point, _)| point), limits).await?;

        let more = page.more && after.is_some();
        // The page was read after `now` was, so it may have newer events. Where more follow, it goes on after the last.
        let end = match page.events.last() {
            Some(last) if more => last.pos,
            last => last.map_or(page.now, |last| last.pos.max(page.now)),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let gap = page.gap || after.is_some_and(|(_, unknown)| unknown);
        let mut events = page.events;
        events.retain(|event| !event.is_expired(now));
        let (channel, epoch) = (channel.clone(), page.epoch);
        let cursor = event_id(partitions, partition, Point { epoch, pos: end });
        Ok(HistoryPage { channel, partitions, partition, epoch, events, cursor, more, gap })
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    channel: &'a str,
    events: Vec<Retained<'a>>,
    cursor: &'a str,
    more: bool,
    gap: bool,
}

#[derive(Serialize)]
struct Retained<'a> {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    channel: &'a str,
    data: &'a str,
    timestamp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

impl Serialize for HistoryPage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let retained = self.events.iter().map(|event| Retained {
            id: event_id(self.partitions, self.partition, Point { epoch: self.epoch, pos: event.pos }),
            event: event.content.name.as_ref().map(EventType::as_str),
            channel: self.channel.as_str(),
            data: &event.content.data,
            timestamp: event.pos.millis(),
            key: event.content.key.as_ref().map(Key::as_str),
        });
        let events = retained.collect();
        let Self { channel, cursor, more, gap, .. } = self;
        Answer { channel: channel.as_str(), events, cursor, more: *more, gap: *gap }.serialize(serializer)
    }
}

/// An event's public name, which is also a cursor for its partition.
pub fn event_id(partitions: Partitions, partition: Partition, point: Point) -> String {
    let mut id = Vec::with_capacity(32);
    write_cursor(&mut id, partitions, (partition, point), [], "", None);
    String::from_utf8(id).expect("a cursor is ASCII")
}
