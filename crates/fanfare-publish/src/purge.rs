//! Emptying what a channel retains.

use fanfare_auth::PublishKey;
use fanfare_backbone::event_id;
use fanfare_http::{Code, Problem, Query, Request, Response, json};
use fanfare_protocol::Channel;
use http::StatusCode;
use serde::Serialize;

use crate::PublishApi;

#[derive(Serialize)]
struct Purged<'a> {
    success: bool,
    channel: &'a str,
    cursor: String,
}

/// `DELETE /channels/{c}/history`: nothing of what was published so far is retained any more. The cursor says from
/// where on it has a history again. Who may publish on a channel may also take back what it retains.
pub(crate) async fn history(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    channel: &Channel,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query())?.only(&[])?;
    publisher.check_publish(channel)?;
    let backbone = &api.0.backbone;
    let point = backbone.purge(channel).await.map_err(|error| {
        Problem::new(Code::BackboneUnavailable, format!("whether the history is empty now is unknown: {error}"))
            .hint("repeat it: a history that is empty can be emptied again")
    })?;
    let partitions = backbone.partitions();
    let cursor = event_id(partitions, partitions.of(channel), point);
    Ok(json(StatusCode::OK, &Purged { success: true, channel: channel.as_str(), cursor }))
}
