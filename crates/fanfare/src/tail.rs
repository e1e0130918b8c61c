//! `fanfare tail`: follows channels in the terminal, and comes back where it was after every break.
//!
//! Events go to standard output, one line each. What is said about the stream goes to standard error: connected,
//! gaps, goodbyes, breaks.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use bytes::Bytes;
use fanfare_protocol::sse::{Decoder, Message};
use http::header::{ACCEPT, HeaderName};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::args::TailOptions;
use crate::client::{Answer, Refused, Server, in_query};
use crate::terminal::{self, CYAN, DIM, GREEN, MAGENTA, YELLOW, one_line};

/// Bytes of one event at most: the largest payload, with its id and type.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Silence after which the connection counts as dead. Servers send heartbeats, every 15 s as a rule; where one is
/// slower, coming back costs nothing and loses nothing.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Pause before coming back, where the server asked for none.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(30);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Follows until it is stopped, or refused for good.
pub(crate) async fn tail(options: TailOptions) -> anyhow::Result<ExitCode> {
    let server = Server::new(&options.server.url, options.token.as_deref())?;
    let mut follower = Follower {
        path: path(&options),
        decoder: Decoder::new(EVENT_BYTES_MAX),
        json: options.json,
        was_connected: false,
        goodbye: false,
        failures: 0,
        channel_width: 0,
    };
    loop {
        let why = match follower.connect(&server).await? {
            Ok(stream) => follower.read(stream).await?,
            Err(why) => why,
        };
        let pause = follower.pause(why.at_least);
        if !std::mem::take(&mut follower.goodbye) {
            terminal::note(YELLOW, &format!("{}; back in {:.1} s", why.text, pause.as_secs_f64()));
        }
        sleep(pause).await;
    }
}

fn path(options: &TailOptions) -> String {
    let channels = options.channels.iter().map(|channel| format!("channel={}", in_query(channel)));
    let user = options.user.iter().map(|user| format!("user={}", in_query(user)));
    let replay = options.replay.iter().map(|count| format!("replay={count}"));
    let query: Vec<_> = channels.chain(user).chain(replay).collect();
    format!("/events?{}", query.join("&"))
}

/// One subscription, over all its connections.
struct Follower {
    path: String,
    decoder: Decoder,
    json: bool,
    /// It could join once. Before that, a server that isn't there is an error.
    was_connected: bool,
    /// The server said why it closes, so nothing more need be said.
    goodbye: bool,
    /// Attempts since the last event.
    failures: u32,
    channel_width: usize,
}

/// Why there is no connection for now.
struct Break {
    text: String,
    at_least: Option<Duration>,
}

impl Follower {
    /// Opens the stream; or says why to try again later. The outer error is for good.
    async fn connect(&mut self, server: &Server) -> anyhow::Result<Result<Answer, Break>> {
        let request = Request::get(&self.path).header(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let request = match HeaderValue::from_str(self.decoder.last_event_id()) {
            Ok(id) if !id.is_empty() => request.header(LAST_EVENT_ID, id),
            _ => request,
        };
        let answer = match server.send(request.body(Empty::<Bytes>::new())?).await {
            Ok(answer) => answer,
            Err(error) if self.was_connected => {
                return Ok(Err(Break { text: format!("{:#}", error.root_cause()), at_least: None }));
            }
            Err(error) => return Err(error),
        };
        match answer.status() {
            StatusCode::OK => {
                self.decoder.reconnect();
                Ok(Ok(answer))
            }
            StatusCode::NO_CONTENT => anyhow::bail!("the server has ended the subscription"),
            _ => {
                let refused = answer.refused().await;
                if !is_passing(&refused) {
                    return Err(refused.into());
                }
                Ok(Err(Break { text: refused.to_string().replace('\n', "; "), at_least: refused.retry_after }))
            }
        }
    }

    /// Prints what the stream brings until it ends; says how it did.
    async fn read(&mut self, mut stream: Answer) -> anyhow::Result<Break> {
        loop {
            let bytes = match timeout(SILENCE_MAX, stream.next_bytes()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return Ok(Break { text: "the server closed the connection".into(), at_least: None }),
                Ok(Err(error)) => return Ok(Break { text: error.to_string(), at_least: None }),
                Err(_) => {
                    let text = format!("nothing was heard for {} s", SILENCE_MAX.as_secs());
                    return Ok(Break { text, at_least: None });
                }
            };
            let mut unread = &bytes[..];
            while let Some(message) = self.decoder.next_message(&mut unread).context("the stream can't be read")? {
                self.take(&message)?;
            }
        }
    }

    fn take(&mut self, message: &Message) -> anyhow::Result<()> {
        match &*message.event {
            "connected" => self.connected(message),
            "closing" => self.closing(message),
            "gap" => {
                gap(message);
                // A reader of the JSON lines must not miss what it missed.
                if self.json { self.print(message) } else { Ok(()) }
            }
            "subscribed" | "expiring" | "heartbeat" => {
                terminal::note(DIM, &format!("{} {}", message.event, one_line(&message.data)));
                Ok(())
            }
            _ => self.print(message),
        }
    }

    fn connected(&mut self, message: &Message) -> anyhow::Result<()> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Connected {
            user_id: Option<String>,
            channels: Vec<String>,
            resumed: bool,
        }
        let connected: Connected = serde_json::from_str(&message.data).unwrap_or_default();
        (self.was_connected, self.failures) = (true, 0);
        let how = if connected.resumed { "connected again, going on where it was" } else { "connected" };
        let user = connected.user_id.map(|user| format!(" as {user}")).unwrap_or_default();
        let text = format!("{how}{user}: {}", connected.channels.join(", "));
        terminal::note(GREEN, &one_line(&text));
        Ok(())
    }

