//! At the end: whether all is there, held against what was published.

use super::{Checker, Fault, FaultKind, Follow, Got, Seen};
use crate::ledger::Ledger;
use crate::traffic::ChannelIndex;
use fanfare_protocol::{Partition, Point};

impl Checker {
    /// Whether a client has the last acknowledged event of each channel, as far as it stands after where it began, and
    /// heard the roll call where there is one.
    pub(crate) fn is_complete(&self, seen: &Seen, ledger: &Ledger) -> bool {
        !seen.start.is_empty()
            && self.roll_call.as_ref().is_none_or(|roll_call| roll_call.has_heard(seen.client))
            && seen.follows.iter().all(|Follow { channel, got }| {
                let Some((last, point)) = ledger.last_acknowledged(*channel) else { return true };
                let partition = self.partition_of[*channel as usize];
                let began_after = |(named, start): &(Partition, Point)| *named == partition && start.pos >= point.pos;
                got.is_some_and(|got| got.last >= last)
                    || seen.start.iter().any(began_after)
                    || self.is_excused(seen.client, *channel, point)
            })
    }

    fn is_excused(&self, client: u32, channel: ChannelIndex, point: Point) -> bool {
        let excuse = self.excuses.get(&(client, channel));
        excuse.is_some_and(|times| times.iter().any(|time| time.contains(&point.pos.millis())))
    }

    /// Holds everything that the clients have seen against what was published.
    pub(crate) fn judge<'a>(&mut self, clients: impl Iterator<Item = &'a Seen>, ledger: &Ledger) {
        for seen in clients {
            self.judge_client(seen, ledger);
        }
        for channel in 0..self.traffic.channels() {
            let mut before = None::<Point>;
            for (seq, outcome) in ledger.channel(channel).iter().enumerate() {
                let Some(point) = outcome.point() else { continue };
                let wrong = |expected: String, got: Point| Fault {
                    kind: FaultKind::WrongResult,
                    client: None,
                    channel: self.traffic.name(channel),
                    expected,
                    got: format!("number {seq} at {got}"),
                };
                let ascends = before.is_none_or(|before| before.epoch != point.epoch || before.pos < point.pos);
                let seen = self.places[channel as usize].get(seq).copied().flatten();
                let fault = match (ascends, seen) {
                    (false, _) => Some(wrong("positions that ascend".to_owned(), point)),
                    (true, Some(seen)) if !self.is_same(seen, point) => {
                        Some(wrong(format!("the place of the result, {point}"), seen))
                    }
                    (true, _) => None,
                };
                before = Some(point);
                if let Some(fault) = fault {
                    self.add(fault);
                }
            }
        }
    }

    fn judge_client(&mut self, seen: &Seen, ledger: &Ledger) {
        let client = seen.client;
        if let Some(roll_call) = &self.roll_call {
            self.expected += 1;
            if !roll_call.has_heard(client) {
                self.fault(FaultKind::Missing, client, "broadcast", "the roll call after the trouble", "none");
            }
        }
        for Follow { channel, got } in seen.follows {
            let partition = self.partition_of[channel as usize];
            let start = seen.start.iter().find(|(named, _)| *named == partition);
            let Some(&(_, start)) = start else {
                // That it never connected, or with a cursor that lacks the partition, was told before.
                continue;
            };
            let from = ledger.first_after(channel, start);
            let events = ledger.channel(channel);
            let holes = self.holes.remove(&(client, channel)).unwrap_or_default();
            for (seq, outcome) in (from..).zip(&events[from as usize..]) {
                let Some(point) = outcome.point() else { continue };
                self.expected += 1;
                if got.is_some_and(|got| (got.first..=got.last).contains(&seq)) && !holes.contains(&seq) {
                    continue;
                }
                if self.is_excused(client, channel, point) {
                    self.excused += 1;
                    continue;
                }
                let name = self.traffic.name(channel);
                let got = match got {
                    None => "nothing of this channel".to_owned(),
                    Some(Got { first, last }) => format!("numbers {first} to {last} but for {holes:?}"),
                };
                let expected = format!("number {seq} at {partition}={point} (began at {start})");
                self.fault(FaultKind::Missing, client, &name, expected, got);
            }
        }
    }
}
