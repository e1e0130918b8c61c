//! Front ends that were written after guides to SSE, for other servers: with nothing but `[[routes]]` they connect to
//! Fanfare and don't notice. The scripts are in `guides/`; each reads as its guide does.

mod support;

use std::path::Path;
use std::process::Command;

use fanfare_testkit::FaultProxy;
use support::clients::{is_browser_missing, is_missing, run_and_cut, tools};
use support::redis::{Redis, free_port};
use support::role::{KEY, Role, token};

const ROUTES: &str = r#"
[[routes]]
path = "/api/servers/{id}/events"
channels = ["server:{id}"]
replay = 20

[[routes]]
path = "/live/campaigns"
channels = ["campaigns"]
heartbeat = { event = "message", data = '{"trigger":"ping"}' }

[[routes]]
path = "/api/events"
channels = ["broadcast"]
unnamed = true

[[routes]]
path = "/task-progress/{task_id}"
channels = ["task:{task_id}"]

[[routes]]
path = "/stock-prices"
channels = ["stock-prices"]
heartbeat = "event"

[[routes]]
path = "/chat/{room}/messages"
channels = ["chat:{room}"]
replay = 20
"#;

/// An edge with these routes, a publish API, and the Redis between them.
struct Application {
    edge: Role,
    publisher: Role,
    token: String,
    site_port: u16,
    _redis: Redis,
    _directory: tempfile::TempDir,
}

impl Application {
    fn start(routes: &str) -> Option<Self> {
        let redis = Redis::start(&[])?;
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("fanfare.toml");
        let site_port = free_port();
        let settings = format!(
            "heartbeat_interval = \"1s\"\n[auth]\nquery_token = true\n\
             [cors]\norigins = \"http://127.0.0.1:{site_port}\"\n{routes}"
        );
        std::fs::write(&file, settings).expect("a file");
        let edge = Role::with_file("edge", &redis.url(), &file);
        let publisher = Role::start("publish", &redis.url());
        let channels = ["server:*", "campaigns", "task:*", "stock-prices", "chat:*"];
        let channels = channels.iter().flat_map(|channel| ["--channel", channel]);
        let token = token(&["--user", "user-123"].into_iter().chain(channels).collect::<Vec<_>>());
        Some(Self { edge, publisher, token, site_port, _redis: redis, _directory: directory })
    }

    /// A script, told where everything is.
    fn script(&self, program: &Path, script: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guides").join(script))
            .env("FANFARE_EDGE", self.edge.url())
            .env("FANFARE_PUBLISH", self.publisher.url())
            .env("FANFARE_KEY", KEY)
            .env("FANFARE_USER_TOKEN", &self.token)
            .env("FANFARE_TOOLS", tools())
            .env("SITE_PORT", self.site_port.to_string());
        command
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_the_guides_do_not_notice_that_the_server_is_fanfare() {
    if is_browser_missing() {
        return;
    }
    let Some(application) = Application::start(ROUTES) else { return };
    let proxy = FaultProxy::to(application.edge.address).await;
    let mut browser = application.script(Path::new("node"), "browser.mjs");
    run_and_cut(browser.env("FANFARE_EDGE", format!("http://{}", proxy.address())), &proxy);
}

#[test]
fn pythons_readers_of_the_guides_do_not_notice_either() {
    let python = tools().join("venv/bin/python");
    if is_missing("Python with requests and sseclient-py", &python) {
        return;
    }
    let Some(application) = Application::start(ROUTES) else { return };
    assert!(application.script(&python, "streams.py").status().expect("python runs").success());
}
