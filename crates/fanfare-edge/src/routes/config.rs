//! `[[routes]]` as they are written, and everything that can be wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_auth::Secret;
use fanfare_protocol::EventType;
use matchit::{InsertError, Router};

use super::path::RoutePath;
use super::{Defaults, Methods, Purpose, Route, Routes, Template};
use crate::calls::Target;
use crate::shard::{Heartbeat, OwnBeat};
use crate::subscription::REPLAY_MAX;

/// Routes at most: they are an application's paths, not its users'.
const ROUTES_MAX: usize = 1_000;

/// Bytes of a heartbeat's own data at most. Every connection gets it every interval.
const BEAT_BYTES_MAX: usize = 1_024;

/// One route as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteConfig {
    /// The path, with parameters in braces: `/api/servers/{id}/events`.
    pub path: String,
    /// `GET` and `POST`; none: `GET`. The body of a POST is ignored, whatever it is.
    pub methods: Vec<String>,
    /// Names of channels, with the path's parameters: `server:{id}`. A stream follows exactly these.
    pub channels: Vec<String>,
    /// Events of each channel that a fresh connection gets first, 0 to 1,000. None: as many as the channel's namespace
    /// has it.
    pub replay: Option<u16>,
    /// Whether `event:` lines are left out.
    pub unnamed: bool,
    /// How its streams are kept alive.
    pub heartbeat: HeartbeatConfig,
    /// A backend's address, `http://tasks.internal/run`: then a request is a call. Its body goes there, and what the
    /// backend publishes for it comes back as the stream.
    pub forward: Option<String>,
    /// Headers that the backend is sent with each call, by their names. They may be secrets.
    pub forward_headers: BTreeMap<String, Secret>,
    /// Event types that end a call. None is `result` and `error`.
    pub end_on: Option<Vec<String>>,
    /// How long a call may take. None: [`CALL_TIMEOUT`].
    pub timeout: Option<Duration>,
}

/// How long a call may take where its route doesn't say.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// How a route's streams are kept alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HeartbeatConfig {
    /// A comment line, only where nothing was sent lately.
    #[default]
    Comment,
    /// `event: heartbeat` with the time, every interval.
    Event,
    /// An event of the application's own, every interval.
    Own {
        /// Its type; `message` has no `event:` line.
        event: String,
        /// Its data, as it is sent.
        data: String,
    },
}

/// Something is wrong with a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMistake {
    /// Which one, counted from 0.
    pub route: usize,
    /// The key; it may not be there.
    pub key: &'static str,
    /// What is wrong, as it follows the key in a sentence.
    pub problem: String,
}

impl Routes {
    /// Takes all routes.
    ///
    /// # Errors
    /// Everything that is wrong with any of them.
    pub fn new(configs: &[RouteConfig]) -> Result<Self, Vec<RouteMistake>> {
        let mut mistakes = Vec::new();
        let mut router = Router::new();
        let mut routes = Vec::with_capacity(configs.len());
        for (index, config) in configs.iter().enumerate() {
            let mut wrong = |key, problem| mistakes.push(RouteMistake { route: index, key, problem });
            if index == ROUTES_MAX {
                wrong("path", format!("is that of one route too many, at most {ROUTES_MAX} are taken"));
                break;
            }
            let path = config.read_path(&mut wrong);
            if path.is_some() {
                match router.insert(&config.path, index) {
                    Ok(()) => {}
                    Err(InsertError::Conflict { with }) => {
                        wrong("path", format!("{:?} collides with the route {with:?}", config.path));
                    }
                    Err(error) => wrong("path", format!("{:?} can't be matched: {error}", config.path)),
                }
            }
            routes.push(config.read(path.as_ref(), &mut wrong));
        }
        match mistakes.is_empty() {
            true => Ok(Self { router: Arc::new(router), routes: routes.into() }),
            false => Err(mistakes),
        }
    }
}

