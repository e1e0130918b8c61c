//! `/openapi.json` is the API as it is: its routes and methods, the fields that bodies may have, the statuses and the
//! shapes of answers.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

use fanfare_testkit::Publisher;
use serde_json::{Value, json};
use support::Dev;
use support::clients::{is_missing, tools};
use support::redis::Redis;
use support::role::Role;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn document() -> Value {
    serde_json::from_str(include_str!("../src/openapi.json")).expect("JSON")
}

/// What a `$ref` leads to.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect(reference),
        None => value,
    }
}

struct Operation<'a> {
    path: &'a str,
    method: String,
    is: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in METHODS {
            if let Some(is) = item.get(method) {
                operations.push(Operation { path, method: method.to_uppercase(), is });
            }
        }
    }
    operations
}

impl Operation<'_> {
    /// Its path, with an example for each parameter.
    fn target(&self, document: &Value) -> String {
        let parameters = self.is["parameters"].as_array().into_iter().flatten();
        parameters.map(|parameter| resolved(document, parameter)).filter(|parameter| parameter["in"] == "path").fold(
            self.path.to_owned(),
            |path, parameter| {
                let (name, example) = (&parameter["name"], parameter["example"].as_str().expect("an example"));
                path.replace(&format!("{{{}}}", name.as_str().expect("a name")), example)
            },
        )
    }

    fn statuses(&self) -> BTreeSet<u16> {
        self.is["responses"]
            .as_object()
            .expect("responses")
            .keys()
            .map(|status| status.parse().expect(status))
            .collect()
    }

    fn json_body(&self) -> &Value {
        &self.is["requestBody"]["content"]["application/json"]
    }
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Asks, and reads the answer to its end; of a stream, only the head.
fn ask(dev: &Dev, method: &str, target: &str, media_type: &str, body: &str) -> Answer {
    let mut stream = dev.connect(&format!(
        "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}",
        dev.address,
        body.len()
    ));
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("an answer") > 0 {
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).expect("ASCII").to_lowercase();
    let mut body = String::new();
    if !head.contains("text/event-stream") {
        stream.read_to_string(&mut body).expect("a body");
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body }
}

/// A live connection, and the document's example of one's id with the one that it has.
fn connected(dev: &Dev) -> (TcpStream, impl Fn(String) -> String + use<>) {
    let mut stream = dev.connect(&format!("GET /events/server:7 HTTP/1.1\r\nHost: {}\r\n\r\n", dev.address));
    let (mut told, mut byte) = (String::new(), [0]);
    let client = loop {
        assert!(stream.read(&mut byte).expect("a stream") > 0, "it ended: {told}");
        told.push(char::from(byte[0]));
        if let Some((client, _)) = told.split_once("\"clientId\":\"").and_then(|(_, rest)| rest.split_once('"')) {
            break client.to_owned();
        }
    };
    let example = "A".repeat(39);
    (stream, move |target: String| target.replace(&example, &client))
}

/// The methods that a path allows, but for those that every path does.
fn methods(allow: &str) -> BTreeSet<String> {
    allow.split(", ").filter(|method| !["HEAD", "OPTIONS"].contains(method)).map(str::to_owned).collect()
}

#[test]
fn every_route_and_method_is_in_the_document_and_nothing_else_is() {
    let document = document();
    let mut served: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (path, allow) in
        [fanfare_edge::ROUTES.as_slice(), &fanfare_publish::ROUTES, &[("/openapi.json", "GET")]].concat()
    {
        served.entry(path).or_default().extend(methods(allow));
    }
    let mut documented: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for operation in operations(&document) {
        documented.entry(operation.path).or_default().insert(operation.method);
    }
    assert_eq!(documented, served, "the document, and the routes of edge and publish API");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));

    // And the routes are what is really answered.
    let dev = Dev::start(&[]);
    for operation in operations(&document) {
        let target = operation.target(&document);
        let allow = ask(&dev, "OPTIONS", &target, "text/plain", "").head;
        let allow = allow.lines().find_map(|line| line.strip_prefix("allow: ")).expect("Allow").to_uppercase();
        assert!(methods(&allow).contains(&operation.method), "{} {target} is not in {allow}", operation.method);
    }
}

