//! Signals: the first drains, the second stops at once, and nothing is left behind.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;

use support::Dev;

/// An EventSource as it connects, and everything up to `connected`.
fn subscribe(dev: &Dev) -> BufReader<TcpStream> {
    let request =
        format!("GET /events?channel=a HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n", dev.address);
    let mut stream = BufReader::new(dev.connect(&request));
    let mut line = String::new();
    while !line.starts_with("event: connected") {
        line.clear();
        assert!(stream.read_line(&mut line).expect("a line") > 0, "it ended before it was connected");
    }
    stream
}

#[test]
fn sigterm_says_goodbye_to_everybody_and_exits_with_0() {
    for signal in ["TERM", "INT"] {
        let mut dev = Dev::start_at("127.0.0.1:0", &[], &[("FANFARE_DRAIN_TIMEOUT", "300ms")]);
        let mut streams: Vec<_> = (0..5).map(|_| subscribe(&dev)).collect();
        dev.process.signal(signal);
        for stream in &mut streams {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).expect("an end in good order");
            assert!(rest.contains("retry: ") && rest.contains("event: closing"), "{rest}");
            assert!(rest.contains("data: {\"reason\":\"draining\"}"), "{rest}");
        }
        let started = std::time::Instant::now();
        assert_eq!(dev.process.wait().code(), Some(0));
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "everyone had gone, yet it waited");
        assert!(TcpStream::connect(dev.address).is_err(), "it still listens");
    }
}

#[test]
fn while_it_drains_it_is_alive_but_not_ready() {
    let mut dev = Dev::start_at("127.0.0.1:0", &[], &[("FANFARE_DRAIN_DELAY", "1h")]);
    dev.process.signal("TERM");
    dev.process.err.find("draining");
    let ready = dev.get("/readyz", "");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("retry-after: "), "{ready}");
    assert!(dev.get("/healthz", "").starts_with("HTTP/1.1 200 "));
    drop(subscribe(&dev)); // Load balancers may not have noticed yet.
    dev.process.signal("TERM");
    assert_eq!(dev.process.wait().code(), Some(143));
}

#[test]
fn a_second_signal_stops_at_once() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut dev = Dev::start_at("127.0.0.1:0", &[], &[("FANFARE_DRAIN_TIMEOUT", "1h")]);
        let _streams: Vec<_> = (0..3).map(|_| subscribe(&dev)).collect();
        dev.process.signal(signal);
        dev.process.err.find("draining");
        dev.process.signal(signal);
        assert_eq!(dev.process.wait().code(), Some(code));
    }
}
