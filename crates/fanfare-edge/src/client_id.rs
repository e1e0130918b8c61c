//! What a connection is called to the outside: where it is, so that any edge finds it, and 128 random bits, so that
//! nobody else does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fanfare_backbone::NodeId;
use fanfare_protocol::ConnectionKey;

/// A connection: its edge's process, its shard, its number there, and its secret. As text: 29 bytes in base64url.
///
/// To know it is an anonymous connection's only credential, so it prints as `***`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientId {
    pub(crate) node: NodeId,
    pub(crate) shard: u8,
    pub(crate) key: ConnectionKey,
    pub(crate) secret: u128,
}

impl ClientId {
    pub(crate) fn encode(&self) -> String {
        let mut bytes = [0; 29];
        bytes[..8].copy_from_slice(&self.node.bits().to_be_bytes());
        bytes[8] = self.shard;
        bytes[9..13].copy_from_slice(&self.key.to_be_bytes());
        bytes[13..].copy_from_slice(&self.secret.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 29] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (place, secret) = bytes.split_at(13);
        let (node, key) = (place[..8].try_into().ok()?, place[9..].try_into().ok()?);
        Some(Self {
            node: NodeId::from_bits(u64::from_be_bytes(node)),
            shard: place[8],
            key: ConnectionKey::from_be_bytes(key),
            secret: u128::from_be_bytes(secret.try_into().ok()?),
        })
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_is_read_as_it_was_written_and_nothing_else_is_one() {
        let (node, secret) = (NodeId::random(), crate::random_secret());
        let id = ClientId { node, shard: 63, key: 70_000, secret };
        let text = id.encode();
        assert_eq!((text.len(), ClientId::parse(&text)), (39, Some(id)));
        for wrong in ["", "server:7", &text[1..], &format!("{text}A"), &format!("{text}=")] {
            assert_eq!(ClientId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(NodeId::parse(&node.to_string()), Some(node));
        for wrong in ["", "12", "+123456789012345", "ABCDEF0123456789", "00123456789abcdef"] {
            assert_eq!(NodeId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(format!("{id:?}"), "***");
    }
}
