//! better-sse, a library for Node: `loadtest/peers/better-sse.mjs`.

use super::process::{Starting, first_line, free_port, system};
use super::{Follows, Ground, Peer, Servers, StartError, by_query};

pub(super) const PEER: Peer = Peer {
    name: "better-sse",
    how: "one Node process, an event serialized once for all",
    start,
    resumes: true,
    takes_many: false,
};

fn start(ground: &Ground, follows: Follows) -> Result<Servers, StartError> {
    let library = ground.tool("better-sse/node_modules/better-sse/build/index.mjs")?;
    let node = system("node", "apt-get install nodejs")?;
    let mut starting = Starting::new()?;
    let server = starting.file("server.mjs", include_str!("../../peers/better-sse.mjs"))?;
    let port = free_port()?;
    let arguments = [&server, &library.display().to_string(), &port.to_string()];
    starting.start(port, &node, &arguments.map(String::as_str), &[("NODE_ENV", "production")])?;
    let version = format!("{} with Node {}", ground.version("better-sse")?, first_line(&node, &["--version"])?);
    Ok(starting.done(version, by_query("/sub?id=", "/pub?id=", follows), port))
}
