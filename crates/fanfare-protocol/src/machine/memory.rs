//! What a connection costs a machine (the tests below hold it to a budget), and how what a storm has left behind is
//! given back.

use super::{Machine, Part};
use crate::has_slack;

impl Machine {
    /// Gives back what most of has been empty since many left.
    pub(super) fn release(&mut self) {
        let used = self.connections.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if has_slack(self.connections.capacity(), used) {
            self.connections.truncate(used);
            self.connections.shrink_to_fit();
        }
        self.parts.iter_mut().for_each(Part::release);
    }
}

impl Part {
    fn release(&mut self) {
        self.channels.release();
        if has_slack(self.attempts.capacity(), self.attempts.len()) {
            self.attempts.shrink_to(2 * self.attempts.len());
        }
        if self.hold.is_empty() {
            self.hold.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::ChannelState;
    use super::super::connection::{Connection, Follow, Seat};
    use crate::{Epoch, Point};

    /// Whatever grows here grows for every connection. The sums are in `docs/performance.md`: change both.
    #[test]
    fn what_every_connection_pays_for_stays_within_its_budget() {
        let budget = [
            ("a connection in the machine", size_of::<Connection>(), 104),
            ("what it follows in a partition", size_of::<Follow>(), 72),
            ("its place on a channel", size_of::<Seat>(), 8),
            ("a channel, such as its inbox", size_of::<ChannelState>(), 88),
            ("a point that there may be or not", size_of::<Option<Point>>(), 24),
            ("an epoch that there may be or not", size_of::<Option<Epoch>>(), 13),
        ];
        for (what, bytes, bytes_max) in budget {
            assert!(bytes <= bytes_max, "{what} takes {bytes} bytes, and {bytes_max} are in the budget");
        }
    }
}
