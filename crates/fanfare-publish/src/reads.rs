//! What can be read of a channel: where it stands, and what it retains.

use std::time::Duration;

use fanfare_auth::PublishKey;
use fanfare_http::{Problem, Query, Request, Response, json};
use fanfare_protocol::{Channel, Cursor, EventType, Key, PageLimit, Point, Position};
use http::StatusCode;
use serde::Serialize;

use crate::PublishApi;
use crate::entry::now_ms;
use crate::order::event_id;
use crate::outcome::unreadable;

/// Events of a page: where nothing is asked for, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;

/// Bytes of events after which a page ends, whatever its limit.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Standing<'a> {
    channel: &'a str,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

/// `GET /channels/{c}`: a cursor of now, and the id of the newest event where it is known.
pub(crate) async fn channel(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    channel: &Channel,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query())?.only(&[])?;
    publisher.check_read(channel)?;
    let backbone = &api.0.backbone;
    let marker = backbone.standing(channel).await.map_err(|error| unreadable(&error))?;
    let id = |pos| {
        let partitions = backbone.partitions();
        event_id(partitions, partitions.of(channel), Point { epoch: marker.epoch, pos })
    };
    let last = marker.lasts.first().and_then(|(_, last)| *last).map(id);
    Ok(json(StatusCode::OK, &Standing { channel: channel.as_str(), cursor: id(marker.last), last }))
}

#[derive(Serialize)]
struct Page<'a> {
    channel: &'a str,
    events: Vec<Retained<'a>>,
    cursor: String,
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

/// `GET /channels/{c}/history`: a page of what is retained, oldest first, and the cursor to go on from. With
/// `after`, the events that follow it; without, the newest. `more`: events after the cursor are there already.
pub(crate) async fn history(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    channel: &Channel,
) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query())?;
    query.only(&["after", "limit"])?;
    publisher.check_read(channel)?;
    let limit = query.once("limit")?.map_or(Ok(LIMIT_DEFAULT), limit)?;
    let cursor = query.once("after")?.map(cursor).transpose()?;

    let backbone = &api.0.backbone;
    let partitions = backbone.partitions();
    let partition = partitions.of(channel);
    // A cursor of other partitions says nothing of this channel: all that is retained may be new to its owner.
    let after = match &cursor {
        None => None,
        Some(cursor) => match cursor.point(partition).filter(|_| cursor.partitions() == partitions) {
            Some(point) => Some((point, false)),
            None => {
                let marker = backbone.standing(channel).await.map_err(|error| unreadable(&error))?;
                Some((Point { epoch: marker.epoch, pos: Position(0) }, true))
            }
        },
    };
    let limits = PageLimit { events_max: limit, bytes_max: PAGE_BYTES_MAX };
    let page = backbone.history(channel, after.map(|(point, _)| point), limits).await;
    let page = page.map_err(|error| unreadable(&error))?;

    let id = |pos| event_id(partitions, partition, Point { epoch: page.epoch, pos });
    let more = page.more && after.is_some();
    // The page was read after `now` was, so it may have newer events. Where more follow, it goes on after the last.
    let end = match page.events.last() {
        Some(last) if more => last.pos,
        last => last.map_or(page.now, |last| last.pos.max(page.now)),
    };
    let now = Duration::from_millis(now_ms());
    let shown = page.events.iter().filter(|event| !event.is_expired(now));
    let events = shown.map(|event| Retained {
        id: id(event.pos),
        event: event.content.name.as_ref().map(EventType::as_str),
        channel: event.channel.as_str(),
        data: &event.content.data,
        timestamp: event.pos.millis(),
        key: event.content.key.as_ref().map(Key::as_str),
    });
    let gap = page.gap || after.is_some_and(|(_, unknown)| unknown);
    let answer = Page { channel: channel.as_str(), events: events.collect(), cursor: id(end), more, gap };
    Ok(json(StatusCode::OK, &answer))
}

fn limit(text: &str) -> Result<usize, Problem> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit));
    number.ok_or_else(|| Problem::invalid(format!("limit: it is a number from 1 to {LIMIT_MAX}")))
}

fn cursor(text: &str) -> Result<Cursor, Problem> {
    Cursor::parse(text).map_err(|error| {
        Problem::invalid(format!("after: it is no event id and no cursor ({error})"))
            .hint("take an event's id, or the cursor of an earlier answer, as it is")
    })
}
