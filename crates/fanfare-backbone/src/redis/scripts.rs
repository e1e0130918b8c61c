//! The scripts that run inside Redis: what they are called with, and what their answers mean.
//!
//! They do what the pure store of `fanfare-protocol` does, and are held against it operation by operation (see
//! `against_the_store`). Nothing here does I/O: the publisher sends calls through its pool, a link over its own
//! connection.

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use fanfare_protocol::{
    Channel, Draft, Epoch, Event, Keep, Marker, Page, PageLimit, Partition, Partitions, Point, Position, Retention,
    decode_entry, entry_tail,
};

use super::RedisError;
use super::keys::{Keys, hex};
use super::resp;
use crate::blocks::{BLOCKS_MAX, Block, TABLE_AGE, since_1970};

/// The layout of the keys that this program knows.
pub(crate) const LAYOUT: &str = "1";

/// One script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) text: &'static str,
    pub(crate) hash: LazyLock<String>,
}

fn hash(text: &str) -> String {
    redis::Script::new(text).get_hash().to_owned()
}

macro_rules! script {
    ($($file:literal),+) => {{
        const TEXT: &str = concat!($(include_str!($file)),+);
        Script { text: TEXT, hash: LazyLock::new(|| hash(TEXT)) }
    }};
}

static PUBLISH: Script = script!("ensure.lua", "publish.lua");
static BARRIER: Script = script!("ensure.lua", "barrier.lua");
static PURGE: Script = script!("ensure.lua", "purge.lua");
static HISTORY: Script = script!("history.lua");
static BLOCKS: Script = script!("blocks.lua");

/// Of nodes and not of partitions: see `directory`.
pub(crate) static TELL: Script = script!("tell.lua");
pub(crate) static ENLIST: Script = script!("enlist.lua");

/// All of them, to be loaded when a connection is opened.
pub(crate) static SCRIPTS: [&Script; 7] = [&PUBLISH, &BARRIER, &PURGE, &HISTORY, &BLOCKS, &TELL, &ENLIST];

/// A script with its keys and arguments.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) script: &'static Script,
    keys: usize,
    words: usize,
    /// Keys, then arguments, as they are sent: a publish has some thousand of them.
    bytes: Vec<u8>,
}

impl Call {
    pub(crate) fn new(script: &'static Script) -> Self {
        Self { script, keys: 0, words: 0, bytes: Vec::new() }
    }

    pub(crate) fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.keys += 1;
        self.word(key)
    }

    pub(crate) fn word(mut self, word: impl AsRef<[u8]>) -> Self {
        self.words += 1;
        resp::word(&mut self.bytes, word.as_ref());
        self
    }

    pub(crate) fn number(self, number: impl itoa::Integer) -> Self {
        self.word(itoa::Buffer::new().format(number))
    }

    /// As the `redis` crate sends it.
    pub(crate) fn cmd(&self) -> redis::Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.script.hash.as_str()).arg(self.keys);
        let mut rest = self.bytes.as_slice();
        let mut reader = resp::Reader::new();
        while let Ok(Some(length)) = reader.read(rest) {
            for word in reader.reply(rest).words().flatten() {
                cmd.arg(word);
            }
            rest = &rest[length..];
        }
        cmd
    }

    /// As it goes over a connection of our own.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes.len() + 128);
        resp::begin(out, self.words + 3);
        resp::word(out, b"EVALSHA");
        resp::word(out, self.script.hash.as_bytes());
        resp::word(out, itoa::Buffer::new().format(self.keys).as_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

impl Script {
    /// Loads it, over a connection of our own.
    pub(crate) fn write_load(&self, out: &mut Vec<u8>) {
        resp::command(out, &[b"SCRIPT", b"LOAD", self.text.as_bytes()]);
    }
}

/// What became of a draft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has its place now.
    Now(Point),
    /// The same idempotency key had published it before, there.
    Before(Point),
    /// The idempotency key had published something else.
    Mismatch,
    /// Redis refused it.
    Refused(RedisError),
}

/// The scripts of one partition.
#[derive(Clone, Debug)]
pub(crate) struct Scripts {
    pub(crate) keys: Keys,
    partitions: Partitions,
    retention: Retention,
}

impl Scripts {
    pub(crate) fn new(prefix: &str, partition: Partition, partitions: Partitions, retention: Retention) -> Arc<Self> {
        Arc::new(Self { keys: Keys::new(prefix, partition), partitions, retention })
    }

