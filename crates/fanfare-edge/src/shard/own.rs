//! What Fanfare itself says in a stream: the data of its own events.

use fanfare_protocol::sse::Naming;
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connected<'a> {
    pub(super) client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<&'a str>,
    pub(super) channels: Vec<&'a str>,
    pub(super) resumed: bool,
}

#[derive(Serialize)]
pub(super) struct Subscribed<'a> {
    pub(super) channels: Vec<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GapTold<'a> {
    pub(super) channels: Vec<&'a str>,
    pub(super) reason: &'a str,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) retry_in_ms: u64,
}

#[derive(Serialize)]
pub(super) struct Closing<'a> {
    pub(super) reason: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expiring {
    pub(super) expires_in_ms: u64,
}

#[derive(Serialize)]
pub(super) struct Beat {
    pub(super) timestamp: u64,
}

/// An event's data as text. Where a stream has no `event:` lines, its type stands in here.
pub(super) fn text(naming: Naming, own_type: &str, data: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Typed<'a, D> {
        #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
        own_type: Option<&'a str>,
        #[serde(flatten)]
        data: &'a D,
    }
    let own_type = (naming == Naming::Unnamed).then_some(own_type);
    serde_json::to_string(&Typed { own_type, data }).expect("plain structs become JSON")
}
