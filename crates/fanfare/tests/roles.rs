//! Edges and a publish API as processes of their own, joined by a real Redis.

mod support;

use fanfare_testkit::{Publisher, Subscribe};
use serde_json::{Value, json};
use support::redis::{Redis, free_port};
use support::role::{KEY, Role, SCOPED_KEY, credentials, token};
use support::{Dev, Process, fanfare, run, stderr, stdout};

#[tokio::test]
async fn a_publish_reaches_clients_on_every_edge_and_one_that_is_cut_off_resumes_on_another() {
    let Some(redis) = Redis::start(&[]) else { return };
    for partitions in ["1", "8"] {
        let environment = [("FANFARE_REDIS_PARTITIONS", partitions), ("FANFARE_REDIS_PREFIX", partitions)];
        let start = |role| Role::start_with(role, &redis.url(), &environment);
        let (mut first, second, mut publisher) = (start("edge"), start("edge"), start("publish"));
        let token = token(&["--user", "42", "--channel", "server:*", "--ttl", "5m"]);
        let mut moving = first.subscribe("/events?channel=server:7", &token).connected().await;
        let mut staying = second.subscribe("/events?channel=server:7", &token).connected().await;
        let mut backend = publisher.publisher(KEY);

        backend.publish("server:7", "one").await.id();
        assert_eq!((moving.next_data().await, staying.next_data().await), ("one".to_owned(), "one".to_owned()));
        moving.reset();
        for data in ["two", "three"] {
            backend.publish("server:7", data).await.id();
        }
        backend.notify("42", "four").await.id();
        moving.reconnect_to(second.address).await;
        assert_eq!(moving.expect_connected().await["resumed"], true);
        backend.publish("server:7", "five").await.id();
        for subscriber in [&mut moving, &mut staying] {
            let (mut of_channel, mut of_inbox) = (Vec::new(), Vec::new());
            for _ in 0..4 {
                let message = subscriber.next().await;
                let own = if message.id.ends_with("@server:7") { &mut of_channel } else { &mut of_inbox };
                own.push(message.data);
            }
            assert_eq!(of_channel, ["two", "three", "five"]);
            assert!(of_inbox.len() == 1 && of_inbox[0].contains("four"), "{of_inbox:?}");
        }
        // Nothing came twice: what is next is what is published next.
        backend.publish("server:7", "six").await.id();
        assert_eq!((moving.next_data().await, staying.next_data().await), ("six".to_owned(), "six".to_owned()));

        let prefixed = format!("{partitions}:");
        let (keys, names) = (redis.command(&["KEYS", "*"]), redis.command(&["PUBSUB", "CHANNELS"]));
        assert!(keys.lines().any(|key| key.starts_with(&prefixed)), "{keys}");
        assert!(keys.lines().all(|key| key.starts_with("1:") || key.starts_with(&prefixed)), "{keys}");
        assert!(names.contains("c:server:7") && names.lines().all(|name| name.starts_with(&prefixed)), "{names}");

        let leaving = first.subscribe("/events", &token).connected().await;
        for role in [&mut first, &mut publisher] {
            role.process.signal("TERM");
            assert_eq!(role.process.wait().code(), Some(0));
        }
        drop(leaving);
    }
}

#[tokio::test]
async fn a_page_that_was_rendered_with_a_minted_token_subscribes_without_a_hole() {
    let Some(redis) = Redis::start(&[]) else { return };
    for partitions in ["1", "8"] {
        let environment = [("FANFARE_REDIS_PARTITIONS", partitions), ("FANFARE_REDIS_PREFIX", partitions)];
        let start = |role| Role::start_with(role, &redis.url(), &environment);
        let (edge, publisher) = (start("edge"), start("publish"));
        let mut backend = publisher.publisher(KEY);
        // Some channels have been published to and others not, so that some partitions are new to Redis.
        backend.publish("server:0", "state of today").await.id();
        let order = json!({"userId": "42", "channels": ["server:*"], "follow": ["server:1"], "ttl": 60});
        let minted = backend.post("/tokens", &order).await;
        assert_eq!(minted.status, 200, "{}", minted.text());
        let (token, cursor) = (minted.json()["token"].clone(), minted.json()["cursor"].clone());
        let (token, cursor) = (token.as_str().expect("a token"), cursor.as_str().expect("a cursor"));

        let channels = (0..10).map(|number| format!("server:{number}")).collect::<Vec<_>>();
        for channel in &channels {
            backend.publish(channel, channel.as_str()).await.id();
        }
        backend.notify("42", "hi").await.id();
        let path = format!("/events?channels={}&lastEventId={cursor}", channels.join(","));
        let mut page = edge.subscribe(&path, token).open().await;
        assert_eq!(page.expect_connected().await["resumed"], true);
        let mut heard = Vec::new();
        for _ in 0..=channels.len() {
            heard.push(page.next().await);
        }
        let (inbox, mut rest): (Vec<_>, Vec<_>) = heard.into_iter().partition(|event| event.id.ends_with("@user:42"));
        rest.sort_by(|a, b| a.data.cmp(&b.data));
        let rest: Vec<_> = rest.into_iter().map(|event| event.data).collect();
        assert_eq!((inbox.len(), rest), (1, channels), "all of it, once, and no gap");
    }
}