    /// Scripts that try things out beside all partitions.
    pub(crate) fn for_checks(prefix: &str, partitions: Partitions, retention: Retention) -> Self {
        Self { keys: Keys::for_checks(prefix, partitions), partitions, retention }
    }

    /// What an error means.
    pub(crate) fn error(&self, text: &str) -> RedisError {
        RedisError::of(text, self.partitions.count())
    }

    /// What is kept of a channel.
    pub(crate) fn keep(&self, channel: &Channel) -> Keep {
        *self.retention.history.of(channel)
    }

    /// A call of a script that begins with `ensure.lua`, and its keys.
    fn writing(&self, script: &'static Script) -> Call {
        Call::new(script).key(self.keys.meta()).key(self.keys.lasts()).key(self.keys.kept())
    }

    fn ensuring(&self, call: Call, new_epoch: Epoch) -> Call {
        call.word(LAYOUT).number(self.partitions.count()).word(new_epoch.as_str())
    }

    /// Publishes drafts, in order, each to be kept for so long.
    pub(crate) fn publish<'a>(
        &self,
        new_epoch: Epoch,
        drafts: impl Iterator<Item = (&'a Draft, Keep)> + Clone,
    ) -> Call {
        let mut call = self.writing(&PUBLISH);
        for (draft, _) in drafts.clone() {
            let history = self.keys.history(&draft.channel);
            let remembered = draft.idempotency.map(|once| self.keys.remembered(once.digest));
            let remembered = remembered.unwrap_or_else(|| history.clone());
            call = call.key(history).key(remembered);
        }
        let Retention { forget_age, idempotency_window, .. } = &self.retention;
        let call = self.ensuring(call, new_epoch).number(forget_age.as_micros());
        let mut call = call.number(idempotency_window.as_micros()).word(self.keys.names());
        for (draft, keep) in drafts {
            let body = draft.idempotency.map_or_else(String::new, |once| hex(once.body));
            let age = keep.age.map_or_else(String::new, |age| age.as_micros().to_string());
            call = call.word(draft.channel.as_str()).word(body).word(format!("{} {age}", keep.events_max));
            call = call.word(entry_tail(&draft.content));
        }
        call
    }

    /// Empties a channel's history.
    pub(crate) fn purge(&self, new_epoch: Epoch, channel: &Channel) -> Call {
        let call = self.writing(&PURGE).key(self.keys.history(channel));
        let name = format!("{}{channel}", self.keys.names());
        self.ensuring(call, new_epoch).word(channel.as_str()).word(name)
    }

    /// The answers to [`Scripts::publish`]: the server's time, and one for each draft. To [`Scripts::purge`], as if it
    /// were one.
    pub(crate) fn published<'a>(
        &self,
        mut words: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<(Position, Vec<Answer>), RedisError> {
        let now = position(words.next().flatten())?;
        let answers = words.map(|word| self.answer(text(word)?)).collect::<Result<_, _>>()?;
        Ok((now, answers))
    }

    fn answer(&self, line: &str) -> Result<Answer, RedisError> {
        let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
        match kind {
            "N" => Ok(Answer::Now(point(rest)?)),
            "R" => Ok(Answer::Before(point(rest)?)),
            "M" => Ok(Answer::Mismatch),
            "E" => Ok(Answer::Refused(self.error(rest))),
            _ => Err(unexpected("a script's answer", line)),
        }
    }

    /// Says where the partition and channels stand (at most [`fanfare_protocol::BATCH_MAX`]), through a Pub/Sub name or in its answer.
    pub(crate) fn barrier(&self, new_epoch: Epoch, markers: Option<&str>, nonce: u64, channels: &[Channel]) -> Call {
        let mut call = self.ensuring(self.writing(&BARRIER), new_epoch).word(markers.unwrap_or_default()).number(nonce);
        for channel in channels {
            call = call.word(channel.as_str());
        }
        call
    }

