//! The proof that nothing is missing: each event names the one before it, so what is read must hang together.

use crate::rules::{Rule, on, visited};
use crate::{Channel, Last, Page, Position, SharedEvent};

/// What is read of one channel, page by page, from a position up to a cut.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) channel: Channel,
    /// Read up to here, without a hole that wasn't noted.
    pub(super) at: Position,
    /// What it must reach at least.
    target: Position,
    /// The cut.
    cut: Position,
    pub(super) done: bool,
    /// Where the channel stood before the first event after the cut.
    pub(super) before_first_after: Option<Last>,
}

impl Chain {
    pub(super) fn new(channel: Channel, start: Position, target: Position, cut: Position) -> Self {
        Self { channel, at: start, target, cut, done: false, before_first_after: None }
    }

    /// Takes a page: its events up to the cut go to `history`, what is missing to `gaps`.
    pub(super) fn take(
        &mut self,
        page: Page,
        history: &mut Vec<SharedEvent>,
        gaps: &mut Vec<(Channel, Position, Position)>,
    ) {
        if self.done {
            return;
        }
        for event in page.events {
            if event.pos <= self.at {
                continue;
            }
            if on(Rule::Chain) {
                self.note_gap(event.prev.pos, gaps);
            }
            self.at = event.pos;
            if event.pos <= self.cut || !on(Rule::ResyncUpToCut) {
                history.push(event);
                continue;
            }
            visited!("a read goes beyond the cut");
            if self.before_first_after.is_none() {
                self.before_first_after = Some(event.prev);
            }
        }
        self.done = !page.more || self.at > self.cut;
        if self.done {
            self.give_up(gaps);
        }
    }

    /// Ends here: what is missing up to the target is a gap.
    pub(super) fn give_up(&mut self, gaps: &mut Vec<(Channel, Position, Position)>) {
        self.done = true;
        if on(Rule::Last) {
            self.note_gap(self.target, gaps);
        }
    }

    fn note_gap(&self, reached: Position, gaps: &mut Vec<(Channel, Position, Position)>) {
        let end = reached.min(self.cut);
        if end > self.at {
            visited!("a chain has a hole");
            gaps.push((self.channel.clone(), self.at, end));
        }
    }
}
