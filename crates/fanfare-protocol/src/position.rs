//! Where an event stands: positions, the epochs in which they count, and both together.

use std::fmt;
use std::num::NonZeroU8;

/// An event's place in its partition: a hybrid clock, `max(last + 1, now in µs)`. Totally ordered within a
/// partition and epoch, and it tells when the event happened: µs since 1970, below 2^53 so that Redis's Lua, which
/// knows only doubles, counts it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The largest position that a double counts exactly (in the year 2255).
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Milliseconds since 1970.
    pub fn millis(self) -> u64 {
        self.0 / 1000
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The time during which one primary answered for a partition. Positions of different epochs don't compare.
///
/// Invariant: 6 to 12 ASCII letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    bytes: [u8; 12],
    /// Never 0, so that an `Option` of it takes no more room: every connection has some.
    len: NonZeroU8,
}

impl Epoch {
    /// Takes an epoch's text, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        let valid = (6..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
        let len = NonZeroU8::new(text.len() as u8).filter(|_| valid)?;
        let mut bytes = [0; 12];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Some(Self { bytes, len })
    }

    /// Makes an epoch of random bits: eight letters and digits, of 2^41 different ones.
    pub fn from_random(mut bits: u64) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut bytes = [0; 12];
        for byte in &mut bytes[..8] {
            *byte = DIGITS[(bits % 36) as usize];
            bits /= 36;
        }
        Self { bytes, len: const { NonZeroU8::new(8).expect("eight") } }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len.get())]).expect("an epoch is ASCII")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A position together with the epoch in which it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// The epoch.
    pub epoch: Epoch,
    /// The position within it.
    pub pos: Position,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.pos)
    }
}
