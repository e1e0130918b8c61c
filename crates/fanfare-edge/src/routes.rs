//! Paths of an application's own, as `[[routes]]` configures them: what each follows, and how its streams are shaped.
//!
//! A front end that was written for another server connects unchanged: its path names channels, by parameters if need
//! be, and what it can't ask for stands in the route. Who may follow what is decided as on `/events`, see
//! `subscription`.

mod config; // What is written.
mod path; // What a route may be called.

use std::collections::BTreeSet;
use std::sync::Arc;

use fanfare_http::{Problem, path_segments};
use fanfare_protocol::{Channel, ChannelError};
use matchit::Router;

use crate::calls::Target;
use crate::shard::Heartbeat;
pub use config::{CALL_TIMEOUT, HeartbeatConfig, RouteConfig, RouteMistake};
use path::RoutePath;

/// All configured routes. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    router: Arc<Router<usize>>,
    routes: Arc<[Route]>,
}

/// One configured route.
#[derive(Debug)]
struct Route {
    methods: Methods,
    purpose: Purpose,
    defaults: Defaults,
}

/// What a route is for.
#[derive(Debug)]
enum Purpose {
    /// A stream of these channels.
    Follow(Vec<Template>),
    /// A call to this backend.
    Call(Arc<Target>),
}

/// What holds on a route where the request doesn't say otherwise.
#[derive(Debug)]
pub(crate) struct Defaults {
    pub(crate) replay: Option<u16>,
    pub(crate) unnamed: bool,
    pub(crate) heartbeat: Heartbeat,
}

/// How a route is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Methods {
    Get,
    Post,
    Both,
}

/// A request for a route: which one, and the channels that its path names.
#[derive(Debug)]
pub(crate) struct Routed<'a> {
    route: &'a Route,
    parameters: Vec<(&'a str, &'a str)>,
}

/// A channel's name with parameters of the path in it: `server:{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Parameter(String),
}

impl Routes {
    /// The route that a path means. What Fanfare itself serves is looked up before.
    pub(crate) fn at<'a>(&'a self, path: &'a str) -> Option<Routed<'a>> {
        let found = self.router.at(path).ok()?;
        let route = &self.routes[*found.value];
        Some(Routed { route, parameters: found.params.iter().collect() })
    }

    /// Whether there are calls among them.
    pub(crate) fn have_calls(&self) -> bool {
        self.routes.iter().any(|route| matches!(route.purpose, Purpose::Call(_)))
    }

    /// Whether a path is one of them.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.router.at(path).is_ok()
    }
}

impl Routed<'_> {
    /// The route's methods, as `Allow` lists them.
    pub(crate) fn allow(&self) -> &'static str {
        match self.route.methods {
            Methods::Get => "GET, HEAD, OPTIONS",
            Methods::Post => "POST, OPTIONS",
            Methods::Both => "GET, HEAD, POST, OPTIONS",
        }
    }

    /// What holds where the request doesn't say otherwise.
    pub(crate) fn defaults(&self) -> &Defaults {
        &self.route.defaults
    }

    /// Where a call goes. None: it is no call.
    pub(crate) fn call(&self) -> Option<&Arc<Target>> {
        match &self.route.purpose {
            Purpose::Follow(_) => None,
            Purpose::Call(target) => Some(target),
        }
    }

    /// The channels that this path names, each once.
    ///
    /// # Errors
    /// 400 where a parameter is not percent-encoded as it should be, or makes no channel's name.
    pub(crate) fn channels(&self) -> Result<Vec<Channel>, Problem> {
        let Purpose::Follow(templates) = &self.route.purpose else { return Ok(Vec::new()) };
        let mut decoded = Vec::with_capacity(self.parameters.len());
        for (name, value) in &self.parameters {
            decoded.push((*name, path_segments(value)?.concat()));
        }
        let value = |name: &str| decoded.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value);
        let mut known = BTreeSet::new();
        let mut channels = Vec::with_capacity(templates.len());
        for template in templates {
            let channel = template.fill(value).map_err(|error| Problem::invalid(error.to_string()).at("the path"))?;
            if known.insert(channel.clone()) {
                channels.push(channel);
            }
        }
        Ok(channels)
    }
}

impl Template {
    /// Reads `server:{id}`. Where the path is wrong, any parameter may be one of it.
    ///
    /// # Errors
    /// Says what is wrong, as it follows the template in a sentence.
    fn parse(text: &str, path: Option<&RoutePath>) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or("has a { that nothing closes")?;
            if path.is_some_and(|path| !path.has_parameter(name)) {
                return Err(format!("has {{{name}}}, which is no parameter of the path"));
            }
            pieces.extend((!before.is_empty()).then(|| Piece::Text(before.to_owned())));
            pieces.push(Piece::Parameter(name.to_owned()));
            rest = behind;
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        let template = Self(pieces);
        // With the shortest and plainest value there is: what is wrong then is wrong whatever comes.
        match template.fill(|_| "0") {
            Ok(channel) if channel.is_internal() => Err("is one of Fanfare's own channels".to_owned()),
            Ok(_) => Ok(template),
            Err(error) => Err(format!("is no channel: {error}")),
        }
    }

    fn fill<'a>(&'a self, value: impl Fn(&'a str) -> &'a str) -> Result<Channel, ChannelError> {
        let piece = |piece: &'a Piece| match piece {
            Piece::Text(text) => text,
            Piece::Parameter(name) => value(name),
        };
        let name: String = self.0.iter().map(piece).collect();
        Channel::parse(&name)
    }
}
