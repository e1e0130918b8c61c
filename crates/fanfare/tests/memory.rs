//! What connections cost an edge in memory, and that it gives most of it back: real connections, the real process, a real
//! Redis. The budget by part is in `docs/performance.md`, and unit tests hold each part to it.
//!
//! The usual run is scaled down and has more room, since what is paid once weighs more among few; `FANFARE_FULL=1` has
//! the full size.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fanfare_auth::{Secrets, TokenOrder};
use fanfare_protocol::{Pattern, UserId};
use support::PATIENCE;
use support::redis::Redis;
use support::role::{Role, SECRET};

/// Connections on their way at once.
const OPENING_MAX: usize = 200;

/// When most of a storm must have been given back: channels are kept for up to 45 s after their last connection.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(120);

/// One test at a time: all at once they would need more descriptors than a process may have.
static TURN: Mutex<()> = Mutex::new(());

fn is_full() -> bool {
    std::env::var_os("FANFARE_FULL").is_some()
}

#[test]
fn an_idle_connection_with_an_inbox_costs_a_kilobyte_and_a_storm_gives_it_back() {
    let (count, each_max) = if is_full() { (15_000, 1_024) } else { (3_000, 1_536) };
    let Some((_turn, _redis, edge)) = start(&[("FANFARE_HEARTBEAT_INTERVAL", "3s")]) else { return };
    let secrets = Secrets::parse(SECRET).expect("a secret");
    let request = |n: usize| {
        let user = UserId::parse(&format!("user-{n:06}")).expect("valid");
        let channels = vec![Pattern::parse("shared").expect("valid")];
        let order = TokenOrder { user: Some(user), channels, ttl: Duration::from_secs(3600), ..TokenOrder::default() };
        let token = order.mint(&secrets, SystemTime::now()).expect("it opens something").token;
        format!("GET /events?channel=shared HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
    };
    let mut first = open(&edge, OPENING_MAX, |n| request(count + n)); // What is paid once is paid before it is measured.
    let before = anonymous_bytes(&edge);
    let connections = open(&edge, count, request);
    let taken = anonymous_bytes(&edge) - before;
    println!("{} bytes for each of {count} connections", taken / count);
    assert!(taken <= count * each_max, "{} bytes, and {each_max} are in the budget", taken / count);

    drop(connections);
    let gone = Instant::now();
    let kept = || anonymous_bytes(&edge).saturating_sub(before);
    while kept() > taken * 3 / 4 {
        assert!(gone.elapsed() < GIVEN_BACK_WITHIN, "{} of {taken} bytes are still there", kept());
        _ = first[0].read(&mut [0; 4096]).expect("a heartbeat"); // Nothing tells of it; this is the time to look again.
    }
    println!("{} of {taken} bytes are left after {:?}", kept(), gone.elapsed());
}

#[test]
fn an_idle_connection_on_shared_channels_costs_half_a_kilobyte() {
    let (count, each_max) = if is_full() { (15_000, 512) } else { (3_000, 1_024) };
    let Some((_turn, _redis, edge)) = start(&[("FANFARE_ANONYMOUS_CHANNELS", "shared,other,broadcast")]) else {
        return;
    };
    let request = |_| "GET /events?channels=shared,other,broadcast HTTP/1.1\r\nHost: x\r\n\r\n".to_owned();
    let _first = open(&edge, OPENING_MAX, request);
    let before = anonymous_bytes(&edge);
    let _connections = open(&edge, count, request);
    let taken = anonymous_bytes(&edge) - before;
    println!("{} bytes for each of {count} connections", taken / count);
    assert!(taken <= count * each_max, "{} bytes, and {each_max} are in the budget", taken / count);
}

#[test]
fn an_edge_without_connections_is_small() {
    let Some((_turn, _redis, edge)) = start(&[]) else { return };
    let own = anonymous_bytes(&edge);
    println!("{own} bytes beside the program itself");
    assert!(own <= 4_000_000, "{own} bytes");
}

/// An edge over a Redis of its own. None: there is no Redis here, as was said.
fn start(environment: &[(&str, &str)]) -> Option<(MutexGuard<'static, ()>, Redis, Role)> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    fanfare_loadtest::raise_descriptor_limit().expect("the machine allows it");
    let redis = Redis::start(&[])?;
    let edge = Role::start_with("edge", &redis.url(), environment);
    Some((turn, redis, edge))
}

/// Opens so many streams, each until it has joined.
fn open(edge: &Role, count: usize, request: impl Fn(usize) -> String) -> Vec<TcpStream> {
    let mut opened = Vec::new();
    while opened.len() < count {
        let from = opened.len();
        for n in from..count.min(from + OPENING_MAX) {
            let mut stream = TcpStream::connect(edge.address).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(request(n).as_bytes()).expect("it reads");
            opened.push(stream);
        }
        for stream in &mut opened[from..] {
            let (mut text, mut buffer) = (String::new(), [0; 4096]);
            while !text.contains("event: connected") {
                let count = stream.read(&mut buffer).expect("more");
                assert!(count > 0, "it ended: {text}");
                text += &String::from_utf8_lossy(&buffer[..count]);
            }
        }
    }
    opened
}

/// Memory that the process has for itself, without the program's own pages.
fn anonymous_bytes(edge: &Role) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", edge.process.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
