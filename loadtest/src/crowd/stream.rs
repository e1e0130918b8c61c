//! One response, from bytes in pieces of any size to text: head, chunks, and what is left of a frame between two reads.
//!
//! Mostly a read ends with a frame, and nothing is kept but a few words: that is what makes a client small.

use super::ear::{Ear, Heard, Listener};

/// Bytes of a head, of a chunk's size and of an event at most.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const SIZE_BYTES_MAX: usize = 64;
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Where in a response a client is.
#[derive(Debug)]
pub(super) struct Stream {
    stage: Stage,
    /// Bytes of the chunk that are still to come, with the line end behind it.
    left: u32,
    /// What was cut off, where something was: of the response, and of a frame.
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Chunks,
    /// The body ends with the connection.
    Plain,
}

/// What ended it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The server ended the body in good order.
    Body,
    /// Another answer than 200, with `Retry-After` in seconds where it was sent.
    Refused(u16, Option<u64>),
    /// It is no stream of events.
    Bad(String),
}

impl Stream {
    pub(super) fn new() -> Self {
        Self { stage: Stage::Head, left: 0, kept: None }
    }

    /// Puts what was left of the last read before the next one, and tells how much that is.
    pub(super) fn put_back(&mut self, buffer: &mut [u8]) -> usize {
        let Some(kept) = &mut self.kept else { return 0 };
        let bytes = kept.bytes.len();
        buffer[..bytes].copy_from_slice(&kept.bytes);
        kept.bytes.clear();
        bytes
    }

    /// Takes what was read, behind what was put back.
    pub(super) fn take(&mut self, bytes: &[u8], ear: &mut Ear, who: Listener, heard: &mut Heard) -> Result<(), End> {
        let taken = self.take_some(bytes, ear, who, heard)?;
        if taken < bytes.len() {
            let most = if self.stage == Stage::Head { HEAD_BYTES_MAX } else { SIZE_BYTES_MAX };
            if bytes.len() - taken > most {
                return Err(End::Bad("a head or a chunk's size without an end".to_owned()));
            }
            self.kept.get_or_insert_default().bytes.extend_from_slice(&bytes[taken..]);
        } else if self.kept.as_ref().is_some_and(|kept| kept.text.is_empty()) {
            self.kept = None;
        }
        Ok(())
    }

    fn take_some(&mut self, bytes: &[u8], ear: &mut Ear, who: Listener, heard: &mut Heard) -> Result<usize, End> {
        let mut at = 0;
        if self.stage == Stage::Head {
            let Some((head, stage)) = read_head(bytes)? else { return Ok(0) };
            (at, self.stage) = (head, stage);
            heard.ready |= ear.is_ready_by_head();
        }
        if self.stage == Stage::Plain {
            self.text(&bytes[at..], ear, who, heard)?;
            return Ok(bytes.len());
        }
        while at < bytes.len() {
            if self.left == 0 {
                let Some((size, line)) = read_size(&bytes[at..])? else { break };
                at += line;
                if size == 0 {
                    return Err(End::Body);
                }
                self.left = size + 2;
            }
            let data = (self.left.saturating_sub(2) as usize).min(bytes.len() - at);
            if data > 0 {
                self.text(&bytes[at..at + data], ear, who, heard)?;
            }
            at += data;
            self.left -= data as u32;
            while self.left <= 2 && self.left > 0 && at < bytes.len() {
                if bytes[at] != b"\n\r"[self.left as usize - 1] {
                    return Err(End::Bad(format!("{:?} where a chunk should end", char::from(bytes[at]))));
                }
                (at, self.left) = (at + 1, self.left - 1);
            }
        }
        Ok(at)
    }

    fn text(&mut self, text: &[u8], ear: &mut Ear, who: Listener, heard: &mut Heard) -> Result<(), End> {
        match &mut self.kept {
            Some(kept) if !kept.text.is_empty() => {
                kept.text.extend_from_slice(text);
                let heard = ear.hear(who, heard, &kept.text);
                kept.text.drain(..heard);
                if kept.text.len() > EVENT_BYTES_MAX {
                    return Err(End::Bad("an event without an end".to_owned()));
                }
            }
            _ => {
                let heard = ear.hear(who, heard, text);
                if heard < text.len() {
                    self.kept.get_or_insert_default().text.extend_from_slice(&text[heard..]);
                }
            }
        }
        Ok(())
    }
}

