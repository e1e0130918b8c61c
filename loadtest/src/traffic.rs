//! Who follows what, and what is published when: all of it follows from a seed, so that every part of the program can
//! work it out for itself.

use std::fmt::Write as _;
use std::time::Duration;

use fanfare_protocol::{Channel, DEFAULT_TYPE};
use fastrand::Rng;

/// A channel, as a number: the broadcast, then the shared channels, then the inboxes.
pub(crate) type ChannelIndex = u32;

pub(crate) const BROADCAST: ChannelIndex = 0;

/// Shared channels that a client follows.
pub(crate) const SHARED_PER_CLIENT: usize = 3;

/// Channels that a client follows.
pub(crate) const FOLLOWS: usize = SHARED_PER_CLIENT + 2;

/// Shares of the events; the rest goes to single users.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// To a shared channel.
    pub(crate) shared: f64,
    /// To everybody.
    pub(crate) broadcast: f64,
}

/// What is published, and to whom.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) seed: u64,
    pub(crate) clients: u32,
    pub(crate) shared_channels: u32,
    pub(crate) events_per_second: f64,
    pub(crate) duration: Duration,
    pub(crate) payload_bytes: usize,
    pub(crate) mix: Mix,
}

/// One event of the schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Planned {
    /// When, counted from the start of publishing.
    pub(crate) due: Duration,
    pub(crate) channel: ChannelIndex,
}

/// How an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Broadcast,
    Shared(u32),
    Inbox(u32),
}

impl Traffic {
    pub(crate) fn channels(&self) -> u32 {
        1 + self.shared_channels + self.clients
    }

    pub(crate) fn kind(&self, channel: ChannelIndex) -> Kind {
        match channel.checked_sub(1) {
            None => Kind::Broadcast,
            Some(number) if number < self.shared_channels => Kind::Shared(number),
            Some(number) => Kind::Inbox(number - self.shared_channels),
        }
    }

    pub(crate) fn name(&self, channel: ChannelIndex) -> String {
        match self.kind(channel) {
            Kind::Broadcast => "broadcast".to_owned(),
            Kind::Shared(number) => format!("load:{number}"),
            Kind::Inbox(client) => format!("user:u{client}"),
        }
    }

    /// The same, as the protocol knows it.
    pub(crate) fn channel(&self, channel: ChannelIndex) -> Channel {
        Channel::parse(&self.name(channel)).expect("our names are channels")
    }

    pub(crate) fn index(&self, name: &str) -> Option<ChannelIndex> {
        if name == "broadcast" {
            return Some(BROADCAST);
        }
        let (base, number, count) = match name.strip_prefix("load:") {
            Some(number) => (1, number, self.shared_channels),
            None => (1 + self.shared_channels, name.strip_prefix("user:u")?, self.clients),
        };
        let number = number.parse::<u32>().ok().filter(|number| *number < count)?;
        Some(base + number)
    }

