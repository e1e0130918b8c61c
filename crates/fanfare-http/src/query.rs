//! What stands in a URL: its query and its path's segments, percent-decoded.

use percent_encoding::percent_decode_str;

use crate::Problem;

/// Entries of a list: where nothing is asked for, and at most.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;

/// A URL's query, decoded. A `+` is a plus: channels and user ids have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query as it stands in the URL, without the first `?`. A second one is read as `&`, because clients
    /// append `?lastEventId=…` to whatever URL they were given.
    ///
    /// # Errors
    /// 400 where a `%` isn't followed by two hex digits, or where they aren't UTF-8.
    pub fn parse(raw: Option<&str>) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in raw.unwrap_or_default().split(['&', '?']).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name, "the query")?, decode(value, "the query")?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All values of a name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The value of a name that may stand there once.
    ///
    /// # Errors
    /// 400 where it stands there more than once.
    pub fn once(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut all = self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        match (all.next(), all.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(Problem::invalid(format!("{name} stands in the query more than once"))),
        }
    }

    /// How much of a list is asked for by `limit`: 100 where it isn't said, 500 at most.
    ///
    /// # Errors
    /// 400 where it is no number, or too large or too small.
    pub fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.once("limit")? else { return Ok(LIMIT_DEFAULT) };
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()); // A sign isn't one.
        let number = text.parse().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit));
        number.ok_or_else(|| Problem::invalid(format!("limit: it is a number from 1 to {LIMIT_MAX}")))
    }

    /// Refuses names that mean nothing: one that is mistyped would else be ignored.
    ///
    /// # Errors
    /// 400 naming the first of them.
    pub fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => {
                let unknown = Problem::invalid(format!("{name:?} is no query parameter of this path"));
                Err(match known {
                    [] => unknown,
                    known => unknown.hint(format!("it takes: {}", known.join(", "))),
                })
            }
        }
    }

    /// All names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A path's segments, decoded one by one: a `%2F` stays inside its segment. `/` has one segment, an empty one.
///
/// # Errors
/// 400 where a `%` isn't followed by two hex digits, or where they aren't UTF-8.
pub fn path_segments(path: &str) -> Result<Vec<String>, Problem> {
    path.strip_prefix('/').unwrap_or(path).split('/').map(|segment| decode(segment, "the path")).collect()
}

/// Whether a path has this form, in which `{…}` is any one segment that isn't empty.
pub fn path_is(form: &str, path: &str) -> bool {
    let (mut form, mut path) = (form.split('/'), path.split('/'));
    loop {
        match (form.next(), path.next()) {
            (None, None) => return true,
            (Some(form), Some(segment)) if form == segment || (form.starts_with('{') && !segment.is_empty()) => {}
            _ => return false,
        }
    }
}

fn decode(text: &str, place: &str) -> Result<String, Problem> {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    if bytes.iter().enumerate().any(|(at, byte)| *byte == b'%' && !(hex(at + 1) && hex(at + 2))) {
        return Err(Problem::invalid(format!("in {place}, a % is not followed by two hex digits"))
            .hint("a percent sign itself is written %25"));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(Problem::invalid(format!("{place} is not UTF-8 once it is percent-decoded"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(raw: &str) -> Query {
        Query::parse(Some(raw)).expect(raw)
    }

    #[test]
    fn a_plus_stays_a_plus_and_repeated_names_keep_their_order() {
        let query = query("channel=a+b&channel=c%2Bd&user=alice%40example.com&flag&&x=1=2");
        assert_eq!(query.all("channel").collect::<Vec<_>>(), ["a+b", "c+d"]);
        assert_eq!(query.get("user"), Some("alice@example.com"));
        assert_eq!((query.get("flag"), query.get("x"), query.get("y")), (Some(""), Some("1=2"), None));
        assert_eq!(query.iter().count(), 5);
    }

    #[test]
    fn a_second_question_mark_is_an_ampersand() {
        let query = query("channel=a?lastEventId=k3f9x2-5");
        assert_eq!((query.get("channel"), query.get("lastEventId")), (Some("a"), Some("k3f9x2-5")));
    }

    #[test]
    fn what_is_not_percent_encoding_or_not_utf_8_is_refused() {
        for raw in ["a=%", "a=%2", "a=%zz", "%g0=1", "a=%ff", "a=%c3%28"] {
            assert_eq!(Query::parse(Some(raw)).expect_err(raw).status(), 400);
        }
        assert_eq!(Query::parse(None), Ok(Query::default()));
    }

    #[test]
    fn names_are_known_and_stand_there_once() {
        let query = query("after=1&after=2&limit=3");
        assert_eq!(query.once("limit"), Ok(Some("3")));
        assert_eq!(query.once("other"), Ok(None));
        assert!(query.once("after").expect_err("twice").detail().contains("after"));
        assert!(query.only(&["after", "limit"]).is_ok());
        assert!(query.only(&["after"]).expect_err("unknown").detail().contains("limit"));
    }

    #[test]
    fn an_encoded_slash_stays_inside_its_segment() {
        assert_eq!(
            path_segments("/channels/a%2Fb+c/history"),
            Ok(vec!["channels".into(), "a/b+c".into(), "history".into()])
        );
        assert_eq!(path_segments("/"), Ok(vec![String::new()]));
        assert!(path_segments("/channels/%").is_err());
    }
}
