//! Who listens, as edges have told it: as of a second or two ago.
//!
//! How many listen is known of every channel, who they are only where its namespace has opted in. Pages are sorted;
//! each says what to go on after.

use std::time::Duration;

use fanfare_auth::{PublishKey, Right};
use fanfare_backbone::{BackboneError, Counted};
use fanfare_http::{Code, Problem, Query, Request, Response, json};
use fanfare_protocol::{Channel, Pattern, UserId};
use http::StatusCode;
use serde::Serialize;
use tokio::time::timeout;

use crate::PublishApi;
use crate::outcome::unreadable;

/// Channels that are looked at for one page, of which the key may read some. Past it the page ends, perhaps empty.
const LOOKED_AT_MAX: usize = 5_000;

/// For all that an answer is put together of.
const DEADLINE: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Channels<'a> {
    channels: Vec<Active>,
    more: bool,
    /// Where a next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a str>,
}

#[derive(Serialize)]
struct Active {
    channel: String,
    listeners: u64,
}

/// `GET /channels`: those with listeners, as far as the key may read them.
pub(crate) async fn channels(api: &PublishApi, request: &Request, publisher: &PublishKey) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query())?;
    query.only(&["prefix", "after", "limit"])?;
    publisher.check(Right::Read)?;
    let limit = query.limit()?;
    let prefix = query.once("prefix")?.unwrap_or_default();
    if Pattern::parse(&format!("{prefix}*")).is_err() {
        return Err(Problem::invalid("prefix: no channel's name begins with it"));
    }
    let mut after = query.once("after")?.unwrap_or_default().to_owned();
    let (mut channels, mut looked_at, mut more) = (Vec::new(), 0, false);
    let read = async {
        for prefix in reach(publisher, prefix) {
            loop {
                if channels.len() == limit || looked_at >= LOOKED_AT_MAX {
                    more = true;
                    return Ok(());
                }
                let page = api.0.backbone.active_channels(prefix, &after, limit - channels.len()).await?;
                looked_at += page.entries.len();
                if let Some((last, _)) = page.entries.last() {
                    last.as_str().clone_into(&mut after);
                }
                let readable = page.entries.into_iter().filter(|(channel, _)| publisher.may_read(channel));
                channels
                    .extend(readable.map(|(channel, listeners)| Active { channel: channel.to_string(), listeners }));
                if !page.more {
                    break;
                }
            }
        }
        Ok(())
    };
    within(read).await?;
    let after = more.then_some(after.as_str());
    Ok(json(StatusCode::OK, &Channels { channels, more, after }))
}

/// What the names of all channels begin with that begin with `prefix` and that the key reaches; sorted, and none of
/// them begins with another.
fn reach<'a>(publisher: &'a PublishKey, prefix: &'a str) -> Vec<&'a str> {
    let Some(patterns) = publisher.channels() else { return vec![prefix] };
    let narrower = |pattern: &'a Pattern| match pattern.prefix() {
        own if own.starts_with(prefix) => Some(own),
        own if prefix.starts_with(own) => Some(prefix),
        _ => None,
    };
    let mut prefixes: Vec<_> = patterns.iter().filter_map(narrower).collect();
    prefixes.sort_unstable();
    prefixes.dedup_by(|next, kept| next.starts_with(*kept));
    prefixes
}

#[derive(Serialize)]
struct Presence<'a> {
    channel: &'a str,
    /// Connections, whoever they are.
    listeners: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    who: Option<Who>,
}

#[derive(Serialize)]
struct Who {
    /// Connections that are nobody's.
    anonymous: u64,
    users: Vec<Present>,
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Present {
    user_id: String,
    connections: u64,
}

/// `GET /channels/{c}/presence`: a page of those who listen; of the broadcast only how many.
pub(crate) async fn presence(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    channel: &Channel,
) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query())?;
    query.only(&["after", "limit"])?;
    publisher.check_read(channel)?;
    let limit = query.limit()?;
    let after = query
        .once("after")?
        .map(|id| UserId::parse(id).map_err(|error| Problem::invalid(format!("after: it is no user id ({error})"))));
    let after = after.transpose()?;
    let backbone = &api.0.backbone;
    let everybody = Counted::Channel(channel.clone());
    if channel.is_broadcast() {
        let listeners = within(backbone.counts(&[everybody])).await?.iter().sum();
        return Ok(json(StatusCode::OK, &Presence { channel: channel.as_str(), listeners, who: None }));
    }
    if !api.0.config.presence.of(channel) {
        let detail = format!("who listens on {channel} is not told: its namespace has not opted in");
        return Err(Problem::new(Code::NotFound, detail).hint(format!(
            "set presence = true under [namespaces.{}], for edges and publish APIs; GET /channels/{{c}} has how many",
            channel.namespace()
        )));
    }
    let entries = [everybody, Counted::Listener(channel.clone(), None)];
    let read =
        async { tokio::try_join!(backbone.counts(&entries), backbone.listeners(channel, after.as_ref(), limit)) };
    let (counts, roll) = within(read).await?;
    let after = roll.entries.last().filter(|_| roll.more).map(|(user, _)| user.as_str().to_owned());
    let present = |(user, connections): (UserId, u64)| Present { user_id: user.as_str().to_owned(), connections };
    let users = roll.entries.into_iter().map(present).collect();
    let who = Some(Who { anonymous: counts[1], users, more: roll.more, after });
    Ok(json(StatusCode::OK, &Presence { channel: channel.as_str(), listeners: counts[0], who }))
}

/// `GET /users/{u}`: how many connections a user has. Which channels they follow isn't kept by user.
pub(crate) async fn user(
    api: &PublishApi,
    request: &Request,
    publisher: &PublishKey,
    user: &UserId,
) -> Result<Response, Problem> {
    Query::parse(request.uri().query())?.only(&[])?;
    publisher.check_read(&user.inbox())?;
    let connections = within(api.0.backbone.counts(&[Counted::User(user.clone())])).await?.iter().sum();
    Ok(json(StatusCode::OK, &Present { user_id: user.as_str().to_owned(), connections }))
}

async fn within<T>(read: impl Future<Output = Result<T, BackboneError>>) -> Result<T, Problem> {
    match timeout(DEADLINE, read).await {
        Ok(read) => read.map_err(|error| unreadable(&error)),
        Err(_) => Err(Problem::new(Code::Timeout, "the backbone did not tell in time who listens")),
    }
}
