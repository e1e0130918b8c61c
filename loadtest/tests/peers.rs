//! What is held beside Fanfare really runs here, and what comes of it can be read and compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use fanfare_loadtest::peers::{Comparison, FLOOR, Ground, Options, PEERS, Peer, Scenario, StartError, new_results};
use fanfare_loadtest::result::Results;
use fanfare_loadtest::{describe, markdown};

const LOADTEST: &str = env!("CARGO_BIN_EXE_fanfare-loadtest");

const LITTLE: Options = Options { clients: 30, duration: Duration::from_millis(300), payload_bytes: 200, rate: 100.0 };

fn ground() -> Ground {
    let ground = Ground::of_repository().expect("a test knows its own path");
    Ground { fanfare: Path::new(LOADTEST).with_file_name("fanfare"), own: LOADTEST.into(), ..ground }
}

/// Whether it is installed; where it isn't, that is printed.
fn is_installed(peer: &Peer) -> bool {
    match (peer.start)(&ground()) {
        Err(StartError::NotInstalled(how)) => {
            eprintln!("skipped: {} is not installed: {how}", peer.name);
            false
        }
        Err(error) => panic!("{}: {error}", peer.name),
        Ok(_) => true,
    }
}

fn run(peers: Vec<&Peer>, scenarios: &[Scenario]) -> Results {
    let mut results = new_results(describe());
    let comparison = Comparison { peers, scenarios: scenarios.to_vec(), runs: 1, options: LITTLE };
    let keep = |_: &Results| Ok::<_, StartError>(());
    comparison.run(&ground(), &mut results, |line| eprintln!("{line}"), keep).expect("the machine allows it");
    results
}

#[test]
fn each_peer_that_is_installed_delivers_everything_to_everybody_and_to_users() {
    let peers = PEERS.iter().filter(|peer| is_installed(peer)).collect::<Vec<_>>();
    let count = peers.len();
    let results = run(peers, &[Scenario::Fanout, Scenario::Users]);
    assert_eq!(results.scenarios.len(), count * 2);
    for result in &results.scenarios {
        let run = &result.runs[0];
        assert!(run.passed() && run.checked > 0, "{} of {}: {run:?}", result.scenario, result.server);
        assert_eq!(run.figures["connections"], f64::from(LITTLE.clients), "{}", result.server);
        assert!(result.floor.as_ref().is_some_and(|floor| floor.ratios["deliveriesPerSecond"] > 0.0));
    }
}

#[test]
fn who_comes_back_to_a_peer_that_resumes_has_what_was_missed_and_elsewhere_its_lack_is_told() {
    let peers = PEERS.iter().filter(|peer| is_installed(peer)).collect::<Vec<_>>();
    let results = run(peers.clone(), &[Scenario::Storm]);
    for peer in peers {
        let result = results.scenarios.iter().find(|result| result.server == peer.name).expect("it ran");
        assert_eq!(result.runs[0].passed(), peer.resumes, "{}: {:?}", peer.name, result.runs[0]);
        assert_eq!(result.medians.contains_key("caughtUpSeconds"), peer.resumes, "{}", peer.name);
    }
}

#[test]
fn what_was_started_is_gone_afterwards() {
    for peer in PEERS.iter().chain([&FLOOR]).filter(|peer| is_installed(peer)) {
        let servers = (peer.start)(&ground()).expect("it started before");
        let pids = servers.pids();
        let is_there = |pid: &&u32| Path::new(&format!("/proc/{pid}")).exists();
        assert!(!pids.is_empty() && pids.iter().all(|pid| is_there(&pid)), "{}: {pids:?}", peer.name);
        drop(servers);
        assert_eq!(pids.iter().find(is_there), None, "{}", peer.name);
    }
}

#[test]
fn who_is_missing_is_told_with_how_to_install_it_and_left_out() {
    let ground = Ground { tools: PathBuf::from("/nowhere"), ..ground() };
    let nchan = PEERS.iter().find(|peer| peer.name == "nchan").expect("it is one of them");
    let comparison = Comparison { peers: vec![nchan], scenarios: vec![Scenario::Idle], runs: 2, options: LITTLE };
    let (mut results, mut told) = (new_results(describe()), Vec::new());
    let keep = |_: &Results| Ok::<_, StartError>(());
    comparison.run(&ground, &mut results, |line| told.push(line.to_owned()), keep).expect("the machine allows it");
    assert!(results.scenarios.is_empty());
    let skipped = told.iter().filter(|line| line.contains("skipped")).collect::<Vec<_>>();
    assert_eq!(skipped, ["nchan is skipped, not installed: loadtest/peers/install nchan"]);
}

fn loadtest(arguments: &[&Path]) -> Output {
    Command::new(LOADTEST).args(arguments).output().expect("it is built")
}

#[test]
fn a_report_is_one_file_with_every_figure_and_two_results_are_compared_by_exit_code() {
    let results = run(vec![&FLOOR], &[Scenario::Idle, Scenario::Fanout, Scenario::Latency]);
    let directory = tempfile::tempdir().expect("a directory");
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

    let mut slower = results.clone();
    for result in &mut slower.scenarios {
        for run in &mut result.runs {
            run.figures.entry("deliveriesPerSecond".to_owned()).and_modify(|value| *value /= 2.0);
        }
        result.conclude();
    }
    slower.write(&path("after.json")).expect("written");
    let compare = |after: &str, percent: &str| {
        let output = loadtest(&[
            "compare".as_ref(),
            &path("before.json"),
            &path(after),
            "--fail-above".as_ref(),
            percent.as_ref(),
        ]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(compare("before.json", "0").0, Some(0));
    let (code, table) = compare("after.json", "40");
    assert!(code == Some(1) && table.contains("WORSE") && table.contains("-50.0 %"), "{table}");
    assert_eq!(compare("after.json", "60").0, Some(0));
    assert_eq!(compare("missing.json", "0").0, Some(2));
}
