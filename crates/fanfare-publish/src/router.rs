//! Every route of the publish API.

use fanfare_auth::PublishKey;
use fanfare_http::{Code, Problem, Request, Response, options, path_segments};
use fanfare_protocol::Channel;
use http::Method;

use crate::{PublishApi, entry, minting, reads};

/// A route, and the channel's name in its path, still percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Notify,
    Broadcast,
    Publish,
    Tokens,
    Channel(String),
    History(String),
}

impl Route {
    pub(crate) fn find(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        match (segments.next()?, segments.next(), segments.next(), segments.next()) {
            ("notify", None, ..) => Some(Self::Notify),
            ("broadcast", None, ..) => Some(Self::Broadcast),
            ("publish", None, ..) => Some(Self::Publish),
            ("tokens", None, ..) => Some(Self::Tokens),
            ("channels", Some(channel), None, _) if !channel.is_empty() => Some(Self::Channel(channel.to_owned())),
            ("channels", Some(channel), Some("history"), None) if !channel.is_empty() => {
                Some(Self::History(channel.to_owned()))
            }
            _ => None,
        }
    }

    /// Whether it publishes, so that its requests are counted as such.
    pub(crate) fn publishes(&self) -> bool {
        match self {
            Self::Notify | Self::Broadcast | Self::Publish => true,
            Self::Tokens | Self::Channel(_) | Self::History(_) => false,
        }
    }

    /// The methods, as `Allow` lists them.
    fn allow(&self) -> &'static str {
        match self {
            Self::Notify | Self::Broadcast | Self::Publish | Self::Tokens => "POST, OPTIONS",
            Self::Channel(_) | Self::History(_) => "GET, HEAD, OPTIONS",
        }
    }

    pub(crate) async fn answer(
        self,
        api: &PublishApi,
        request: Request,
        publisher: &PublishKey,
    ) -> Result<Response, Problem> {
        let allow = self.allow();
        // hyper leaves the body of an answer to HEAD out by itself.
        match (self, request.method()) {
            (_, &Method::OPTIONS) => Ok(options(allow)),
            (Self::Notify, &Method::POST) => entry::notify(api, request, publisher).await,
            (Self::Broadcast, &Method::POST) => entry::broadcast(api, request, publisher).await,
            (Self::Publish, &Method::POST) => entry::publish(api, request, publisher).await,
            (Self::Tokens, &Method::POST) => minting::token(api, request, publisher).await,
            (Self::Channel(channel), &(Method::GET | Method::HEAD)) => {
                reads::channel(api, &request, publisher, &named(&channel)?).await
            }
            (Self::History(channel), &(Method::GET | Method::HEAD)) => {
                reads::history(api, &request, publisher, &named(&channel)?).await
            }
            (_, method) => Err(Problem::method_not_allowed(method, allow)),
        }
    }
}

fn named(segment: &str) -> Result<Channel, Problem> {
    let name = path_segments(segment)?.remove(0);
    Channel::parse(&name).map_err(|error| Problem::new(Code::InvalidInput, format!("the channel in the path: {error}")))
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
            ("/channels", None),
            ("/channels/", None),
            ("/channels//history", None),
            ("/channels/a/presence", None),
            ("/channels/a/history/", None),
            ("/events", None),
            ("*", None),
        ] {
            assert_eq!(Route::find(path), route, "{path}");
        }
    }
}
