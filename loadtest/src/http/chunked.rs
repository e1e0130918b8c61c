//! The chunks of a body (RFC 9112 §7.1), strictly: a server that frames them wrongly is found out.

use super::{ResponseError, take};

/// Where in a chunked body the reader is.
#[derive(Debug)]
pub(super) enum Chunked {
    /// In a chunk's size, of which so many digits were read.
    Size {
        size: u64,
        digits: u8,
    },
    /// After a `;`.
    Extension {
        size: u64,
    },
    /// Before the LF that ends the line of a size.
    SizeEnd {
        size: u64,
    },
    /// In a chunk.
    Data {
        left: u64,
    },
    /// Before the CR, then the LF, that end a chunk.
    DataCr,
    DataLf,
    /// In the lines after the last chunk, with so many bytes in this one.
    Trailer {
        bytes: usize,
    },
    TrailerLf {
        last: bool,
    },
    Ended,
}

pub(super) enum Step<'a> {
    Data(&'a [u8]),
    More,
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Chunked {
    pub(super) fn next_data<'a>(&mut self, read: &mut &'a [u8]) -> Result<Step<'a>, ResponseError> {
        loop {
            if matches!(self, Self::Ended) {
                return Ok(Step::End);
            }
            let Some(&byte) = read.first() else { return Ok(Step::More) };
            if let Self::Data { left } = self {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                return Ok(Step::Data(take(read, taken)));
            }
            take(read, 1);
            *self = self.after(byte)?;
        }
    }

    /// The state after a byte of framing.
    fn after(&self, byte: u8) -> Result<Self, ResponseError> {
        let wrong = |expected| Err(ResponseError::Chunk(char::from(byte), expected));
        Ok(match (self, byte) {
            (&Self::Size { size, digits }, _) if byte.is_ascii_hexdigit() && digits < 15 => {
                let digit = char::from(byte).to_digit(16).expect("a hexadecimal digit");
                Self::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (&Self::Size { size, digits: 1.. }, b';') => Self::Extension { size },
            (&(Self::Size { size, digits: 1.. } | Self::Extension { size }), b'\r') => Self::SizeEnd { size },
            (Self::Size { .. }, _) => return wrong("a chunk's size"),
            (&Self::Extension { size }, _) => Self::Extension { size },
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer { bytes: 0 },
            (&Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::default(),
            (&Self::Trailer { bytes }, b'\r') => Self::TrailerLf { last: bytes == 0 },
            (&Self::Trailer { bytes }, _) => Self::Trailer { bytes: bytes.saturating_add(1) },
            (Self::TrailerLf { last: true }, b'\n') => Self::Ended,
            (Self::TrailerLf { last: false }, b'\n') => Self::Trailer { bytes: 0 },
            _ => return wrong("a line end"),
        })
    }
}
