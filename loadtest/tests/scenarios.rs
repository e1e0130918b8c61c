//! Every scenario on the real thing, small: it checks out at Fanfare and at the floor, a server that lies is found out,
//! and nobody is left behind.

mod liar;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fanfare_loadtest::result::{Results, ScenarioResult};
use fanfare_loadtest::{Fault, FaultKind};
use fanfare_testkit::Fanfare;
use liar::{Liar, Lie};

fn loadtest(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare-loadtest"));
    command.args(arguments.split_ascii_whitespace()).env_remove("FANFARE_KEY").env_remove("FANFARE_AUTH_SECRET");
    command
}

/// Runs a scenario, and reads what it leaves behind.
fn run(name: &str, arguments: &str) -> (ExitStatus, Results) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json"));
    _ = fs::remove_file(&file);
    let output = loadtest(arguments).arg("--json").arg(&file).output().expect("it can be started");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{arguments}\n{text}");
    assert!(!text.contains("were killed"), "workers end by themselves");
    let results = Results::read(&file).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status, results)
}

/// Runs a scenario at a `fanfare dev` and at the floor: everything must check out.
fn check(name: &str, arguments: &str) -> ScenarioResult {
    let server = Fanfare::dev().start();
    let arguments = format!("{arguments} --url {} --server-pid {} --quiet --floor", server.url(), server.pid());
    let (status, mut results) = run(name, &arguments);
    assert!(results.versions.contains_key("fanfare"), "{:?}", results.versions);
    let result = results.scenarios.remove(0);
    assert!(status.success() && result.passed(), "{:?}", result.runs[0].first_faults);
    let floor = result.floor.as_ref().expect("asked for");
    for run in &floor.runs {
        assert!(run.passed(), "{:?}", run.first_faults);
    }
    assert_eq!(floor.runs.len(), 2, "before and after");
    result
}

fn figure(result: &ScenarioResult, name: &str) -> f64 {
    *result.medians.get(name).unwrap_or_else(|| panic!("{name} is among {:?}", result.medians))
}

#[test]
fn idle_connections_are_few_bytes_to_the_clients_and_their_memory_is_told() {
    let result = check("idle", "idle --clients 5000 --duration 100ms");
    assert!(figure(&result, "serverUserBytes") > 0.0 && result.medians.contains_key("kernelBytes"));
    let own = result.floor.expect("asked for").medians["loadUserBytes"];
    assert!(own < 200.0, "{own} bytes for each client");
}

#[test]
fn a_fanout_reaches_everybody_at_a_rate_and_as_fast_as_it_goes() {
    for (name, pace) in [("fanout-rate", "--rate 50"), ("fanout", "--in-flight 16 --workers 2")] {
        let result = check(name, &format!("fanout --clients 200 --duration 1s {pace}"));
        assert!(figure(&result, "deliveriesPerSecond") > 0.0 && figure(&result, "serverCpuPerMillion") >= 0.0);
        assert!(result.runs[0].checked > 0 && figure(&result, "p99Millis") > 0.0);
    }
}

#[test]
fn events_to_single_users_reach_them_one_by_one_and_in_bulk() {
    for (name, how) in [("users", ""), ("users-bulk", "--bulk"), ("users-rate", "--rate 200")] {
        let result = check(name, &format!("users --clients 100 --publishers 3 --duration 1s {how}"));
        assert!(figure(&result, "eventsPerSecond") > 0.0 && result.runs[0].latencies["publish"].count > 0);
    }
}

#[test]
fn single_users_are_told_their_own_events_beside_broadcasts() {
    for (name, how) in [("beside", "--broadcasts 20"), ("beside-found-out", "")] {
        let result = check(name, &format!("beside --clients 300 --users 20 --rate 100 --duration 1s {how}"));
        assert!(figure(&result, "userP99Millis") > 0.0 && figure(&result, "userP99OverSpread") > 0.0);
        let run = &result.runs[0];
        let (to_users, calm) = (&run.latencies["to single users"], &run.latencies["to single users in calm times"]);
        assert!(to_users.count > 0 && calm.count > 0 && run.latencies["delivery"].count > to_users.count);
    }
}

