//! HTTP/2 in the clear, as proxies speak it to what is behind them: with real clients, through a real proxy, and what
//! a stream costs.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fanfare_loadtest::{Endpoint, Job};
use fanfare_testkit::Fanfare;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::Builder;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::proxy::Proxy;
use support::{PATIENCE, stdout};

#[test]
fn curl_publishes_and_hears_it_over_http2() {
    let server = Fanfare::dev().start();
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sSN", "--http2-prior-knowledge", "--max-time", "30"]).args(arguments).stdout(Stdio::piped());
        curl.spawn().expect("curl is there")
    };
    let mut stream = curl(&["-i", &format!("{}/events?user=42&channel=demo", server.url())]);
    let mut lines = BufReader::new(stream.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut wait_for = |wanted: &str| {
        let found = lines.find(|line| line.starts_with(wanted));
        found.unwrap_or_else(|| panic!("{wanted:?} comes before the end"))
    };
    wait_for("HTTP/2 200");
    wait_for("data: {\"clientId\":");
    let json = "Content-Type: application/json";
    for (path, kind, body, arrives) in [
        ("/notify", json, r#"{"userId":"42","message":"hi"}"#, "event: notification"),
        ("/publish", json, r#"{"channel":"demo","data":"plain"}"#, "data: plain"),
        (
            "/publish",
            "Content-Type: application/x-ndjson",
            "{\"channel\":\"demo\",\"data\":\"a line\"}\n",
            "data: a line",
        ),
    ] {
        let answer = curl(&["-H", kind, "--data-binary", body, &format!("{}{path}", server.url())]);
        let answer = answer.wait_with_output().expect("curl ends");
        assert!(stdout(&answer).contains(r#""success":true"#), "{}", stdout(&answer));
        wait_for(arrives);
    }
    stream.kill().expect("it runs");
    stream.wait().expect("it ends");
}

#[test]
fn node_holds_hundreds_of_streams_on_a_connection_through_stalls_resets_and_a_drain() {
    let launch = Fanfare::dev().env("FANFARE_DRAIN_DELAY", "0s").env("FANFARE_DRAIN_TIMEOUT", "1s");
    let mut server = launch.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/http2.mjs");
    let mut node = Command::new("node")
        .arg(script)
        .env("FANFARE_URL", server.url())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node is there");
    let mut last = String::new();
    for line in BufReader::new(node.stdout.take().expect("piped")).lines().map_while(Result::ok) {
        if line == "drain" {
            server.terminate();
        }
        println!("{line}");
        last = line;
    }
    assert!(node.wait().expect("it ends").success());
    assert_eq!(last, "http2: ok");
    assert!(server.wait(PATIENCE).success(), "{}", server.log());
}

#[test]
fn behind_a_proxy_that_speaks_http2_everybody_hears_everything_once_and_in_order() {
    let server = Fanfare::dev().start();
    let Some(proxy) = Proxy::haproxy(server.address()) else { return };
    let url: Endpoint = proxy.url().parse().expect("a URL");
    for job in [Job::mixed(url.clone()), Job::cuts(url, 100)] {
        let job = Job { clients: 300, channels: 30, rate: 100.0, duration: Duration::from_secs(4), ..job };
        let report = job.run().expect("the machine allows it");
        println!("{report}");
        assert!(report.passed() && report.deliveries > 0, "{report}");
    }
}

/// Connections and streams of each.
const CONNECTIONS: usize = 5;
const STREAMS: usize = 500;

#[tokio::test]
async fn a_stream_costs_at_most_4_kilobytes() {
    let server = Fanfare::dev().start();
    let mut kept = vec![open(&server, 1).await]; // What is paid once is paid before it is measured.
    let before = resident_bytes(server.pid());
    for _ in 0..CONNECTIONS {
        kept.push(open(&server, STREAMS).await);
    }
    let metrics = server.publisher().get("/metrics").await.text();
    let held = CONNECTIONS * STREAMS + 1;
    assert!(metrics.contains(&format!("\nfanfare_connections {held}\n")), "{metrics}");
    let each = (resident_bytes(server.pid()) - before) / (CONNECTIONS * STREAMS) as u64;
    println!("{each} bytes for each of {} streams on {CONNECTIONS} connections", CONNECTIONS * STREAMS);
    assert!(each <= 4_000, "{each} bytes");
}

/// Opens streams on a connection of their own.
async fn open(server: &Fanfare, streams: usize) -> Vec<Incoming> {
    let socket = tokio::net::TcpStream::connect(server.address()).await.expect("it listens");
    let handshake = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await;
    let (sender, connection) = handshake.expect("it speaks HTTP/2");
    tokio_util::task::TaskTracker::new().spawn(connection);
    let mut opened = Vec::new();
    for n in 0..streams {
        let request = http::Request::get(format!("http://{}/events/c{}", server.address(), n % 50));
        let request = request.body(Empty::<Bytes>::new()).expect("valid");
        let mut body = sender.clone().send_request(request).await.expect("answered").into_body();
        let mut text = String::new();
        while !text.contains("connected") {
            let data = body.frame().await.expect("more").expect("whole").into_data().expect("no trailers");
            text += &String::from_utf8_lossy(&data);
        }
        opened.push(body);
    }
    opened
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
