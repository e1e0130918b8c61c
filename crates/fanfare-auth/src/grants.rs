//! Patterns that every token gets, filled from its claims: `org:{org}:*`.
//!
//! Claims hold what users chose, so what is filled in must not reach where the setting doesn't point: it is only
//! letters, digits and `_-.`, never empty, and a namespace that patterns must spell out (an inbox, the broadcast) is
//! spelled out by the setting itself, not by a claim that happens to be `user`.

use std::fmt;

use fanfare_protocol::Pattern;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::setting::{SettingError, read_from_text, read_list, read_pattern, write_joined};

/// Templates of patterns, as `FANFARE_AUTH_GRANTS` lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Grants(Vec<Template>);

/// `org:{org}:*` is `[Text("org:"), Claim("org"), Text(":*")]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Claim(String),
}

impl Grants {
    /// Reads `org:{org}:*,news`.
    ///
    /// # Errors
    /// Names every entry that no pattern could come from.
    pub fn parse(text: &str) -> Result<Self, SettingError> {
        read_list(text, |_, entry| Template::parse(entry).map_err(|wrong| vec![wrong])).map(Self)
    }

    /// The patterns that these claims get.
    pub(crate) fn fill(&self, claims: &Map<String, Value>) -> impl Iterator<Item = Pattern> {
        self.0.iter().filter_map(|template| template.fill(claims))
    }

    /// Templates in which a claim is followed by the `*` itself.
    pub(crate) fn open_ended(&self) -> impl Iterator<Item = impl fmt::Display> {
        self.0.iter().filter(|template| matches!(&*template.0, [.., Piece::Claim(_), Piece::Text(end)] if end == "*"))
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let braces = || format!("{text:?} is no grant: a claim's name stands in braces, as in org:{{org}}:*");
        let (mut pieces, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (before, claim, after) = match rest.split_once('{') {
                None => (rest, None, ""),
                Some((before, inside)) => {
                    let (claim, after) = inside.split_once('}').ok_or_else(braces)?;
                    (before, Some(claim), after)
                }
            };
            if before.contains('}') || claim.is_some_and(|claim| claim.is_empty() || claim.contains('{')) {
                return Err(braces());
            }
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            pieces.extend(claim.map(|claim| Piece::Claim(claim.to_owned())));
            rest = after;
        }
        let template = Self(pieces);
        // With a claim of one letter it must be a pattern, or it never is.
        match read_pattern(&template.text(|_| Some("x".to_owned())).unwrap_or_default()) {
            Ok(_) => Ok(template),
            Err(_) => Err(format!("{text:?} is no grant: filled from a claim, it should be a pattern such as org:7:*")),
        }
    }

    fn fill(&self, claims: &Map<String, Value>) -> Option<Pattern> {
        let text = self.text(|claim| harmless(claims.get(claim)?))?;
        let spelled_out = match self.0.first() {
            Some(Piece::Text(text)) => text.as_str(),
            Some(Piece::Claim(_)) | None => "",
        };
        let within = |namespace| !text.starts_with(namespace) || spelled_out.starts_with(namespace);
        let is_fixed = self.0.len() == 1 && !spelled_out.is_empty();
        let reaches_no_further = within("user:") && within("$") && (text != "broadcast" || is_fixed);
        reaches_no_further.then(|| Pattern::parse(&text).ok()).flatten()
    }

    fn text(&self, claim: impl Fn(&str) -> Option<String>) -> Option<String> {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Claim(name) => claim(name),
        };
        self.0.iter().map(piece).collect()
    }
}

/// A claim that may stand in a pattern: some letters, digits and `_-.`, or a whole number.
fn harmless(claim: &Value) -> Option<String> {
    let text = match claim {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_u64() || number.is_i64() => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    (!text.is_empty() && text.chars().all(harmless)).then_some(text)
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, self.0.iter(), ",")
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Claim(claim) => write!(f, "{{{claim}}}"),
        })
    }
}

read_from_text!(Grants);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filled(grants: &str, claims: Value) -> Vec<String> {
        let Value::Object(claims) = claims else { panic!("claims are an object") };
        Grants::parse(grants).expect(grants).fill(&claims).map(|pattern| pattern.to_string()).collect()
    }

    #[test]
    fn a_grant_is_filled_from_the_claims() {
        assert_eq!(filled("org:{org}:*", json!({"org": "acme_1.x-y"})), ["org:acme_1.x-y:*"]);
        assert_eq!(filled("org:{org}:{team}", json!({"org": 7, "team": "a"})), ["org:7:a"]);
        assert_eq!(filled("news,org:{org}", json!({})), ["news"]);
        assert_eq!(filled("user:{sub}:*,broadcast", json!({"sub": "42"})), ["user:42:*", "broadcast"]);
        assert_eq!(filled("{https://example.com/org}:*", json!({"https://example.com/org": "a"})), ["a:*"]);
    }

    #[test]
    fn a_claim_that_is_missing_or_holds_anything_else_grants_nothing() {
        for org in [
            json!("a:*"),
            json!("*"),
            json!(""),
            json!("a b"),
            json!("a/b"),
            json!("a,b"),
            json!("é"),
            json!("%41"),
            json!("{org}"),
            json!("a\n"),
            json!(1.5),
            json!(true),
            json!(null),
            json!(["a"]),
            json!({"a": "b"}),
        ] {
            assert!(filled("org:{org}:*", json!({"org": org})).is_empty(), "{org}");
        }
        assert!(filled("org:{org}:*", json!({"Org": "a"})).is_empty());
        assert!(filled("org:{org}:*", json!({"org": "x".repeat(300)})).is_empty(), "no channel is so long");
    }

    #[test]
    fn a_claim_never_spells_a_reserved_namespace_out() {
        assert!(filled("{org}:*", json!({"org": "user"})).is_empty());
        assert!(filled("us{x}:*", json!({"x": "er"})).is_empty());
        assert!(filled("{org}", json!({"org": "broadcast"})).is_empty());
        assert!(filled("broad{x}", json!({"x": "cast"})).is_empty());
        assert_eq!(filled("{org}:*", json!({"org": "users"})), ["users:*"]);
    }

    #[test]
    fn every_mistake_is_named_and_what_is_read_is_written_back() {
        let error = Grants::parse("org:{org,ok,a}b,{},org*x,{a{b}},").expect_err("mistakes");
        assert_eq!(error.mistakes().len(), 6, "{error}");
        assert!(error.to_string().contains("org:{org}:*"), "{error}");
        for text in ["org:{org}:*,news", "{a}{b}", "user:{sub}"] {
            assert_eq!(Grants::parse(text).expect(text).to_string(), text);
        }
    }
}
