//! HTTP/1 responses, read as they come: a head, then a body that never has to be whole.

mod chunked;

use std::borrow::Cow;

use chunked::Chunked;

/// Bytes of a response's head at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Status line and headers.
#[derive(Clone, Debug)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Names as sent, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// A piece of a response.
#[derive(Debug)]
pub enum Part<'a> {
    /// The head is whole.
    Head(Head),
    /// Bytes of the body, without what frames them.
    Body(&'a [u8]),
    /// The body is whole. What follows belongs to the next response.
    End,
}

/// Not an HTTP/1 response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The head can't be read.
    #[error("the response's head can't be read: {0}")]
    Head(httparse::Error),
    /// More than [`HEAD_BYTES_MAX`].
    #[error("the response's head has more than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// A length that is no number.
    #[error("the response's content-length is {0:?}")]
    Length(String),
    /// The chunks of the body can't be read.
    #[error("a chunk of the body has {0:?} where {1} should be")]
    Chunk(char, &'static str),
}

/// Reads one response in pieces of any size.
#[derive(Debug, Default)]
pub struct Response {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Chunked(Chunked),
    Length(u64),
    UntilClosed,
    Ended,
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl Response {
    /// A response that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of what was read. `None` means that all are taken and nothing is whole.
    ///
    /// # Errors
    /// Where it is no HTTP/1 response; nothing more can be read then.
    pub fn next_part<'a>(&mut self, read: &mut &'a [u8]) -> Result<Option<Part<'a>>, ResponseError> {
        match &mut self.state {
            State::Head(kept) => {
                let Some(bytes) = take_head(kept, read)? else { return Ok(None) };
                let head = parse_head(&bytes)?;
                if (100..200).contains(&head.status) {
                    self.state = State::default();
                    return self.next_part(read);
                }
                self.state = State::after(&head)?;
                Ok(Some(Part::Head(head)))
            }
            State::Chunked(chunked) => match chunked.next_data(read)? {
                chunked::Step::Data(data) => Ok(Some(Part::Body(data))),
                chunked::Step::More => Ok(None),
                chunked::Step::End => {
                    self.state = State::Ended;
                    Ok(Some(Part::End))
                }
            },
            State::Length(0) => {
                self.state = State::Ended;
                Ok(Some(Part::End))
            }
            State::Length(_) | State::UntilClosed if read.is_empty() => Ok(None),
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= taken as u64;
                Ok(Some(Part::Body(take(read, taken))))
            }
            State::UntilClosed => Ok(Some(Part::Body(take(read, read.len())))),
            State::Ended => Ok(None),
        }
    }

    /// Whether a close of the connection is a proper end here.
    pub fn may_close(&self) -> bool {
        matches!(self.state, State::UntilClosed | State::Ended)
    }
}

impl State {
    fn after(head: &Head) -> Result<Self, ResponseError> {
        if matches!(head.status, 204 | 304) {
            return Ok(Self::Length(0));
        }
        if head.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
            return Ok(Self::Chunked(Chunked::default()));
        }
        match head.header("content-length") {
            None => Ok(Self::UntilClosed),
            Some(text) => text.parse().map(Self::Length).map_err(|_| ResponseError::Length(text.to_owned())),
        }
    }
}

fn take<'a>(read: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = read.split_at(count);
    *read = rest;
    taken
}

/// Where the blank line after the headers ends; what comes in pieces is put together in `kept`.
fn take_head<'a>(kept: &mut Vec<u8>, read: &mut &'a [u8]) -> Result<Option<Cow<'a, [u8]>>, ResponseError> {
    const END: &[u8] = b"\r\n\r\n";
    if kept.is_empty()
        && let Some(at) = memchr::memmem::find(read, END)
    {
        return Ok(Some(Cow::Borrowed(take(read, at + END.len()))));
    }
    let before = kept.len();
    kept.extend_from_slice(read);
    let from = before.saturating_sub(END.len() - 1);
    if let Some(at) = memchr::memmem::find(&kept[from..], END) {
        let end = from + at + END.len();
        *read = &read[end - before..];
        kept.truncate(end);
        return Ok(Some(Cow::Owned(std::mem::take(kept))));
    }
    *read = &[];
    if kept.len() > HEAD_BYTES_MAX { Err(ResponseError::HeadTooLong) } else { Ok(None) }
}

fn parse_head(bytes: &[u8]) -> Result<Head, ResponseError> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(bytes).map_err(ResponseError::Head)?;
    let own =
        |header: &httparse::Header<'_>| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned());
    Ok(Head {
        status: parsed.code.ok_or(ResponseError::Head(httparse::Error::Status))?,
        headers: parsed.headers.iter().map(own).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a response cut into pieces of so many bytes, and tells the head, the body, whether it ended, and what
    /// was left.
    fn read(bytes: &[u8], piece: usize) -> Result<(Head, Vec<u8>, bool, usize), ResponseError> {
        let (mut response, mut head, mut body, mut ended) = (Response::new(), None, Vec::new(), false);
        let mut left = bytes.len();
        for piece in bytes.chunks(piece) {
            let mut rest = piece;
            while !ended && let Some(part) = response.next_part(&mut rest)? {
                match part {
                    Part::Head(got) => head = Some(got),
                    Part::Body(data) => body.extend_from_slice(data),
                    Part::End => ended = true,
                }
            }
            left -= piece.len() - rest.len();
        }
        Ok((head.expect("a whole head"), body, ended, left))
    }

    #[test]
    fn it_does_not_matter_how_a_response_is_cut() {
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n5\r\nhello\r\nC;x=y\r\n, wide world\
            \r\n0\r\nTrailer: z\r\n\r\n";
        let sized =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\nhello, wide worldNEXT";
        let closed = b"HTTP/1.0 200 OK\r\n\r\nhello, wide world";
        for piece in 1..90 {
            let (head, body, ended, left) = read(chunked, piece).expect("valid");
            assert_eq!((head.status, head.header("x-a"), ended, left), (200, Some("b"), true, 0));
            assert_eq!(body, b"hello, wide world", "{piece}");
            let (head, body, ended, _) = read(sized, piece).expect("valid");
            assert_eq!((head.status, &body[..], ended), (404, &b"hello, wide world"[..], true));
            assert_eq!(
                read(closed, piece).map(|(_, body, ended, _)| (body, ended)),
                Ok((b"hello, wide world".to_vec(), false))
            );
        }
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        assert!(matches!(read(b"SSH-2.0-x\r\n\r\n", 99), Err(ResponseError::Head(_))));
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, expected) in [("x\r\n", 'x'), ("1\r\nab", 'b'), ("1\nx", '\n'), ("\r\n", '\r')] {
            let bytes = [&head[..], body.as_bytes()].concat();
            assert!(matches!(read(&bytes, 1), Err(ResponseError::Chunk(got, _)) if got == expected), "{body:?}");
        }
    }
}
