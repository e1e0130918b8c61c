//! What a browser makes of a stream (WHATWG HTML §9.2.5 and §9.2.6), read as it comes.
//!
//! Lines that are whole in what was read are looked at where they are; only what is cut off is kept.

use std::time::Duration;

use memchr::{memchr, memchr2};

use crate::DEFAULT_TYPE;

/// An event as a browser would dispatch it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The last event id when it was dispatched: its own, or that of an event before it, or empty.
    pub id: String,
    /// Its type; [`DEFAULT_TYPE`] where the stream names none.
    pub event: String,
    /// Its data, lines joined by LF.
    pub data: String,
}

/// An event is larger than the reader allows. Nothing more can be read from the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream has more than {limit} bytes")]
pub struct TooLong {
    /// The bound that it was read with.
    pub limit: usize,
}

/// Reads a stream of events, in pieces of any size.
///
/// ```
/// # use fanfare_protocol::sse::Decoder;
/// let mut decoder = Decoder::new(1 << 20);
/// let mut read = &b"id: k3f9x2-5\ndata: hi\n\ndata: the rest is to co"[..];
/// while let Some(message) = decoder.next_message(&mut read)? {
///     assert_eq!(message.data, "hi");
/// }
/// assert_eq!(decoder.last_event_id(), "k3f9x2-5");
/// # Ok::<(), fanfare_protocol::sse::TooLong>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    event_bytes_max: usize,
    /// What was cut off of a line.
    line: Vec<u8>,
    /// Before its first line a stream may have a byte order mark.
    first_line: bool,
    /// After a CR, an LF belongs to it.
    after_cr: bool,
    data: Vec<u8>,
    event: Vec<u8>,
    /// The last event id buffer, which becomes the last event id with a blank line.
    id: Vec<u8>,
    last_event_id: String,
    retry: Option<Duration>,
    too_long: bool,
}

impl Decoder {
    /// Reads a stream whose events have at most so many bytes: the id, the type and the data so far, and
    /// the line after them as it stands in the stream.
    pub fn new(event_bytes_max: usize) -> Self {
        Self {
            event_bytes_max,
            line: Vec::new(),
            first_line: true,
            after_cr: false,
            data: Vec::new(),
            event: Vec::new(),
            id: Vec::new(),
            last_event_id: String::new(),
            retry: None,
            too_long: false,
        }
    }

    /// Begins another stream that goes on where this one ended. What was read of an event is dropped; the last event
    /// id and the pause stay, as they do in browsers.
    pub fn reconnect(&mut self) {
        let (last_event_id, retry) = (std::mem::take(&mut self.last_event_id), self.retry);
        let id = last_event_id.clone().into_bytes();
        *self = Self { id, last_event_id, retry, ..Self::new(self.event_bytes_max) };
    }

