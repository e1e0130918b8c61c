//! One request at a time over a connection that is kept, with patience for its answer: how everybody publishes here.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::http::{Part, Response};

/// Longest wait for an answer: far beyond the deadline of any server, so that one that hangs is told from one that is
/// slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Opens a connection.
pub(crate) fn open(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&endpoint.address(), ANSWER_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Reads an answer by way of a buffer. What `body` held is replaced by what the answer holds. Tells its status, and whether
/// the connection may be used again.
pub(crate) fn read_answer(stream: &mut impl Read, buffer: &mut [u8], body: &mut Vec<u8>) -> io::Result<(u16, bool)> {
    let (mut response, mut head) = (Response::new(), None);
    body.clear();
    loop {
        let count = match stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            // We were stopped, and go on. A read with a timeout isn't begun again by the system.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut read = &buffer[..count];
        while let Some(part) = response.next_part(&mut read).map_err(io::Error::other)? {
            match part {
                Part::Head(got) => head = Some(got),
                Part::Body(data) => body.extend_from_slice(data),
                Part::End => {
                    let head = head.expect("a head comes before the end");
                    let close = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                    return Ok((head.status, !close));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in pieces; before each of them the reader is interrupted.
    struct Interrupting<'a> {
        pieces: &'a [&'a str],
        is_next: bool,
    }

    impl Read for Interrupting<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.is_next = !self.is_next;
            if self.is_next {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some((piece, rest)) = self.pieces.split_first() else { return Ok(0) };
            self.pieces = rest;
            buffer[..piece.len()].copy_from_slice(piece.as_bytes());
            Ok(piece.len())
        }
    }

    #[test]
    fn an_interrupted_read_is_no_missing_answer() {
        let pieces = ["HTTP/1.1 200 OK\r\nContent-", "Length: 4\r\n\r\nye", "s."];
        let (mut buffer, mut body) = ([0; 64], b"what was asked".to_vec());
        let mut read = |pieces: &[&str]| {
            let answer = read_answer(&mut Interrupting { pieces, is_next: false }, &mut buffer, &mut body);
            (answer.map_err(|error| error.kind()), String::from_utf8_lossy(&body).into_owned())
        };
        assert_eq!(read(&pieces), (Ok((200, true)), "yes.".to_owned()));
        assert_eq!(read(&pieces[..2]).0, Err(io::ErrorKind::UnexpectedEof));
    }
}
