//! What a link has heard and its feed hasn't taken yet: bounded in bytes, so that the socket can be drained at once.
//!
//! Redis cuts off subscribers that read too slowly, so the reader never waits for the feed. What the feed falls behind
//! is memory of ours, and past a bound the link ends: its feed resyncs.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use fanfare_protocol::Answer;
use tokio::sync::Notify;

use super::RedisError;
use crate::link::LinkEvent;

/// Past it the link ends.
pub(crate) const ARRIVALS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Past it nothing more is asked for over the commands connection: answers can wait in Redis, events can't.
const ANSWERS_BYTES_MAX: usize = ARRIVALS_BYTES_MAX / 2;

/// What an item costs beside its text, roughly.
const ITEM_BYTES: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    inside: Mutex<Inside>,
    /// Rung when something has come, and when the link has ended.
    bell: Notify,
    /// Rung when answers have room again.
    pub(crate) room: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    events: VecDeque<LinkEvent>,
    bytes: usize,
    ended: Option<RedisError>,
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no one panics while holding the arrivals")
    }

    /// Takes what has come.
    pub(crate) fn push(&self, events: impl IntoIterator<Item = LinkEvent>) -> Result<(), RedisError> {
        let mut inside = self.lock();
        for event in events {
            inside.bytes += cost(&event);
            inside.events.push_back(event);
        }
        let full = inside.bytes > ARRIVALS_BYTES_MAX;
        drop(inside);
        self.bell.notify_one();
        if full { Err(RedisError::TooSlow(ARRIVALS_BYTES_MAX)) } else { Ok(()) }
    }

    /// Nothing more will come. The first reason is kept.
    pub(crate) fn end(&self, reason: RedisError) {
        self.lock().ended.get_or_insert(reason);
        self.bell.notify_one();
    }

    /// Why nothing more comes.
    pub(crate) fn ended(&self) -> Option<RedisError> {
        self.lock().ended.clone()
    }

    /// Whether answers may be asked for.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().bytes < ANSWERS_BYTES_MAX
    }

    /// What has come, at most `max` of it. None: it has ended.
    pub(crate) async fn take(&self, into: &mut Vec<LinkEvent>, max: usize) -> Option<()> {
        loop {
            {
                let mut inside = self.lock();
                if !inside.events.is_empty() {
                    let count = inside.events.len().min(max);
                    let before = into.len();
                    into.extend(inside.events.drain(..count));
                    let had_room = inside.bytes < ANSWERS_BYTES_MAX;
                    inside.bytes -= into[before..].iter().map(cost).sum::<usize>();
                    if !had_room && inside.bytes < ANSWERS_BYTES_MAX {
                        self.room.notify_one();
                    }
                    return Some(());
                }
                if inside.ended.is_some() {
                    return None;
                }
            }
            self.bell.notified().await;
        }
    }
}

fn cost(event: &LinkEvent) -> usize {
    let text = match event {
        LinkEvent::Event(_, event) => event.cost(),
        LinkEvent::Marker(marker) => marker.lasts.len() * ITEM_BYTES,
        LinkEvent::Answered(_, _, Answer::Page(_, page)) => page.events.iter().map(|event| event.cost()).sum(),
        LinkEvent::Answered(_, _, Answer::Lasts(lasts, ..)) => lasts.len() * ITEM_BYTES,
        LinkEvent::Purged(..)
        | LinkEvent::Confirmed(..)
        | LinkEvent::MarkerConfirmed
        | LinkEvent::BarrierAnswered(_) => 0,
    };
    ITEM_BYTES + text
}
