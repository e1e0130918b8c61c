//! A configuration is right as a whole or refused as a whole, with every mistake named.

mod support;

use std::path::PathBuf;

use support::{fanfare, run, stderr, stdout};

/// A file that goes with its test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn every_mistake_is_told_at_once_with_its_name_value_and_what_was_expected() {
    let file = File::new(
        "mistakes",
        "history_age = \"soon\"\nhistroy_size = 3\nedge = 1\n[redis]\npartitions = 65\nurl = \"x\"\n[namespaces.a]\nb = 1\n",
    );
    let output = fanfare(&["dev", "--config", file.path(), "--listen", "nowhere"])
        .env("FANFARE_MAX_PAYLOAD", "64 parsecs")
        .env("FANFARE_HEARTBEAT_INTERVALL", "15s")
        .output()
        .expect("it runs");
    let report = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{report}");
    let at = |line: u32, rest: &str| format!("  {}:{line}{rest}", file.path());
    for line in [
        "error: 9 mistakes in the configuration".to_owned(),
        at(1, ": history_age is \"soon\", expected a duration from 1s to 1day, such as 5m"),
        at(2, " histroy_size is not a setting; did you mean history_size?"),
        at(3, ": edge is a number, expected a table: [edge]"),
        at(5, ": redis.partitions is \"65\", expected a whole number from 1 to 64"),
        at(6, ": redis.url is something else, expected an address such as redis://127.0.0.1:6379, or none"),
        at(8, " namespaces.a.b is not a setting; `fanfare config` lists them all"),
        "  FANFARE_HEARTBEAT_INTERVALL is not a setting; did you mean FANFARE_HEARTBEAT_INTERVAL?".to_owned(),
        "  FANFARE_MAX_PAYLOAD is \"64 parsecs\", expected a size up to 1MiB".to_owned(),
        "  --listen is \"nowhere\", expected an address and a port".to_owned(),
    ] {
        assert!(report.lines().any(|told| told.starts_with(&line)), "{line}\n\nis missing from\n\n{report}");
    }
}

#[test]
fn a_namespace_is_refused_with_every_mistake_in_it() {
    let file = File::new(
        "namespaces",
        "routers = 1\n[namespaces]\nbroadcast = 5\n[namespaces.prices]\nmax_payload = \"2MiB\"\nmax_paylod = 1\n\
         [namespaces.\"$call\"]\n[namespaces.\"a:b\"]\n[namespaces.\"a b\"]\n[namespaces.user]\nmax_payload = [1]\n\
         history_size = 0\nhistory_age = \"never\"\nreplay = 1001\n",
    );
    let output = run(&["config", "--config", file.path()]);
    let report = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{report}");
    let at = |line: u32, rest: &str| format!("  {}:{line}{rest}", file.path());
    for line in [
        "error: 11 mistakes in the configuration".to_owned(),
        at(3, ": namespaces.broadcast is a number, expected a table: [namespaces.broadcast]"),
        at(5, ": namespaces.prices.max_payload is \"2MiB\", expected a size up to 1MiB"),
        at(6, " namespaces.prices.max_paylod is not a setting; did you mean max_payload?"),
        at(7, ": namespaces.$call can't be configured"),
        at(8, ": namespaces.a:b has a colon, expected a namespace: \"a\""),
        at(9, ": namespaces.a b is no namespace: a channel's name is made of"),
        at(12, ": namespaces.user.history_size is \"0\", expected a whole number from 1 to 100000"),
        at(13, ": namespaces.user.history_age is \"never\", expected off, or a duration from 1s to 1day, such as 5m"),
        at(14, ": namespaces.user.replay is \"1001\", expected a whole number from 0 to 1000"),
        at(11, ": namespaces.user.max_payload is a list, expected a size up to 1MiB"),
    ] {
        assert!(report.lines().any(|told| told.starts_with(&line)), "{line}\n\nis missing from\n\n{report}");
    }
}

