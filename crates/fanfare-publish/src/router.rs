//! Every route of the publish API.

use fanfare_auth::PublishKey;
use fanfare_http::{Code, Problem, Request, Response, options, path_is, path_segments};
use fanfare_protocol::{Channel, UserId};
use http::Method;

use crate::{PublishApi, entry, listeners, minting, purge, reads, users};

/// A route, and the channel's or user's name in its path, still percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Notify,
    Broadcast,
    Publish,
    Tokens,
    Channels,
    Channel(String),
    History(String),
    Presence(String),
    User(String),
    Connections(String),
}

/// Every path, where `{…}` is one segment, and its methods as `Allow` lists them. What isn't here isn't found; the
/// OpenAPI document is held against it.
pub const ROUTES: [(&str, &str); 10] = [
    ("/notify", POST),
    ("/broadcast", POST),
    ("/publish", POST),
    ("/tokens", POST),
    ("/channels", GET),
    ("/channels/{channel}", GET),
    ("/channels/{channel}/history", "GET, HEAD, DELETE, OPTIONS"),
    ("/channels/{channel}/presence", GET),
    ("/users/{userId}", GET),
    ("/users/{userId}/connections", "DELETE, OPTIONS"),
];

const GET: &str = "GET, HEAD, OPTIONS";
const POST: &str = "POST, OPTIONS";

/// The methods of a path, as `Allow` lists them.
pub(crate) fn allow(path: &str) -> Option<&'static str> {
    ROUTES.iter().find(|(form, _)| path_is(form, path)).map(|(_, allow)| *allow)
}

impl Route {
    pub(crate) fn find(path: &str) -> Option<Self> {
        allow(path)?;
        let mut segments = path.strip_prefix('/')?.split('/');
        match (segments.next()?, segments.next(), segments.next(), segments.next()) {
            ("notify", None, ..) => Some(Self::Notify),
            ("broadcast", None, ..) => Some(Self::Broadcast),
            ("publish", None, ..) => Some(Self::Publish),
            ("tokens", None, ..) => Some(Self::Tokens),
            ("channels", None, ..) => Some(Self::Channels),
            ("channels", Some(channel), None, _) if !channel.is_empty() => Some(Self::Channel(channel.to_owned())),
            ("channels", Some(channel), Some("history"), None) if !channel.is_empty() => {
                Some(Self::History(channel.to_owned()))
            }
            ("channels", Some(channel), Some("presence"), None) if !channel.is_empty() => {
                Some(Self::Presence(channel.to_owned()))
            }
            ("users", Some(user), None, _) if !user.is_empty() => Some(Self::User(user.to_owned())),
            ("users", Some(user), Some("connections"), None) if !user.is_empty() => {
                Some(Self::Connections(user.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether it publishes, so that its requests are counted as such.
    pub(crate) fn publishes(&self) -> bool {
        match self {
            Self::Notify | Self::Broadcast | Self::Publish => true,
            Self::Tokens
            | Self::Channels
            | Self::Channel(_)
            | Self::History(_)
            | Self::Presence(_)
            | Self::User(_)
            | Self::Connections(_) => false,
        }
    }

    pub(crate) async fn answer(
        self,
        api: &PublishApi,
        request: Request,
        publisher: &PublishKey,
    ) -> Result<Response, Problem> {
        let allow = allow(request.uri().path()).expect("it was found");
        // hyper leaves the body of an answer to HEAD out by itself. What isn't publishing is boxed: a future is as large
        // as its largest branch, and is copied from each caller to the next.
        match (self, request.method()) {
            (_, &Method::OPTIONS) => Ok(options(allow)),
            (Self::Notify, &Method::POST) => entry::notify(api, request, publisher).await,
            (Self::Broadcast, &Method::POST) => entry::broadcast(api, request, publisher).await,
            (Self::Publish, &Method::POST) => entry::publish(api, request, publisher).await,
            (Self::Tokens, &Method::POST) => Box::pin(minting::token(api, request, publisher)).await,
            (Self::Channel(channel), &(Method::GET | Method::HEAD)) => {
                Box::pin(reads::channel(api, &request, publisher, &named(&channel)?)).await
            }
            (Self::History(channel), &(Method::GET | Method::HEAD)) => {
                Box::pin(reads::history(api, &request, publisher, &named(&channel)?)).await
            }
            (Self::History(channel), &Method::DELETE) => {
                Box::pin(purge::history(api, &request, publisher, &named(&channel)?)).await
            }
            (Self::Channels, &(Method::GET | Method::HEAD)) => {
                Box::pin(listeners::channels(api, &request, publisher)).await
            }
            (Self::Presence(channel), &(Method::GET | Method::HEAD)) => {
                Box::pin(listeners::presence(api, &request, publisher, &named(&channel)?)).await
            }
            (Self::User(user), &(Method::GET | Method::HEAD)) => {
                Box::pin(listeners::user(api, &request, publisher, &user_named(&user)?)).await
            }
            (Self::Connections(user), &Method::DELETE) => {
                Box::pin(users::disconnect(api, request, publisher, user_named(&user)?)).await
            }
            (_, method) => Err(Problem::method_not_allowed(method, allow)),
        }
    }
}

fn named(segment: &str) -> Result<Channel, Problem> {
    let name = path_segments(segment)?.remove(0);
    Channel::parse(&name).map_err(|error| Problem::new(Code::InvalidInput, format!("the channel in the path: {error}")))
}

fn user_named(segment: &str) -> Result<UserId, Problem> {
    let id = path_segments(segment)?.remove(0);
    UserId::parse(&id).map_err(|error| Problem::new(Code::InvalidInput, format!("the user in the path: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_of_ours_or_not() {
        let channel = || "a%2Fb".to_owned();
        for (path, route) in [
            ("/notify", Some(Route::Notify)),
            ("/broadcast", Some(Route::Broadcast)),
            ("/publish", Some(Route::Publish)),
            ("/tokens", Some(Route::Tokens)),
            ("/channels/a%2Fb", Some(Route::Channel(channel()))),
            ("/channels/a%2Fb/history", Some(Route::History(channel()))),
            ("/", None),
            ("/publish/", None),
            ("/publish/x", None),
            ("/channels", Some(Route::Channels)),
            ("/channels/a%2Fb/presence", Some(Route::Presence(channel()))),
            ("/users/a%2Fb", Some(Route::User(channel()))),
            ("/users", None),
            ("/users/", None),
            ("/channels/", None),
            ("/channels//history", None),
            ("/channels/a/listeners", None),
            ("/channels/a/history/", None),
            ("/users/alice%40example.com/connections", Some(Route::Connections("alice%40example.com".to_owned()))),
            ("/users//connections", None),
            ("/events", None),
            ("*", None),
        ] {
            assert_eq!(Route::find(path), route, "{path}");
        }
    }
}
