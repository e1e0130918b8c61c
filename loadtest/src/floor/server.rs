//! The floor itself: accepts, answers a fixed head, and sends the same bytes to one socket after the other.
//!
//! One thread, one epoll set, a bare `send(2)` for each delivery, nothing kept but descriptors. It reads no more of a
//! request than its end and the client's number. Nothing that does the same work with a system call for each delivery
//! can do it for less, and that is what it is for.

use std::io::{self, Read, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::machine::raise_descriptor_limit;
use crate::stamp::{Stamp, To};

use super::control::{self, Hello, RECORD_BYTES};

/// The argument that makes a process of this program the floor.
pub const FLOOR: &str = "floor-server";

const LISTENER: Token = Token(usize::MAX - 1);
const CONTROL_LISTENER: Token = Token(usize::MAX - 2);
const CONTROL: Token = Token(usize::MAX - 3);

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Bytes that wait for sockets that take no more, in all. Beyond it whoever takes no more is closed.
const WAITING_BYTES_MAX: usize = 64 << 20;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
                    Cache-Control: no-cache, no-store, no-transform\r\nX-Accel-Buffering: no\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";

const CONNECTED: &str = "retry: 1500\nid: floor0-1795229237926600\nevent: connected\ndata: {}\n\n";

/// A client's number is not known yet.
const NOBODY: u32 = u32::MAX;

/// Runs until the connection that controls it ends.
///
/// # Errors
/// Where the machine refuses.
pub fn run() -> io::Result<()> {
    raise_descriptor_limit()?;
    let poll = Poll::new()?;
    let mut clients = listen()?;
    let mut controllers = listen()?;
    let (port, control_port) = (clients.local_addr()?.port(), controllers.local_addr()?.port());
    poll.registry().register(&mut clients, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut controllers, CONTROL_LISTENER, Interest::READABLE)?;
    writeln!(stdout(), "{port} {control_port}")?;
    let mut server = Server {
        poll,
        clients,
        controllers,
        control: None,
        hello: Hello::default(),
        orders: Vec::new(),
        connections: Vec::new(),
        users: Vec::new(),
        free: Vec::new(),
        waiting: Vec::new(),
        buffer: vec![0; 64 * 1024].into(),
        frame: Vec::new(),
    };
    server.run()
}

fn listen() -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

struct Server {
    poll: Poll,
    clients: TcpListener,
    controllers: TcpListener,
    control: Option<TcpStream>,
    hello: Hello,
    /// What was read of orders and is not whole.
    orders: Vec<u8>,
    connections: Vec<Option<TcpStream>>,
    /// The place of each user's connection.
    users: Vec<u32>,
    free: Vec<u32>,
    /// What sockets did not take; mostly there is nothing.
    waiting: Vec<(u32, Vec<u8>)>,
    buffer: Box<[u8]>,
    frame: Vec<u8>,
}

impl Server {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error);
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    CONTROL_LISTENER => self.accept_control()?,
                    CONTROL => {
                        if !self.obey()? {
                            return Ok(());
                        }
                    }
                    Token(place) => self.serve(place as u32, event),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.clients.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // One that is gone already, or no descriptor left: the others go on.
                Err(_) => return Ok(()),
            };
            _ = stream.set_nodelay(true);
            let place = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() as u32 - 1
            });
            let registered = self.poll.registry().register(&mut stream, Token(place as usize), Interest::READABLE);
            match registered {
                Ok(()) => self.connections[place as usize] = Some(stream),
                Err(_) => self.free.push(place),
            }
        }
    }

    fn accept_control(&mut self) -> io::Result<()> {
        while let Ok((mut stream, _)) = self.controllers.accept() {
            stream.set_nodelay(true)?;
            self.poll.registry().register(&mut stream, CONTROL, Interest::READABLE)?;
            self.control = Some(stream);
        }
        Ok(())
    }

    /// Answers a request, or drops a connection whose client has hung up.
    fn serve(&mut self, place: u32, event: &Event) {
        let Some(Some(stream)) = self.connections.get_mut(place as usize) else { return };
        if event.is_writable() && self.waiting.iter().any(|(waiting, _)| *waiting == place) {
            self.go_on(place);
            return;
        }
        loop {
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.close(place),
                Ok(count) => {
                    let request = &self.buffer[..count];
                    if request.ends_with(b"\r\n\r\n") {
                        let user = user(request);
                        let head = format!("{HEAD}{:x}\r\n{CONNECTED}\r\n", CONNECTED.len());
                        if stream.write(head.as_bytes()).is_err() {
                            return self.close(place);
                        }
                        if self.users.len() <= user as usize {
                            self.users.resize(user as usize + 1, NOBODY);
                        }
                        self.users[user as usize] = place;
                        // More of a client than its request there is not.
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(place),
            }
        }
    }

    fn close(&mut self, place: u32) {
        if let Some(mut stream) = self.connections[place as usize].take() {
            _ = self.poll.registry().deregister(&mut stream);
            self.free.push(place);
            self.waiting.retain(|(waiting, _)| *waiting != place);
        }
    }

    /// Does what was ordered, and says how much that was. False: nobody orders anything any more.
    fn obey(&mut self) -> io::Result<bool> {
        loop {
            let Some(control) = &mut self.control else { return Ok(true) };
            match control.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.orders.extend_from_slice(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(_) => return Ok(false),
            }
            let orders = std::mem::take(&mut self.orders);
            let (records, rest) = orders.as_chunks::<RECORD_BYTES>();
            let mut done = 0_u32;
            for record in records {
                match control::read(record) {
                    control::Record::Hello(hello) => self.hello = hello,
                    control::Record::Event(to, seq, due) => {
                        self.publish(Stamp { run: self.hello.run, to, seq, due });
                        done += 1;
                    }
                }
            }
            self.orders = rest.to_vec();
            if done > 0
                && let Some(control) = &mut self.control
            {
                control.write_all(&done.to_be_bytes())?;
            }
        }
    }

    fn publish(&mut self, stamp: Stamp) {
        self.write_frame(stamp);
        match stamp.to {
            To::User(user) => {
                let place = self.users.get(user as usize).copied().unwrap_or(NOBODY);
                if place != NOBODY {
                    self.send(place);
                }
            }
            To::All | To::Channel(_) => (0..self.connections.len() as u32).for_each(|place| self.send(place)),
        }
    }

    fn send(&mut self, place: u32) {
        let Some(Some(stream)) = self.connections.get_mut(place as usize) else { return };
        if !self.waiting.is_empty()
            && let Some((_, waiting)) = self.waiting.iter_mut().find(|(waiting, _)| *waiting == place)
        {
            waiting.extend_from_slice(&self.frame);
            return;
        }
        let sent = match stream.write(&self.frame) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return self.close(place),
        };
        if sent < self.frame.len() {
            if self.waiting.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > WAITING_BYTES_MAX {
                return self.close(place);
            }
            let both = Interest::READABLE | Interest::WRITABLE;
            _ = self.poll.registry().reregister(stream, Token(place as usize), both);
            self.waiting.push((place, self.frame[sent..].to_vec()));
        }
    }

    /// Sends what a socket did not take before.
    fn go_on(&mut self, place: u32) {
        let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == place) else { return };
        let Some(Some(stream)) = self.connections.get_mut(place as usize) else { return };
        let (_, bytes) = &mut self.waiting[at];
        while !bytes.is_empty() {
            match stream.write(bytes) {
                Ok(sent) => drop(bytes.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close(place),
            }
        }
        self.waiting.swap_remove(at);
        readable_only(self.poll.registry(), stream, place);
    }

    /// One event, framed as Fanfare frames it.
    fn write_frame(&mut self, stamp: Stamp) {
        let channel = match stamp.to {
            To::All => "broadcast".to_owned(),
            To::Channel(number) => format!("load:{number}"),
            To::User(number) => format!("user:u{number}"),
        };
        // Positions have sixteen digits.
        let id = format!("id: floor0-{}@{channel}\ndata: ", 1_795_229_237_926_601 + u64::from(stamp.seq));
        let bytes = id.len() + self.hello.payload_bytes as usize + 2;
        self.frame.clear();
        self.frame.extend_from_slice(format!("{bytes:x}\r\n{id}").as_bytes());
        stamp.write(self.hello.payload_bytes as usize, &mut self.frame);
        self.frame.extend_from_slice(b"\n\n\r\n");
    }
}

fn readable_only(registry: &Registry, stream: &mut TcpStream, place: u32) {
    _ = registry.reregister(stream, Token(place as usize), Interest::READABLE);
}

/// The number of the client, from `user=u` in its request.
fn user(request: &[u8]) -> u32 {
    const NAME: &[u8] = b"user=u";
    let Some(at) = memchr::memmem::find(request, NAME) else { return 0 };
    let digits = request[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit()).take(7);
    digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}
