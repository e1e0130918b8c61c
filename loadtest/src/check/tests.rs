//! One client at a time, and what is made of what it hears.

use super::*;
use crate::ledger::{Ledger, Outcome};
use crate::traffic::Mix;
use fanfare_protocol::{Epoch, Position};

const RUN: u64 = 0xabc;

/// One client on one channel of interest, and four events of it, published at 110, 120, 130 and 140.
struct Scene {
    checker: Checker,
    seen: Seen,
    ledger: Ledger,
    channel: ChannelIndex,
    name: String,
}

fn point(pos: u64) -> Point {
    Point { epoch: Epoch::parse("k3f9x2").expect("valid"), pos: Position(pos) }
}

impl Scene {
    fn new() -> Self {
        let mix = Mix { shared: 0.1, broadcast: 0.1 };
        let traffic = Traffic {
            seed: 1,
            clients: 1,
            shared_channels: 3,
            events_per_second: 1.0,
            duration: Duration::from_secs(1),
            payload_bytes: 0,
            mix,
        };
        let (seen, channel) = (Seen::new(0, &traffic), 1);
        let mut ledger = Ledger::new(traffic.channels());
        for pos in [110, 120, 130, 140] {
            ledger.push(channel, Outcome::Acknowledged(point(pos)));
        }
        let name = traffic.name(channel);
        let mut scene = Self { checker: Checker::new(traffic, RUN, false), seen, ledger, channel, name };
        scene.connected("k3f9x2-100", None);
        scene
    }

    fn connected(&mut self, id: &str, sent: Option<&str>) {
        let names = self.seen.follows.map(|follow| self.checker.traffic.name(follow.channel));
        let data = serde_json::json!({
            "clientId": "c", "userId": "u0", "channels": names, "resumed": sent.is_some()
        });
        let message = Message { id: id.to_owned(), event: "connected".to_owned(), data: data.to_string() };
        self.checker.connected(&mut self.seen, &message, sent);
    }

    fn gets(&mut self, seq: u32, pos: u64) {
        let id = format!("k3f9x2-{pos}@{}", self.name);
        let event = self.checker.traffic.event_type(self.channel).to_owned();
        let message = Message { id, event, data: format!("load {RUN:x} {seq} 5\n") };
        self.checker.event(&mut self.seen, &message, Duration::ZERO);
    }

    fn faults(mut self) -> Vec<(FaultKind, u64)> {
        let complete = self.checker.is_complete(&self.seen, &self.ledger);
        self.checker.judge(std::iter::once(&self.seen), &self.ledger);
        let faults = self.checker.faults.counts.into_iter().collect::<Vec<_>>();
        assert!(complete || faults.iter().any(|(kind, _)| *kind == FaultKind::Missing));
        faults
    }
}

#[test]
fn every_event_once_and_in_order_is_right() {
    let mut scene = Scene::new();
    for (seq, pos) in (0..).zip([110, 120, 130, 140]) {
        scene.gets(seq, pos);
    }
    assert_eq!(scene.faults(), []);
}

#[test]
fn what_was_published_before_the_start_is_not_missed_and_what_came_after_is() {
    let mut scene = Scene::new();
    scene.seen.start[0].1 = point(115);
    assert_eq!(scene.faults(), [(FaultKind::Missing, 3)]);
}

#[test]
fn an_event_that_was_left_out_is_missed_wherever_it_stood() {
    for left_out in 0..4 {
        let mut scene = Scene::new();
        for (seq, pos) in (0..).zip([110, 120, 130, 140]).filter(|(seq, _)| *seq != left_out) {
            scene.gets(seq, pos);
        }
        assert_eq!(scene.faults(), [(FaultKind::Missing, 1)], "{left_out}");
    }
}

#[test]
fn an_event_that_comes_again_is_double_even_under_another_id() {
    let mut scene = Scene::new();
    for (seq, pos) in [(0, 110), (1, 120), (1, 120), (2, 130), (3, 140), (3, 150)] {
        scene.gets(seq, pos);
    }
    let expected = [(FaultKind::Double, 2), (FaultKind::Backwards, 1), (FaultKind::WrongId, 1)];
    assert_eq!(scene.faults(), expected);
}

#[test]
fn an_event_that_comes_after_a_later_one_is_reordered_and_not_missed() {
    for order in [[0, 2, 1, 3], [1, 0, 2, 3], [0, 1, 3, 2]] {
        let mut scene = Scene::new();
        for seq in order {
            scene.gets(seq, 110 + 10 * u64::from(seq));
        }
        assert_eq!(scene.faults(), [(FaultKind::Reordered, 1), (FaultKind::Backwards, 1)], "{order:?}");
    }
}

#[test]
fn an_event_stands_where_its_publisher_was_told() {
    let mut scene = Scene::new();
    for (seq, pos) in [(0, 110), (1, 121), (2, 130), (3, 140)] {
        scene.gets(seq, pos);
    }
    assert_eq!(scene.faults(), [(FaultKind::WrongResult, 1)]);
}

#[test]
fn an_event_keeps_its_position_in_a_new_epoch_where_there_may_be_one() {
    for allowed in [false, true] {
        let mut scene = Scene::new();
        scene.checker.allow_gaps = allowed;
        for (seq, pos) in (0..).zip([110, 120, 130, 140]) {
            scene.gets(seq, pos);
        }
        scene.ledger = Ledger::new(scene.checker.traffic.channels());
        let epoch = Epoch::parse("fedcba").expect("valid");
        for pos in [110, 120, 130, 140] {
            scene.ledger.push(scene.channel, Outcome::Acknowledged(Point { epoch, pos: Position(pos) }));
        }
        let expected = if allowed { vec![] } else { vec![(FaultKind::WrongResult, 4)] };
        assert_eq!(scene.faults(), expected, "allowed: {allowed}");
    }
}

#[test]
fn an_event_without_an_acknowledgement_may_come_or_not() {
    for comes in [true, false] {
        let mut scene = Scene::new();
        scene.ledger.push(scene.channel, Outcome::Unknown);
        for (seq, pos) in (0..).zip([110, 120, 130, 140]) {
            scene.gets(seq, pos);
        }
        if comes {
            scene.gets(4, 150);
        }
        assert_eq!(scene.faults(), []);
    }
}

#[test]
fn a_resumed_connection_says_the_cursor_that_the_client_came_with() {
    let mut scene = Scene::new();
    scene.connected("k3f9x2-100", Some("k3f9x2-100@load:0"));
    scene.connected("k3f9x2-105", Some("k3f9x2-100@load:0"));
    assert_eq!(scene.checker.faults().counts.get(&FaultKind::WrongConnected), Some(&1));
}

#[test]
fn a_gap_is_a_fault_unless_allowed_and_then_excuses_what_it_names() {
    for allowed in [false, true] {
        let mut scene = Scene::new();
        scene.checker.allow_gaps = allowed;
        scene.gets(0, 110);
        let data = format!(r#"{{"channels":["{}"],"reason":"lost","from":0,"to":0,"retryInMs":1}}"#, scene.name);
        let message = Message { id: "k3f9x2-110".to_owned(), event: "gap".to_owned(), data };
        scene.checker.gap(&mut scene.seen, &message, Duration::ZERO);
        scene.gets(3, 140);
        assert_eq!(scene.checker.gaps, 1);
        let expected = if allowed { vec![] } else { vec![(FaultKind::Gap, 1)] };
        assert_eq!(scene.faults(), expected, "two were in the first millisecond, and excused");
    }
}
