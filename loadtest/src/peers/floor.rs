//! The yardstick: whoever subscribes is put into a list, and an event is a bare loop of writes over it. No history, no
//! backlog, no limits, no names that were checked: what no server can do without, and nothing else.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::process::{Starting, free_port};
use super::{Ground, Peer, Servers, StartError, plain_post, plain_subscription};

/// The floor, as a peer: a process of this program.
pub const FLOOR: Peer = Peer {
    name: "floor",
    how: "a bare loop of writes over the sockets",
    start,
    subscribe: plain_subscription,
    publish: plain_post,
    batch_max: 1,
    resumes: false,
};

/// Bytes of a request at most.
const REQUEST_BYTES_MAX: usize = 128 * 1024;

const LISTENER: Token = Token(usize::MAX);

fn start(ground: &Ground) -> Result<Servers, StartError> {
    let mut starting = Starting::new()?;
    let port = free_port()?;
    starting.start(port, &ground.own, &["peers-floor", "--port", &port.to_string()], &[])?;
    Ok(starting.done(env!("CARGO_PKG_VERSION").to_owned(), port, port))
}

/// Serves as the floor, until the process ends.
///
/// # Errors
/// The machine refuses.
pub fn serve_floor(port: u16) -> io::Result<()> {
    let mut listener = listen(port)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor { connections: Vec::new(), free: Vec::new(), channels: HashMap::new(), events: 0 };
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            if event.token() != LISTENER {
                floor.ready(event.token().0);
                continue;
            }
            while let Ok((mut stream, _)) = listener.accept() {
                stream.set_nodelay(true)?;
                let place = floor.free.pop().unwrap_or_else(|| {
                    floor.connections.push(None);
                    floor.connections.len() - 1
                });
                poll.registry().register(&mut stream, Token(place), Interest::READABLE)?;
                floor.connections[place] = Some(Connection { stream, request: Vec::new() });
            }
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(16_384)?;
    Ok(TcpListener::from_std(socket.into()))
}

struct Connection {
    stream: TcpStream,
    /// What came of a request that is not whole.
    request: Vec<u8>,
}

struct Floor {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Who listens, by what the path names. Who left is found at the next write.
    channels: HashMap<String, Vec<usize>>,
    events: u64,
}

impl Floor {
    fn ready(&mut self, place: usize) {
        if !matches!(self.read(place), Ok(true)) {
            self.close(place);
        }
    }

    fn close(&mut self, place: usize) {
        if self.connections[place].take().is_some() {
            for members in self.channels.values_mut() {
                members.retain(|member| *member != place);
            }
            self.free.push(place);
        }
    }

    /// Reads what there is, and does what is asked; false when the connection ended.
    fn read(&mut self, place: usize) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(connection) = &mut self.connections[place] else { return Ok(false) };
            let count = match connection.stream.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            connection.request.extend_from_slice(&buffer[..count]);
            let Some((request, used)) = parse(&connection.request) else {
                if connection.request.len() > REQUEST_BYTES_MAX {
                    return Ok(false);
                }
                continue;
            };
            connection.request.drain(..used);
            match request {
                Request::Subscribe(name) => {
                    connection.request = Vec::new();
                    connection.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
                    self.channels.entry(name).or_default().push(place);
                }
                Request::Publish(name, body) => {
                    self.deliver(&name, &body);
                    let Some(connection) = &mut self.connections[place] else { return Ok(false) };
                    connection.stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")?;
                }
            }
        }
    }

    fn deliver(&mut self, name: &str, body: &[u8]) {
        self.events += 1;
        let frame = [format!("id: {}\ndata: ", self.events).as_bytes(), body, b"\n\n"].concat();
        let mut gone = Vec::new();
        for place in self.channels.get(name).into_iter().flatten() {
            let Some(connection) = &mut self.connections[*place] else { continue };
            // Who doesn't take it at once is gone: a loop that waits for nobody.
            if !connection.stream.write(&frame).is_ok_and(|count| count == frame.len()) {
                gone.push(*place);
            }
        }
        for place in gone {
            self.close(place);
        }
    }
}

enum Request {
    Subscribe(String),
    Publish(String, Vec<u8>),
}

/// The first request, where it is whole, and how many bytes it has.
fn parse(bytes: &[u8]) -> Option<(Request, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = request.parse(bytes) else { return None };
    let name = request.path?.rsplit_once("id=")?.1.to_owned();
    if request.method? == "GET" {
        return Some((Request::Subscribe(name), head));
    }
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let length = std::str::from_utf8(length.value).ok()?.parse::<usize>().ok()?;
    let body = bytes.get(head..head + length)?.to_vec();
    Some((Request::Publish(name, body), head + length))
}
