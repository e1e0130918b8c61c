//! `fanfare send`: publishes from the shell, one event or a stream of lines.

use std::process::ExitCode;

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::args::{SendOptions, Usage, quoted};
use crate::client::Server;
use crate::terminal::{self, RED};

/// What is sent, and to whom.
#[derive(Debug)]
enum Shipment {
    /// One event: the path, and the body for it.
    One(&'static str, Vec<u8>),
    /// Standard input, an entry on each line.
    Entries,
    /// Standard input, the data of an event on each line.
    Lines(Entry),
}

/// Whom it is for.
#[derive(Debug)]
enum Target {
    /// The channel is the first word.
    Channel,
    User(String),
    Everybody,
}

/// The body of `/notify` and `/broadcast`. Raw, so that numbers stay as they were written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    message: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
}

/// An entry of `/publish`, without its data.
#[derive(Clone, Debug, Serialize)]
struct Entry {
    channel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip)]
    json: bool,
}

/// Publishes what the options say, and prints ids.
pub(crate) async fn send(options: SendOptions) -> anyhow::Result<ExitCode> {
    let server = Server::new(&options.server.url, options.key.as_deref())?;
    match shipment(options)? {
        Shipment::One(path, body) => send_one(&server, path, body).await,
        Shipment::Entries => send_lines(&server, chunks()).await,
        Shipment::Lines(entry) => send_lines(&server, lines(entry)).await,
    }
}

fn shipment(options: SendOptions) -> anyhow::Result<Shipment> {
    let SendOptions { first, second, user, broadcast, event, json, .. } = options;
    let target = match (user, broadcast) {
        (Some(user), _) => Target::User(user),
        (None, true) => Target::Everybody,
        (None, false) => Target::Channel,
    };
    match (target, second) {
        (Target::Channel, None) if first == "-" && event.is_none() => Ok(Shipment::Entries),
        (Target::Channel, None) if first == "-" => {
            Err(Usage::new("each entry of standard input names its own \"event\"; --event goes with a CHANNEL").into())
        }
        (Target::Channel, None) => {
            let channel = quoted(&first);
            Err(Usage::new(format!("no data for the channel: fanfare send {channel} DATA (- for standard input)"))
                .into())
        }
        (Target::Channel, Some(data)) => {
            let entry = Entry { channel: first, event, json };
            if data == "-" { Ok(Shipment::Lines(entry)) } else { Ok(Shipment::One("/publish", entry.with(&data)?)) }
        }
        (_, Some(_)) => {
            Err(Usage::new("with --user or --broadcast there is no CHANNEL, only DATA (perhaps it needs quotes)")
                .into())
        }
        (_, None) if first == "-" => {
            Err(Usage::new("standard input goes to channels; an inbox is one too: fanfare send user:42 -").into())
        }
        (target, None) => {
            let (path, user_id) = match target {
                Target::User(user) => ("/notify", Some(user)),
                Target::Everybody | Target::Channel => ("/broadcast", None),
            };
            let body = serde_json::to_vec(&Message { user_id, message: &raw(&first, json)?, event })?;
            Ok(Shipment::One(path, body))
        }
    }
}

impl Entry {
    /// The entry with its data.
    fn with(&self, data: &str) -> anyhow::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Whole<'a> {
            #[serde(flatten)]
            entry: &'a Entry,
            data: &'a RawValue,
        }
        Ok(serde_json::to_vec(&Whole { entry: self, data: &raw(data, self.json)? })?)
    }
}

/// Data as it stands in a body: JSON as it was written, or a string.
fn raw(text: &str, json: bool) -> anyhow::Result<Box<RawValue>> {
    if json {
        let kept = RawValue::from_string(text.trim().to_owned());
        return kept.map_err(|error| Usage::new(format!("the data is not JSON: {error}")).into());
    }
    Ok(serde_json::value::to_raw_value(text)?)
}

async fn send_one(server: &Server, path: &'static str, body: Vec<u8>) -> anyhow::Result<ExitCode> {
    #[derive(Deserialize)]
    struct Published {
        id: String,
    }
    let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body)))?;
    let answer = server.send(request).await?.success().await?;
    let published: Published = serde_json::from_slice(&answer).context("the server's answer has no id")?;
    terminal::print(&format!("{}\n", published.id))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends lines while it prints what came of those before.
async fn send_lines<S>(server: &Server, body: S) -> anyhow::Result<ExitCode>
where
    S: Stream<Item = Result<Frame<Bytes>, anyhow::Error>> + Send + 'static,
{
    let body = StreamBody::new(body);
    let request = Request::post("/publish").header(CONTENT_TYPE, "application/x-ndjson").body(body)?;
    let mut answer = server.send_slowly(request).await?;
    if answer.status() != StatusCode::OK {
        return Err(answer.refused().await.into());
    }
    let mut refused = 0_u64;
    let mut unread = BytesMut::new();
    while let Some(bytes) = answer.next_bytes().await? {
        unread.extend_from_slice(&bytes);
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line = unread.split_to(end + 1);
            refused += u64::from(!is_success(&line));
            terminal::print(&String::from_utf8_lossy(&line))?;
        }
    }
    if refused > 0 {
        let lines = if refused == 1 { "1 line was".to_owned() } else { format!("{refused} lines were") };
        terminal::note(RED, &format!("{lines} refused"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn is_success(line: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Outcome {
        success: bool,
    }
    serde_json::from_slice::<Outcome>(line).is_ok_and(|outcome| outcome.success)
}

/// Standard input as it comes.
fn chunks() -> impl Stream<Item = Result<Frame<Bytes>, anyhow::Error>> {
    stream::try_unfold(tokio::io::stdin(), |mut input| async move {
        let mut chunk = BytesMut::with_capacity(16 * 1024);
        let read = input.read_buf(&mut chunk).await.context("standard input can't be read")?;
        Ok((read > 0).then(|| (Frame::data(chunk.freeze()), input)))
    })
}

/// Standard input, each line made an entry.
fn lines(entry: Entry) -> impl Stream<Item = Result<Frame<Bytes>, anyhow::Error>> {
    let input = BufReader::new(tokio::io::stdin()).lines();
    stream::try_unfold((input, entry), |(mut input, entry)| async move {
        let Some(line) = input.next_line().await.context("standard input can't be read")? else {
            return Ok(None);
        };
        // A line that is no JSON is sent as a line that is none, so that the server answers it in its place.
        let mut whole = entry.with(&line).unwrap_or_else(|_| line.into_bytes());
        whole.push(b'\n');
        Ok(Some((Frame::data(Bytes::from(whole)), (input, entry))))
    })
}
