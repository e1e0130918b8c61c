//! When which client is cut off, and at which byte: all drawn from the seed.
//!
//! Some cuts hit whoever is connected, one client or many at once. Half of them leave a second cut behind, at a byte
//! of the next connection: in its request, its head, its replay, or later.

use std::collections::VecDeque;
use std::time::Duration;

use fastrand::Rng;

/// How clients are cut off.
#[derive(Clone, Copy, Debug)]
pub struct CutOptions {
    /// Connections that are cut off in all.
    pub cuts: u32,
    /// Longest time that a client stays away.
    pub away_max: Duration,
}

/// The byte at which a connection is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutAt {
    /// After so many bytes of the request.
    Sent(u32),
    /// After so many bytes of the response.
    Read(u32),
}

/// Decides on cuts, and counts them.
#[derive(Debug)]
pub(crate) struct Cutter {
    rng: Rng,
    options: CutOptions,
    moments: VecDeque<(Duration, u32)>,
    cuts: u32,
    /// Cuts that were left behind, and cuts that are due now: they count before they are made.
    armed: u32,
    due: u32,
    is_ending: bool,
}

/// Cuts at one moment, on average, where it isn't one of the big ones.
const CUTS_A_MOMENT: u32 = 4;

impl Cutter {
    /// Spreads the moments over the time in which events flow.
    pub(crate) fn new(seed: u64, options: CutOptions, duration: Duration) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x00c0_ffee);
        let mut moments = Vec::new();
        // The others come from cuts that were left behind.
        let mut left = options.cuts / 2;
        while left > 0 {
            let share = if rng.u8(..20) == 0 { options.cuts / 20 + 1 } else { rng.u32(1..2 * CUTS_A_MOMENT) };
            let count = share.min(left);
            left -= count;
            moments.push((duration.mul_f64(0.02 + 0.93 * rng.f64()), count));
        }
        moments.sort_unstable();
        Self { rng, options, moments: moments.into(), cuts: 0, armed: 0, due: 0, is_ending: false }
    }

    pub(crate) fn cuts(&self) -> u32 {
        self.cuts
    }

    /// How many clients are to be cut off now.
    pub(crate) fn due(&mut self, elapsed: Duration) -> u32 {
        let mut due = 0;
        while self.moments.front().is_some_and(|(at, _)| *at <= elapsed) {
            due += self.moments.pop_front().map_or(0, |(_, count)| count);
        }
        self.due = due.min(self.options.cuts.saturating_sub(self.cuts + self.armed));
        self.due
    }

    /// How many are still to be made; those left behind no longer count on.
    pub(crate) fn rest(&mut self) -> u32 {
        self.moments.clear();
        (self.armed, self.is_ending) = (0, true);
        self.options.cuts.saturating_sub(self.cuts)
    }

    /// A client to begin looking at for one to cut off.
    pub(crate) fn draw(&mut self, clients: u32) -> u32 {
        self.rng.u32(..clients)
    }

    /// Where each client's first connection is cut off, before anything is published: some in their request, some in
    /// their head or `connected`.
    pub(crate) fn first(&mut self) -> Option<CutAt> {
        let is_cut = self.armed < self.options.cuts / 10 && self.rng.u8(..4) == 0;
        self.armed += u32::from(is_cut);
        is_cut
            .then(|| if self.rng.bool() { CutAt::Sent(self.rng.u32(..200)) } else { CutAt::Read(self.rng.u32(..600)) })
    }

    /// Notes a cut; tells how long the client stays away, and where its next connection is cut off.
    pub(crate) fn cut(&mut self, was_armed: bool) -> (Duration, Option<CutAt>) {
        self.cuts += 1;
        let counted = if was_armed { &mut self.armed } else { &mut self.due };
        *counted = counted.saturating_sub(1);
        let away = match self.rng.u8(..4) {
            0 => Duration::ZERO,
            1 => Duration::from_micros(self.rng.u64(..20_000)),
            _ => self.options.away_max.mul_f64(self.rng.f64()),
        };
        let room = self.options.cuts.saturating_sub(self.cuts + self.armed + self.due);
        let again = room > 0 && !self.is_ending && self.rng.bool();
        self.armed += u32::from(again);
        (away, again.then(|| self.place()))
    }

    fn place(&mut self) -> CutAt {
        match self.rng.u8(..10) {
            0 => CutAt::Sent(self.rng.u32(..200)),
            1 | 2 => CutAt::Read(self.rng.u32(..400)), // The head, mostly.
            3..=7 => CutAt::Read(self.rng.u32(300..3_000)), // `connected` and the replay.
            _ => CutAt::Read(self.rng.u32(..40_000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_cuts_as_were_asked_for() {
        let options = CutOptions { cuts: 500, away_max: Duration::from_secs(1) };
        let duration = Duration::from_secs(10);
        let mut cutter = Cutter::new(1, options, duration);
        let mut left_behind = 0_u32;
        for millis in 0..10_000 {
            for _ in 0..cutter.due(Duration::from_millis(millis)) {
                let (away, again) = cutter.cut(false);
                assert!(away <= options.away_max);
                if again.is_some() {
                    left_behind += 1;
                    cutter.cut(true);
                }
            }
        }
        assert!((50..250).contains(&left_behind) && cutter.cuts() < 500);
        for _ in 0..cutter.rest() {
            cutter.cut(false);
        }
        assert_eq!((cutter.cuts(), cutter.due(duration), cutter.rest()), (500, 0, 0));
    }
}
