//! Redis's wire form (RESP2), read and written by hand: a message costs no allocation, and nothing that arrives can
//! make more than a bound of memory or a panic of it.
//!
//! The reader finds where a reply ends and what it is made of; whose bytes those are and when they go is the caller's
//! business. It goes on where it stopped: a reply that comes in drips is looked at once.

use memchr::memchr;

/// Bytes of one reply at most. A page of history holds some MiB and one event more.
pub const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a line at most: a number, a status, an error.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Parts of one reply at most.
const ITEMS_MAX: usize = 1 << 20;

/// A part of a reply; an array's members follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// `+OK`
    Status(Span),
    /// `-ERR …`
    Error(Span),
    /// `:1`
    Integer(i64),
    /// `$2`, `OK`
    Bulk(Span),
    /// A bulk or an array that isn't there.
    Null,
    /// So many parts follow, each of them possibly an array.
    Array(usize),
}

/// A place in the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: usize,
    end: usize,
}

/// Why bytes are no reply. There is no going on after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespError {
    /// It begins with something else than a type.
    #[error("a reply can't begin with byte {0:#04x}")]
    Type(u8),
    /// A number isn't one.
    #[error("a number is damaged")]
    Number,
    /// A line or a bulk doesn't end as it should.
    #[error("a line does not end with CRLF")]
    End,
    /// It is larger than anything that was asked for.
    #[error("a reply is too large")]
    TooLarge,
}

/// Finds replies.
#[derive(Debug, Default)]
pub struct Reader {
    items: Vec<Item>,
    at: usize,
    /// Parts that are still to come.
    missing: usize,
}

/// A reply, in the bytes that it was found in.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    bytes: &'a [u8],
    items: &'a [Item],
}

impl Reader {
    /// A reader at the beginning of a reply.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks whether a whole reply has come, and how many bytes it has. Until it says so, it is to be called with the
    /// same bytes and what came after them.
    ///
    /// # Errors
    /// The bytes are no reply.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, RespError> {
        if self.missing == 0 {
            self.items.clear();
            (self.at, self.missing) = (0, 1);
        }
        while self.missing > 0 {
            let Some((item, end)) = read_item(bytes, self.at)? else { return Ok(None) };
            self.at = end;
            self.missing -= 1;
            if let Item::Array(count) = item {
                self.missing += count;
            }
            self.items.push(item);
            if self.items.len() + self.missing > ITEMS_MAX || self.at > REPLY_BYTES_MAX {
                return Err(RespError::TooLarge);
            }
        }
        Ok(Some(self.at))
    }

    /// The reply that [`Reader::read`] found, in the same bytes.
    pub fn reply<'a>(&'a self, bytes: &'a [u8]) -> Reply<'a> {
        Reply { bytes, items: &self.items }
    }
}

impl<'a> Reply<'a> {
    /// Its parts, flat.
    pub fn items(&self) -> &'a [Item] {
        self.items
    }

    /// The bytes of a part.
    pub fn bytes(&self, span: Span) -> &'a [u8] {
        &self.bytes[span.start..span.end]
    }

    /// The text of the error that it is.
    pub fn error(&self) -> Option<String> {
        match self.items.first() {
            Some(Item::Error(span)) => Some(String::from_utf8_lossy(self.bytes(*span)).into_owned()),
            _ => None,
        }
    }

    /// Its texts, one after another: a null is none, an array itself is left out.
    pub fn words(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let bytes = self.bytes;
        self.items.iter().filter_map(move |item| match item {
            Item::Status(span) | Item::Error(span) | Item::Bulk(span) => Some(Some(&bytes[span.start..span.end])),
            Item::Null | Item::Integer(_) => Some(None),
            Item::Array(_) => None,
        })
    }
}

/// The part at a place, and where it ends.
fn read_item(bytes: &[u8], at: usize) -> Result<Option<(Item, usize)>, RespError> {
    let Some(&kind) = bytes.get(at) else { return Ok(None) };
    if !b"+-:$*".contains(&kind) {
        return Err(RespError::Type(kind));
    }
    let Some(line) = read_line(bytes, at + 1)? else { return Ok(None) };
    let text = &bytes[line.start..line.end];
    let next = line.end + 2;
    let item = match kind {
        b'+' => Item::Status(line),
        b'-' => Item::Error(line),
        b':' => Item::Integer(number(text)?),
        b'*' => match number(text)? {
            -1 => Item::Null,
            count => Item::Array(size(count, ITEMS_MAX)?),
        },
        _ => match number(text)? {
            -1 => Item::Null,
            length => {
                let end = next + size(length, REPLY_BYTES_MAX)?;
                let Some(tail) = bytes.get(end..end + 2) else { return Ok(None) };
                if tail != b"\r\n" {
                    return Err(RespError::End);
                }
                return Ok(Some((Item::Bulk(Span { start: next, end }), end + 2)));
            }
        },
    };
    Ok(Some((item, next)))
}

