//! nchan, a module of nginx: `loadtest/peers/nchan.conf`.

use super::process::{Starting, first_line, free_port, system};
use super::{Follows, Ground, Peer, Servers, StartError, by_query};

pub(super) const IN_MEMORY: Peer = Peer {
    name: "nchan",
    how: "one nginx worker, in shared memory",
    start: |ground, follows| start(ground, follows, false),
    resumes: true,
    takes_many: false,
};

pub(super) const WITH_REDIS: Peer = Peer {
    name: "nchan-redis",
    how: "one nginx worker, Redis behind it",
    start: |ground, follows| start(ground, follows, true),
    ..IN_MEMORY
};

fn start(ground: &Ground, follows: Follows, on_redis: bool) -> Result<Servers, StartError> {
    let module = ground.tool("nchan/usr/lib/nginx/modules/ngx_nchan_module.so")?;
    let nginx = system("nginx", "apt-get install nginx")?;
    let mut starting = Starting::new()?;
    let (upstream, pass) = if on_redis {
        let url = starting.start_redis()?;
        (format!("upstream redis {{ nchan_redis_server {url}; }}"), "nchan_redis_pass redis;")
    } else {
        (String::new(), "")
    };
    let port = free_port()?;
    let directory = starting.directory().display().to_string();
    let text = include_str!("../../peers/nchan.conf")
        .replace("{module}", &module.display().to_string())
        .replace("{directory}", &directory)
        .replace("{port}", &port.to_string())
        .replace("{upstream}", &upstream)
        .replace("{redis}", pass);
    let configuration = starting.file("nginx.conf", &text)?;
    starting.start(port, &nginx, &["-p", &directory, "-c", &configuration, "-e", "stderr"], &[])?;
    starting.wait_until_publishes(port, "/pub?id=ready")?;
    let version = format!("{} with {}", ground.version("nchan")?, first_line(&nginx, &["-v"])?);
    Ok(starting.done(version, by_query("/sub?id=", "/pub?id=", follows), port))
}
