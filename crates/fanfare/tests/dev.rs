//! `fanfare dev`: who is let in, what it answers beside the main job, and how it says that it can't start.

mod support;

use std::time::Duration;

use fanfare_testkit::{Publisher, Subscribe};
use serde_json::json;
use support::{Dev, PATIENCE, run, stderr, stdout};
use tokio::time::timeout;

#[test]
fn it_prints_where_it_is_and_commands_that_work() {
    let mut dev = Dev::start(&[]);
    let url = dev.url();
    dev.process.out.find(&format!("{url}/"));
    dev.process.out.find(&format!("curl -N '{url}/events?user=alice&channel=demo'"));
    let mut tail = dev.tail(&["demo", "--user", "alice"]);
    for (path, arrives) in [("/notify", "hi, alice"), ("/broadcast", "hello, everybody"), ("/publish", "hello, demo")] {
        let first = dev.process.out.find(&format!("curl {url}{path}"));
        let command = format!("{}\n{}", first, dev.process.out.find("-d"));
        let done = std::process::Command::new("sh").args(["-c", command.trim()]).output();
        let done = done.expect("a shell");
        assert!(done.status.success() && stdout(&done).contains("\"success\":true"), "{command}\n{}", stdout(&done));
        tail.out.find(arrives);
    }
}

#[tokio::test]
async fn a_back_end_that_mints_tokens_and_a_front_end_that_shows_them_work_here_as_elsewhere() {
    let dev = Dev::start(&[]);
    let mut backend = Publisher::new(dev.address);
    let minted = backend.post("/tokens", &json!({"userId": "42", "follow": ["lobby"]})).await.json();
    backend.notify("42", "in between").await.id();
    let path = format!("/events?lastEventId={}", minted["cursor"].as_str().expect("a cursor"));
    let bearer = format!("Bearer {}", minted["token"].as_str().expect("a token"));
    let mut page = Subscribe::new(dev.address, &path).header("Authorization", &bearer).open().await;
    assert_eq!(page.expect_connected().await["channels"], json!(["user:42", "broadcast", "lobby"]));
    assert!(page.next_data().await.contains("in between"));
}

#[tokio::test]
async fn the_id_of_a_publish_is_a_cursor_for_streams_and_histories() {
    for partitions in ["1", "8"] {
        let dev = Dev::start_at("127.0.0.1:0", &[], &[("FANFARE_REDIS_PARTITIONS", partitions)]);
        let mut backend = Publisher::new(dev.address);
        backend.publish("a", "before").await.id();
        let id = backend.publish("a", "published").await.id();
        backend.publish("a", "after").await.id();
        let history = backend.get(&format!("/channels/a/history?after={id}")).await.json();
        assert_eq!(
            (&history["events"][0]["data"], history["events"].as_array().map(Vec::len)),
            (&json!("after"), Some(1))
        );
        let mut stream = Subscribe::new(dev.address, &format!("/events/a?lastEventId={id}")).open().await;
        assert_eq!(stream.expect_connected().await["resumed"], true);
        assert_eq!(stream.next_data().await, "after");
    }
}