fn read_line(bytes: &[u8], start: usize) -> Result<Option<Span>, RespError> {
    let rest = &bytes[start..];
    let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
    match memchr(b'\r', window) {
        Some(length) => match rest.get(length + 1) {
            Some(b'\n') => Ok(Some(Span { start, end: start + length })),
            Some(_) => Err(RespError::End),
            None => Ok(None),
        },
        None if window.len() == LINE_BYTES_MAX => Err(RespError::TooLarge),
        None => Ok(None),
    }
}

fn number(text: &[u8]) -> Result<i64, RespError> {
    let text = std::str::from_utf8(text).map_err(|_| RespError::Number)?;
    text.parse().map_err(|_| RespError::Number)
}

fn size(number: i64, max: usize) -> Result<usize, RespError> {
    let size = usize::try_from(number).map_err(|_| RespError::Number)?;
    if size > max { Err(RespError::TooLarge) } else { Ok(size) }
}

/// Begins a command of so many words.
pub(crate) fn begin(out: &mut Vec<u8>, words: usize) {
    line(out, b'*', words);
}

/// Adds a word.
pub(crate) fn word(out: &mut Vec<u8>, bytes: &[u8]) {
    line(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// A whole command.
pub(crate) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    begin(out, words.len());
    for text in words {
        word(out, text);
    }
}

fn line(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &[u8] = b"*5\r\n$7\r\nmessage\r\n+OK\r\n:-12\r\n$-1\r\n*2\r\n$0\r\n\r\n-ERR no\r\n";

    fn words(bytes: &[u8]) -> Vec<Option<Vec<u8>>> {
        let mut reader = Reader::new();
        assert_eq!(reader.read(bytes), Ok(Some(bytes.len())));
        reader.reply(bytes).words().map(|word| word.map(<[u8]>::to_vec)).collect()
    }

    #[test]
    fn a_reply_is_its_words_however_it_is_nested() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(words(SAMPLE), [text("message"), text("OK"), None, None, text(""), text("ERR no")]);
        assert_eq!(words(b"*-1\r\n"), [None]);
        assert_eq!(words(b"*0\r\n"), []);
    }

    #[test]
    fn a_reply_that_comes_in_drips_is_found_at_its_last_byte() {
        let mut reader = Reader::new();
        for end in 0..SAMPLE.len() {
            assert_eq!(reader.read(&SAMPLE[..end]), Ok(None));
        }
        let two = [SAMPLE, b"+PONG\r\n"].concat();
        assert_eq!(reader.read(&two), Ok(Some(SAMPLE.len())));
        assert_eq!(reader.read(&two[SAMPLE.len()..]), Ok(Some(7)));
        assert_eq!(reader.reply(b"+PONG\r\n").words().next(), Some(Some(&b"PONG"[..])));
    }

    #[test]
    fn what_is_no_reply_says_why() {
        for (bytes, error) in [
            (&b"hello"[..], RespError::Type(b'h')),
            (b"$x\r\n", RespError::Number),
            (b"*-2\r\n", RespError::Number),
            (b":\r\n", RespError::Number),
            (b"+OK\rx", RespError::End),
            (b"$1\r\nabc", RespError::End),
            (b"*9999999\r\n", RespError::TooLarge),
            (b"$999999999999\r\n", RespError::TooLarge),
            (b"*1000000\r\n*1000000\r\n", RespError::TooLarge),
        ] {
            assert_eq!(Reader::new().read(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        let endless = vec![b'+'; LINE_BYTES_MAX + 1];
        assert_eq!(Reader::new().read(&endless), Err(RespError::TooLarge));
    }

    proptest! {
        #[test]
        fn a_command_is_read_as_it_was_written(written: Vec<Vec<u8>>) {
            let slices: Vec<&[u8]> = written.iter().map(Vec::as_slice).collect();
            let mut bytes = Vec::new();
            command(&mut bytes, &slices);
            let expected: Vec<_> = written.into_iter().map(Some).collect();
            prop_assert_eq!(words(&bytes), expected);
        }

        #[test]
        fn any_bytes_are_replies_or_an_error(bytes in "[+:$*0-9\r\na-]{0,60}", step in 1..9_usize) {
            let (mut reader, mut rest, mut seen) = (Reader::new(), bytes.as_bytes(), 0);
            while seen < rest.len() {
                seen = (seen + step).min(rest.len());
                match reader.read(&rest[..seen]) {
                    Ok(Some(length)) => {
                        prop_assert!(length <= seen && length > 0);
                        _ = reader.reply(rest).words().count();
                        rest = &rest[length..];
                        seen = 0;
                    }
                    Ok(None) => {}
                    Err(_) => break,
                }
            }
        }
    }
}