#[test]
fn connections_come_again_and_again_and_hear_in_the_end() {
    for (name, how) in [("connect", "--rate 20"), ("connect-fresh", "--fresh")] {
        let result = check(name, &format!("connect --clients 100 --duration 1s {how}"));
        assert!(figure(&result, "connectionsPerSecond") > 0.0);
    }
}

#[test]
fn after_a_storm_all_are_back_and_have_everything() {
    let result = check("storm", "storm --clients 200 --rate 50");
    let (back, caught_up) = (figure(&result, "backSeconds"), figure(&result, "caughtUpSeconds"));
    assert!(back > 0.0 && caught_up >= back && result.runs[0].checked > 0);
}

#[test]
fn who_stalls_is_cut_off_and_the_others_have_everything() {
    // Few enough bytes a second that who only waits for a busy machine isn't taken for one that stalls.
    let result = check("slow", "slow --clients 20 --stalled 5 --size 15000 --rate 30 --duration 1s");
    assert!(figure(&result, "cutAfterSeconds") > 0.0 && figure(&result, "p99OverCalm") > 0.0);
}

#[test]
fn streams_share_connections() {
    let result = check("h2", "h2 --clients 150 --streams 50 --rate 50 --duration 1s");
    assert!(figure(&result, "streamsPerConnection") == 50.0 && result.runs[0].checked > 0);
}

#[test]
fn a_fleet_is_started_holds_connections_over_all_its_edges_and_is_stopped() {
    let Some((_redis, port)) = redis() else { return };
    let binary = fanfare_testkit::binary();
    let arguments = format!(
        "million --clients 200 --spawn-edges 2 --server-binary {} --redis redis://127.0.0.1:{port} --workers 2 \
         --duration 200ms --quiet",
        binary.display()
    );
    let (status, results) = run("million", &arguments);
    assert!(
        status.success() && results.scenarios[0].runs[0].checked == 200,
        "{:?}",
        results.scenarios[0].runs[0].first_faults
    );
    assert_eq!([figure(&results.scenarios[0], "processes"), figure(&results.scenarios[0], "workers")], [3.0, 2.0]);
    assert!(figure(&results.scenarios[0], "broadcastSeconds") > 0.0);
    assert_eq!(left_behind(port), 0, "servers that were left behind");
}

#[test]
fn edges_that_take_no_more_end_the_run_at_once_with_what_to_do() {
    let server = Fanfare::dev().env("FANFARE_MAX_CONNECTIONS", "30").start();
    let arguments = format!("million --clients 100 --workers 3 --connect-timeout 1h --quiet --url {}", server.url());
    let (status, results) = run("full", &arguments);
    let faults = &results.scenarios[0].runs[0].first_faults;
    let [Fault { kind: FaultKind::NotConnected, expected, got, .. }] = &**faults else { panic!("{faults:?}") };
    assert_eq!((status.code(), &**expected), (Some(1), "100 clients connected"));
    assert!(got.contains(" refused: limit. ") && got.contains("--spawn-edges"), "{got}");
}

#[test]
fn curves_have_a_point_for_each_number_of_connections_and_of_other_channels() {
    let Some((_redis, port)) = redis() else { return };
    let arguments = format!(
        "curves --clients 50 --connections 20,60 --other-channels 0,1000 --rate 1000 --server-binary {} \
         --redis redis://127.0.0.1:{port} --duration 500ms --quiet",
        fanfare_testkit::binary().display()
    );
    let (status, results) = run("curves", &arguments);
    let curves = results.scenarios[0].curves();
    assert!(results.scenarios[0].setup.contains("for each point"), "{}", results.scenarios[0].setup);
    assert!(status.success(), "{:?}", results.scenarios[0].runs[0].first_faults);
    for (over, xs) in [("connections", [20.0, 60.0]), ("otherChannels", [0.0, 1000.0])] {
        for figure in ["serverUserBytes", "serverCpuPerMillion", "connectSeconds", "edgeCpuMicrosPerStranger"] {
            let curve = curves.iter().find(|curve| curve.figure == figure && curve.over == over);
            let points = &curve.unwrap_or_else(|| panic!("{figure} over {over} is among {curves:?}")).points;
            assert_eq!(points.iter().map(|point| point.0).collect::<Vec<_>>(), xs, "{figure} over {over}");
        }
    }
    assert!(results.scenarios[0].runs[0].checked > 0);
    assert_eq!(left_behind(port), 0, "servers that were left behind");
}

