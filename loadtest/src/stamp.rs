//! What every event of the lean scenarios carries at the start of its payload: which event it is, and when it was due.
//!
//! It is text of a fixed length (letters `a` to `p`, four bits each), so that millions of them a second can be read
//! beside a server on the same machine: at most one search for [`MARK`], no number to parse, and every byte after it
//! compared with what must stand there.

use crate::clock::Nanos;

/// Begins every payload.
const MARK: &[u8; 4] = b"~fl!";

/// Bytes of a stamp with its mark: the least that a payload may have.
pub(crate) const STAMP_BYTES: usize = MARK.len() + 40;

/// Bytes of a payload at most.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// What fills a payload up.
static FILLER: [u8; PAYLOAD_BYTES_MAX] = [b'x'; PAYLOAD_BYTES_MAX];

/// Whom an event is for: everybody, those of a shared channel, or one user, each by a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    All,
    Channel(u32),
    User(u32),
}

/// Sets users apart from channels.
const USER_BIT: u32 = 1 << 31;

impl To {
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::All => 0,
            Self::Channel(number) => 1 + number,
            Self::User(number) => USER_BIT | number,
        }
    }

    pub(crate) fn from_code(code: u32) -> Self {
        match code {
            0 => Self::All,
            code if code & USER_BIT == 0 => Self::Channel(code - 1),
            code => Self::User(code & !USER_BIT),
        }
    }
}

/// Which event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which run published it: what others left behind is not ours to judge.
    pub(crate) run: u32,
    /// Whom it is for.
    pub(crate) to: To,
    /// Its number among those for them, from 0.
    pub(crate) seq: u32,
    /// When it was to be sent.
    pub(crate) due: Nanos,
}

impl Stamp {
    /// Appends a payload of so many bytes, [`STAMP_BYTES`] at least.
    pub(crate) fn write(self, bytes: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(MARK);
        for word in [self.run, self.to.code(), self.seq, (self.due >> 32) as u32, self.due as u32] {
            out.extend((0..8).map(|place| b'a' + (word >> (28 - 4 * place) & 15) as u8));
        }
        out.extend_from_slice(&FILLER[..bytes.saturating_sub(STAMP_BYTES)]);
    }

    /// Reads what [`Stamp::write`] wrote at the start of some text, down to its last byte; what stands behind it is
    /// returned as well. `None`: it is something else, or corrupt.
    pub(crate) fn read(text: &[u8], bytes: usize) -> Option<(Self, &[u8])> {
        let (payload, rest) = text.split_at_checked(bytes.max(STAMP_BYTES))?;
        let mut words = payload.strip_prefix(MARK)?;
        let mut next = || {
            let (word, rest) = words.split_first_chunk::<8>()?;
            words = rest;
            number(*word)
        };
        let (run, code, seq) = (next()?, next()?, next()?);
        let due = u64::from(next()?) << 32 | u64::from(next()?);
        let stamp = Self { run, to: To::from_code(code), seq, due };
        (words == &FILLER[..words.len()]).then_some((stamp, rest))
    }

    /// Where the next stamp begins.
    pub(crate) fn find(text: &[u8]) -> Option<usize> {
        // Mostly it is all that there is.
        if text.starts_with(MARK) { Some(0) } else { memchr::memmem::find(text, MARK) }
    }
}

/// Eight letters as a number, all at once.
fn number(letters: [u8; 8]) -> Option<u32> {
    const EVERY: u64 = 0x0101_0101_0101_0101;
    let nibbles = u64::from_be_bytes(letters).wrapping_sub(EVERY * u64::from(b'a'));
    if nibbles & (EVERY * 0xf0) != 0 {
        return None;
    }
    let bytes = (nibbles | nibbles >> 4) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    Some((halves | halves >> 16) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written_or_not_at_all() {
        let due = 0x0123_4567_89ab_cdef;
        for to in [To::All, To::Channel(0), To::Channel(70_000), To::User(0), To::User(999_999)] {
            let stamp = Stamp { run: 0xdead_beef, to, seq: u32::MAX - 1, due };
            for bytes in [STAMP_BYTES, 200] {
                let mut text = Vec::new();
                stamp.write(bytes, &mut text);
                assert_eq!(text.len(), bytes);
                text.push(b'"');
                assert_eq!(Stamp::read(&text, bytes), Some((stamp, &b"\""[..])));
                for at in 0..bytes {
                    let mut wrong = text.clone();
                    wrong[at] ^= 0x40;
                    assert_ne!(Stamp::read(&wrong, bytes).map(|(stamp, _)| stamp), Some(stamp), "byte {at}");
                }
                assert_eq!(Stamp::read(&text[..bytes - 1], bytes), None);
            }
        }
    }
}
