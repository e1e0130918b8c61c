//! Clients that are programs of their own: where what they need is, and how one is run over a network that fails.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fanfare_testkit::FaultProxy;

/// Where `scripts/test` puts a Python environment and the packages of Node.
pub(crate) fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools")
}

/// Whether a program is there. Without it the test says so and is no proof; `scripts/test` sees to it that it is.
pub(crate) fn is_missing(what: &str, path: &Path) -> bool {
    let missing = !path.exists();
    if missing {
        assert!(std::env::var_os("CI").is_none(), "{what} is missing, and CI must not do without");
        eprintln!("skipped: {what} is missing; scripts/test installs it");
    }
    missing
}

/// Whether a browser, or what drives it, isn't there.
pub(crate) fn is_browser_missing() -> bool {
    is_missing("Chromium", Path::new("/usr/bin/chromium"))
        || is_missing("playwright-core", &tools().join("node_modules/playwright-core"))
}

/// Runs a client until it ends, and cuts all its connections whenever it asks for that. Its last line says `ok`.
pub(crate) fn run_and_cut(client: &mut Command, proxy: &FaultProxy) {
    let client = client.env("FANFARE_TOOLS", tools()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().expect("it is there");
    let lines = BufReader::new(client.stdout.take().expect("piped")).lines();
    let mut stdin = client.stdin.take().expect("piped");
    let mut last = String::new();
    for line in lines.map_while(Result::ok) {
        if line == "cut" {
            proxy.reset_all();
            stdin.write_all(b"\n").expect("it listens");
        }
        println!("{line}");
        last = line;
    }
    assert!(client.wait().expect("it ends").success());
    assert!(last.ends_with(": ok"), "{last}");
}
