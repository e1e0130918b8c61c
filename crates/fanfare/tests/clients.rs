//! The clients that people have: curl, Python's line readers, `fetch` as in the guides to SSE, a browser's
//! EventSource. The scripts are in `clients/`; `scripts/test` installs what they need.

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fanfare_testkit::{Fanfare, FaultProxy, Launch};
use support::clients::{is_browser_missing, is_missing, run_and_cut, tools};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

#[test]
fn curl_hears_what_the_guides_bodies_publish() {
    let server = Fanfare::dev().start();
    let curl = |arguments: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-sSN", "--max-time", "30"]).args(arguments).stdout(Stdio::piped());
        curl.spawn().expect("curl is there")
    };
    let url = server.url();
    let mut stream = curl(&[&format!("{url}/events?user=user-123&channel=demo")]);
    let mut lines = BufReader::new(stream.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    let mut wait_for = |wanted: &str| {
        let found = lines.find(|line| line.starts_with(wanted));
        found.unwrap_or_else(|| panic!("{wanted:?} comes before the end"))
    };
    wait_for("data: {\"clientId\":");
    for (path, body, event_type, data) in [
        ("/notify", r#"{"userId":"user-123","message":"hi"}"#, "event: notification", "\"message\":\"hi\""),
        ("/broadcast", r#"{"message":{"a":1.50}}"#, "event: announcement", "\"message\":{\"a\":1.50}"),
        ("/publish", r#"{"channel":"demo","event":"update","data":{"count":42}}"#, "event: update", "{\"count\":42}"),
    ] {
        let answer = curl(&["-H", "Content-Type: application/json", "-d", body, &format!("{url}{path}")]);
        let answer = String::from_utf8(answer.wait_with_output().expect("curl ends").stdout).expect("text");
        assert!(answer.starts_with(r#"{"success":true,"id":""#), "{answer}");
        wait_for(event_type);
        let line = wait_for("data: ");
        assert!(line.contains(data), "{line}");
    }
    stream.kill().expect("it runs");
    stream.wait().expect("it ends");
}

#[test]
fn pythons_line_readers_hear_everything() {
    let python = tools().join("venv/bin/python");
    if is_missing("Python with requests and sseclient-py", &python) {
        return;
    }
    let server = Fanfare::dev().start();
    let status = Command::new(python).arg(script("lines.py")).env("FANFARE_URL", server.url()).status();
    assert!(status.expect("python runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn python_follows_channels_by_polling_over_connections_that_are_cut() {
    let server = Fanfare::dev().start();
    let proxy = FaultProxy::to(server.address()).await;
    let mut python = Command::new("python3")
        .arg(script("polls.py"))
        .env("FANFARE_URL", server.url())
        .env("FANFARE_PROXY", format!("http://{}", proxy.address()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let lines = BufReader::new(python.stdout.take().expect("piped")).lines();
    let (said, mut saying) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| _ = said.blocking_send(line)));
    assert_eq!(saying.recv().await.as_deref(), Some("ready"));
    let mut last = String::new();
    loop {
        tokio::select! {
            line = saying.recv() => match line {
                Some(line) => {
                    println!("{line}");
                    last = line;
                }
                None => break,
            },
            () = tokio::time::sleep(std::time::Duration::from_millis(40)) => proxy.reset_all(),
        }
    }
    assert!(python.wait().expect("it ends").success());
    assert_eq!(last, "polls: ok");
}

#[test]
fn fetch_reads_as_in_the_guides() {
    let server = Fanfare::dev().start();
    let status = Command::new("node").arg(script("fetch.mjs")).env("FANFARE_URL", server.url()).status();
    assert!(status.expect("node is there").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browsers_event_source_comes_back_by_itself_with_everything_it_missed() {
    if is_browser_missing() {
        return;
    }
    let server = Fanfare::dev().start();
    let proxy = FaultProxy::to(server.address()).await;
    let mut browser = Command::new("node");
    browser.arg(script("browser.mjs"));
    browser.env("FANFARE_URL", server.url()).env("FANFARE_PROXY", format!("http://{}", proxy.address()));
    run_and_cut(&mut browser, &proxy);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_survive_refusals_and_do_not_hammer() {
    if is_browser_missing() {
        return;
    }
    let full = Fanfare::dev().env("FANFARE_MAX_CONNECTIONS", "1").start();
    let _held = full.subscribe("/events/c").connected().await;
    let draining = Fanfare::dev().env("FANFARE_DRAIN_TIMEOUT", "1h").start();
    let _last_to_leave = draining.subscribe("/events/c").connected().await;
    draining.terminate();
    draining.wait_for_log("draining");
    let nowhere = "redis://localhost:1"; // Not by its number: that would be taken for the address that is printed.
    let away = Fanfare::dev().arg("--redis").arg(nowhere).start();
    let locked = Launch::command(["edge", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .env("FANFARE_REDIS_URL", nowhere)
        .env("FANFARE_AUTH_SECRET", "0123456789abcdef0123456789abcdef")
        .start();
    let open = Fanfare::dev().start();
    let status = Command::new("node")
        .arg(script("refusals.mjs"))
        .env("FANFARE_OPEN", open.url())
        .env("FANFARE_FULL", full.url())
        .env("FANFARE_DRAINING", draining.url())
        .env("FANFARE_AWAY", away.url())
        .env("FANFARE_LOCKED", locked.url())
        .env("FANFARE_TOOLS", tools())
        .status();
    assert!(status.expect("node is there").success());
}
