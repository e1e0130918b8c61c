//! What `dev` prints when it is up: where it is, and commands to try it with.

use std::net::SocketAddr;

use crate::health::local;
use crate::terminal::{BOLD, CYAN, DIM, YELLOW};

/// The text for standard output.
pub(crate) fn text(listening: SocketAddr, program: &str, on_redis: bool) -> String {
    let memory = if on_redis { "events in Redis" } else { "everything in memory" };
    let url = format!("http://{}", local(listening));
    let from_outside = if listening.ip().is_loopback() {
        String::new()
    } else {
        format!("\n  {YELLOW}Reachable from other machines, and there are no tokens.{YELLOW:#}\n")
    };
    let flags = if listening.port() == 8080 { String::new() } else { format!(" --url {url}") };
    let curl = |path: &str, body: &str| {
        format!("curl {url}{path} -H 'Content-Type: application/json' {DIM}\\{DIM:#}\n      -d '{body}'")
    };
    let notify = curl("/notify", r#"{"userId":"alice","message":"hi, alice"}"#);
    let broadcast = curl("/broadcast", r#"{"message":"hello, everybody"}"#);
    let publish = curl("/publish", r#"{"channel":"demo","data":"hello, demo"}"#);
    format!(
        "
  {BOLD}Fanfare{BOLD:#} {version} {DIM}· development server: no tokens, {memory}{DIM:#}
{from_outside}
  {BOLD}{CYAN}{url}/{CYAN:#}{BOLD:#}  {DIM}a page to see it work{DIM:#}

  {BOLD}Subscribe{BOLD:#} {DIM}as the user alice, to her inbox, the broadcast and the channel demo{DIM:#}
    curl -N '{url}/events?user=alice&channel=demo'

  {BOLD}Publish{BOLD:#} {DIM}to one user{DIM:#}
    {notify}
  {DIM}to everybody{DIM:#}
    {broadcast}
  {DIM}to a channel{DIM:#}
    {publish}

  {BOLD}The same in two terminals{BOLD:#}
    {program} tail demo --user alice{flags}
    {program} send demo 'hello, demo'{flags}

",
        version = env!("CARGO_PKG_VERSION"),
    )
}
