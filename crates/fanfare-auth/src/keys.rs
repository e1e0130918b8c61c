//! All publish keys: read from their setting, and found by what a request shows.
//!
//! Only SHA-256 digests are kept, so that neither a dump of memory nor a log of the configuration opens anything. A
//! mistake in the setting names the entry and never repeats it: what looks like a name may be half a key.

use std::fmt;
use std::sync::Arc;

use http::HeaderMap;
use serde::Deserialize;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::credential::{BearerError, bearer};
use crate::key::{PublishKey, Right};
use crate::secret::{digest, is_same};
use crate::setting::{SettingError, read_from_text, read_list, read_pattern, write_joined};
use crate::token::TOKEN_BYTES_MAX;

/// Bytes of a key's name at most: it is a label of logs.
const NAME_BYTES_MAX: usize = 64;

const HASHED_PREFIX: &str = "sha256:";

/// Who may publish.
#[derive(Clone, Debug)]
pub enum PublishAccess {
    /// Everyone, everything. Only where nobody else can reach us.
    Dev,
    /// Whoever has a key.
    Keys(PublishKeys),
}

/// Keys, as `FANFARE_PUBLISH_KEYS` lists them. Clones share them.
#[derive(Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct PublishKeys(Arc<[Entry]>);

struct Entry {
    digest: [u8; 32],
    /// Bytes of the key. None: only its digest is known.
    bytes: Option<usize>,
    key: Arc<PublishKey>,
}

/// Why nobody is found for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No `Authorization: Bearer`.
    #[error("there is no publish key")]
    Missing,
    /// Two of them.
    #[error("the Authorization header is there more than once")]
    Repeated,
    /// Not one of ours.
    #[error("the publish key is unknown")]
    Unknown,
    /// Not one of ours, and it has the shape of a subscriber's token.
    #[error("a subscriber token can't publish")]
    Token,
}

impl PublishAccess {
    /// Finds who sends a request.
    ///
    /// # Errors
    /// There is no key, or it is unknown.
    pub fn authorise(&self, headers: &HeaderMap) -> Result<Arc<PublishKey>, KeyError> {
        match self {
            Self::Dev => Ok(Arc::new(PublishKey::in_dev())),
            Self::Keys(keys) => match bearer(headers) {
                Ok(None | Some("")) => Err(KeyError::Missing),
                Ok(Some(text)) => {
                    keys.find(text).ok_or(if is_token(text) { KeyError::Token } else { KeyError::Unknown })
                }
                Err(BearerError::Repeated) => Err(KeyError::Repeated),
                Err(BearerError::NotText) => Err(KeyError::Unknown),
            },
        }
    }
}

/// Whether it looks like a JSON Web Token: `{"` in base64url, and two dots.
fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl PublishKeys {
    /// Reads `name=KEY;channels=server:*|broadcast;rights=publish|read,other=sha256:HEX`.
    ///
    /// # Errors
    /// Every mistake of every entry, by its number and name.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let mut entries: Vec<Entry> = Vec::new();
        // What is wrong with one is told even where another one is wrong, too.
        read_list(text, |number, text| {
            let entry = Entry::parse(number, text)?;
            let name = entry.key.name();
            let clash = entries.iter().find_map(|other| {
                let at = format!("entry {number} ({name})");
                if other.key.name() == name {
                    Some(format!("{at} has the name of another entry"))
                } else if is_same(&other.digest, &entry.digest) {
                    Some(format!("{at} has the same key as {}, so it would never be found", other.key.name()))
                } else {
                    None
                }
            });
            match clash {
                Some(mistake) => Err(vec![mistake]),
                None => {
                    entries.push(entry);
                    Ok(())
                }
            }
        })?;
        Ok(Self(entries.into()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who has this key. It takes as long whichever it is.
    pub fn find(&self, presented: &str) -> Option<Arc<PublishKey>> {
        if presented.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let presented = digest(presented);
        let mut found = u64::MAX;
        for (entry, index) in self.0.iter().zip(0_u64..) {
            found.conditional_assign(&index, entry.digest.ct_eq(&presented));
        }
        let entry = self.0.get(usize::try_from(found).ok()?)?;
        Some(Arc::clone(&entry.key))
    }

    /// Names of keys that have fewer bytes.
    pub(crate) fn shorter_than(&self, bytes: usize) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |entry| entry.bytes.is_some_and(|own| own < bytes)).map(|entry| entry.key.name())
    }
}