#[test]
fn the_document_is_the_same_everywhere_and_needs_no_credentials() {
    let dev = Dev::start(&[]);
    let answer = ask(&dev, "GET", "/openapi.json", "text/plain", "");
    assert!(answer.status == 200 && answer.head.contains("content-type: application/json"), "{}", answer.head);
    assert_eq!(serde_json::from_str::<Value>(&answer.body).expect("JSON"), document());
    let Some(redis) = Redis::start(&[]) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for role in ["edge", "publish"] {
        let role = Role::start(role, &redis.url());
        let answer = runtime.block_on(async { Publisher::new(role.address).get("/openapi.json").await });
        assert_eq!((answer.status, answer.json()), (200, document()));
    }
}

/// Names between backticks, after "expected", or those that a hint lists.
fn known(problem: &Value) -> BTreeSet<String> {
    let detail = problem["detail"].as_str().expect("a detail");
    match (detail.split_once("expected "), problem["hint"].as_str().and_then(|hint| hint.strip_prefix("it takes: "))) {
        (Some((_, expected)), _) => expected.split('`').skip(1).step_by(2).map(str::to_owned).collect(),
        (None, Some(hint)) => hint.split(", ").map(str::to_owned).collect(),
        (None, None) => BTreeSet::new(),
    }
}

