//! The operators' key: what the admin address has of users is for whoever shows it.

use http::HeaderMap;
use serde::Deserialize;

use crate::credential::bearer;
use crate::secret::Secret;
use crate::setting::SettingError;

/// Bytes below which a key can be guessed.
const BYTES_MIN: usize = 16;

/// A key that opens what the admin address keeps to itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct AdminKey(Secret);

/// A key was shown, and it isn't this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the admin key is wrong")]
pub struct WrongAdminKey;

impl AdminKey {
    /// Reads it as it is set.
    ///
    /// # Errors
    /// It is too short, or could not be sent in a header.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let key = text.trim();
        if key.len() < BYTES_MIN || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let mistake = format!("a key has {BYTES_MIN} or more printable ASCII characters and no spaces");
            return Err(vec![mistake].into());
        }
        Ok(Self(key.into()))
    }

    /// Whether a request shows it as its bearer. One that shows nothing doesn't.
    ///
    /// # Errors
    /// It shows another one.
    pub fn is_shown(&self, headers: &HeaderMap) -> Result<bool, WrongAdminKey> {
        match bearer(headers) {
            Ok(None) => Ok(false),
            Ok(Some(text)) if self.0.matches(text) => Ok(true),
            Ok(Some(_)) | Err(_) => Err(WrongAdminKey),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_or_not_or_wrong() {
        let key = AdminKey::parse(" 0123456789abcdef\n").expect("a key");
        let shown = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("authorization", value.parse().expect("a value"));
            }
            key.is_shown(&headers)
        };
        assert_eq!(shown(&[]), Ok(false));
        assert_eq!(shown(&["Bearer 0123456789abcdef"]), Ok(true));
        assert_eq!(shown(&["Bearer 0123456789abcdee"]), Err(WrongAdminKey));
        assert_eq!(shown(&["Bearer "]), Err(WrongAdminKey));
        assert_eq!(shown(&["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"]), Err(WrongAdminKey));
        assert!(!format!("{key:?}").contains("0123"));
    }

    #[test]
    fn a_key_that_can_be_guessed_or_not_be_sent_is_no_key() {
        for text in ["", "short", "0123456789abcde", "0123456789 abcdef"] {
            assert!(AdminKey::parse(text).is_err(), "{text:?}");
        }
    }
}
