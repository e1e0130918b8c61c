//! What can be read of a channel: where it stands, and what it retains.

use fanfare_auth::PublishKey;
use fanfare_backbone::{Counted, HistoryQuery, event_id};
use fanfare_http::{Problem, Query, Request, Response, json};
use fanfare_protocol::{Channel, Point};
use http::StatusCode;
use serde::Serialize;

use crate::PublishApi;
use crate::outcome::unreadable;

#[derive(Serialize)]
struct Standing<'a> {
    channel: &'a str,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    listeners: u64,
}

/// `GET /channels/{c}`: a cursor of now, the id of the newest event where it is known, and how many listen.
pub(crate) async fn channel(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    channel: &Channel,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query())?.only(&[])?;
    publisher.check_read(channel)?;
    let backbone = &api.0.backbone;
    let counted = [Counted::Channel(channel.clone())];
    let read = tokio::try_join!(backbone.standing(channel), backbone.counts(&counted));
    let (marker, listeners) = read.map_err(|error| unreadable(&error))?;
    let id = |pos| {
        let partitions = backbone.partitions();
        event_id(partitions, partitions.of(channel), Point { epoch: marker.epoch, pos })
    };
    let last = marker.lasts.first().and_then(|(_, last)| *last).map(id);
    let standing =
        Standing { channel: channel.as_str(), cursor: id(marker.last), last, listeners: listeners.iter().sum() };
    Ok(json(StatusCode::OK, &standing))
}

/// `GET /channels/{c}/history`: a page of what is retained, oldest first, and the cursor to go on from.
pub(crate) async fn history(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    channel: &Channel,
) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query())?;
    query.only(&["after", "limit"])?;
    publisher.check_read(channel)?;
    let asked = HistoryQuery::parse(query.once("after")?, query.limit()?);
    let asked = asked.map_err(|error| Problem::invalid(error.to_string()))?;
    let page = api.0.backbone.history_page(channel, &asked).await.map_err(|error| unreadable(&error))?;
    Ok(json(StatusCode::OK, &page))
}
