//! Every route of an edge, on one page.

use http::Method;

/// What a path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `GET`, `POST` `/events`, `GET` `/events/{channel}`: opens a stream. `PATCH` `/events/{clientId}`: changes one.
    Events,
    /// `GET` `/poll`: answers with what a stream would have.
    Poll,
    /// `GET` `/channels/{channel}/history`: what a channel retains.
    History,
}

/// Methods of [`Route::Events`] on `/events`.
const EVENTS: &str = "GET, HEAD, POST, OPTIONS";
/// Methods of [`Route::Events`] on `/events/{channel}`, and on a client id in its place.
const CHANNEL: &str = "GET, HEAD, PATCH, OPTIONS";
/// Methods of what can only be read.
const GET: &str = "GET, HEAD, OPTIONS";

/// The route of a path, with the methods that it allows. None: the path is none of the edge's.
pub(crate) fn route(path: &str) -> Option<(Route, &'static str)> {
    let mut segments = path.strip_prefix('/')?.split('/');
    match (segments.next()?, segments.next(), segments.next(), segments.next()) {
        ("events", None, ..) => Some((Route::Events, EVENTS)),
        ("events", Some(channel), None, _) if !channel.is_empty() => Some((Route::Events, CHANNEL)),
        ("poll", None, ..) => Some((Route::Poll, GET)),
        ("channels", Some(channel), Some("history"), None) if !channel.is_empty() => Some((Route::History, GET)),
        _ => None,
    }
}

/// Whether a list of methods has this one.
pub(crate) fn allows(allow: &str, method: &Method) -> bool {
    allow.split(", ").any(|allowed| allowed == method.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_edge_are_its_own() {
        for path in ["/events", "/events/server:7", "/events/a%2Fb", "/poll", "/channels/a%2Fb/history"] {
            assert!(route(path).is_some(), "{path}");
        }
        for path in [
            "/",
            "/event",
            "/events/",
            "/events/a/b",
            "/poll/a",
            "/publish",
            "events",
            "/channels/a",
            "/channels//history",
        ] {
            assert!(route(path).is_none(), "{path}");
        }
        assert!(allows(EVENTS, &Method::POST) && !allows(GET, &Method::POST));
    }
}
