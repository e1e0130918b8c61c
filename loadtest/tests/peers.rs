//! What is held beside Fanfare really runs here, and what comes of it can be read and compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fanfare_loadtest::markdown;
use fanfare_loadtest::peers::{PEERS, Peer};
use fanfare_loadtest::result::{Results, ScenarioResult};
use tempfile::TempDir;

const CLIENTS: f64 = 30.0;

/// `peers`, of little size: results go to a directory, as do the servers' own files.
fn peers(directory: &Path, options: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest"));
    command.args(["peers", "--clients", "30", "--duration", "300ms", "--runs", "1"]);
    command.args(options.split_ascii_whitespace()).arg("--fanfare").arg(fanfare_testkit::binary());
    command.arg("--output").arg(directory.join("peers.json")).env("TMPDIR", directory);
    command
}

/// Runs it, and reads what it says and leaves behind. Who is not installed has said so.
fn run(options: &str) -> (String, Results) {
    let directory = directory();
    let output = peers(directory.path(), options).output().expect("it can be started");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("{said}");
    (said, Results::read(&directory.path().join("peers.json")).expect("it was written"))
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn is_installed(said: &str, peer: &Peer) -> bool {
    !said.contains(&format!("{} is skipped, not installed", peer.name))
}

fn result<'a>(results: &'a Results, scenario: &str, server: &str) -> &'a ScenarioResult {
    let found = results.scenarios.iter().find(|result| result.scenario == scenario && result.server == server);
    found.unwrap_or_else(|| panic!("{scenario} of {server} did not run"))
}

#[test]
fn each_peer_that_is_installed_delivers_everything_to_everybody_and_to_users() {
    let (said, results) = run("--scenario fanout --scenario users");
    for peer in PEERS.iter().filter(|peer| is_installed(&said, peer)) {
        let in_bulk = peer.takes_many.then(|| format!("{}-bulk", peer.name));
        let users = in_bulk.into_iter().chain([peer.name.to_owned()]).map(|server| result(&results, "users", &server));
        for result in users.chain([result(&results, "fanout", peer.name)]) {
            let run = &result.runs[0];
            assert!(run.passed() && run.checked > 0, "{} of {}: {run:?}", result.scenario, result.server);
            assert_eq!(run.figures["connections"], CLIENTS, "{}", result.server);
            assert!(run.figures["serverCpuPerMillion"] >= 0.0 && run.cpu.server.is_some(), "{}", result.server);
            assert!(result.floor.as_ref().is_some_and(|floor| floor.ratios["deliveriesPerSecond"] > 0.0));
        }
    }
}

#[test]
fn who_comes_back_to_a_peer_that_resumes_has_what_was_missed() {
    let resuming = PEERS.iter().filter(|peer| peer.resumes).collect::<Vec<_>>();
    let options = resuming.iter().map(|peer| format!(" --peer {}", peer.name)).collect::<String>();
    let (said, results) = run(&format!("--scenario storm {options}"));
    for peer in resuming.into_iter().filter(|peer| is_installed(&said, peer)) {
        let result = result(&results, "storm", peer.name);
        let run = &result.runs[0];
        assert!(run.passed() && run.figures.contains_key("caughtUpSeconds"), "{}: {run:?}", peer.name);
    }
}

/// Processes that work in a directory, or below it.
fn working_in(directory: &Path) -> Vec<PathBuf> {
    let processes = fs::read_dir("/proc").expect("there is one").filter_map(|entry| Some(entry.ok()?.path()));
    processes.filter(|path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory))).collect()
}

#[test]
fn what_was_started_is_gone_afterwards_even_when_the_program_was_killed() {
    let directory = directory();
    let mut command = peers(directory.path(), "--scenario fanout --peer fanfare");
    let mut program = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started");
    let until = Instant::now() + Duration::from_secs(60);
    let wait_for = |what: &str, is_so: &dyn Fn(&[PathBuf]) -> bool| {
        while !is_so(&working_in(directory.path())) {
            assert!(Instant::now() < until, "{what}: {:?}", working_in(directory.path()));
            thread::park_timeout(Duration::from_millis(20));
        }
    };
    // Until `setpriv` has become the server, nobody has promised to stop it.
    let is_server = |process: &PathBuf| fs::read_to_string(process.join("comm")).is_ok_and(|name| name == "fanfare\n");
    wait_for("a server was started", &|processes| processes.iter().any(is_server));
    program.kill().and_then(|()| program.wait()).expect("it was running");
    wait_for("it is gone", &<[PathBuf]>::is_empty);

    assert!(command.status().expect("it can be started").success());
    assert_eq!(working_in(directory.path()), [] as [PathBuf; 0]);
}

#[test]
fn who_is_missing_is_told_with_how_to_install_it_and_left_out() {
    let (said, results) = run("--scenario fanout --scenario latency --peer nchan --tools /nowhere");
    assert!(results.scenarios.is_empty());
    let skipped = said.lines().filter(|line| line.contains("skipped")).collect::<Vec<_>>();
    assert_eq!(skipped, ["fanout 1/1: nchan is skipped, not installed: loadtest/peers/install nchan"]);
}

fn loadtest(arguments: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest")).args(arguments).output().expect("it is built")
}

#[test]
fn a_report_is_one_file_with_every_figure_and_two_results_are_compared_by_exit_code() {
    let (_, results) = run("--scenario idle --scenario fanout --scenario latency --peer fanfare");
    let directory = directory();
    let path = |name: &str| directory.path().join(name);
    results.write(&path("before.json")).expect("written");

    let report = loadtest(&["report".as_ref(), &path("before.json"), "-o".as_ref(), &path("report.html")]);
    assert!(report.status.success(), "{report:?}");
    let page = fs::read_to_string(path("report.html")).expect("it was written");
    for result in &results.scenarios {
        for (name, median) in &result.medians {
            let cell = format!(">{}<", fanfare_loadtest::compare::number(*median));
            assert!(page.contains(&format!("<th>{name}")) && page.contains(&cell), "{name} {cell}");
        }
    }
    for outside in ["http:", "https:", "src=", "href=", "url(", "@import", "<script"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("<svg") && markdown(&results).contains("| fanout"));

    let merged =
        loadtest(&["merge".as_ref(), &path("before.json"), &path("before.json"), "-o".as_ref(), &path("short.json")]);
    assert!(merged.status.success(), "{merged:?}");
    let short = Results::read(&path("short.json")).expect("its own");
    assert_eq!((short.scenarios.len(), short.scenarios[0].runs.len()), (results.scenarios.len(), 2));
    let bytes = |name: &str| fs::metadata(path(name)).expect("it was written").len();
    assert!(bytes("short.json") < bytes("before.json") / 2);

    let mut slower = results.clone();
    for result in &mut slower.scenarios {
        for run in &mut result.runs {
            run.figures.entry("deliveriesPerSecond".to_owned()).and_modify(|value| *value /= 2.0);
        }
        result.conclude();
    }
    slower.write(&path("after.json")).expect("written");
    let judged = |after: &str, percent: &str| {
        let output = loadtest(&[
            "compare".as_ref(),
            &path("before.json"),
            &path(after),
            "--fail-above".as_ref(),
            percent.as_ref(),
        ]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(judged("before.json", "0").0, Some(0));
    let (code, table) = judged("after.json", "40");
    assert!(code == Some(1) && table.contains("WORSE") && table.contains("-50.0 %"), "{table}");
    assert_eq!(judged("after.json", "60").0, Some(0));
    assert_eq!(judged("missing.json", "0").0, Some(2));
}
