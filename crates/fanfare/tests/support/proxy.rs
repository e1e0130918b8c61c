//! Real proxies before Fanfare, with the configurations that `deploy/` has for them. What is changed is only what can't
//! be as it is there: names exist between containers alone, and here every port is a free one.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use super::PATIENCE;
use super::redis::free_port;

/// A running proxy.
pub(crate) struct Proxy {
    process: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Proxy {
    /// HAProxy, which speaks HTTP/2 to this server. None: it isn't installed, which in CI is a failure.
    pub(crate) fn haproxy(server: SocketAddr) -> Option<Self> {
        let recipe = recipe("haproxy.cfg");
        assert_eq!(recipe.matches("proto h2").count(), 2);
        // One server instead of two, which has its `/readyz` where all else is.
        let lines = recipe.lines().filter(|line| !line.contains("edge-b:8080"));
        let one = lines.map(|line| format!("{line}\n")).collect::<String>();
        let one = one.replace("edge-a:8080", &server.to_string()).replace("check port 9091", "check");
        Self::start("haproxy", |address, directory| {
            let file = directory.join("haproxy.cfg");
            std::fs::write(&file, one.replace("bind :8080", &format!("bind {address}"))).expect("room");
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f"]).arg(file);
            command
        })
    }

    /// nginx, which speaks HTTP/1.1 to these. None: it isn't installed, which in CI is a failure.
    pub(crate) fn nginx(edges: [SocketAddr; 2], publisher: SocketAddr) -> Option<Self> {
        let mut here = recipe("nginx.conf");
        for (name, address) in [("edge-a:8080", edges[0]), ("edge-b:8080", edges[1]), ("publisher:8081", publisher)] {
            assert_eq!(here.matches(name).count(), 1, "{name}");
            here = here.replace(name, &address.to_string());
        }
        Self::start("nginx", |address, directory| {
            let place = directory.display();
            let mut paths = String::new();
            for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
                paths += &format!("{kind}_temp_path {place}/{kind};");
            }
            let here = here.replace("listen 8080;", &format!("listen {address};"));
            let here = here.replace("/dev/stdout", &format!("{place}/access.log"));
            let here = here.replacen("http {", &format!("http {{ {paths}"), 1);
            // One process, which is ours to stop.
            let here = format!("pid {place}/pid; daemon off; master_process off; {here}");
            let file = directory.join("nginx.conf");
            std::fs::write(&file, here).expect("room");
            let mut command = Command::new("nginx");
            command.arg("-p").arg(directory).args(["-e", "stderr", "-c"]).arg(file);
            command
        })
    }

    fn start(program: &str, configured: impl FnOnce(SocketAddr, &Path) -> Command) -> Option<Self> {
        if Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "{program} is not on PATH");
            eprintln!("skipped: {program} is not on PATH (scripts/install-test-tools installs it)");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = configured(address, directory.path());
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            let ended = process.try_wait().expect("a child of ours");
            assert!(ended.is_none() && begin.elapsed() < PATIENCE, "{program} does not listen: {ended:?}");
            std::thread::yield_now();
        }
        Some(Self { process, address, _directory: directory })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn recipe(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    std::fs::read_to_string(file).expect("the recipe")
}
