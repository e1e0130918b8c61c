//! Users' connections: closing them, wherever they are.

use std::time::{Duration, SystemTime};

use fanfare_auth::PublishKey;
use fanfare_backbone::{BackboneError, Block};
use fanfare_http::{Code, Problem, Request, Response, accept_json, from_json_object, json, read_body};
use fanfare_protocol::UserId;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::PublishApi;

/// For how long old tokens are refused where nobody says it: long enough that a browser, which comes back within
/// seconds, meets the answer that stops it.
const BLOCK_SECONDS_DEFAULT: u64 = 60;

/// Bytes of a body at most.
const BODY_BYTES_MAX: usize = 4 * 1024;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", expecting = "an object such as {\"blockSeconds\":60}")]
struct Wanted {
    block_seconds: Option<f64>, // In JSON 60.0 is a whole number, too.
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Disconnected<'a> {
    success: bool,
    user_id: &'a str,
    block_seconds: u64,
}

/// `DELETE /users/{u}/connections`.
pub(crate) async fn disconnect(
    api: &PublishApi,
    request: Request,
    publisher: &PublishKey,
    user: UserId,
) -> Result<Response, Problem> {
    publisher.check_disconnect(&user)?;
    let (parts, body) = request.into_parts();
    let body = read_body(body, BODY_BYTES_MAX).await?;
    let wanted = match body.is_empty() {
        true => Wanted::default(),
        false => {
            accept_json(&parts.headers)?;
            from_json_object(&body)?
        }
    };
    let max = Block::DURATION_MAX.as_secs();
    let block_seconds = match wanted.block_seconds {
        None => BLOCK_SECONDS_DEFAULT,
        Some(seconds) if seconds.fract() == 0.0 && (0.0..=max as f64).contains(&seconds) => seconds as u64,
        Some(other) => return Err(Problem::invalid(format!("blockSeconds: it is 0 to {max} seconds, not {other}"))),
    };
    let block = Block::new(user, SystemTime::now(), Duration::from_secs(block_seconds));
    api.0.backbone.disconnect(&block).await.map_err(|error| problem_of(&error))?;
    let done = Disconnected { success: true, user_id: block.user.as_str(), block_seconds };
    Ok(json(StatusCode::OK, &done))
}

fn problem_of(error: &BackboneError) -> Problem {
    match error {
        BackboneError::Blocks => {
            Problem::new(Code::Overloaded, error.to_string()).hint("block for a shorter time: what is over makes room")
        }
        BackboneError::Full | BackboneError::Busy | BackboneError::Redis(_) => {
            let detail = format!("the backbone did not confirm it ({error}), so the user may be disconnected or not");
            Problem::new(Code::BackboneUnavailable, detail).hint("repeat it: that is harmless")
        }
    }
}
