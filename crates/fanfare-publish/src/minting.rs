//! Tokens for subscribers, each with a cursor of now: a page that is rendered after this with the state of today
//! subscribes from the cursor on, and misses nothing in between.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fanfare_auth::{PublishKey, TokenOrder};
use fanfare_http::{Code, Problem, Request, Response, accept_json, from_json_object, json, read_body};
use fanfare_protocol::{Channel, Cursor, Pattern, UserId};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::entry::{NameOrNumber, Ttl, shortened};
use crate::outcome::unreadable;
use crate::{Inner, PublishApi};

/// How long a token is good where nobody says it.
const TTL_DEFAULT: Duration = Duration::from_secs(60 * 60);

/// Bytes of a body at most. What a token can hold fits many times.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A body of `/tokens`.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    expecting = "an object such as {\"userId\":\"42\",\"channels\":[\"server:*\"],\"ttl\":60}"
)]
struct Wanted {
    user_id: Option<NameOrNumber>,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    follow: Vec<String>,
    ttl: Option<Ttl>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    token: String,
    /// Milliseconds since 1970.
    expires_at: u128,
    cursor: String,
}

/// `POST /tokens`.
pub(crate) async fn token(api: &PublishApi, request: Request, publisher: &PublishKey) -> Result<Response, Problem> {
    let inner = &api.0;
    let Some(secrets) = &inner.secrets else {
        return Err(Problem::new(Code::NotFound, "no tokens are made here: there is no secret to sign them with")
            .hint("give this publish API the edges' FANFARE_AUTH_SECRET, or sign tokens where the secret is"));
    };
    accept_json(request.headers())?;
    let body = read_body(request.into_body(), BODY_BYTES_MAX).await?;
    let order = from_json_object::<Wanted>(&body)?.order()?;
    let minted = order.mint_for(publisher, secrets, SystemTime::now())?;
    let cursor = inner.cursor_of_now().await?;
    let expires_at = minted.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok(json(StatusCode::OK, &Made { token: minted.token, expires_at, cursor }))
}

impl Inner {
    /// Names every partition: one that it left out would begin anew with whoever comes with it, after what was
    /// published in between.
    async fn cursor_of_now(&self) -> Result<String, Problem> {
        let partitions = self.backbone.partitions();
        let standings = self.backbone.standings().await.map_err(|error| unreadable(&error))?;
        let cursor = Cursor::new(partitions, partitions.all().zip(standings), Vec::new(), None);
        Ok(cursor.expect("each partition stands somewhere, once").to_string())
    }
}

impl Wanted {
    fn order(self) -> Result<TokenOrder, Problem> {
        let user = self.user_id.map(|NameOrNumber(id)| {
            UserId::parse(&id).map_err(|error| Problem::invalid(error.to_string()).at("userId"))
        });
        Ok(TokenOrder {
            user: user.transpose()?,
            channels: each("channels", &self.channels, Pattern::parse)?,
            follow: each("follow", &self.follow, Channel::parse)?,
            ttl: match self.ttl {
                Some(ttl) => Duration::from_secs(ttl.check()?.get().into()),
                None => TTL_DEFAULT,
            },
        })
    }
}

/// Reads names, and says which one is wrong.
fn each<T, E: std::error::Error>(
    field: &str,
    names: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, Problem> {
    let read = |(place, name): (usize, &String)| {
        parse(name).map_err(|error| {
            let cause = error.source().map_or(String::new(), |source| format!(" ({source})"));
            let problem = Problem::invalid(format!("{error}{cause}")).at(format_args!("{field}[{place}]"));
            problem.details(serde_json::json!({ field: shortened(name) }))
        })
    };
    names.iter().enumerate().map(read).collect()
}