#[test]
fn what_a_namespace_sets_is_shown() {
    let file = File::new(
        "own",
        "[namespaces.prices]\nmax_payload = \"1KiB\"\nhistory_size = 1\nhistory_age = \"off\"\nreplay = 1\n\
         [namespaces.\"a.b\"]\nhistory_age = \"1h\"\n",
    );
    let shown = stdout(&run(&["config", "--config", file.path()]));
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    assert!(
        lines.contains(&"[namespaces.prices]  history_size 1, history_age off, replay 1, max_payload 1KiB"),
        "{shown}"
    );
    assert!(lines.contains(&"[namespaces.\"a.b\"]  history_age 1h"), "{shown}");
}

#[test]
fn a_route_is_refused_with_every_mistake_in_it() {
    let file = File::new(
        "routes",
        "[[routes]]\npath = \"/events/live\"\nchannels = \"a\"\n[[routes]]\nmethods = [\"PUT\"]\n\
         channels = [\"server:{id}\", \"a b\"]\nreplay = 1001\npth = 3\n[[routes]]\npath = 5\nchannels = []\n\
         heartbeat = { event = \"ping\" }\nunnamed = \"perhaps\"\n[[routes]]\npath = \"/a/{x}\"\nchannels = [\"a\"]\n\
         [[routes]]\npath = \"/a/{y}\"\nchannels = [\"a:{x}\"]\nheartbeat = \"loud\"\n",
    );
    for command in ["dev", "edge", "check"] {
        let output = run(&[command, "--config", file.path()]);
        let report = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{report}");
        let at = |line: u32, rest: &str| format!("  {}:{line}{rest}", file.path());
        for line in [
            "error: 14 mistakes in the configuration".to_owned(),
            at(2, ": routes[0].path \"/events/live\" would take requests for /events/… from Fanfare itself"),
            at(3, ": routes[0].channels is \"a\", expected a list of channels"),
            at(4, ": routes[1].path is not set"),
            at(5, ": routes[1].methods is [\"PUT\"], expected GET, POST or both"),
            at(6, ": routes[1].channels \"a b\" is no channel"),
            at(7, ": routes[1].replay is 1001, expected a number from 0 to 1000"),
            at(8, " routes[1].pth is not a setting; did you mean path?"),
            at(10, ": routes[2].path \"5\" does not begin with /"),
            at(11, ": routes[2].channels names none"),
            at(12, ": routes[2].heartbeat is a table, expected \"comment\", \"event\", or an event with its data"),
            at(13, ": routes[2].unnamed is \"perhaps\", expected true or false"),
            at(18, ": routes[4].path \"/a/{y}\" collides with the route \"/a/{x}\""),
            at(19, ": routes[4].channels \"a:{x}\" has {x}, which is no parameter of the path"),
            at(20, ": routes[4].heartbeat is \"loud\", expected \"comment\""),
        ] {
            assert!(report.lines().any(|told| told.starts_with(&line)), "{line}\n\nis missing from\n\n{report}");
        }
    }
    let file = File::new("no-routes", "[routes]\npath = \"/a\"\n");
    let report = stderr(&run(&["check", "--config", file.path()]));
    assert!(report.contains(":1: routes is a table, expected tables: [[routes]]"), "{report}");
}

