//! `send` and `tail`: a round trip from one terminal to another, over breaks too.

mod support;

use support::{Dev, fanfare, run, run_with_input, stderr, stdout};

#[test]
fn what_is_sent_to_a_channel_a_user_and_everybody_is_heard_by_those_who_follow() {
    let dev = Dev::start(&[]);
    let mut tail = dev.tail(&["demo", "--user", "alice@example.com", "--json"]);
    let mut heard = |channel: &str, event: &str| {
        let line: serde_json::Value = serde_json::from_str(&tail.out.next().expect("a line")).expect("JSON");
        assert_eq!((&line["channel"], &line["event"]), (&channel.into(), &event.into()), "{line}");
        assert!(line["timestamp"].as_u64().is_some_and(|millis| millis > 1_700_000_000_000), "{line}");
        (line["id"].as_str().expect("an id").to_owned(), line["data"].as_str().expect("text").to_owned())
    };
    let sent = dev.send(&["demo", "hello\nthere"]);
    assert_eq!(sent.status.code(), Some(0), "{}", stderr(&sent));
    let (id, data) = heard("demo", "message");
    assert_eq!((format!("{}@demo\n", stdout(&sent).trim()), &*data), (format!("{id}\n"), "hello\nthere"));

    assert!(
        dev.send(&["demo", "--json", "{\"a\": 1.0, \"b\":12345678901234567890123}", "--event", "x"]).status.success()
    );
    assert_eq!(heard("demo", "x").1, "{\"a\": 1.0, \"b\":12345678901234567890123}");

    assert!(dev.send(&["--user", "alice@example.com", "you"]).status.success());
    let (_, data) = heard("user:alice%40example.com", "notification");
    assert!(data.contains("\"message\":\"you\"") && data.contains("\"userId\":\"alice@example.com\""), "{data}");

    assert!(dev.send(&["--broadcast", "--event", "news", "--json", "[1]"]).status.success());
    assert!(heard("broadcast", "news").1.contains("\"message\":[1]"));
}

#[test]
fn lines_of_standard_input_are_events() {
    let dev = Dev::start(&[]);
    let mut tail = dev.tail(&["a", "b"]);
    let url = dev.url();
    let entries = "{\"channel\":\"a\",\"data\":1}\n{\"channel\":\"$x\",\"data\":2}\n{\"channel\":\"b\",\"data\":3}\n";
    let sent = run_with_input(&["send", "-", "--url", &url], entries);
    let results: Vec<serde_json::Value> =
        stdout(&sent).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(results.iter().map(|result| &result["success"]).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(sent.status.code(), Some(1), "one was refused");
    assert!(stderr(&sent).contains("1 line was refused"), "{}", stderr(&sent));

    let sent = run_with_input(&["send", "b", "-", "--url", &url], "plain\n{\"j\":1}\n");
    assert_eq!((sent.status.code(), stdout(&sent).lines().count()), (Some(0), 2), "{}", stderr(&sent));
    for data in ["a  message  1", "b  message  3", "b  message  plain", "b  message  {\"j\":1}"] {
        let line = tail.out.next().expect("a line");
        assert!(line.ends_with(data), "{line}");
    }
}

#[test]
fn over_a_restart_of_the_server_tail_comes_back_and_tells_the_gap() {
    let dev = Dev::start(&[]);
    let address = dev.address.to_string();
    let mut tail = dev.tail(&["demo", "--json"]);
    assert!(dev.send(&["demo", "before"]).status.success());
    assert!(tail.out.find("\"demo\"").contains("before"));
    drop(dev); // Killed: no goodbye.
    tail.err.find("back in");
    // Meanwhile there is no server, and tail keeps trying.
    let dev = Dev::start_at(&address, &[], &[]);
    tail.err.find("connected again");
    let gap: serde_json::Value = serde_json::from_str(&tail.out.next().expect("a line")).expect("JSON");
    assert_eq!(gap["event"], "gap", "the new server knows nothing of the old one's events");
    assert!(dev.send(&["demo", "after"]).status.success());
    assert!(tail.out.find("\"demo\"").contains("after"));
}

#[test]
fn what_a_server_refuses_is_told_with_its_hint() {
    let dev = Dev::start(&[]);
    let refused = dev.send(&["$internal", "x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).starts_with("error: "), "{}", stderr(&refused));
    assert!((1..=2).contains(&stderr(&refused).lines().count()), "{}", stderr(&refused));
    let refused = run(&["tail", "server:*", "--url", &dev.url()]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
}

#[test]
fn a_server_that_is_not_there_is_an_error_at_once() {
    let dev = Dev::start(&[]);
    let url = dev.url();
    drop(dev);
    for arguments in [&["send", "a", "b"][..], &["tail", "a"], &["send", "-"]] {
        let output = fanfare(arguments).env("FANFARE_URL", &url).output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(&format!("no server answers at {url}")), "{}", stderr(&output));
    }
}

#[test]
fn wrong_usage_is_told_before_anything_is_sent() {
    for (arguments, part) in [
        (&["send", "demo"][..], "no data for the channel"),
        (&["send", "demo", "{", "--json"], "the data is not JSON"),
        (&["send", "--user", "a", "b", "c"], "there is no CHANNEL, only DATA"),
        (&["send", "--broadcast", "-"], "standard input goes to channels"),
        (&["send", "a", "b", "--url", "https://example.com"], "don't speak https"),
        (&["tail", "--url", "example.com"], "expected a URL such as"),
        (&["send", "--broadcast", "--user", "a", "b"], "cannot be used with"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{arguments:?} {}", stderr(&output));
    }
}
