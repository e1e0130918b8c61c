//! What is made of what clients hear.

use super::*;
use crate::stamp::STAMP_BYTES;

const RUN: u32 = 7;
const BYTES: usize = STAMP_BYTES + 20;

/// Two clients on channel 3, of which the first makes frames known to the second.
struct Scene {
    ear: Ear,
    clients: [(Listener, Heard); 2],
}

fn frame(to: To, seq: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    Stamp { run: RUN, to, seq, due: 5 }.write(BYTES, &mut payload);
    let payload = String::from_utf8(payload).expect("ASCII");
    let data = match to {
        To::Channel(_) => payload,
        To::All | To::User(_) => format!(r#"{{"type":"notification","message":"{payload}","timestamp":1}}"#),
    };
    format!("id: k3f9x2-{}@{}\ndata: {data}\n\n", 100 + seq, name(to)).into_bytes()
}

impl Scene {
    fn new() -> Self {
        let client = |user| (Listener { user, channel: 3 }, Heard::new());
        let mut scene = Self { ear: Ear::new(RUN, BYTES, Some("connected"), true), clients: [client(0), client(1)] };
        for client in 0..2 {
            scene.hears(client, b"retry: 1500\nid: k3f9x2-99\nevent: connected\ndata: {}\n\n");
        }
        scene
    }

    fn hears(&mut self, client: usize, text: &[u8]) {
        let (who, heard) = &mut self.clients[client];
        assert_eq!(self.ear.hear(*who, heard, text), text.len(), "whole frames are taken whole");
    }

    /// The faults once everything is held against so many events to inbox, everybody and channel.
    fn faults(mut self, expected: [u32; SLOTS]) -> Vec<(FaultKind, u64)> {
        for (who, heard) in &self.clients {
            self.ear.judge(*who, heard, expected);
        }
        self.ear.judge_holes();
        self.ear.sum.faults.counts.into_iter().collect()
    }
}

#[test]
fn every_event_once_and_in_order_is_right_whether_its_frame_is_known_or_not() {
    let mut scene = Scene::new();
    for client in 0..2 {
        let all = [frame(To::Channel(3), 0), frame(To::Channel(3), 1), frame(To::All, 0), frame(To::Channel(3), 2)];
        scene.hears(client, &all.concat());
        scene.hears(client, &frame(To::User(client as u32), 0));
        scene.hears(client, b": heartbeat\n\n");
        assert_eq!(&*scene.clients[client].1.last_id, format!("k3f9x2-100@user:u{client}").as_bytes());
    }
    assert_eq!((scene.ear.sum.deliveries, scene.ear.sum.heartbeats), (10, 2));
    assert_eq!(scene.faults([1, 1, 3]), []);
}

#[test]
fn whatever_is_wrong_with_the_order_is_found_though_frames_are_known() {
    let orders = [
        (&[0, 1, 1, 2][..], FaultKind::Double),
        (&[0, 2], FaultKind::Missing),
        (&[0, 1], FaultKind::Missing),
        (&[1, 0, 2], FaultKind::Reordered),
        (&[0, 1, 2, 0], FaultKind::Double),
    ];
    for (order, kind) in orders {
        let mut scene = Scene::new();
        for (client, order) in [(0, &[0, 1, 2][..]), (1, order)] {
            for seq in order {
                scene.hears(client, &frame(To::Channel(3), *seq));
            }
        }
        assert_eq!(scene.faults([0, 0, 3]), [(kind, 1)], "{order:?}");
    }
}

#[test]
fn what_is_not_the_clients_or_not_as_published_is_found() {
    let short = String::from_utf8_lossy(&frame(To::Channel(3), 0)).replacen("xx", "x", 1).into_bytes();
    let gap = b"event: gap\ndata: {\"reason\":\"lost\"}\n\n".to_vec();
    let cases = [
        (frame(To::Channel(4), 0), FaultKind::Stray),
        (frame(To::User(9), 0), FaultKind::Stray),
        (short, FaultKind::Corrupt),
        (gap, FaultKind::Gap),
    ];
    for (text, kind) in cases {
        let mut scene = Scene::new();
        scene.hears(0, &text);
        assert_eq!(scene.faults([0, 0, 0]), [(kind, 1)]);
    }
}

#[test]
fn a_frame_that_differs_in_one_byte_from_the_known_one_is_not_taken_for_it() {
    let mut scene = Scene::new();
    let good = frame(To::Channel(3), 0);
    scene.hears(0, &good);
    let mut bad = good.clone();
    let last = bad.len() - 3;
    bad[last] = b'y';
    scene.hears(1, &bad);
    assert_eq!(scene.faults([0, 0, 1]), [(FaultKind::Missing, 1), (FaultKind::Corrupt, 1)]);
}

#[test]
fn a_frame_in_pieces_is_left_until_it_is_whole() {
    let mut scene = Scene::new();
    let (whole, (who, heard)) = (frame(To::Channel(3), 0), &mut scene.clients[0]);
    for cut in 0..whole.len() {
        assert_eq!(scene.ear.hear(*who, heard, &whole[..cut]), 0);
    }
    assert_eq!(scene.ear.hear(*who, heard, &whole), whole.len());
}

#[test]
fn a_stream_that_is_closed_before_it_stands_was_refused() {
    let mut scene = Scene::new();
    scene.clients[1].1 = Heard::new();
    for client in 0..2 {
        scene.hears(client, b"retry: 20000\nevent: closing\ndata: {\"reason\":\"limit\"}\n\n");
    }
    let once = BTreeMap::from([("limit".to_owned(), 1)]);
    assert_eq!((scene.ear.sum.closings, scene.ear.refusals), (once.clone(), once));
}