/// Reads the head of a response, if it is whole: its length, and how the body is framed.
fn read_head(bytes: &[u8]) -> Result<Option<(usize, Stage)>, End> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(End::Bad(format!("no HTTP response: {error}"))),
    };
    let header = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let status = response.code.unwrap_or_default();
    if status != 200 {
        return Err(End::Refused(status, header("retry-after").and_then(|after| after.parse().ok())));
    }
    let kind = header("content-type").unwrap_or("nothing");
    if !kind.starts_with("text/event-stream") {
        return Err(End::Bad(format!("content of type {kind}")));
    }
    let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    Ok(Some((length, if chunked { Stage::Chunks } else { Stage::Plain })))
}

/// Reads the size of a chunk, if its line is whole: the size, and the line's length.
fn read_size(bytes: &[u8]) -> Result<Option<(u32, usize)>, End> {
    let mut size = 0_u32;
    for (at, byte) in bytes.iter().enumerate() {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' | b';' if at > 0 => {
                return Ok(memchr::memchr(b'\n', &bytes[at..]).map(|end| (size, at + end + 1)));
            }
            _ => return Err(End::Bad(format!("{:?} in a chunk's size", char::from(*byte)))),
        };
        if size >> 26 != 0 {
            return Err(End::Bad("a chunk of more than a gigabyte".to_owned()));
        }
        size = size << 4 | u32::from(digit);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Stamp, To};

    const WHO: Listener = Listener { user: 1, channel: 0 };

    /// What is heard of a response that comes in pieces: deliveries, how it ended, and whether anything was kept.
    fn read(bytes: &[u8], piece: usize) -> (u64, Result<(), End>, bool) {
        let (mut ear, mut heard, mut stream) = (Ear::new(7, 50, None, false), Heard::new(), Stream::new());
        let mut buffer = vec![0; 4096];
        for piece in bytes.chunks(piece) {
            let kept = stream.put_back(&mut buffer);
            buffer[kept..kept + piece.len()].copy_from_slice(piece);
            if let Err(end) = stream.take(&buffer[..kept + piece.len()], &mut ear, WHO, &mut heard) {
                return (ear.sum.deliveries, Err(end), stream.kept.is_some());
            }
        }
        assert!(ear.sum.faults.counts.is_empty());
        (ear.sum.deliveries, Ok(()), stream.kept.is_some())
    }

    fn frames() -> String {
        let frame = |seq| {
            let mut payload = Vec::new();
            Stamp { run: 7, to: To::User(1), seq, due: 0 }.write(50, &mut payload);
            format!("id: x\ndata: {}\n\n", String::from_utf8(payload).expect("ASCII"))
        };
        (0..3).map(frame).collect()
    }

    #[test]
    fn it_does_not_matter_how_a_response_is_cut_nor_where_its_chunks_end() {
        let (frames, head) = (frames(), "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n");
        let plain = format!("{head}\r\n{frames}");
        let chunks = |size: usize| {
            let chunks = frames
                .as_bytes()
                .chunks(size)
                .map(|chunk| format!("{:X};x=y\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunks.collect::<String>())
        };
        for response in [plain, chunks(frames.len()), chunks(67), chunks(10)] {
            for piece in 1..300 {
                assert_eq!(read(response.as_bytes(), piece), (3, Ok(()), false), "in pieces of {piece}");
            }
            let ended = format!("{response}0\r\n\r\n");
            assert!(response.starts_with(&format!("{head}\r\n")) || read(ended.as_bytes(), 9).1 == Err(End::Body));
        }
    }

    #[test]
    fn other_answers_and_bad_chunks_are_told() {
        let refused = b"HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n";
        assert_eq!(read(refused, 5).1, Err(End::Refused(503, Some(7))));
        for bad in ["SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n"] {
            assert!(matches!(read(bad.as_bytes(), 99).1, Err(End::Bad(_))), "{bad}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in ["x\r\n", "2\r\n\n\nX\n", "\r\n", "fffffffff\r\n"] {
            assert!(matches!(read(format!("{head}{bad}").as_bytes(), 3).1, Err(End::Bad(_))), "{bad:?}");
        }
    }
}