#[tokio::test]
async fn who_has_no_right_to_it_is_refused_over_the_wire() {
    let Some(redis) = Redis::start(&[]) else { return };
    let origins = [("FANFARE_CORS_ORIGINS", "https://app.example.com"), ("FANFARE_ANONYMOUS_CHANNELS", "news")];
    let edge = Role::start_with("edge", &redis.url(), &origins);
    let publisher = Role::start("publish", &redis.url());
    let token = token(&["--user", "42", "--channel", "server:*", "--follow", "lobby"]);

    // As a bearer and in the cookie, a token opens what it says; what it follows comes unasked.
    let mut bearer = edge.subscribe("/events", &token).open().await;
    assert_eq!(bearer.expect_connected().await["channels"], json!(["user:42", "broadcast", "lobby"]));
    let cookie = Subscribe::new(edge.address, "/events?channel=server:7")
        .header("Cookie", &format!("a=b; fanfare_token={token}"))
        .header("Origin", "https://app.example.com");
    let cookie = cookie.connected().await;
    assert_eq!(cookie.header("access-control-allow-origin"), Some("https://app.example.com"));
    Subscribe::new(edge.address, "/events/news").connected().await;

    let other_secret = fanfare(&["token", "--user", "42"]).env("FANFARE_AUTH_SECRET", "another").output();
    let foreign = stdout(&other_secret.expect("it runs")).trim().to_owned();
    let anonymous = |path: &str| Subscribe::new(edge.address, path);
    for (subscribe, status, part) in [
        (anonymous("/events/server:7"), 401, "no token"),
        (anonymous(&format!("/events/server:7?token={token}")), 401, "FANFARE_AUTH_QUERY_TOKEN"),
        (edge.subscribe("/events", &foreign), 401, "secret"),
        (edge.subscribe("/events/other:1", &token), 403, "other:1"),
        (edge.subscribe("/events/user:43", &token), 403, "user:43"),
    ] {
        let mut refused = subscribe.header("Origin", "https://app.example.com").open().await;
        let body = refused.body().await;
        assert!(refused.status() == status && body.contains(part), "{status} {part}: {} {body}", refused.status());
        assert_eq!(refused.header("access-control-allow-origin"), Some("https://app.example.com"), "on errors too");
        assert!(!body.contains(&token) && !body.contains(&foreign), "{body}");
    }

    for (key, channel, status) in
        [(KEY, "server:7", 200), (SCOPED_KEY, "other:1", 200), (SCOPED_KEY, "server:7", 403), ("x", "server:7", 401)]
    {
        let answer = publisher.publisher(key).publish(channel, "x").await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    assert_eq!(publisher.publisher(&token).publish("server:7", "x").await.status, 401, "a subscriber's token");
    assert_eq!(Publisher::new(publisher.address).publish("server:7", "x").await.status, 401, "no key");

    // Each role points to the other, and operators' paths are not for the outside.
    let elsewhere = publisher.publisher(KEY).get("/events").await;
    assert!(elsewhere.status == 404 && elsewhere.text().contains("edges have it"), "{}", elsewhere.text());
    for path in ["/metrics", "/readyz"] {
        assert_eq!(Publisher::new(edge.address).get(path).await.status, 404, "{path}");
        assert_eq!(Publisher::new(edge.admin).get(path).await.status, 200, "{path}");
    }
    let healthy = fanfare(&["health"]).env("FANFARE_ADMIN_LISTEN", edge.admin.to_string()).output().expect("it runs");
    assert_eq!(stdout(&healthy), "healthy\n", "{}", stderr(&healthy));
}

#[tokio::test]
async fn the_tools_work_with_a_key_and_a_token_as_flags_or_variables() {
    let Some(redis) = Redis::start(&[]) else { return };
    let (edge, publisher) = (Role::start("edge", &redis.url()), Role::start("publish", &redis.url()));
    let token = token(&["--user", "42", "--channel", "server:*"]);
    let url = edge.url();
    let mut tails = [
        Process::start(fanfare(&["tail", "server:7", "--url", &url, "--token", &token]).arg("--json")),
        Process::start(fanfare(&["tail", "server:7"]).envs([("FANFARE_URL", &url), ("FANFARE_TOKEN", &token)])),
    ];
    tails.iter_mut().for_each(|tail| drop(tail.err.find("connected")));
    let sent = [
        run(&["send", "server:7", "by flags", "--url", &publisher.url(), "--key", KEY]),
        fanfare(&["send", "--user", "42", "by variables"])
            .envs([("FANFARE_URL", &*publisher.url()), ("FANFARE_KEY", KEY)])
            .output()
            .expect("it runs"),
    ];
    for (sent, data) in sent.iter().zip(["by flags", "by variables"]) {
        assert!(sent.status.success(), "{}", stderr(sent));
        tails.iter_mut().for_each(|tail| drop(tail.out.find(data)));
    }
    let locked_out = run(&["send", "server:7", "x", "--url", &publisher.url()]);
    assert_eq!(locked_out.status.code(), Some(1));
    assert!(stderr(&locked_out).contains("key"), "{}", stderr(&locked_out));
    for tool in ["send", "tail"] {
        assert!(stdout(&run(&[tool, "--help"])).contains("[default: http://127.0.0.1:8080]"), "{tool}");
    }
}

#[test]
fn without_what_it_needs_a_role_does_not_start_and_everything_is_told() {
    let output = run(&["edge"]);
    let report = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{report}");
    for part in ["2 mistakes", "FANFARE_AUTH_SECRET is not set", "openssl rand", "FANFARE_REDIS_URL is not set"] {
        assert!(report.contains(part), "{part} is missing from {report}");
    }
    let output = run(&["publish", "--redis", "rediss://127.0.0.1"]);
    let report = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{report}");
    for part in ["2 mistakes", "FANFARE_PUBLISH_KEYS is not set", "TLS"] {
        assert!(report.contains(part), "{part} is missing from {report}");
    }
}

#[tokio::test]
async fn without_redis_the_roles_start_and_wait_for_it() {
    let Some(redis) = Redis::start(&[]) else { return };
    drop(redis); // It is installed; that is all we wanted to know.
    let port = free_port();
    let url = format!("redis://127.0.0.1:{port}");
    let (edge, publisher) = (Role::start("edge", &url), Role::start("publish", &url));
    let leaving = Role::start_with("edge", &url, &[("FANFARE_UNREADY_AFTER", "5s")]);
    assert_eq!((edge.readiness().await, publisher.readiness().await), (200, 200));
    assert_eq!(publisher.publisher(KEY).publish("server:7", "lost").await.status, 503);
    publisher.turns(503).await;
    leaving.turns(503).await;
    assert_eq!(edge.readiness().await, 200, "an outage must not become the loss of every client");
    let health = Publisher::new(publisher.admin).get("/healthz").await;
    assert_eq!(health.status, 200, "a restart would not help");

    let token = token(&["--channel", "server:*"]);
    let mut waiting = edge.subscribe("/events/server:7", &token).open().await;
    assert_eq!(waiting.status(), 200);
    let _redis = Redis::start_at(port, &[]).expect("it starts");
    waiting.expect_connected().await;
    publisher.turns(200).await;
    leaving.turns(200).await;
    publisher.publisher(KEY).publish("server:7", "heard").await.id();
    assert_eq!(waiting.next_data().await, "heard");
}

#[tokio::test]
async fn an_edge_that_is_deaf_while_redis_answers_is_not_ready() {
    let Some(redis) = Redis::start(&[]) else { return };
    let edge = Role::start("edge", &redis.url());
    let token = token(&["--channel", "server:*"]);
    let mut listening = edge.subscribe("/events/server:7", &token).open().await;
    listening.expect_connected().await;
    redis.command(&["ACL", "SETUSER", "default", "-subscribe"]);
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    edge.turns(503).await;
    let answer = Publisher::new(edge.admin).get("/readyz").await;
    assert!(answer.text().contains("has not heard its own markers"), "{}", answer.text());
    redis.command(&["ACL", "SETUSER", "default", "+subscribe"]);
    edge.turns(200).await;
    let publisher = Role::start("publish", &redis.url());
    publisher.publisher(KEY).publish("server:7", "heard").await.id();
    assert_eq!(listening.next_data().await, "heard");
}

#[tokio::test]
async fn where_a_replica_must_have_it_a_publish_without_one_is_unknown_in_its_outcome() {
    let Some(primary) = Redis::start(&["--repl-diskless-sync-delay", "0"]) else { return };
    let port = primary.port.to_string();
    let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]).expect("it is installed");
    let environment = [("FANFARE_REDIS_MIN_REPLICAS", "1")];
    let publisher = Role::start_with("publish", &primary.url(), &environment);
    let mut backend = publisher.publisher(KEY);
    let event = json!({"channel": "server:7", "data": "once", "idempotencyKey": "a"});
    let first = confirmed(&mut backend, &event).await;
    let check = || {
        let mut command = fanfare(&["check", "--redis", &primary.url()]);
        command.envs(credentials()).envs(environment).output().expect("it runs")
    };
    assert_eq!((check().status.code(), &*stderr(&check())), (Some(0), ""));

    drop(replica);
    for event in [&event, &json!({"channel": "server:7", "data": "another"})] {
        let answer = backend.post("/publish", event).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("BACKBONE_UNAVAILABLE")));
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains("may be published or not") && detail.contains("0 of the 1 replicas"), "{detail}");
    }
    let report = stderr(&check());
    assert!(check().status.code() == Some(1) && report.contains("0 of the 1 replicas"), "{report}");

    let _replica = Redis::start(&["--replicaof", "127.0.0.1", &port]).expect("it is installed");
    assert_eq!(confirmed(&mut backend, &event).await, first, "once the replica has it, it is confirmed");
}