impl Entry {
    fn parse(number: usize, text: &str) -> Result<Self, Vec<String>> {
        let mut parts = text.split(';').map(str::trim);
        let named = parts.next().and_then(|first| first.split_once('='));
        // The `=` that ends base64 has no key after it: what stands before is no name then, but a key without one.
        let named = named.map(|(name, key)| (name.trim(), key.trim())).filter(|(_, key)| key.contains(|c| c != '='));
        let Some((name, key)) = named.filter(|(name, _)| is_name(name)) else {
            return Err(vec![format!(
                "entry {number} is not name=KEY or name=sha256:HEX, with a name of up to {NAME_BYTES_MAX} letters, \
                 digits and _-."
            )]);
        };
        let mut mistakes = Vec::new();
        let at = format!("entry {number} ({name})");
        let digest = read_key(key).map_err(|mistake| mistakes.push(format!("{at}: {mistake}"))).ok();
        let (mut channels, mut rights) = (None, None);
        for option in parts {
            let read = match option.split_once('=').map(|(option, list)| (option.trim(), list)) {
                Some(("channels", list)) => read_option(list, &mut channels, "channels", read_pattern),
                Some(("rights", list)) => read_option(list, &mut rights, "rights", read_right),
                // Not repeated: it may be the rest of a key.
                _ => Err(vec![
                    "after the key only ;channels= and ;rights= are taken (and no key has a ; or a comma)".to_owned(),
                ]),
            };
            mistakes.extend(read.err().into_iter().flatten().map(|mistake| format!("{at}: {mistake}")));
        }
        let (Some((digest, bytes)), true) = (digest, mistakes.is_empty()) else { return Err(mistakes) };
        let mut rights = rights.unwrap_or_else(|| Right::ALL.to_vec());
        rights.sort_by_key(|right| Right::ALL.iter().position(|other| other == right));
        rights.dedup();
        Ok(Self { digest, bytes, key: Arc::new(PublishKey::new(name.to_owned(), rights, channels)) })
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed)
}

/// The digest of a key, and its length where it is known.
fn read_key(key: &str) -> Result<([u8; 32], Option<usize>), String> {
    let (prefix, hex) = key.split_at_checked(HASHED_PREFIX.len()).unwrap_or_default();
    if prefix.eq_ignore_ascii_case(HASHED_PREFIX) {
        return match read_digest(hex.as_bytes()) {
            Some(digest) => Ok((digest, None)),
            None => Err(format!("after {HASHED_PREFIX}, expected the 64 hex digits of a SHA-256")),
        };
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected a key of visible ASCII characters, others can't stand in a header".to_owned());
    }
    if key.len() > TOKEN_BYTES_MAX {
        return Err(format!("expected a key of at most {TOKEN_BYTES_MAX} bytes, it has {}", key.len()));
    }
    Ok((digest(key), Some(key.len())))
}

fn read_digest(hex: &[u8]) -> Option<[u8; 32]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = hex.as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes?.try_into().ok() } else { None }
}

fn read_right(text: &str) -> Result<Right, String> {
    let right = Right::ALL.into_iter().find(|right| right.as_str() == text);
    right.ok_or_else(|| format!("{text:.100?} is no right, expected {}", Right::ALL.map(Right::as_str).join(", ")))
}

/// Reads a list with `|`, once.
fn read_option<T>(
    list: &str,
    value: &mut Option<Vec<T>>,
    name: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<(), Vec<String>> {
    if value.is_some() {
        return Err(vec![format!("{name} stands there more than once")]);
    }
    let (mut values, mut mistakes) = (Vec::new(), Vec::new());
    for entry in list.split('|').map(str::trim) {
        match read(entry) {
            Ok(entry) => values.push(entry),
            Err(mistake) => mistakes.push(format!("in {name}, {mistake}")),
        }
    }
    *value = Some(values);
    if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
}

impl PartialEq for PublishKeys {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&Entry, &Entry)| is_same(&one.digest, &other.digest) && one.key == other.key;
        self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(same)
    }
}

impl Eq for PublishKeys {}

impl fmt::Debug for PublishKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for PublishKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.0.iter().map(|entry| &*entry.key), ",")
    }
}

read_from_text!(PublishKeys);