/// A Redis that ends with the test, and its port; `None`, and a line that says so: there is none here.
fn redis() -> Option<(Killed, u16)> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let redis = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .stdout(Stdio::null())
        .spawn();
    let Ok(redis) = redis else {
        assert!(std::env::var_os("CI").is_none(), "redis-server is not on PATH");
        eprintln!("skipped: redis-server is not on PATH (scripts/install-test-tools installs it)");
        return None;
    };
    let redis = Killed(redis);
    wait_for(|| TcpStream::connect(("127.0.0.1", port)).ok());
    Some((redis, port))
}

/// Servers that were started for this Redis and still run.
fn left_behind(port: u16) -> usize {
    let of_fleet = |name: &str| {
        let status = fs::read(format!("/proc/{name}/environ")).unwrap_or_default();
        memchr::memmem::find(&status, format!("redis://127.0.0.1:{port}").as_bytes()).is_some()
    };
    let processes = fs::read_dir("/proc").expect("it is there").map_while(Result::ok);
    processes.filter(|entry| of_fleet(&entry.file_name().to_string_lossy())).count()
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn the_yardstick_alone_tells_all_its_figures() {
    let (status, results) = run("floor", "floor --clients 100 --duration 300ms");
    assert!(status.success());
    let scenarios = results.scenarios.iter().map(|result| &*result.scenario).collect::<Vec<_>>();
    assert_eq!(scenarios, ["idle", "fanout", "fanout", "users", "connect"]);
}

#[test]
fn jobs_leave_results_of_the_same_schema() {
    let server = Fanfare::dev().start();
    let job = format!("mixed --clients 50 --rate 50 --duration 1s --url {}", server.url());
    let (status, results) = run("mixed", &job);
    assert!(
        status.success() && results.scenarios[0].passed() && figure(&results.scenarios[0], "deliveriesPerSecond") > 0.0
    );
}

#[test]
fn a_server_that_lies_is_found_out() {
    let lies = [
        (Lie::None, None),
        (Lie::Loses, Some(FaultKind::Missing)),
        (Lie::Doubles, Some(FaultKind::Double)),
        (Lie::Reorders, Some(FaultKind::Reordered)),
        (Lie::Alters, Some(FaultKind::Corrupt)),
        (Lie::Misdirects, Some(FaultKind::Stray)),
    ];
    for (lie, expected) in lies {
        let liar = Liar::start(lie);
        let arguments =
            format!("fanout --clients 3 --rate 40 --duration 500ms --grace 1s --quiet --url {}", liar.url());
        let (status, results) = run(&format!("liar-{lie:?}"), &arguments);
        let faults = &results.scenarios[0].runs[0].faults;
        match expected {
            None => assert!(status.success() && faults.is_empty(), "{faults:?}"),
            Some(kind) => assert!(status.code() == Some(1) && faults.contains_key(&kind), "{lie:?}: {faults:?}"),
        }
    }
}

#[test]
fn nobody_is_left_behind_when_the_tool_is_killed() {
    let server = Fanfare::dev().start();
    let arguments = format!("fanout --clients 20 --workers 2 --rate 10 --duration 60s --quiet --url {}", server.url());
    let mut tool = loadtest(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let pid = tool.id();
    let children = || {
        let pids = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        pids.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let workers = wait_for(|| Some(children()).filter(|pids| pids.len() == 2));
    tool.kill().expect("it runs");
    tool.wait().expect("it ends");
    // Nobody may have waited for them yet: they are dead then all the same.
    let is_gone = |pid: &String| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    };
    wait_for(|| workers.iter().all(is_gone).then_some(()));
}

#[test]
fn what_cannot_begin_is_told_with_another_status() {
    for arguments in ["fanout --size 10 --url http://127.0.0.1:9", "fanout --url ftp://x"] {
        let output = loadtest(arguments).output().expect("it can be started");
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(!output.stderr.is_empty());
    }
}

/// Waits until something is so.
#[expect(clippy::disallowed_methods, reason = "what is waited for happens to processes that tell nobody")]
fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = what() {
            return value;
        }
        assert!(Instant::now() < until, "it happens within a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}
