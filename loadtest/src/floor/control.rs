//! How the floor is told what to send: records of sixteen bytes, answered with how many were done.

use crate::clock::Nanos;
use crate::stamp::To;

/// Bytes of a record.
pub(crate) const RECORD_BYTES: usize = 16;

/// Begins the record that is no event.
const HELLO: u32 = u32::MAX;

/// What all events of a run have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) run: u32,
    pub(crate) payload_bytes: u32,
}

/// What the floor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Hello(Hello),
    Event(To, u32, Nanos),
}

/// Appends a record.
pub(crate) fn write(record: Record, out: &mut Vec<u8>) {
    let (first, second, third) = match record {
        Record::Hello(Hello { run, payload_bytes }) => (HELLO, run, payload_bytes.into()),
        Record::Event(to, seq, due) => (to.code(), seq, due),
    };
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&second.to_be_bytes());
    out.extend_from_slice(&third.to_be_bytes());
}

/// Reads a record.
pub(crate) fn read(record: &[u8; RECORD_BYTES]) -> Record {
    let number = u128::from_be_bytes(*record);
    let (first, second, third) = ((number >> 96) as u32, (number >> 64) as u32, number as u64);
    match first {
        HELLO => Record::Hello(Hello { run: second, payload_bytes: third as u32 }),
        code => Record::Event(To::from_code(code), second, third),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let records = [
            Record::Hello(Hello { run: 7, payload_bytes: 200 }),
            Record::Event(To::User(999_999), 3, u64::MAX),
            Record::Event(To::Channel(5), u32::MAX, 1),
            Record::Event(To::All, 0, 0),
        ];
        for record in records {
            let mut bytes = Vec::new();
            write(record, &mut bytes);
            assert_eq!(read(bytes.as_slice().try_into().expect("sixteen bytes")), record);
        }
    }
}
