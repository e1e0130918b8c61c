//! Where connections come from: on loopback from many addresses, because one has no more than 28,000 ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// Clients that share a source address, so that no address runs out of ports.
const CLIENTS_PER_ADDRESS: u32 = 8_192;

/// Begins a connection of a client of this process.
pub(crate) fn connect(address: SocketAddr, client: u32) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let IpAddr::V4(ip) = address.ip()
        && ip.is_loopback()
    {
        // Each process has a second number of its own, so that several don't share an address.
        let second = u8::try_from(1 + std::process::id() % 250).expect("at most 250");
        let group = u8::try_from(client / CLIENTS_PER_ADDRESS % 256).expect("at most 255");
        let source = Ipv4Addr::new(127, second, group, 1);
        // Where only 127.0.0.1 exists, one address has to do.
        _ = socket.bind(&SocketAddr::from((source, 0)).into());
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