    /// The answer to [`Scripts::barrier`]: the server's time, and the marker if it wasn't sent elsewhere.
    pub(crate) fn stood<'a>(
        mut words: impl Iterator<Item = Option<&'a [u8]>>,
        channels: Vec<Channel>,
    ) -> Result<(Position, Option<Marker>), RedisError> {
        let now = position(words.next().flatten())?;
        let marker = words.next().flatten().map(|marker| {
            let words = MarkerWords::read(marker)?;
            words.finish(channels)
        });
        Ok((now, marker.transpose()?))
    }

    /// Reads a page of a channel's history: after a position, or the newest.
    pub(crate) fn history(&self, channel: &Channel, after: Option<Position>, limit: PageLimit) -> Call {
        let call = Call::new(&HISTORY).key(self.keys.history(channel)).key(self.keys.meta());
        let call = call.word(after.map_or_else(String::new, |after| after.to_string()));
        call.number(limit.events_max).number(limit.bytes_max).number(size_of::<Event>())
    }

    /// Remembers that a user was disconnected. Answers `1`, or `0` where there is no room.
    pub(crate) fn block(&self, block: &Block) -> Call {
        let call = self.blocks(block.before).number(block.remembered_until()).word(block.encode()).number(BLOCKS_MAX);
        call.number(since_1970(block.before + TABLE_AGE))
    }

    /// Reads what is remembered of disconnected users.
    pub(crate) fn blocks(&self, now: SystemTime) -> Call {
        Call::new(&BLOCKS).key(self.keys.blocks()).number(since_1970(now))
    }

    /// The answer to [`Scripts::history`]. What isn't an entry is left out: the events around it don't join up then,
    /// and whoever reads them tells a gap.
    pub(crate) fn page<'a>(
        channel: &Channel,
        mut words: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<Page, RedisError> {
        let more = match words.next().flatten() {
            Some(b"0") => false,
            Some(b"1") => true,
            _ => return Err(RedisError::Unexpected("a page of history".to_owned())),
        };
        let epoch = words.next().flatten().filter(|word| !word.is_empty()).map(epoch).transpose()?;
        let events = words.flatten().filter_map(|entry| decode_entry(channel.clone(), entry).ok().map(Arc::new));
        Ok(Page { epoch, events: events.collect(), more })
    }
}

/// A marker's words, before its channels have joined them.
pub(crate) struct MarkerWords<'a> {
    pub(crate) nonce: u64,
    words: std::str::Split<'a, char>,
}

impl<'a> MarkerWords<'a> {
    pub(crate) fn read(marker: &'a [u8]) -> Result<Self, RedisError> {
        let marker = text(Some(marker))?;
        let mut words = marker.split(' ');
        let version = words.next();
        let nonce = words.next().and_then(|nonce| nonce.parse().ok());
        match (version, nonce) {
            (Some("1"), Some(nonce)) => Ok(Self { nonce, words }),
            _ => Err(unexpected("a marker", marker)),
        }
    }

    /// The marker, with the channels that its barrier asked for.
    pub(crate) fn finish(mut self, channels: Vec<Channel>) -> Result<Marker, RedisError> {
        let mut word = || self.words.next().ok_or_else(|| unexpected("a marker", "it ends early"));
        let epoch = epoch(word()?.as_bytes())?;
        let previous =
            Some(word()?).filter(|word| *word != "-").map(|word| self::epoch(word.as_bytes())).transpose()?;
        let base = number(word()?)?;
        let last = number(word()?)?;
        let floor = number(word()?)?;
        let mut lasts = Vec::with_capacity(channels.len());
        for channel in channels {
            let last = Some(word()?).filter(|word| *word != "-").map(number).transpose()?;
            lasts.push((channel, last));
        }
        Ok(Marker { nonce: self.nonce, epoch, previous, base, last, floor, lasts })
    }
}

/// A position as Redis writes scores: some versions with an exponent.
pub(crate) fn position(word: Option<&[u8]>) -> Result<Position, RedisError> {
    number(text(word)?)
}

fn number(word: &str) -> Result<Position, RedisError> {
    let number: f64 = word.parse().map_err(|_| unexpected("a position", word))?;
    let fits = number >= 0.0 && number <= Position::MAX.0 as f64 && number.fract() == 0.0;
    if fits { Ok(Position(number as u64)) } else { Err(unexpected("a position", word)) }
}

pub(crate) fn epoch(word: &[u8]) -> Result<Epoch, RedisError> {
    let word = text(Some(word))?;
    Epoch::parse(word).ok_or_else(|| unexpected("an epoch", word))
}

fn point(words: &str) -> Result<Point, RedisError> {
    let (epoch, pos) = words.trim().split_once(' ').ok_or_else(|| unexpected("a point", words))?;
    Ok(Point { epoch: self::epoch(epoch.as_bytes())?, pos: number(pos)? })
}

fn text(word: Option<&[u8]>) -> Result<&str, RedisError> {
    word.and_then(|word| std::str::from_utf8(word).ok()).ok_or_else(|| unexpected("an answer", "no text"))
}

fn unexpected(what: &str, found: &str) -> RedisError {
    RedisError::Unexpected(format!("{what}: {:.80}", found.escape_debug().to_string()))
}
