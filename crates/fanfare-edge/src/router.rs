//! Every route of an edge, on one page.

use fanfare_http::path_is;
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

/// Every path of every edge, where `{…}` is one segment, and its methods as `Allow` lists them. What isn't here isn't
/// found; the OpenAPI document is held against it.
pub const ROUTES: [(&str, &str); 4] = [
    ("/events", "GET, HEAD, POST, OPTIONS"),
    ("/events/{channel}", "GET, HEAD, PATCH, OPTIONS"),
    ("/poll", "GET, HEAD, OPTIONS"),
    ("/channels/{channel}/history", "GET, HEAD, OPTIONS"),
];

/// The route of a path, with the methods that it allows. None: the path is none of the edge's.
pub(crate) fn route(path: &str) -> Option<(Route, &'static str)> {
    let (_, allow) = ROUTES.iter().find(|(form, _)| path_is(form, path))?;
    let mut segments = path.strip_prefix('/')?.split('/');
    match segments.next()? {
        "events" => Some((Route::Events, allow)),
        "poll" => Some((Route::Poll, allow)),
        "channels" => Some((Route::History, allow)),
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
        assert!(allows(ROUTES[0].1, &Method::POST) && !allows(ROUTES[2].1, &Method::POST));
    }
}
