//! What a connection's request is called in the log, kept for as long as the connection lasts.

use std::fmt;

/// A request's id. Those that this server makes, and nginx, are 32 hex digits: they need no room of their own.
#[derive(Clone, Debug)]
pub(crate) enum RequestId {
    /// 32 hex digits in lower case.
    Hex([u8; 16]),
    /// Any other.
    Text(Box<str>),
}

impl RequestId {
    /// Takes an id as it stands in a header.
    pub(crate) fn new(text: &[u8]) -> Self {
        match hex(text) {
            Some(bits) => Self::Hex(bits),
            None => Self::Text(String::from_utf8_lossy(text).into()),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hex(bits) => write!(f, "{:032x}", u128::from_be_bytes(*bits)),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn hex(text: &[u8]) -> Option<[u8; 16]> {
    let is_hex = text.len() == 32 && text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let text = str::from_utf8(text).ok().filter(|_| is_hex)?;
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_logged_as_it_came() {
        for id in ["00000000000000000000000000000a1f", "4bf92f35-77b3", "4BF92F3577B34DA6A3CE929D0E0E4736", "+1", "a"] {
            assert_eq!(RequestId::new(id.as_bytes()).to_string(), id);
        }
        assert!(matches!(RequestId::new(b"4bf92f3577b34da6a3ce929d0e0e4736"), RequestId::Hex(_)));
        assert!(matches!(RequestId::new(b"+bf92f3577b34da6a3ce929d0e0e4736"), RequestId::Text(_)));
    }
}
