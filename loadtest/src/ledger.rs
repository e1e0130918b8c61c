//! What was published, as the server answered.

use fanfare_protocol::{Cursor, Partition, Point};

use crate::traffic::ChannelIndex;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The server says that the backbone has it, there.
    Acknowledged(Point),
    /// No answer, or another than 200: it may be delivered, once, or not.
    Unknown,
}

impl Outcome {
    pub(crate) fn point(self) -> Option<Point> {
        match self {
            Self::Acknowledged(point) => Some(point),
            Self::Unknown => None,
        }
    }
}

/// The outcomes by channel; an event's number in its channel is its place.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    channels: Vec<Vec<Outcome>>,
}

impl Ledger {
    pub(crate) fn new(channels: u32) -> Self {
        Self { channels: vec![Vec::new(); channels as usize] }
    }

    /// Notes the next event of a channel.
    pub(crate) fn push(&mut self, channel: ChannelIndex, outcome: Outcome) {
        self.channels[channel as usize].push(outcome);
    }

    /// The number of a channel's next event.
    pub(crate) fn next_seq(&self, channel: ChannelIndex) -> u32 {
        u32::try_from(self.channels[channel as usize].len()).expect("fewer events than 2^32")
    }

    pub(crate) fn channel(&self, channel: ChannelIndex) -> &[Outcome] {
        &self.channels[channel as usize]
    }

    /// Adds what another publisher noted: no channel has two.
    pub(crate) fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.channels.iter_mut().zip(other.channels) {
            if mine.is_empty() {
                *mine = theirs;
            } else {
                assert!(theirs.is_empty(), "all events of a channel go over one publisher");
            }
        }
    }

    /// Number of the first acknowledged event that stands after a point. Positions of one channel ascend (checked
    /// when the run is judged), those of different epochs by time.
    pub(crate) fn first_after(&self, channel: ChannelIndex, start: Point) -> u32 {
        let after = |outcome: &Outcome| outcome.point().is_some_and(|point| point.pos > start.pos);
        let events = self.channel(channel);
        u32::try_from(events.iter().position(after).unwrap_or(events.len())).expect("fewer events than 2^32")
    }

    /// Number and place of the last acknowledged event.
    pub(crate) fn last_acknowledged(&self, channel: ChannelIndex) -> Option<(u32, Point)> {
        let events = self.channel(channel).iter().enumerate().rev();
        let (seq, point) = events.filter_map(|(seq, outcome)| Some((seq, outcome.point()?))).next()?;
        Some((u32::try_from(seq).expect("fewer events than 2^32"), point))
    }
}

/// The place that an id names.
pub(crate) fn place(id: &str) -> Option<(Partition, Point)> {
    Cursor::parse(id).ok()?.entries().first().copied()
}