#[test]
fn bodies_and_queries_have_the_fields_that_the_document_names_and_no_others() {
    let (document, dev) = (document(), Dev::start(&[]));
    let (_stream, live) = connected(&dev);
    let mut held = 0;
    for operation in operations(&document) {
        let (target, at) = (live(operation.target(&document)), format!("{} {}", operation.method, operation.path));
        let schema = resolved(&document, &operation.json_body()["schema"]);
        if !schema.is_null() {
            // One of several forms is an object.
            let schema = schema["anyOf"].get(0).filter(|_| schema["properties"].is_null()).unwrap_or(schema);
            let schema = resolved(&document, schema);
            let documented: BTreeSet<_> = schema["properties"].as_object().expect(&at).keys().cloned().collect();
            let answer = ask(&dev, &operation.method, &target, "application/json", r#"{"no such field":1}"#);
            assert_eq!(answer.status, 400, "{at}: {}", answer.body);
            let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
            assert_eq!(known(&problem), documented, "fields of {at}");
            held += 1;
        }
        let answer = ask(&dev, &operation.method, &format!("{target}?no-such-parameter=1"), "application/json", "{}");
        if answer.body.contains("is no query parameter of this path") {
            let parameters = operation.is["parameters"].as_array().into_iter().flatten();
            let parameters = parameters.map(|parameter| resolved(&document, parameter));
            let in_query = parameters.filter(|parameter| parameter["in"] == "query");
            let documented = in_query.map(|parameter| parameter["name"].as_str().expect("a name").to_owned());
            let problem: Value = serde_json::from_str(&answer.body).expect("JSON");
            let credentials = ["token", "auth", "ticket"].map(str::to_owned).into();
            let known: BTreeSet<_> = known(&problem).difference(&credentials).cloned().collect();
            assert_eq!(known, documented.collect(), "parameters of {at}");
            held += 1;
        }
    }
    assert!(held >= 10, "{held}: the answers that name fields read otherwise now");
}

#[test]
fn every_example_is_answered_with_a_documented_success() {
    let (document, dev) = (document(), Dev::start(&[]));
    let (_stream, live) = connected(&dev);
    for operation in operations(&document) {
        let (target, at) = (live(operation.target(&document)), format!("{} {}", operation.method, operation.path));
        let contents = operation.is["requestBody"]["content"].as_object();
        let examples = contents.into_iter().flatten().flat_map(|(media_type, content)| {
            let examples = content["examples"].as_object().unwrap_or_else(|| panic!("{at} has no examples"));
            examples.values().map(move |example| match &example["value"] {
                Value::String(text) => (&**media_type, text.clone()),
                json => (&**media_type, json.to_string()),
            })
        });
        let mut examples: Vec<_> = examples.collect();
        if examples.is_empty() {
            examples.push(("text/plain", String::new()));
        }
        for (media_type, body) in examples {
            let answer = ask(&dev, &operation.method, &target, media_type, &body);
            let is_documented = operation.statuses().contains(&answer.status);
            // In a fresh `dev` no namespace has opted into presence.
            let expected = if operation.path.ends_with("/presence") { 404 } else { 200 };
            assert!(is_documented && answer.status == expected, "{at} {body}\n{}{}", answer.head, answer.body);
            let response = resolved(&document, &operation.is["responses"][answer.status.to_string()]);
            let content = response["content"].as_object().expect("content");
            let answered = answer.head.lines().find_map(|line| line.strip_prefix("content-type: ")).expect("a type");
            assert!(
                content.contains_key(answered.split(';').next().unwrap_or_default()),
                "{at} is answered {answered}"
            );
        }
    }
}

/// What Schemathesis may send and what it may not be answered with. Streams have no end of their own: FANFARE_MAX_AGE
/// gives them one, after which their answers are checked like others, and there are few of them.
const SCHEMATHESIS: &str = r#"
seed = 1
request-timeout = 10
continue-on-failure = true
reports.directory = "reports"

[phases]
stateful.enabled = false
# What was answered before is not sent again: it depends on timing, and a `%` in a channel's name is not encoded then.
examples.extra-data-sources.responses = false
coverage.extra-data-sources.responses = false
fuzzing.extra-data-sources.responses = false

[generation]
max-examples = 12

[checks.positive_data_acceptance]
# A token or an event that is too long as a whole, nobody there, a user who was disconnected, an idempotency key of
# before.
expected-statuses = ["200", "204", "404", "413", "422", "504"]

[[operations]]
include-path-regex = "^/events"
generation.max-examples = 4
phases.examples.enabled = false
phases.coverage.enabled = false
# No Last-Event-ID is refused: what is not understood is a gap.
checks.negative_data_rejection.enabled = false

[[operations]]
# With a cursor each waits for something to say.
include-path = "/poll"
phases.examples.enabled = false
phases.coverage.enabled = false
phases.fuzzing.enabled = false
"#;

#[test]
fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let tool = tools().join("venv/bin/st");
    if is_missing("Schemathesis", &tool) {
        return;
    }
    // `dev` asks for no credentials; and lines are text to Schemathesis, which the examples above have.
    let mut document = document();
    for item in document["paths"].as_object_mut().expect("paths").values_mut() {
        for operation in item.as_object_mut().expect("methods").values_mut() {
            operation["security"] = json!([]);
            if let Some(contents) = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut) {
                contents.remove("application/x-ndjson");
            }
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).expect("a file");
    write("openapi.json", &document.to_string());
    write("schemathesis.toml", SCHEMATHESIS);
    let environment = [("FANFARE_MAX_AGE", "1s"), ("FANFARE_MAX_CONNECTIONS_PER_USER", "1000")];
    let dev = Dev::start_at("127.0.0.1:0", &[], &environment);
    let mut command = Command::new(tool);
    command.args(["--config-file", "schemathesis.toml", "run", "openapi.json", "--url", &dev.url()]);
    let output = command.current_dir(directory.path()).output().expect("it runs");
    let report = support::stdout(&output);
    assert!(output.status.success(), "{report}\n{}", support::stderr(&output));
    assert!(report.contains("Tested:"), "it tested something: {report}");
}
