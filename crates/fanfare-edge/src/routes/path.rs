//! What a route may be called: a path with parameters that takes nothing away from Fanfare's own paths.

/// Bytes of a route's path at most.
const PATH_BYTES_MAX: usize = 1_000;

/// What Fanfare itself serves, on whichever address: `fanfare dev` has all of it on one, and what is not built yet
/// must not become a mistake of a configuration that was right. `{}` is any segment.
const OWN: [&str; 23] = [
    "/",
    "/broadcast",
    "/channels",
    "/channels/{}",
    "/channels/{}/history",
    "/channels/{}/presence",
    "/console",
    "/console/{}",
    "/events",
    "/events/{}",
    "/healthz",
    "/metrics",
    "/notify",
    "/openapi.json",
    "/poll",
    "/publish",
    "/readyz",
    "/stats",
    "/tickets",
    "/tokens",
    "/users/{}",
    "/users/{}/connections",
    "/version",
];

/// A route's path: `/api/servers/{id}/events`.
///
/// Invariant: it begins with `/`; each segment has visible characters that mean nothing else in a URL, and at most
/// one parameter; no two parameters have one name; and nothing that it matches is a path of Fanfare's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RoutePath {
    /// The parameters' names.
    parameters: Vec<Box<str>>,
}

/// Where a segment has a parameter: what stands before and behind it.
type Around<'a> = (&'a str, &'a str);

impl RoutePath {
    /// Takes a path as it is written in a route.
    ///
    /// # Errors
    /// Says what is wrong, as it follows the path in a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > PATH_BYTES_MAX {
            return Err(format!("has {} bytes, at most {PATH_BYTES_MAX} are taken", text.len()));
        }
        let Some(relative) = text.strip_prefix('/') else {
            return Err("does not begin with /".to_owned());
        };
        let segments: Vec<_> = relative.split('/').collect();
        let mut parameters: Vec<Box<str>> = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            if segment.is_empty() && index + 1 < segments.len() {
                return Err("has an empty segment".to_owned());
            }
            if [".", ".."].contains(segment) {
                return Err(format!("has the segment {segment}, which clients take out of a URL"));
            }
            let fixed = match parameter(segment)? {
                None => (*segment).to_owned(),
                Some((name, (before, behind))) => {
                    if parameters.iter().any(|other| **other == *name) {
                        return Err(format!("has two parameters {{{name}}}"));
                    }
                    parameters.push(name.into());
                    format!("{before}{behind}")
                }
            };
            // Those of RFC 3986 §3.3, but for the percent sign: a path is compared as it is sent.
            let fits = |c: &char| c.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(*c);
            if let Some(c) = fixed.chars().find(|c| !fits(c)) {
                return Err(format!("has {c:?}, which is no plain character of a URL's path"));
            }
        }
        if let Some(own) = OWN.into_iter().find(|own| overlap(text, own)) {
            return Err(format!("would take requests for {} from Fanfare itself", own.replace("{}", "…")));
        }
        Ok(Self { parameters })
    }

    /// Whether it has any parameter.
    pub(super) fn has_parameters(&self) -> bool {
        !self.parameters.is_empty()
    }

    /// Whether it has a parameter of that name.
    pub(super) fn has_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|own| **own == *name)
    }
}

/// The one parameter of a segment, if it has one.
fn parameter(segment: &str) -> Result<Option<(&str, Around<'_>)>, String> {
    let Some((before, rest)) = segment.split_once('{') else {
        return match segment.contains('}') {
            true => Err("has a } that nothing opens".to_owned()),
            false => Ok(None),
        };
    };
    let Some((name, behind)) = rest.split_once('}') else {
        return Err("has a { that nothing closes".to_owned());
    };
    let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(named) {
        return Err(format!("has {{{name}}}, a parameter's name has letters, digits and _"));
    }
    match behind.contains(['{', '}']) {
        true => Err(format!("has the segment {segment}, which may have one parameter")),
        false => Ok(Some((name, (before, behind)))),
    }
}

/// Whether some request means a route and one of Fanfare's own paths.
fn overlap(route: &str, own: &str) -> bool {
    let (mut route, mut own) = (route.split('/'), own.split('/'));
    loop {
        match (route.next(), own.next()) {
            (None, None) => return true,
            (Some(route), Some(own)) => {
                let fits = match parameter(route) {
                    Ok(Some((_, (before, behind)))) => {
                        own == "{}"
                            || (own.len() > before.len() + behind.len()
                                && own.starts_with(before)
                                && own.ends_with(behind))
                    }
                    _ => route == own || (own == "{}" && !route.is_empty()),
                };
                if !fits {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_plain_segments_and_parameters() {
        for path in
            ["/live/campaigns", "/api/servers/{id}/events", "/sse", "/a/{b}/{c}.json", "/live/", "/users/{id}/x"]
        {
            RoutePath::parse(path).expect(path);
        }
        for (path, part) in [
            ("live", "does not begin with /"),
            ("", "does not begin with /"),
            ("/a//b", "an empty segment"),
            ("/a/../b", "clients take out"),
            ("/a b", "' '"),
            ("/a%20b", "'%'"),
            ("/a?b", "'?'"),
            ("/grün", "'ü'"),
            ("/a/{id", "nothing closes"),
            ("/a/id}", "nothing opens"),
            ("/a/{}", "a parameter's name"),
            ("/a/{*rest}", "a parameter's name"),
            ("/a/{b}{c}", "one parameter"),
            ("/a/{b}/{b}", "two parameters {b}"),
        ] {
            let error = RoutePath::parse(path).expect_err(path);
            assert!(error.contains(part), "{path}: {error}");
        }
    }

    #[test]
    fn nothing_is_taken_from_fanfare_itself() {
        for (path, own) in [
            ("/", "/"),
            ("/events", "/events"),
            ("/events/live", "/events/…"),
            ("/events/{id}", "/events/…"),
            ("/{tenant}/live", "/channels/…"),
            ("/{any}", "/broadcast"),
            ("/open{x}.json", "/openapi.json"),
            ("/metrics", "/metrics"),
            ("/channels/{c}/history", "/channels/…/history"),
        ] {
            let error = RoutePath::parse(path).expect_err(path);
            assert!(error.contains(&format!("for {own} from")), "{path}: {error}");
        }
        for path in ["/events/", "/events/{id}/live", "/channels/{c}/stream", "/open{x}.jso", "/ev{x}/a/b"] {
            assert!(RoutePath::parse(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn every_path_of_an_edge_is_among_those_that_are_kept() {
        for path in ["/events", "/events/server:7"] {
            assert!(crate::router::route(path).is_some() && OWN.iter().any(|own| overlap(path, own)), "{path}");
        }
    }
}