#[test]
fn a_call_is_refused_with_every_mistake_in_it_and_its_headers_are_never_shown() {
    let file = File::new(
        "calls",
        r#"[[routes]]
path = "/sse/{id}"
methods = ["GET"]
channels = ["a"]
replay = 3
forward = "https://tasks.internal/run"
forward_headers = { "a b" = "hunter2", "Host" = "hunter2", "X-A" = "hunt\ner2" }
end_on = ["gap"]
timeout = "0s"
[[routes]]
path = "/x"
channels = ["a"]
timeout = "10m"
end_on = []
forward_headers = "hunter2"
[[routes]]
path = "/y"
forward = "http://me:hunter2@tasks/"
forward_headers = { "X" = { file = "/nowhere" } }
"#,
    );
    let report = stderr(&run(&["check", "--config", file.path()]));
    assert!(!report.contains("hunt"), "{report}");
    let at = |line: u32, rest: &str| format!("  {}:{line}: routes{rest}", file.path());
    for line in [
        "error: 15 mistakes in the configuration".to_owned(),
        at(2, "[0].path \"/sse/{id}\" has parameters, which a backend would not get"),
        at(3, "[0].methods is [\"GET\"], expected POST: a call has a body"),
        at(4, "[0].channels is set, and forward, too"),
        at(5, "[0].replay is set, and forward, too"),
        at(6, "[0].forward needs TLS, which is not spoken to backends yet; expected http://…"),
        at(7, "[0].forward_headers \"Host\" is set by Fanfare itself"),
        at(7, "[0].forward_headers \"X-A\" has a value that no header can have"),
        at(7, "[0].forward_headers \"a b\" is no name of a header"),
        at(8, "[0].end_on \"gap\": \"gap\" is one of Fanfare's own event types"),
        at(9, "[0].timeout is \"0s\", expected a duration from 1s to 1day"),
        at(13, "[1].timeout is set, and forward is not"),
        at(14, "[1].end_on is set, and forward is not"),
        at(15, "[1].forward_headers: expected a table of texts"),
        at(18, "[2].forward has a user or a password in it"),
        at(19, "[2].forward_headers: \"X\" is in \"/nowhere\", which can't be read"),
    ] {
        assert!(report.lines().any(|told| told.starts_with(&line)), "{line}\n\nis missing from\n\n{report}");
    }

    let secret = File::new("call-secret", "hunter2\n");
    let text = format!(
        "[[routes]]\npath = \"/sse\"\nforward = \"http://tasks.internal/run\"\ntimeout = \"10m\"\n\
         forward_headers = {{ \"X-A\" = \"hunter2\", \"X-B\" = {{ file = \"{}\" }} }}\n",
        secret.path()
    );
    let file = File::new("good-calls", &text);
    let shown = stdout(&run(&["config", "--config", file.path()]));
    let line = r#"[[routes]]  path "/sse", forward "http://tasks.internal/run", forward_headers { "X-A" = "***", "X-B" = "***" }, timeout "10m""#;
    assert!(shown.lines().any(|shown| shown.trim() == line) && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_a_route_sets_is_shown() {
    let file = File::new(
        "shown-routes",
        "[[routes]]\npath = \"/live/{id}\"\nchannels = [\"server:{id}\"]\nreplay = 20\n\
         heartbeat = { event = \"message\", data = '{\"trigger\":\"ping\"}' }\n",
    );
    let shown = stdout(&run(&["config", "--config", file.path()]));
    let lines: Vec<_> = shown.lines().map(str::trim).collect();
    let line = r#"[[routes]]  path "/live/{id}", channels ["server:{id}"], replay 20, heartbeat { event = "message", data = "{\"trigger\":\"ping\"}" }"#;
    assert!(lines.contains(&line), "{shown}");
}

#[test]
fn a_list_is_written_as_one_or_with_commas() {
    let file = File::new(
        "lists",
        "anonymous_channels = [\"news\", \"prices:*\"]\n[cors]\norigins = [\"https://a.example\"]\n",
    );
    let shown = stdout(&run(&["config", "--config", file.path()]));
    assert!(shown.contains("news,prices:*") && shown.contains("https://a.example"), "{shown}");

    let file = File::new("no-lists", "anonymous_channels = [\"a,b\"]\nmax_channels = [1]\n");
    let report = stderr(&run(&["config", "--config", file.path()]));
    assert!(report.contains("anonymous_channels has an item that is no text, or has a comma in it"), "{report}");
    assert!(report.contains("max_channels is a list, expected a whole number"), "{report}");
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_a_mistake_with_its_line() {
    let missing = run(&["dev", "--config", "/nowhere/fanfare.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("/nowhere/fanfare.toml can't be read"), "{}", stderr(&missing));

    let file = File::new("broken", "history_size = 5\nhistory_age = = 3\n");
    let broken = run(&["dev", "--config", file.path()]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(stderr(&broken).contains(&format!("{}:2 is not TOML", file.path())), "{}", stderr(&broken));
}

#[test]
fn variables_go_over_the_file() {
    let file = File::new("layers", "max_channels = 7\nhistory_size = 8\n[redis]\npartitions = \"4\"\n");
    let output = fanfare(&["config", "--config", file.path()])
        .env("FANFARE_MAX_CHANNELS", "9")
        .env("FANFARE_EDGE_PORT", "tcp://10.0.0.1:80")
        .env("FANFARE_EDGE_SERVICE_HOST", "10.0.0.1")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let line = |variable: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(variable));
        line.unwrap_or_else(|| panic!("no {variable} in\n{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("FANFARE_MAX_CHANNELS"), "FANFARE_MAX_CHANNELS max_channels 9 (environment; default 100)");
    assert_eq!(
        line("FANFARE_HISTORY_SIZE"),
        format!("FANFARE_HISTORY_SIZE history_size 8 ({}; default 100)", file.path())
    );
    assert!(line("FANFARE_REDIS_PARTITIONS").starts_with("FANFARE_REDIS_PARTITIONS [redis] partitions 4 ("));
    assert_eq!(line("FANFARE_DRAIN_DELAY"), "FANFARE_DRAIN_DELAY drain_delay 5s (default; in dev 0s)");
}

#[test]
fn the_settings_are_printed_as_a_table_and_as_a_file() {
    let markdown = run(&["config", "--format", "markdown"]);
    let row = "| `FANFARE_MAX_PAYLOAD` | `max_payload` | `64KiB` | Bytes of one event's data at most.";
    assert!(stdout(&markdown).lines().any(|line| line.starts_with(row)), "{}", stdout(&markdown));

    let toml = run(&["config", "--format", "toml"]);
    assert!(stdout(&toml).contains("\n# history_age = \"5m\"\n"), "{}", stdout(&toml));
    assert!(stdout(&toml).contains("\n[edge]\n"), "{}", stdout(&toml));
    let file = File::new("printed", &stdout(&toml));
    assert!(run(&["config", "--config", file.path()]).status.success());

    assert_eq!(run(&["config", "--format", "yaml"]).status.code(), Some(2));
}

#[test]
fn a_command_that_is_something_else_points_to_the_right_one() {
    let output = run(&["publish", "server:7", "hi there"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("fanfare send server:7 'hi there'"), "{}", stderr(&output));
}

#[test]
fn a_secret_is_read_from_a_file_and_never_shown() {
    let secret = File::new("secret", "hunter2-hunter2-hunter2-hunter2-\n");
    let file = File::new("with-secret", &format!("[auth]\nsecret_file = {:?}\n", secret.path()));
    let shown = run(&["config", "--config", file.path()]);
    assert!(stdout(&shown).contains("***") && !stdout(&shown).contains("hunter2"), "{}", stdout(&shown));
    let variable = ("FANFARE_AUTH_SECRET_FILE", secret.path());
    let token = fanfare(&["token", "--user", "42"]).envs([variable]).output().expect("it runs");
    assert!(token.status.success(), "{}", stderr(&token));

    let both = fanfare(&["token", "--user", "42"]).envs([variable, ("FANFARE_AUTH_SECRET", "x")]).output();
    let both = both.expect("it runs");
    assert_eq!(both.status.code(), Some(2));
    assert!(stderr(&both).contains("FANFARE_AUTH_SECRET_FILE is set and FANFARE_AUTH_SECRET too"), "{}", stderr(&both));

    let missing = fanfare(&["config"]).env("FANFARE_PUBLISH_KEYS_FILE", "/nowhere/keys").output().expect("it runs");
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("FANFARE_PUBLISH_KEYS_FILE is \"/nowhere/keys\""), "{}", stderr(&missing));

    let wrong = fanfare(&["config"]).env("FANFARE_PUBLISH_KEYS", "hunter2,a=hunter2;right=x,,b=y").output();
    let report = stderr(&wrong.expect("it runs"));
    assert!(report.contains("3 mistakes") && report.contains("FANFARE_PUBLISH_KEYS: entry 3 is empty"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let help = stdout(&run(&["--help"]));
    for line in ["0    done", "1    failed", "2    wrong usage or configuration", "130  stopped at once"] {
        assert!(help.contains(line), "{help}");
    }
}
