//! Mercure, a hub in Go: `loadtest/peers/mercure.caddyfile`.

use std::sync::LazyLock;

use super::process::{Starting, free_port};
use super::{Follows, Ground, Peer, Servers, StartError, by_query};
use crate::dialect::{Dialect, Post};

pub(super) const IN_MEMORY: Peer = Peer {
    name: "mercure",
    how: "in memory, without a history",
    start: |ground, follows| start(ground, follows, "local"),
    resumes: false,
    takes_many: false,
};

pub(super) const ON_DISK: Peer = Peer {
    name: "mercure-bolt",
    how: "with a history in a file of its own",
    start: |ground, follows| start(ground, follows, "bolt {\n\t\t\t\tpath {directory}/updates.db\n\t\t\t}"),
    resumes: true,
    ..IN_MEMORY
};

/// What signs the publisher's token: the hub listens to this machine alone, for as long as the measurement takes.
const KEY: &str = "only-for-measuring-0123456789abcdef";

/// A token that may publish to every topic, without an end.
static TOKEN: LazyLock<String> = LazyLock::new(|| {
    let claims = serde_json::json!({ "mercure": { "publish": ["*"] } });
    let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("claims and a secret make a token")
});

fn start(ground: &Ground, follows: Follows, transport: &str) -> Result<Servers, StartError> {
    let program = ground.tool("mercure/mercure")?;
    let mut starting = Starting::new()?;
    let port = free_port()?;
    let directory = starting.directory().display().to_string();
    let text = include_str!("../../peers/mercure.caddyfile")
        .replace("{transport}", transport)
        .replace("{directory}", &directory)
        .replace("{port}", &port.to_string())
        .replace("{key}", KEY);
    let configuration = starting.file("Caddyfile", &text)?;
    let arguments = ["run", "--adapter", "caddyfile", "--config", &configuration];
    starting.start(port, &program, &arguments, &[("XDG_DATA_HOME", &directory), ("HOME", &directory)])?;
    Ok(starting.done(ground.version("mercure")?, dialect(follows), port))
}

fn dialect(follows: Follows) -> Dialect {
    // Payloads have no character that a form escapes.
    let post = |topic: &str| Post {
        path: "/.well-known/mercure".to_owned(),
        headers: format!("Content-Type: application/x-www-form-urlencoded\r\nAuthorization: Bearer {}\r\n", *TOKEN),
        before: format!("topic={topic}&data="),
        after: String::new(),
    };
    Dialect {
        to_user: post("u{user}"),
        to_channel: post("c{channel}"),
        to_all: post("all"),
        ..by_query("/.well-known/mercure?topic=", "", follows)
    }
}
