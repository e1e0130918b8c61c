//! Frames that Fanfare itself sends: what it has to say, its heartbeats and the pause before a reconnection.

use std::time::Duration;

use bytes::Bytes;

use super::chunk::{Framed, Framing};
use super::encode::{IdText, write_data, write_type};
use crate::{DEFAULT_TYPE, digits};

/// An event of Fanfare's own, such as `connected` or `gap`: a type (without line ends), data, where to go on from, and
/// after what pause. An event of [`DEFAULT_TYPE`] has no `event:` line.
pub fn control(
    event_type: &str,
    data: &str,
    id: Option<IdText<'_>>,
    retry: Option<Duration>,
    framing: Framing,
) -> Bytes {
    let id_bytes = id.map_or(0, |id| id.as_bytes().len());
    let frame = Framed::write(64 + event_type.len() + data.len() + id_bytes, |out| {
        if let Some(pause) = retry {
            write_retry(out, pause);
        }
        if let Some(id) = id {
            write_id(out, id);
        }
        if event_type != DEFAULT_TYPE {
            write_type(out, event_type);
        }
        write_data(out, data);
        out.push(b'\n');
    });
    frame.cut(framing)
}

/// A comment line, and where there is an id it is remembered: a block without data dispatches nothing (§9.2.6).
pub fn heartbeat(id: Option<IdText<'_>>, framing: Framing) -> Bytes {
    let frame = Framed::write(24 + id.map_or(0, |id| id.as_bytes().len()), |out| {
        out.extend_from_slice(b": heartbeat\n");
        if let Some(id) = id {
            write_id(out, id);
        }
        out.push(b'\n');
    });
    frame.cut(framing)
}

/// The pause after which a client that lost its connection comes back, in whole milliseconds.
pub fn retry(pause: Duration, framing: Framing) -> Bytes {
    let frame = Framed::write(32, |out| {
        write_retry(out, pause);
        out.push(b'\n');
    });
    frame.cut(framing)
}

fn write_id(out: &mut Vec<u8>, id: IdText<'_>) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.as_bytes());
    out.push(b'\n');
}

fn write_retry(out: &mut Vec<u8>, pause: Duration) {
    out.extend_from_slice(b"retry: ");
    digits::push_decimal(out, u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::Decoder;
    use super::super::chunk::join_chunks;
    use super::*;

    fn id() -> IdText<'static> {
        IdText::new(b"k3f9x2-5").expect("valid")
    }

    #[test]
    fn what_fanfare_says_has_a_type_an_id_and_a_pause() {
        let pause = Some(Duration::from_millis(1734));
        let frame = control("connected", "{}", Some(id()), pause, Framing::Identity);
        assert_eq!(frame, "retry: 1734\nid: k3f9x2-5\nevent: connected\ndata: {}\n\n");
        assert_eq!(control("closing", "{}", None, None, Framing::Chunked), "19\r\nevent: closing\ndata: {}\n\n\r\n");
        assert_eq!(control("message", "{}", None, None, Framing::Identity), "data: {}\n\n");
        assert_eq!(retry(Duration::from_micros(1500), Framing::Chunked), "a\r\nretry: 1\n\n\r\n");
    }

    #[test]
    fn a_heartbeat_is_remembered_and_dispatches_nothing() {
        assert_eq!(heartbeat(None, Framing::Chunked), "d\r\n: heartbeat\n\n\r\n");
        let frame = heartbeat(Some(id()), Framing::Identity);
        assert_eq!(frame, ": heartbeat\nid: k3f9x2-5\n\n");
        assert_eq!(join_chunks(&heartbeat(Some(id()), Framing::Chunked)), frame);
        let mut decoder = Decoder::new(100);
        assert_eq!(decoder.next_message(&mut &frame[..]), Ok(None));
        assert_eq!(decoder.last_event_id(), "k3f9x2-5");
    }
}