    /// Takes bytes from the front of what was read, up to the end of the next event. `None` means that all are taken.
    ///
    /// # Errors
    /// Where an event is larger than allowed, then and ever after.
    pub fn next_message(&mut self, read: &mut &[u8]) -> Result<Option<Message>, TooLong> {
        while !self.too_long && !read.is_empty() {
            if std::mem::take(&mut self.after_cr) && read[0] == b'\n' {
                *read = &read[1..];
                continue;
            }
            let end = memchr2(b'\n', b'\r', read);
            let line = &read[..end.unwrap_or(read.len())];
            self.check_size(line.len());
            if self.too_long {
                break;
            }
            let Some(end) = end else {
                self.line.extend_from_slice(line);
                *read = &[];
                break;
            };
            self.after_cr = read[end] == b'\r';
            *read = &read[end + 1..];
            let message = if self.line.is_empty() {
                self.take_line(line)
            } else {
                let mut kept = std::mem::take(&mut self.line);
                kept.extend_from_slice(line);
                let message = self.take_line(&kept);
                kept.clear();
                self.line = kept;
                message
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        if self.too_long { Err(TooLong { limit: self.event_bytes_max }) } else { Ok(None) }
    }

    /// What a client sends back as `Last-Event-ID`; empty for nothing. Blocks without data count too.
    pub fn last_event_id(&self) -> &str {
        &self.last_event_id
    }

    /// The pause that the stream asked for last.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// A line counts before it is taken, so that it doesn't matter how it was cut. Taken, it counts no more than that.
    fn check_size(&mut self, more: usize) {
        let kept = self.line.len() + self.data.len() + self.event.len() + self.id.len();
        self.too_long |= kept + more > self.event_bytes_max;
    }

    fn take_line(&mut self, mut line: &[u8]) -> Option<Message> {
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match memchr(b':', line) {
            None => (line, &[][..]),
            Some(colon) => (&line[..colon], &line[colon + 1..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => replace(&mut self.event, value),
            b"id" if memchr(0, value).is_none() => replace(&mut self.id, value),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let digits = std::str::from_utf8(value).expect("digits are ASCII");
                self.retry = Some(Duration::from_millis(digits.parse().unwrap_or(u64::MAX)));
            }
            _ => {} // A comment has an empty field name; others are ignored.
        }
        None
    }

    fn dispatch(&mut self) -> Option<Message> {
        if self.last_event_id.as_bytes() != self.id {
            self.last_event_id = String::from_utf8_lossy(&self.id).into_owned();
        }
        let event = match &*self.event {
            [] => DEFAULT_TYPE.to_owned(),
            event => String::from_utf8_lossy(event).into_owned(),
        };
        self.event.clear();
        self.data.pop()?; // The last line's end; without a line there is nothing to dispatch.
        let data = String::from_utf8_lossy(&self.data).into_owned();
        self.data.clear();
        Some(Message { id: self.last_event_id.clone(), event, data })
    }
}

fn replace(buffer: &mut Vec<u8>, value: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<Vec<Message>, TooLong> {
        std::iter::from_fn(|| decoder.next_message(&mut bytes).transpose()).collect()
    }

    fn decode(stream: &str) -> Vec<(String, String, String)> {
        let messages = read(&mut Decoder::new(1000), stream.as_bytes()).expect("short");
        messages.into_iter().map(|message| (message.id, message.event, message.data)).collect()
    }

    fn message(id: &str, event: &str, data: &str) -> (String, String, String) {
        (id.to_owned(), event.to_owned(), data.to_owned())
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        assert_eq!(decode("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("", "message", "YHOO\n+2\n10")]);
        let four_blocks =
            ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        let expected = [
            message("1", "message", "first event"),
            message("", "message", "second event"),
            message("", "message", " third event"),
        ];
        assert_eq!(decode(four_blocks), expected);
        assert_eq!(decode("data\n\ndata\ndata\n\ndata:"), [message("", "message", ""), message("", "message", "\n")]);
        assert_eq!(decode("data:test\n\ndata: test\n\n"), vec![message("", "message", "test"); 2]);
    }

    #[test]
    fn a_byte_order_mark_is_stripped_once_at_the_start() {
        assert_eq!(decode("\u{feff}data: a\n\n"), [message("", "message", "a")]);
        assert_eq!(decode("\u{feff}\u{feff}data: a\n\n"), []);
        assert_eq!(decode(":\n\u{feff}data: a\n\n"), []);
        assert_eq!(decode("\u{feff}\ndata: \u{feff}a\n\n"), [message("", "message", "\u{feff}a")]);
    }

    #[test]
    fn lines_end_with_lf_cr_or_both() {
        assert_eq!(
            decode("data: a\r\n\r\ndata: b\r\rdata: c\n\r\n"),
            [message("", "message", "a"), message("", "message", "b"), message("", "message", "c"),]
        );
        assert_eq!(decode("data: a\n\rdata: b\r\n\n"), [message("", "message", "a"), message("", "message", "b")]);
    }

    #[test]
    fn an_event_without_data_is_not_dispatched_but_its_id_is_remembered() {
        let mut decoder = Decoder::new(100);
        assert_eq!(read(&mut decoder, b"event: x\nid: 7\n"), Ok(vec![]));
        assert_eq!(decoder.last_event_id(), "", "until the blank line");
        assert_eq!(read(&mut decoder, b"\ndata: a\n\n").expect("short")[0].event, "message");
        assert_eq!(decoder.last_event_id(), "7");
    }

    #[test]
    fn an_id_with_nul_is_ignored() {
        assert_eq!(decode("id: 1\ndata: a\nid: 2\0\n\n"), [message("1", "message", "a")]);
        assert_eq!(decode("id: 1\n\nid\ndata: a\n\n"), [message("", "message", "a")]);
    }

    #[test]
    fn a_pause_has_digits_only() {
        let mut decoder = Decoder::new(100);
        for (stream, pause) in
            [("retry: 1500\n", 1500), ("retry: 1s\nretry: -1\nretry:\nretry\n", 1500), ("retry:7\n", 7)]
        {
            assert_eq!(read(&mut decoder, stream.as_bytes()), Ok(vec![]));
            assert_eq!(decoder.retry(), Some(Duration::from_millis(pause)), "{stream}");
        }
    }

    #[test]
    fn the_last_line_names_the_type_and_others_are_ignored() {
        assert_eq!(decode("event: a\nevent: b\nDATA: x\ndata : y\nfoo\ndata: z\n\n"), [message("", "b", "z")]);
        assert_eq!(decode("event: a\nevent\ndata: z\n\n"), [message("", "message", "z")]);
    }

    #[test]
    fn an_event_larger_than_allowed_is_an_error_from_then_on() {
        let too_long = Err(TooLong { limit: 20 });
        let mut decoder = Decoder::new(20);
        assert_eq!(read(&mut decoder, b"data: 12345678901234\n\n").expect("fits").len(), 1);
        assert_eq!(read(&mut decoder, &b"data: 1\n\n: comment\n".repeat(100)).expect("each fits").len(), 100);
        assert_eq!(read(&mut decoder, b"data: 123456\ndata: 12345678\n\n"), too_long);
        assert_eq!(read(&mut decoder, b"\n\ndata: 1\n\n"), too_long);
        for stream in ["data: 123456789012345\n\n", ": a comment of more bytes\n\n", "a line without its end"] {
            assert_eq!(read(&mut Decoder::new(20), stream.as_bytes()), too_long, "{stream}");
        }
    }

    #[test]
    fn a_reconnection_drops_half_an_event_and_keeps_the_id() {
        let mut decoder = Decoder::new(100);
        assert_eq!(read(&mut decoder, b"retry: 5\nid: 1\n\nid: 2\ndata: ha").expect("short"), []);
        decoder.reconnect();
        let messages = read(&mut decoder, "\u{feff}data: b\n\n".as_bytes()).expect("short");
        assert_eq!(messages, [Message { id: "1".into(), event: "message".into(), data: "b".into() }]);
        assert_eq!(decoder.retry(), Some(Duration::from_millis(5)));
    }

    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop_oneof![
            Just("\n"),
            Just("\r"),
            Just("\r\n"),
            Just("\n\n"),
            Just("data: "),
            Just("data"),
            Just("id: 1"),
            Just("id:\0"),
            Just("event: x"),
            Just("retry: 12"),
            Just(": "),
            Just("ü"),
            Just("\u{feff}"),
            Just(" "),
            Just("a"),
        ];
        let lines = proptest::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes());
        prop_oneof![lines, any::<Vec<u8>>()]
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_stream_is_cut(
            stream in streams(), cuts in proptest::collection::vec(0..5_usize, 0..60), max in 0..100_usize,
        ) {
            let (mut whole, mut messages, mut rest) = (Decoder::new(max), Vec::new(), &stream[..]);
            let end = loop {
                match whole.next_message(&mut rest) {
                    Ok(Some(message)) => messages.push(message),
                    end => break end,
                }
            };
            let (mut decoder, mut rest) = (Decoder::new(max), &stream[..]);
            let mut expected = messages.into_iter();
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (mut piece, unread) = rest.split_at(cut.min(rest.len()));
                rest = unread;
                loop {
                    match decoder.next_message(&mut piece) {
                        Ok(Some(message)) => prop_assert_eq!(Some(message), expected.next()),
                        Ok(None) => break,
                        Err(error) => {
                            prop_assert_eq!(&end, &Err(error));
                            break;
                        }
                    }
                }
            }
            prop_assert_eq!(expected.next(), None);
            prop_assert_eq!(decoder.next_message(&mut &[][..]), end);
            prop_assert_eq!(decoder.last_event_id(), whole.last_event_id());
            prop_assert_eq!(decoder.retry(), whole.retry());
        }

        #[test]
        fn no_stream_makes_it_keep_more_than_allowed(stream in streams(), max in 0..30_usize) {
            let mut decoder = Decoder::new(max);
            let kept = |decoder: &Decoder| decoder.line.len() + decoder.data.len() + decoder.id.len();
            for byte in &stream {
                if decoder.next_message(&mut &[*byte][..]).is_ok() {
                    prop_assert!(kept(&decoder) <= max);
                }
            }
        }
    }
}
