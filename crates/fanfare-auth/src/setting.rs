//! Values of settings, read from the text that a variable or a TOML key holds. What is wrong with one is told whole,
//! and without the value where it may be a secret.

use std::fmt;
use std::sync::Arc;

use fanfare_protocol::Pattern;
use serde::Deserialize;

/// What is wrong with a setting's value, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError(Vec<String>);

impl SettingError {
    /// One sentence for each mistake, in the order of the value. They follow the setting's name and a colon.
    pub fn mistakes(&self) -> &[String] {
        &self.0
    }
}

impl From<Vec<String>> for SettingError {
    fn from(mistakes: Vec<String>) -> Self {
        Self(mistakes)
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

impl std::error::Error for SettingError {}

/// Reads a list with commas. Each entry is numbered from 1, because entries may be secrets: a mistake is said of
/// "entry 2".
pub(crate) fn read_list<T>(
    text: &str,
    mut read: impl FnMut(usize, &str) -> Result<T, Vec<String>>,
) -> Result<Vec<T>, SettingError> {
    if text.trim().is_empty() {
        return Err(SettingError(vec!["it is empty: leave it unset instead".to_owned()]));
    }
    let (mut values, mut mistakes) = (Vec::new(), Vec::new());
    for (entry, number) in text.split(',').map(str::trim).zip(1..) {
        if entry.is_empty() {
            mistakes.push(format!("entry {number} is empty"));
            continue;
        }
        match read(number, entry) {
            Ok(value) => values.push(value),
            Err(wrong) => mistakes.extend(wrong),
        }
    }
    if mistakes.is_empty() { Ok(values) } else { Err(SettingError(mistakes)) }
}

/// Reads a pattern, or says what is wrong with it.
pub(crate) fn read_pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).map_err(|error| {
        let cause = std::error::Error::source(&error).map_or(String::new(), |source| format!(" ({source})"));
        format!("{text:?} is no pattern: {error}{cause}")
    })
}

/// Patterns, as `FANFARE_ANONYMOUS_CHANNELS` lists them. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Patterns(Arc<[Pattern]>);

impl Patterns {
    /// Reads `news,prices:*`.
    ///
    /// # Errors
    /// Names every entry that is no pattern.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        read_list(text, |_, entry| read_pattern(entry).map_err(|wrong| vec![wrong])).map(|all| Self(all.into()))
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl fmt::Display for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.iter(), ",")
    }
}

/// Name of a cookie: what RFC 6265 §4.1.1 takes from RFC 2616, a token.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CookieName(Box<str>);

impl CookieName {
    /// Reads a name.
    ///
    /// # Errors
    /// It has characters that no cookie's name has.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        let allowed = |c: char| c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?={}".contains(c);
        if text.is_empty() || !text.chars().all(allowed) {
            let mistake = format!("{text:.100?} is no name of a cookie, expected letters, digits and !#$%&'*+-.^_`|~");
            return Err(SettingError(vec![mistake]));
        }
        Ok(Self(text.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CookieName {
    fn default() -> Self {
        Self("fanfare_token".into())
    }
}

impl fmt::Display for CookieName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn write_joined(
    f: &mut fmt::Formatter<'_>,
    all: impl Iterator<Item = impl fmt::Display>,
    between: &str,
) -> fmt::Result {
    for (index, one) in all.enumerate() {
        write!(f, "{}{one}", if index == 0 { "" } else { between })?;
    }
    Ok(())
}

/// Settings are read from text by serde as well.
macro_rules! read_from_text {
    ($($setting:ty),+) => {
        $(impl TryFrom<String> for $setting {
            type Error = $crate::setting::SettingError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::parse(&text)
            }
        })+
    };
}

pub(crate) use read_from_text;

read_from_text!(Patterns, CookieName);