    /// What a client follows, in ascending order.
    pub(crate) fn follows(&self, client: u32) -> [ChannelIndex; FOLLOWS] {
        let mut rng = Rng::with_seed(self.seed ^ u64::from(client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut follows = [BROADCAST; FOLLOWS];
        follows[FOLLOWS - 1] = 1 + self.shared_channels + client;
        for place in 1..=SHARED_PER_CLIENT {
            follows[place] = loop {
                let channel = 1 + rng.u32(..self.shared_channels);
                if !follows[1..place].contains(&channel) {
                    break channel;
                }
            };
        }
        follows.sort_unstable();
        follows
    }

    /// The whole schedule: open-loop, evenly spaced.
    pub(crate) fn schedule(&self) -> impl Iterator<Item = Planned> + use<> {
        let Self { clients, shared_channels, events_per_second, mix, .. } = *self;
        let events = (self.duration.as_secs_f64() * events_per_second) as u64;
        let mut rng = Rng::with_seed(self.seed);
        (0..events).map(move |number| {
            let draw = rng.f64();
            let channel = if draw < mix.broadcast {
                BROADCAST
            } else if draw < mix.broadcast + mix.shared {
                1 + rng.u32(..shared_channels)
            } else {
                1 + shared_channels + rng.u32(..clients)
            };
            Planned { due: Duration::from_secs_f64(number as f64 / events_per_second), channel }
        })
    }

    /// The event type that subscribers see.
    pub(crate) fn event_type(&self, channel: ChannelIndex) -> &'static str {
        match self.kind(channel) {
            Kind::Broadcast => "announcement",
            Kind::Inbox(_) => "notification",
            Kind::Shared(number) if number.is_multiple_of(2) => "load",
            Kind::Shared(_) => DEFAULT_TYPE,
        }
    }

    /// Path and body that publish an event.
    pub(crate) fn request(&self, channel: ChannelIndex, payload: Payload, body: &mut String) -> &'static str {
        body.clear();
        let event = self.event_type(channel);
        let (path, start) = match self.kind(channel) {
            Kind::Broadcast => ("/broadcast", format!(r#"{{"event":"{event}","message":""#)),
            Kind::Inbox(client) => ("/notify", format!(r#"{{"userId":"u{client}","event":"{event}","message":""#)),
            Kind::Shared(number) if event == DEFAULT_TYPE => {
                ("/publish", format!(r#"{{"channel":"load:{number}","data":""#))
            }
            Kind::Shared(number) => ("/publish", format!(r#"{{"channel":"load:{number}","event":"{event}","data":""#)),
        };
        body.push_str(&start);
        payload.write(self.payload_bytes, body);
        body.push('"');
        path
    }
}

/// What an event says: enough to know it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Payload {
    /// Tells one run's events from another's.
    pub(crate) run: u64,
    /// Number of the event in its channel, from 0.
    pub(crate) seq: u32,
    /// When it was to be sent, in µs since the start of the run.
    pub(crate) due_micros: u64,
}

/// The number of the event to everybody that is published when trouble is over; no other has it.
pub(crate) const ROLL_CALL: u32 = u32::MAX;

/// Begins every payload.
const MARK: &str = "load ";

/// What fills a payload up: a line end, so that data of several lines is read as well, then these.
const FILLER: char = 'x';

impl Payload {
    /// Appends it as the inside of a JSON string, so that it has about so many bytes.
    fn write(self, bytes: usize, out: &mut String) {
        let start = out.len();
        let Self { run, seq, due_micros } = self;
        write!(out, "{MARK}{run:x} {seq} {due_micros}\\n").expect("strings take everything");
        let missing = (start + bytes + 1).saturating_sub(out.len());
        out.extend(std::iter::repeat_n(FILLER, missing));
    }

    /// Reads what [`Payload::write`] wrote, down to its last byte.
    pub(crate) fn parse(text: &str, bytes: usize) -> Option<Self> {
        let (line, filler) = text.strip_prefix(MARK)?.split_once('\n')?;
        let mut words = line.split(' ');
        let run = u64::from_str_radix(words.next()?, 16).ok()?;
        let (seq, due_micros) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let whole = text.len() == bytes.max(text.len() - filler.len())
            && filler.bytes().all(|byte| byte == FILLER as u8)
            && words.next().is_none();
        whole.then_some(Self { run, seq, due_micros })
    }

    /// Whether it was written by a run of this program.
    pub(crate) fn is_marked(text: &str) -> bool {
        text.starts_with(MARK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        Traffic {
            seed: 7,
            clients: 1000,
            shared_channels: 100,
            events_per_second: 1000.0,
            duration: Duration::from_secs(10),
            payload_bytes: 100,
            mix: Mix { shared: 0.059, broadcast: 0.001 },
        }
    }

    #[test]
    fn channels_are_numbered_and_named() {
        let traffic = traffic();
        for channel in 0..traffic.channels() {
            assert_eq!(traffic.index(traffic.channel(channel).as_str()), Some(channel));
        }
        for stranger in ["load:100", "user:u1000", "user:7", "x", "load:"] {
            assert_eq!(traffic.index(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_client_follows_its_inbox_the_broadcast_and_three_channels() {
        let traffic = traffic();
        for client in 0..1000 {
            let follows = traffic.follows(client);
            let kinds = follows.map(|channel| traffic.kind(channel));
            assert_eq!((kinds[0], kinds[4]), (Kind::Broadcast, Kind::Inbox(client)));
            assert!(kinds[1..4].iter().all(|kind| matches!(kind, Kind::Shared(_))));
            assert!(follows.is_sorted_by(|a, b| a < b));
        }
    }

    #[test]
    fn a_schedule_has_its_mix_and_comes_out_the_same_again() {
        let traffic = traffic();
        let schedule = traffic.schedule().collect::<Vec<_>>();
        assert_eq!(schedule, traffic.schedule().collect::<Vec<_>>());
        assert_eq!((schedule.len(), schedule[5000].due), (10_000, Duration::from_secs(5)));
        let count = |kind: fn(Kind) -> bool| schedule.iter().filter(|event| kind(traffic.kind(event.channel))).count();
        assert!((9_200..9_600).contains(&count(|kind| matches!(kind, Kind::Inbox(_)))));
        assert!((1..30).contains(&count(|kind| matches!(kind, Kind::Broadcast))));
    }

    #[test]
    fn a_payload_is_read_as_it_was_written_or_not_at_all() {
        let payload = Payload { run: 0xabc, seq: 7, due_micros: 123_456 };
        for bytes in [0, 100] {
            let mut json = "\"".to_owned();
            payload.write(bytes, &mut json);
            json.push('"');
            let text = serde_json::from_str::<String>(&json).expect("a JSON string");
            assert_eq!(Payload::parse(&text, bytes), Some(payload), "{text}");
            assert_eq!(Payload::parse(&format!("{text}x"), bytes), None);
        }
        assert_eq!(Payload::parse("load 1 2 3\nxxy", 14), None);
        assert_eq!(Payload::parse("something else", 14), None);
    }
}
