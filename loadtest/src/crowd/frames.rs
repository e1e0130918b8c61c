//! As much of HTTP/2's wire as clients need that only listen (RFC 9113, RFC 7541): frames, the fields of a request, the
//! status of a response.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;

/// A stream's number has 31 bits.
const STREAM_MASK: u32 = (1 << 31) - 1;

/// A frame (RFC 9113 §4.1).
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<9>()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let (payload, rest) = rest.split_at_checked(u32::from_be_bytes([0, a, b, c]) as usize)?;
        Some((Self { kind, flags, stream: u32::from_be_bytes(stream) & STREAM_MASK, payload }, rest))
    }

    pub(super) fn unpadded(&self) -> &'a [u8] {
        let Some((padding, rest)) = self.payload.split_first().filter(|_| self.flags & PADDED != 0) else {
            return self.payload;
        };
        &rest[..rest.len().saturating_sub(usize::from(*padding))]
    }
}

pub(super) fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The fields of a request's HTTP/1.1 head, as HPACK has them: static names, everything else literal (RFC 7541).
pub(super) fn headers(head: &[u8]) -> Vec<u8> {
    const GET_OVER_HTTP: [u8; 2] = [0x82, 0x86];
    const PATH: u8 = 0x04;
    const AUTHORITY: u8 = 0x01;
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
    let mut out = GET_OVER_HTTP.to_vec();
    out.push(PATH);
    write_text(&mut out, &path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if name.eq_ignore_ascii_case("host") {
            out.push(AUTHORITY);
        } else {
            out.push(0);
            write_text(&mut out, &name.to_ascii_lowercase());
        }
        write_text(&mut out, value);
    }
    out
}

/// A string literal without Huffman coding (RFC 7541 §5).
fn write_text(out: &mut Vec<u8>, text: &str) {
    let length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        let mut rest = length - 127;
        while rest >= 128 {
            out.push((rest % 128 + 128) as u8);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

/// The status, which comes first; 0 where it is none of the static table.
pub(super) fn status(headers: &[u8]) -> u16 {
    const IS_TABLE_SIZE: u8 = 0x20;
    let first = headers.iter().find(|byte| *byte & 0xe0 != IS_TABLE_SIZE);
    match first {
        Some(0x88) => 200,
        Some(0x89) => 204,
        Some(0x8c) => 400,
        Some(0x8d) => 404,
        Some(0x8e) => 500,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_in_the_words_of_http2() {
        let headers = headers(b"GET /events?user=u1 HTTP/1.1\r\nHost: h:1\r\nAccept: a/b\r\n\r\n");
        assert_eq!(headers, b"\x82\x86\x04\x0f/events?user=u1\x01\x03h:1\x00\x06accept\x03a/b");
        let mut long = Vec::new();
        write_text(&mut long, &"x".repeat(127 + 300));
        assert_eq!(long[..3], [127, 172, 2]);
    }

    #[test]
    fn frames_are_read_when_they_are_whole() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, DATA, PADDED, 5, b"\x02text..");
        for cut in 0..bytes.len() {
            assert!(Frame::read(&bytes[..cut]).is_none());
        }
        let (frame, rest) = Frame::read(&bytes).expect("whole");
        assert_eq!((frame.kind, frame.stream, frame.unpadded(), rest.len()), (DATA, 5, &b"text"[..], 0));
    }

    #[test]
    fn the_status_is_found_behind_what_tells_of_tables() {
        assert_eq!([status(&[0x20, 0x88]), status(&[0x8d]), status(&[0x48, 3]), status(&[])], [200, 404, 0, 0]);
    }
}
