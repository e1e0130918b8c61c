//! Fanfare itself, as it is deployed: every connection has its inbox, the broadcast and one channel.

use std::fmt::Write as _;
use std::sync::LazyLock;

use fanfare_auth::Secrets;

use super::process::{Starting, first_line, free_port};
use super::{Audience, Ground, Peer, Post, Servers, StartError, Subscription, last_event_id};
use crate::request::token;

pub(super) const IN_MEMORY: Peer = Peer {
    name: "fanfare",
    how: "`fanfare dev`: everything in one process",
    start: start_dev,
    subscribe: |client, audience, last_id| Subscription {
        target: format!("/events?user=u{client}&channel={SHARED}"),
        ..subscribe(client, audience, last_id)
    },
    publish,
    batch_max: 500,
    resumes: true,
};

pub(super) const WITH_REDIS: Peer = Peer {
    name: "fanfare-redis",
    how: "an edge and a publish API over Redis, with tokens",
    start: start_roles,
    subscribe: |client, audience, last_id| {
        let mut subscription = subscribe(client, audience, last_id);
        subscription.headers += &format!("Authorization: Bearer {}\r\n", token(client, &SECRETS));
        subscription
    },
    ..IN_MEMORY
};

/// The channel that everybody follows.
const SHARED: &str = "load:all";

// Good for this machine, for as long as the measurement takes.
const SECRET: &str = "only-for-measuring-0123456789abcdef";
const KEY: &str = "only-for-measuring-key";

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| Secrets::parse(SECRET).expect("long enough"));

fn program(ground: &Ground) -> Result<&std::path::Path, StartError> {
    let missing = || StartError::NotInstalled("cargo build --release -p fanfare".to_owned());
    ground.fanfare.is_file().then_some(&*ground.fanfare).ok_or_else(missing)
}

fn start_dev(ground: &Ground) -> Result<Servers, StartError> {
    let program = program(ground)?;
    let mut starting = Starting::new()?;
    let port = free_port()?;
    starting.start(port, program, &["dev", "--listen", &format!("127.0.0.1:{port}")], &[])?;
    Ok(starting.done(first_line(program, &["--version"])?, port, port))
}

fn start_roles(ground: &Ground) -> Result<Servers, StartError> {
    let program = program(ground)?;
    let mut starting = Starting::new()?;
    let redis = starting.start_redis()?;
    let key = format!("load={KEY}");
    let variables = [("FANFARE_REDIS_URL", &*redis), ("FANFARE_AUTH_SECRET", SECRET), ("FANFARE_PUBLISH_KEYS", &*key)];
    let mut ports = [0; 2];
    for (role, port) in ["edge", "publish"].into_iter().zip(&mut ports) {
        *port = free_port()?;
        let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", free_port()?));
        let arguments = [role, "--listen", &listen, "--admin-listen", &admin];
        starting.start(*port, program, &arguments, &variables)?;
    }
    Ok(starting.done(first_line(program, &["--version"])?, ports[0], ports[1]))
}

fn subscribe(_client: u32, _audience: Audience, last_id: Option<&str>) -> Subscription {
    Subscription { target: format!("/events?channel={SHARED}"), headers: last_event_id(last_id) }
}

fn publish(events: &[(Audience, &str)]) -> Post {
    let mut body = "[".to_owned();
    for (number, (audience, payload)) in events.iter().enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let channel = match audience {
            Audience::Everybody => SHARED.to_owned(),
            Audience::User(user) => format!("user:u{user}"),
        };
        // Payloads have no character that JSON escapes.
        write!(body, r#"{comma}{{"channel":"{channel}","data":"{payload}"}}"#).expect("strings take everything");
    }
    body.push(']');
    Post {
        target: "/publish".to_owned(),
        headers: format!("Content-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"),
        body,
    }
}