    fn closing(&mut self, message: &Message) -> anyhow::Result<()> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Closing {
            reason: String,
        }
        let closing: Closing = serde_json::from_str(&message.data).unwrap_or_default();
        self.goodbye = true;
        terminal::note(YELLOW, &format!("the server says goodbye: {}; coming back", one_line(&closing.reason)));
        Ok(())
    }

    fn print(&mut self, message: &Message) -> anyhow::Result<()> {
        let Message { id, event, data } = message;
        let (channel, published) = (channel_of(id), published_at(id));
        if self.json {
            #[derive(Serialize)]
            struct Line<'a> {
                id: &'a str,
                event: &'a str,
                channel: Option<&'a str>,
                data: &'a str,
                timestamp: Option<u64>,
            }
            let timestamp = published.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let timestamp = timestamp.and_then(|since| u64::try_from(since.as_millis()).ok());
            let line = serde_json::to_string(&Line { id, event, channel, data, timestamp })?;
            return terminal::print(&format!("{line}\n"));
        }
        let time = humantime::format_rfc3339_millis(published.unwrap_or_else(SystemTime::now)).to_string();
        let time = time.split_once('T').map_or(&*time, |(_, time)| time);
        let channel = channel.unwrap_or("-");
        self.channel_width = self.channel_width.max(channel.chars().count()).min(32);
        let (width, event, data) = (self.channel_width, one_line(event), one_line(data));
        terminal::print(&format!(
            "{DIM}{time}{DIM:#}  {CYAN}{channel:width$}{CYAN:#}  {MAGENTA}{event}{MAGENTA:#}  {data}\n"
        ))
    }

    /// The pause before the next attempt: what the server asked for, longer with every failure, and jittered.
    fn pause(&mut self, at_least: Option<Duration>) -> Duration {
        let asked = self.decoder.retry().unwrap_or(PAUSE);
        let longer = asked.saturating_mul(1 << self.failures.min(6)).min(PAUSE_MAX.max(asked));
        self.failures += 1;
        // The server has jittered the first pause already.
        let jitter = if self.failures == 1 { 1.0 } else { 0.5 + fastrand::f64() / 2.0 };
        longer.mul_f64(jitter).max(at_least.unwrap_or_default())
    }
}

fn gap(message: &Message) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Gap {
        channels: Vec<String>,
        reason: String,
        from: Option<u64>,
        to: Option<u64>,
    }
    let gap: Gap = serde_json::from_str(&message.data).unwrap_or_default();
    let time = |millis: u64| {
        let time = UNIX_EPOCH.checked_add(Duration::from_millis(millis))?;
        // Beyond the year 9999 there is no way to write it.
        let latest = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        (time <= latest).then(|| humantime::format_rfc3339_millis(time).to_string())
    };
    let span = match (gap.from.and_then(time), gap.to.and_then(time)) {
        (Some(from), Some(to)) => format!(" from {from} to {to}"),
        _ => String::new(),
    };
    let text = format!("gap ({}) on {}: events{span} are gone, or may be", gap.reason, gap.channels.join(", "));
    terminal::note(YELLOW, &one_line(&text));
}

/// Whether a refusal may be over later.
fn is_passing(refused: &Refused) -> bool {
    refused.status.is_server_error()
        || matches!(refused.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// What stands after an id's last `@`.
fn channel_of(id: &str) -> Option<&str> {
    id.rsplit_once('@').map(|(_, channel)| channel)
}

/// When the event was published: its position says it, in microseconds.
fn published_at(id: &str) -> Option<SystemTime> {
    let name = id.split([',', ';', '~', '!', '@']).next()?;
    let micros = name.split_once('-')?.1.parse().ok()?;
    // A position of 16 digits is of this age; more would be beyond what can be written as a date.
    (micros < 10_u64.pow(17)).then(|| UNIX_EPOCH + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_the_channel_and_the_time() {
        let id = "k3f9x2-1795229238111111@user:42";
        assert_eq!(channel_of(id), Some("user:42"));
        let time = published_at(id).expect("a time");
        assert_eq!(humantime::format_rfc3339_micros(time).to_string(), "2026-11-21T02:47:18.111111Z");
        assert_eq!(
            (channel_of("k3f9x2-5"), published_at("x"), published_at("k-99999999999999999999")),
            (None, None, None)
        );
    }
}
