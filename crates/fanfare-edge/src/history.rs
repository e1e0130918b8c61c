//! What a channel retains, for those who may follow it: a client that is told a gap reads it with the token of its
//! stream. Question and answer are those of the publish API.

use std::time::SystemTime;

use fanfare_auth::Access;
use fanfare_backbone::{Backbone, HistoryQuery};
use fanfare_http::{Code, Problem, Query, Request, Response, json, path_segments};
use http::StatusCode;

use crate::blocks::Blocks;
use crate::subscription::channel;

/// What the query may have: the question, and credentials.
const PARAMETERS: [&str; 6] = ["after", "limit", "user", "token", "auth", "ticket"];

/// `GET /channels/{c}/history`.
pub(crate) async fn history(
    request: &Request,
    access: &Access,
    blocks: &Blocks,
    backbone: &Backbone,
) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query())?;
    let now = SystemTime::now();
    let subscriber = access.authorise(request.headers(), &query, now)?.subscriber;
    blocks.check(&subscriber, now)?;
    query.only(&PARAMETERS)?;
    let channel = channel(&path_segments(request.uri().path())?[1], "the path")?;
    subscriber.check([&channel])?;
    let asked = HistoryQuery::parse(query.once("after")?, query.limit()?);
    let asked = asked.map_err(|error| Problem::invalid(error.to_string()))?;
    let page = backbone.history_page(&channel, &asked).await.map_err(|error| {
        Problem::new(Code::BackboneUnavailable, format!("the backbone can't be read just now: {error}"))
    })?;
    Ok(json(StatusCode::OK, &page))
}
