//! Edges and a publisher of Fanfare that this program starts itself, joined by a Redis: for more connections than one
//! process may have.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::clock::{nanos, now, wait_until};
use crate::dialect::Dialect;
use crate::endpoint::Endpoint;
use crate::keeper::{Keeper, Server};
use crate::scenario::Site;

/// How long all of them together may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two looks at whether one is ready.
const LOOK: Duration = Duration::from_millis(50);

/// What is started.
#[derive(Clone, Copy, Debug)]
pub struct FleetOptions<'a> {
    /// How many edges.
    pub edges: u32,
    /// The `fanfare` binary.
    pub binary: &'a Path,
    /// The Redis that joins them.
    pub redis: &'a str,
    /// Channels that a connection may follow; `None`: as many as there usually are.
    pub channels_max: Option<u32>,
    /// Whether clients follow a shared channel besides their inbox and the broadcast.
    pub has_channel: bool,
}

/// Edges and a publisher, for as long as this is kept.
#[derive(Debug)]
pub struct Fleet {
    /// Whom scenarios are run against.
    pub site: Site,
    pub(crate) keeper: Keeper,
}

impl Fleet {
    /// Starts them, and waits until all are ready.
    ///
    /// # Errors
    /// One can't be started, or is not ready in time.
    pub fn start(options: FleetOptions<'_>) -> io::Result<Self> {
        // Nobody else's, and nothing of another run: keys, tokens, names.
        let random = || format!("{:032x}{:032x}", fastrand::u128(..), fastrand::u128(..));
        let (secret, key, prefix) = (random(), random(), format!("load{:08x}", fastrand::u32(..)));
        let count = options.edges as usize;
        let addresses = free_addresses(2 * (count + 1))?;
        let channels_max = options.channels_max.map(|most| ("FANFARE_MAX_CHANNELS".to_owned(), most.to_string()));
        let servers = addresses.chunks(2).enumerate().map(|(number, addresses)| {
            let role = if number < count { "edge" } else { "publish" };
            let arguments = [role, "--listen", &addresses[0].to_string(), "--admin-listen", &addresses[1].to_string()];
            let environment = [
                ("FANFARE_REDIS_URL", options.redis),
                ("FANFARE_REDIS_PREFIX", &prefix),
                ("FANFARE_AUTH_SECRET", &secret),
                ("FANFARE_PUBLISH_KEYS", &format!("load={key}")),
                ("FANFARE_DRAIN_DELAY", "0s"),
                ("FANFARE_DRAIN_TIMEOUT", "1s"),
                ("FANFARE_LOG", "error"),
            ];
            let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
            Server {
                program: options.binary.display().to_string(),
                arguments: arguments.map(str::to_owned).to_vec(),
                environment: environment.into_iter().map(owned).chain(channels_max.clone()).collect::<BTreeMap<_, _>>(),
            }
        });
        let keeper = Keeper::start(&servers.collect::<Vec<_>>())?;
        let until = now() + nanos(READY_TIMEOUT);
        for admin in addresses.iter().skip(1).step_by(2) {
            while !is_ready(*admin) {
                if now() > until {
                    let waited = humantime::format_duration(READY_TIMEOUT);
                    return Err(io::Error::other(format!("an edge or publisher was not ready within {waited}")));
                }
                wait_until(now() + nanos(LOOK));
            }
        }
        let url = |address: &SocketAddr| format!("http://{address}").parse::<Endpoint>().map_err(io::Error::other);
        let edges = addresses.iter().step_by(2).take(count).map(url).collect::<io::Result<Vec<_>>>()?;
        let publish = url(&addresses[2 * count])?;
        let mut site = Site::new("fanfare", Dialect::fanfare(Some(&key), options.has_channel), &edges, publish);
        site.setup = format!("{count} edge processes and a publisher, joined by one Redis");
        site.secret = Some(secret);
        site.pids = keeper.pids().to_vec();
        Ok(Self { site, keeper })
    }
}

/// Addresses that nobody listens on.
fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(status.ends_with(b" 200"))
    };
    ask().unwrap_or(false)
}