#[tokio::test]
async fn what_is_kept_is_what_is_set() {
    let settings = [("FANFARE_HISTORY_SIZE", "2"), ("FANFARE_HISTORY_AGE", "1s"), ("FANFARE_IDEMPOTENCY_WINDOW", "1s")];
    let dev = Dev::start_at("127.0.0.1:0", &[], &settings);
    let mut backend = Publisher::new(dev.address);
    let event = json!({"channel": "once", "data": "x", "idempotencyKey": "k"});
    let first = backend.post("/publish", &event).await.id();
    let published_anew = async {
        while backend.post("/publish", &event).await.id() == first {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, published_anew).await.expect("its window ends");
    for data in ["one", "two", "three"] {
        backend.publish("a", data).await.id();
    }
    let mut kept = async || {
        let history = backend.get("/channels/a/history").await.json();
        history["events"].as_array().expect("events").len()
    };
    assert!(kept().await <= 2);
    let forgotten = async {
        while kept().await > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("they get too old");
}

#[test]
fn other_hosts_and_origins_are_refused_with_a_way_out() {
    let dev = Dev::start(&["--allow-host", "dev.example.com"]);
    let port = dev.address.port();
    let refused = [
        ("Host: example.com\r\n".to_owned(), "--allow-host example.com"),
        (format!("Host: 127.0.0.1.example.com:{port}\r\n"), "--allow-host 127.0.0.1.example.com"),
        (format!("Host: localhost:{port}\r\nOrigin: https://example.com\r\n"), "--allow-host example.com"),
        (format!("Host: localhost:{port}\r\nOrigin: null\r\n"), "--allow-host NAME"),
    ];
    for path in ["/", "/healthz", "/events?channel=a", "/channels/a", "/nowhere"] {
        for (headers, hint) in &refused {
            let answer = dev.ask(&format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n"));
            assert!(answer.starts_with("HTTP/1.1 403 "), "{path} {headers}{answer}");
            assert!(answer.contains("application/problem+json") && answer.contains(hint), "{path} {headers}{answer}");
            assert!(!answer.to_lowercase().contains("access-control-allow-origin"), "{answer}");
        }
    }
    let absolute =
        format!("GET http://example.com/version HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    assert!(dev.ask(&absolute).starts_with("HTTP/1.1 403 "));
    for headers in [
        "Host: localhost",
        "Host: app.localhost:3000",
        "Host: 127.1.2.3:1",
        "Host: [::1]:8080",
        "Host: Dev.Example.com:8080\r\nOrigin: https://dev.example.com",
        "Host: localhost\r\nOrigin: http://localhost:5173",
    ] {
        let answer = dev.ask(&format!("GET /version HTTP/1.1\r\nConnection: close\r\n{headers}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{headers}\n{answer}");
    }
}

#[test]
fn pages_of_loopback_origins_may_read_errors_and_streams_too() {
    let dev = Dev::start(&[]);
    let origin = "Origin: http://localhost:5173\r\n";
    let allowed = "access-control-allow-origin: http://localhost:5173\r\n";
    for path in ["/version", "/nowhere", "/events?channel=*"] {
        let answer = dev.get(path, origin).to_lowercase();
        assert!(answer.contains(allowed) && answer.contains("vary: origin\r\n"), "{path}\n{answer}");
        assert!(answer.contains("access-control-expose-headers: retry-after, x-request-id\r\n"), "{answer}");
    }
    let host = dev.address;
    let preflight = format!(
        "OPTIONS /events/a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{origin}Access-Control-Request-Method: PATCH\r\n\r\n"
    );
    let answer = dev.ask(&preflight).to_lowercase();
    assert!(answer.starts_with("http/1.1 204 ") && answer.contains(allowed), "{answer}");
    assert!(answer.contains("access-control-allow-methods: get, post, patch, delete\r\n"), "{answer}");

    let request = format!("GET /events?channel=a HTTP/1.1\r\nHost: {host}\r\n{origin}\r\n");
    let mut stream = std::io::BufReader::new(dev.connect(&request));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        std::io::BufRead::read_line(&mut stream, &mut head).expect("a head");
    }
    assert!(head.to_lowercase().contains(allowed), "{head}");
}

#[test]
fn operators_get_their_answers_on_the_main_address() {
    let dev = Dev::start(&[]);
    for (path, part) in [
        ("/healthz", "alive"),
        ("/readyz", "ready"),
        ("/version", concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}")),
        ("/metrics", concat!("fanfare_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")),
        ("/metrics", "process_resident_memory_bytes"),
        ("/metrics", "fanfare_connections "),
        ("/", "<title>Fanfare</title>"),
        ("/", "content-security-policy: default-src 'none'; style-src 'sha256-"),
    ] {
        let answer = dev.get(path, "");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(part), "{path} {part}\n{answer}");
    }
    let post =
        format!("POST /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", dev.address);
    assert!(dev.ask(&post).starts_with("HTTP/1.1 405 "));
    assert!(dev.get("/console", "").starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_port_in_use_is_told_in_a_sentence() {
    let dev = Dev::start(&[]);
    let address = dev.address.to_string();
    let second = run(&["dev", "--listen", &address]);
    assert_eq!(second.status.code(), Some(1));
    let report = stderr(&second);
    assert!(report.starts_with(&format!("error: {address} is in use: ")), "{report}");
    assert!(report.contains("--listen") && report.lines().count() == 1, "{report}");
    assert_eq!(stdout(&second), "");
}

#[test]
fn a_host_to_allow_is_a_name() {
    let output = run(&["dev", "--allow-host", "http://example.com/"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--allow-host is \"http://example.com/\""), "{}", stderr(&output));
}

#[test]
fn health_is_an_exit_code() {
    let dev = Dev::start(&[]);
    let healthy = run(&["health", "--url", &dev.url()]);
    assert_eq!((healthy.status.code(), &*stdout(&healthy)), (Some(0), "healthy\n"));
    let configured =
        support::fanfare(&["health"]).env("FANFARE_EDGE_LISTEN", format!("0.0.0.0:{}", dev.address.port())).output();
    assert_eq!(configured.expect("it runs").status.code(), Some(0));
    let url = dev.url();
    drop(dev);
    let gone = run(&["health", "--url", &url]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(stderr(&gone).contains(&url), "{}", stderr(&gone));
    let wrong = support::fanfare(&["health"]).env("FANFARE_EDGE_LISTEN", "x").output().expect("it runs");
    assert_eq!(wrong.status.code(), Some(2));
}
