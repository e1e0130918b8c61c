//! Publishes events in the dialect of the server, one with each request or many, and waits until they are acknowledged.

use std::io::{self, Write};
use std::net::TcpStream;

use memchr::memmem;

use crate::answer::{open, read_answer};
use crate::clock::Nanos;
use crate::dialect::{Dialect, fill_to};
use crate::endpoint::Endpoint;
use crate::floor::Voice;
use crate::stamp::{Stamp, To};

/// An event that is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saying {
    pub(crate) to: To,
    pub(crate) seq: u32,
    pub(crate) due: Nanos,
}

/// Publishes.
#[derive(Debug)]
pub(crate) enum Speaker {
    Http(Box<Http>),
    Floor(Voice),
}

impl Speaker {
    /// One whose events to users have idempotency keys. The floor knows of none.
    pub(crate) fn idempotent(self) -> Self {
        match self {
            Self::Http(http) => Self::Http(Box::new(Http { dialect: http.dialect.clone().idempotent(), ..*http })),
            Self::Floor(voice) => Self::Floor(voice),
        }
    }

    /// Publishes events in this order, and waits for the answer to the last.
    ///
    /// # Errors
    /// They were not all acknowledged; which of them were isn't known then.
    pub(crate) fn say(&mut self, events: &[Saying]) -> io::Result<()> {
        match self {
            Self::Http(http) => http.say(events),
            Self::Floor(voice) => voice.say(events),
        }
    }
}

/// A keep-alive connection to a publish API.
#[derive(Debug)]
pub(crate) struct Http {
    endpoint: Endpoint,
    dialect: Dialect,
    run: u32,
    payload_bytes: usize,
    stream: Option<TcpStream>,
    body: Vec<u8>,
    request: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Http {
    pub(crate) fn new(endpoint: Endpoint, dialect: Dialect, run: u32, payload_bytes: usize) -> Self {
        let buffer = vec![0; 64 * 1024].into();
        Self { endpoint, dialect, run, payload_bytes, stream: None, body: Vec::new(), request: Vec::new(), buffer }
    }

    fn say(&mut self, events: &[Saying]) -> io::Result<()> {
        match &self.dialect.bulk {
            Some(_) if events.len() > 1 => self.say_many(events),
            _ => events.iter().try_for_each(|event| self.say_one(*event)),
        }
    }

    fn say_one(&mut self, Saying { to, seq, due }: Saying) -> io::Result<()> {
        let post = self.dialect.post(to);
        self.body.clear();
        self.body.extend_from_slice(fill_to(&post.before, to, self.run, seq).as_bytes());
        Stamp { run: self.run, to, seq, due }.write(self.payload_bytes, &mut self.body);
        self.body.extend_from_slice(fill_to(&post.after, to, self.run, seq).as_bytes());
        let (path, headers) = (fill_to(&post.path, to, self.run, seq), post.headers.clone());
        self.post(&path, &headers, None)
    }

    fn say_many(&mut self, events: &[Saying]) -> io::Result<()> {
        let Some(bulk) = &self.dialect.bulk else { return Ok(()) };
        self.body.clear();
        for Saying { to, seq, due } in events {
            let (before, after) = bulk.parts(*to);
            self.body.extend_from_slice(fill_to(before, *to, self.run, *seq).as_bytes());
            Stamp { run: self.run, to: *to, seq: *seq, due: *due }.write(self.payload_bytes, &mut self.body);
            self.body.extend_from_slice(fill_to(after, *to, self.run, *seq).as_bytes());
            self.body.extend_from_slice(bulk.separator.as_bytes());
        }
        let (path, headers, success) = (bulk.path.clone(), bulk.headers.clone(), bulk.success.clone());
        self.post(&path, &headers, Some((&success, events.len())))
    }

    /// Sends what stands in the body. The answer must be one of success, with so many of a text in its body.
    fn post(&mut self, path: &str, headers: &str, successes: Option<(&str, usize)>) -> io::Result<()> {
        // Taken out: a connection that failed is not used again.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => open(&self.endpoint)?,
        };
        let (prefix, host, length) = (self.endpoint.path(), self.endpoint.authority(), self.body.len());
        self.request.clear();
        write!(
            self.request,
            "POST {prefix}{path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {length}\r\n\r\n"
        )?;
        self.request.extend_from_slice(&self.body);
        stream.write_all(&self.request)?;
        // The answer's body takes the place of ours.
        let (status, keep) = read_answer(&mut stream, &mut self.buffer, &mut self.body)?;
        if keep {
            self.stream = Some(stream);
        }
        let found = successes.map(|(text, _)| memmem::find_iter(&self.body, text).count());
        if !(200..300).contains(&status) || found != successes.map(|(_, count)| count) {
            let answer = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]).into_owned();
            return Err(io::Error::other(format!("a publish was answered with {status}: {answer}")));
        }
        Ok(())
    }
}
