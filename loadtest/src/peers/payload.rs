//! What an event says, in a form that no server's framing changes: letters, digits and spaces.

use std::fmt::Write as _;

/// What an event says: enough to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// Tells one measurement's events from another's.
    pub(super) run: u32,
    /// Number of the event in its channel, from 0.
    pub(super) number: u32,
    /// When it was to be sent, in µs since the measurement began.
    pub(super) due_micros: u64,
}

/// A payload of ours that was cut or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

const MARK: &str = "load ";
const FILLER: u8 = b'x';

impl Payload {
    /// Writes it, so that it has about so many bytes.
    pub(super) fn write(self, bytes: usize, out: &mut String) {
        let Self { run, number, due_micros } = self;
        let start = out.len();
        write!(out, "{MARK}{run} {number} {due_micros} ").expect("strings take everything");
        out.extend(std::iter::repeat_n(char::from(FILLER), (start + bytes).saturating_sub(out.len())));
    }

    /// Finds one in a line, whatever stands around it.
    pub(super) fn find(line: &[u8], bytes: usize) -> Result<Option<Self>, Corrupt> {
        let Some(at) = memchr::memmem::find(line, MARK.as_bytes()) else { return Ok(None) };
        let mut rest = &line[at + MARK.len()..];
        let mut word = || -> Option<u64> {
            let end = memchr::memchr(b' ', rest)?;
            let word = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
            rest = &rest[end + 1..];
            Some(word)
        };
        let words = (|| Some((word()?, word()?, word()?)))();
        let (run, number, due_micros) = words.ok_or(Corrupt)?;
        let (run, number) = (run.try_into().map_err(|_| Corrupt)?, number.try_into().map_err(|_| Corrupt)?);
        let filler = rest.iter().take_while(|byte| **byte == FILLER).count();
        let length = line.len() - at - rest.len() + filler;
        if length < bytes { Err(Corrupt) } else { Ok(Some(Self { run, number, due_micros })) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_whatever_stands_around_it_and_never_when_it_was_cut() {
        let payload = Payload { run: 7, number: 3, due_micros: 123_456 };
        let mut text = String::new();
        payload.write(200, &mut text);
        assert_eq!(text.len(), 200);
        for line in [format!("data:{text}"), format!("data: {{\"pub\":{{\"data\":\"{text}\"}}}}")] {
            assert_eq!(Payload::find(line.as_bytes(), 200), Ok(Some(payload)), "{line}");
        }
        assert_eq!(Payload::find(&text.as_bytes()[..199], 200), Err(Corrupt));
        assert_eq!(Payload::find(text.replacen("xx", "xy", 1).as_bytes(), 200), Err(Corrupt));
        assert_eq!(Payload::find(b"data: load 1 ", 200), Err(Corrupt));
        assert_eq!(Payload::find(b": heartbeat", 200), Ok(None));
    }
}
