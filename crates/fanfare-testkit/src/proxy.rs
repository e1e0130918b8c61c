//! A TCP proxy that misbehaves on command: between a client and an edge, or an edge and Redis.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What happens to bytes on their way. Upstream is what was connected to, downstream who connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    #[default]
    None,
    /// They pass later, in both directions.
    Delay(Duration),
    /// They wait, in both directions, and no more are read.
    Stall,
    /// They are swallowed, in both directions.
    BlackHole,
    /// Downstream gets them a few at a time.
    Drip {
        /// So many at once …
        bytes: usize,
        /// … then this pause.
        pause: Duration,
    },
    /// After so many more bytes downstream, each connection is cut off with a reset.
    CutAfter(usize),
}

/// Listens on a free port, and passes everything on. It ends when this is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    fault: watch::Sender<Fault>,
    /// Counts the resets that were asked for.
    resets: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl FaultProxy {
    /// A proxy in front of this address.
    ///
    /// # Panics
    /// Where no port is free.
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (fault, resets) = (watch::Sender::new(Fault::None), watch::Sender::new(0));
        let (seen_fault, seen_resets) = (fault.subscribe(), resets.subscribe());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((downstream, _)) = listener.accept().await {
                connections.spawn(carry(downstream, upstream, seen_fault.clone(), seen_resets.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, fault, resets, _tasks: tasks }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for the connections that stand as for new ones.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Cuts off all connections, both sides, with a reset.
    pub fn reset_all(&self) {
        self.resets.send_modify(|resets| *resets += 1);
    }
}

async fn carry(
    downstream: TcpStream,
    upstream: SocketAddr,
    fault: watch::Receiver<Fault>,
    mut resets: watch::Receiver<u64>,
) {
    resets.mark_unchanged();
    let Ok(upstream) = TcpStream::connect(upstream).await else { return };
    for stream in [&downstream, &upstream] {
        _ = stream.set_nodelay(true);
        // Closing is a reset, unless a direction ended in good order before.
        _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    }
    let (from_down, to_down) = downstream.into_split();
    let (from_up, to_up) = upstream.into_split();
    let both =
        async { tokio::try_join!(pump(from_down, to_up, fault.clone(), false), pump(from_up, to_down, fault, true)) };
    // Whichever comes first, what is still open then is reset.
    tokio::select! {
        _ = both => {}
        _ = resets.changed() => {}
    }
}

/// The connection is cut off, in both directions.
struct CutOff;

/// Carries one direction until it ends in good order.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
    is_down: bool,
) -> Result<(), CutOff> {
    let mut buffer = vec![0; 16 * 1024];
    let mut carried = 0;
    loop {
        let now = *fault.borrow_and_update();
        let room = match now {
            Fault::Stall => {
                fault.changed().await.map_err(|_| CutOff)?;
                continue;
            }
            Fault::Drip { bytes, .. } if is_down => bytes.clamp(1, buffer.len()),
            Fault::CutAfter(bytes) if is_down => bytes.saturating_sub(carried).min(buffer.len()),
            _ => buffer.len(),
        };
        if room == 0 {
            return Err(CutOff);
        }
        let count = tokio::select! {
            read = from.read(&mut buffer[..room]) => match read {
                Ok(0) => {
                    // In good order: no reset on this side.
                    _ = SockRef::from(to.as_ref()).set_linger(None);
                    return to.shutdown().await.map_err(|_| CutOff);
                }
                Ok(count) => count,
                Err(_) => return Err(CutOff),
            },
            changed = fault.changed() => {
                changed.map_err(|_| CutOff)?;
                carried = 0;
                continue;
            }
        };
        match now {
            Fault::Delay(pause) => sleep(pause).await,
            Fault::Drip { pause, .. } if is_down => sleep(pause).await,
            Fault::BlackHole => continue,
            _ => {}
        }
        carried += count;
        to.write_all(&buffer[..count]).await.map_err(|_| CutOff)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PATIENCE, RawConnection};

    async fn upstream() -> (TcpListener, FaultProxy) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let proxy = FaultProxy::to(listener.local_addr().expect("bound")).await;
        (listener, proxy)
    }

    #[tokio::test]
    async fn bytes_pass_and_a_goodbye_too() {
        let (listener, proxy) = upstream().await;
        let mut client = RawConnection::open(proxy.address()).await;
        let (mut server, _) = listener.accept().await.expect("a connection");
        client.send("to").await;
        let mut buffer = [0; 2];
        server.read_exact(&mut buffer).await.expect("carried");
        server.write_all(b"fro").await.expect("open");
        drop(server);
        assert_eq!((&buffer, &client.read_to_end().await[..]), (b"to", &b"fro"[..]));
    }

    #[tokio::test]
    async fn a_connection_is_cut_off_after_so_many_bytes() {
        let (listener, proxy) = upstream().await;
        proxy.set(Fault::CutAfter(4));
        let mut client = RawConnection::open(proxy.address()).await;
        let (mut server, _) = listener.accept().await.expect("a connection");
        server.write_all(b"0123456789").await.expect("open");
        assert!(b"0123".starts_with(&client.read_to_end().await), "a reset may overtake what it follows");
        assert!(server.read(&mut [0; 1]).await.is_ok_and(|count| count == 0) || server.write(b"x").await.is_err());
    }

    #[tokio::test]
    async fn what_stalls_comes_after_it() {
        let (listener, proxy) = upstream().await;
        proxy.set(Fault::Stall);
        let mut client = RawConnection::open(proxy.address()).await;
        let (mut server, _) = listener.accept().await.expect("a connection");
        server.write_all(b"late").await.expect("open");
        assert!(client.read(9, Duration::from_millis(50)).await.is_err());
        proxy.set(Fault::Drip { bytes: 1, pause: Duration::from_millis(1) });
        assert_eq!(client.read(9, PATIENCE).await.expect("now"), b"l");
        proxy.reset_all();
        assert!(client.read_to_end().await.len() <= 3);
    }
}