impl RouteConfig {
    fn read_path(&self, wrong: &mut impl FnMut(&'static str, String)) -> Option<RoutePath> {
        if self.path.is_empty() {
            wrong("path", "is not set, expected a path such as /api/servers/{id}/events".to_owned());
            return None;
        }
        RoutePath::parse(&self.path).map_err(|problem| wrong("path", format!("{:?} {problem}", self.path))).ok()
    }

    /// The route, as far as nothing is wrong with it.
    fn read(&self, path: Option<&RoutePath>, wrong: &mut impl FnMut(&'static str, String)) -> Route {
        let purpose = match &self.forward {
            None => Purpose::Follow(self.templates(path, wrong)),
            Some(address) => Purpose::Call(Arc::new(self.target(address, path, wrong))),
        };
        let methods = match (self.methods.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), &purpose) {
            (["POST"], _) | ([], Purpose::Call(_)) => Methods::Post,
            ([] | ["GET"], Purpose::Follow(_)) => Methods::Get,
            (["GET", "POST"] | ["POST", "GET"], Purpose::Follow(_)) => Methods::Both,
            (_, Purpose::Follow(_)) => {
                wrong("methods", format!("is {:?}, expected GET, POST or both", self.methods));
                Methods::Get
            }
            (_, Purpose::Call(_)) => {
                wrong("methods", format!("is {:?}, expected POST: a call has a body", self.methods));
                Methods::Post
            }
        };
        let heartbeat = match &self.heartbeat {
            HeartbeatConfig::Comment => Heartbeat::Comment,
            HeartbeatConfig::Event => Heartbeat::Event,
            HeartbeatConfig::Own { event, data } => {
                // An application's own heartbeats may be called so, too.
                if event != "heartbeat"
                    && let Err(error) = EventType::parse(event)
                {
                    wrong("heartbeat", format!("has the event {event:?}: {error}"));
                }
                if data.len() > BEAT_BYTES_MAX {
                    wrong("heartbeat", format!("has {} bytes of data, at most {BEAT_BYTES_MAX} are taken", data.len()));
                }
                Heartbeat::Own(Arc::new(OwnBeat { event: event.as_str().into(), data: data.as_str().into() }))
            }
        };
        let defaults = Defaults { replay: self.replay, unnamed: self.unnamed, heartbeat };
        Route { methods, purpose, defaults }
    }

    /// What a stream follows.
    fn templates(&self, path: Option<&RoutePath>, wrong: &mut impl FnMut(&'static str, String)) -> Vec<Template> {
        if self.channels.is_empty() {
            wrong("channels", "names none, expected a list such as [\"server:{id}\"]".to_owned());
        }
        if let Some(replay) = self.replay.filter(|replay| *replay > REPLAY_MAX) {
            wrong("replay", format!("is {replay}, expected a number from 0 to {REPLAY_MAX}"));
        }
        let of_calls = [
            ("forward_headers", !self.forward_headers.is_empty()),
            ("end_on", self.end_on.is_some()),
            ("timeout", self.timeout.is_some()),
        ];
        for (key, _) in of_calls.into_iter().filter(|(_, is_set)| *is_set) {
            wrong(key, "is set, and forward is not: only calls have it".to_owned());
        }
        let parse = |text: &String| {
            Template::parse(text, path).map_err(|problem| wrong("channels", format!("{text:?} {problem}"))).ok()
        };
        self.channels.iter().filter_map(parse).collect()
    }

    /// Where a call goes.
    fn target(&self, address: &str, path: Option<&RoutePath>, wrong: &mut impl FnMut(&'static str, String)) -> Target {
        for (key, is_set) in [("channels", !self.channels.is_empty()), ("replay", self.replay.is_some())] {
            if is_set {
                wrong(key, "is set, and forward, too: a call has one channel, its own".to_owned());
            }
        }
        if path.is_some_and(RoutePath::has_parameters) {
            wrong("path", format!("{:?} has parameters, which a backend would not get", self.path));
        }
        let mut target = Target::parse(address).unwrap_or_else(|problem| {
            wrong("forward", problem.to_owned());
            Target::nowhere()
        });
        for (name, value) in &self.forward_headers {
            if let Err(problem) = target.header(name, value) {
                wrong("forward_headers", format!("{name:?} {problem}"));
            }
        }
        match &self.end_on {
            None => target.end_on = ["result", "error"].map(|name| EventType::parse(name).expect("a type")).into(),
            Some(types) => {
                let parse = |name: &String| {
                    EventType::parse(name).map_err(|error| wrong("end_on", format!("{name:?}: {error}"))).ok()
                };
                target.end_on = types.iter().filter_map(parse).collect();
            }
        }
        target.timeout = self.timeout.unwrap_or(CALL_TIMEOUT);
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::Channel;

    fn route(path: &str, channels: &[&str]) -> RouteConfig {
        let channels = channels.iter().map(|&channel| channel.to_owned()).collect();
        RouteConfig { path: path.to_owned(), channels, ..RouteConfig::default() }
    }

    fn channels(routes: &Routes, path: &str) -> Result<Vec<String>, String> {
        let routed = routes.at(path).ok_or("no route")?;
        let names = |channels: Vec<Channel>| channels.iter().map(ToString::to_string).collect();
        routed.channels().map(names).map_err(|problem| problem.detail().to_owned())
    }

    #[test]
    fn a_path_names_channels_with_its_decoded_parameters() {
        let routes = Routes::new(&[
            route("/api/servers/{id}/events", &["server:{id}", "server:{id}", "servers"]),
            route("/live/campaigns", &["campaigns"]),
            route("/{org}/teams/{team}.live", &["org:{org}/{team}"]),
        ]);
        let routes = routes.expect("no mistakes");
        for (path, expected) in [
            ("/api/servers/7/events", Ok(&["server:7", "servers"][..])),
            ("/api/servers/a%2Fb%3Ac/events", Ok(&["server:a/b:c", "servers"])),
            ("/live/campaigns", Ok(&["campaigns"])),
            ("/acme/teams/red.live", Ok(&["org:acme/red"])),
            ("/live/campaigns/", Err("no route")),
            ("/api/servers//events", Err("no route")),
            ("/api/servers/a%20b/events", Err("not ' '")),
            ("/api/servers/%zz/events", Err("two hex digits")),
            ("/api/servers/%ff/events", Err("not UTF-8")),
        ] {
            match (channels(&routes, path), expected) {
                (Ok(named), Ok(expected)) => assert_eq!(named, expected, "{path}"),
                (Err(detail), Err(part)) => assert!(detail.contains(part), "{path}: {detail}"),
                (named, _) => panic!("{path}: {named:?}"),
            }
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_route_and_key() {
        let own = |event: &str, data: &str| HeartbeatConfig::Own { event: event.to_owned(), data: data.to_owned() };
        let mistakes = Routes::new(&[
            RouteConfig::default(),
            route("/events/live", &["a"]),
            RouteConfig {
                methods: vec!["PUT".to_owned()],
                replay: Some(1_001),
                heartbeat: own("gap", &"x".repeat(1_025)),
                ..route("/a/{id}", &["server:{it}", "server:{id", "a b", "$call:{id}", ".{id}"])
            },
            RouteConfig { heartbeat: own("heartbeat", "{}"), ..route("/a/{other}", &[]) },
        ]);
        let mistakes = mistakes.expect_err("nearly all is wrong");
        let expected = [
            (0, "path", "is not set"),
            (0, "channels", "names none"),
            (1, "path", "from Fanfare itself"),
            (2, "replay", "1001"),
            (2, "channels", "no parameter of the path"),
            (2, "channels", "nothing closes"),
            (2, "channels", "' '"),
            (2, "channels", "Fanfare's own channels"),
            (2, "methods", r#"["PUT"]"#),
            (2, "heartbeat", "\"gap\""),
            (2, "heartbeat", "1025 bytes"),
            (3, "path", "collides with the route \"/a/{id}\""),
            (3, "channels", "names none"),
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, (route, key, part)) in mistakes.iter().zip(expected) {
            assert_eq!((mistake.route, mistake.key), (route, key), "{mistake:?}");
            assert!(mistake.problem.contains(part), "{part}: {mistake:?}");
        }
    }
}