/// Publishes until it is confirmed, as whoever sends a key may, and tells its id. A replica isn't waited for otherwise:
/// `WAIT` on a connection that wrote nothing counts one that still loads what was there before it.
async fn confirmed(backend: &mut Publisher, event: &Value) -> String {
    for _ in 0..50 {
        let answer = backend.post("/publish", event).await;
        if answer.status != 503 {
            return answer.id();
        }
    }
    panic!("no replica follows");
}

#[test]
fn a_redis_that_will_not_do_is_told_in_one_sentence() {
    let Some(plain) = Redis::start(&[]) else { return };
    let guarded = Redis::start(&["--requirepass", "right"]).expect("it is installed");
    let evicting =
        Redis::start(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"]).expect("it is installed");
    let with = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = fanfare(arguments);
        command.envs(credentials()).envs(environment.iter().copied()).output().expect("it runs")
    };
    let fine = with(&["check", "--redis", &plain.url()], &[]);
    assert_eq!((fine.status.code(), &*stderr(&fine)), (Some(0), ""));
    assert_eq!(stdout(&fine).lines().count(), 1);

    // Someone was here with two partitions before.
    for text in ["first", "second"] {
        let two = [("FANFARE_REDIS_PARTITIONS", "2")];
        let dev = Dev::start_at("127.0.0.1:0", &["--redis", &plain.url()], &two);
        assert!(dev.send(&["demo", text]).status.success());
        let history = dev.get("/channels/demo/history", "");
        assert!(history.contains("first") && history.contains(text), "events outlive the process: {history}");
    }

    let wrong_password = guarded.url().replace("redis://", "redis://:wrong@");
    let nobody = format!("redis://127.0.0.1:{}", free_port());
    for (redis, part, starts) in [
        (&nobody, "no Redis can be reached at 127.0.0.1:", true),
        (&guarded.url(), "asks for a password and none is set", false),
        (&wrong_password, "refuses the username or the password", false),
        (&evicting.url(), "maxmemory-policy is allkeys-lru", false),
        (&plain.url(), "was set up with 2 partitions, not 1", false),
    ] {
        let checked = with(&["check", "--redis", redis], &[]);
        let report = stderr(&checked);
        assert_eq!(checked.status.code(), Some(1), "{report}");
        assert!(report.lines().count() == 1 && report.contains(part), "{report}");
        assert!(!report.contains("wrong@"), "{report}");
        if starts {
            continue; // It may come.
        }
        for role in ["edge", "publish"] {
            let free = "127.0.0.1:0";
            let arguments = [role, "--listen", free, "--admin-listen", free, "--redis", redis];
            let refused = with(&arguments, &[]);
            let report = stderr(&refused);
            assert_eq!(refused.status.code(), Some(1), "{report}");
            assert!(report.lines().count() == 1 && report.contains(part), "{report}");
        }
    }
    let right = with(&["check", "--redis", &guarded.url()], &[("FANFARE_REDIS_PASSWORD", "right")]);
    assert_eq!(right.status.code(), Some(0), "{}", stderr(&right));

    let unusable = with(&["check", "--redis", "redis+sentinel://a,b/main"], &[]);
    assert_eq!(unusable.status.code(), Some(2), "{}", stderr(&unusable));
    let nowhere = with(&["check"], &[]);
    assert!(nowhere.status.code() == Some(2) && stderr(&nowhere).contains("FANFARE_REDIS_URL"), "{}", stderr(&nowhere));
}

#[test]
fn a_token_that_can_not_be_made_is_wrong_usage() {
    for (arguments, part) in [
        (&[][..], "would open nothing"),
        (&["--channel", "a*b"], "--channel is \"a*b\""),
        (&["--follow", "server:*"], "--follow is \"server:*\""),
        (&["--user", "42", "--ttl", "soon"], "--ttl"),
    ] {
        let output = fanfare(&["token"]).args(arguments).envs(credentials()).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{arguments:?} {}", stderr(&output));
    }
    let output = run(&["token", "--user", "42"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("FANFARE_AUTH_SECRET is not set"), "{}", stderr(&output));
}
