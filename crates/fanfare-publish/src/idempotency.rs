//! Idempotency keys: what makes a publish repeatable.
//!
//! An entry's own `idempotencyKey` decides; the header `Idempotency-Key` stands for entries that have none. Of an
//! array or of NDJSON, the header counts per entry, together with the entry's index, so that a repeated request
//! meets each of its entries again.

use fanfare_auth::PublishKey;
use fanfare_http::Problem;
use fanfare_protocol::{Channel, Idempotency};
use http::HeaderMap;
use sha2::{Digest, Sha256};

const HEADER: &str = "idempotency-key";

/// Bytes of a key at most.
const KEY_BYTES_MAX: usize = 255;

/// A key, and the index of the entry that it was made for, if it is the header's and there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RepeatKey {
    key: String,
    index: Option<u64>,
}

impl RepeatKey {
    /// The header's, quoted (as the IETF draft has it) or not.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Option<String>, Problem> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::invalid("there is more than one Idempotency-Key header"));
        }
        let text = str::from_utf8(value.as_bytes())
            .map_err(|_| Problem::invalid("the Idempotency-Key header is not UTF-8"))?
            .trim();
        let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        let key = quoted.map_or_else(|| text.to_owned(), |inner| inner.replace("\\\"", "\"").replace("\\\\", "\\"));
        check(&key).map_err(|problem| problem.at("the Idempotency-Key header"))?;
        Ok(Some(key))
    }

    /// The key of one entry: its own, else the header's.
    pub(crate) fn of_entry(
        own: Option<String>,
        header: Option<&str>,
        index: Option<u64>,
    ) -> Result<Option<Self>, Problem> {
        match (own, header) {
            (Some(key), _) => {
                check(&key).map_err(|problem| problem.at("idempotencyKey"))?;
                Ok(Some(Self { key, index: None }))
            }
            (None, Some(header)) => Ok(Some(Self { key: header.to_owned(), index })),
            (None, None) => Ok(None),
        }
    }

    /// What the backbone remembers it by.
    pub(crate) fn digests(&self, publisher: &PublishKey, channel: &Channel, body: [u8; 16]) -> Idempotency {
        let index = self.index.map(|index| index.to_string()).unwrap_or_default();
        let digest = digest([publisher.name(), channel.as_str(), &self.key, &index]);
        Idempotency { digest, body }
    }
}

fn check(key: &str) -> Result<(), Problem> {
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) || key.chars().any(char::is_control) {
        return Err(Problem::invalid(format!("a key has 1 to {KEY_BYTES_MAX} bytes without control characters")));
    }
    Ok(())
}

/// The first half of SHA-256 over the parts, each after its length.
pub(crate) fn digest<const N: usize>(parts: [&str; N]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    let whole: [u8; 32] = hash.finalize().into();
    *whole.first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn header(text: &'static str) -> Result<Option<String>, Problem> {
        RepeatKey::from_headers(&HeaderMap::from_iter([(
            http::HeaderName::from_static(HEADER),
            HeaderValue::from_static(text),
        )]))
    }

    #[test]
    fn the_header_is_read_quoted_or_not() {
        assert_eq!(header("order-7"), Ok(Some("order-7".into())));
        assert_eq!(header("\"order-7\""), Ok(Some("order-7".into())));
        assert_eq!(header(r#""a\"b\\c""#), Ok(Some(r#"a"b\c"#.into())));
        assert_eq!(RepeatKey::from_headers(&HeaderMap::new()), Ok(None));
        assert!(header("").is_err());
        assert!(header("\"\"").is_err());
    }

    #[test]
    fn an_entrys_own_key_wins_over_the_header() {
        let of = |own: Option<&str>| RepeatKey::of_entry(own.map(str::to_owned), Some("header"), Some(3));
        assert_eq!(of(Some("own")), Ok(Some(RepeatKey { key: "own".into(), index: None })));
        assert_eq!(of(None), Ok(Some(RepeatKey { key: "header".into(), index: Some(3) })));
        assert!(of(Some(&"x".repeat(256))).is_err());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        // `printf '\1\0\0\0\0\0\0\0a' | sha256sum`
        assert_eq!(digest(["a"])[..4], [0xae, 0x61, 0x21, 0xc8]);
    }
}
