//! Retained events as they are read over HTTP: a page, and whether it tells everything.

use fanfare_protocol::{Epoch, Marker, Page, Point, Position, SharedEvent};

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
