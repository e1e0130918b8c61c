//! Directed stories: for the backstops, which nothing but a broken backbone needs, for what seeds find too rarely,
//! and for bugs that seeds did find.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::rules::switches::without;
use crate::{
    Action, Answer, ByNamespace, Channel, Confirmation, Content, Cut, Delivery, Epoch, Event, Feed, FeedTiming, Gap,
    Id, Keep, Last, Machine, MachineLimits, Marker, Outlet, Page, Partition, Partitions, Patch, Point, Poll, Position,
    Query, Replayed, Rule, SharedEvent, Start, WishBatch, Wishes,
};

const NOW: Duration = Duration::from_secs(1);

fn channel(name: &str) -> Channel {
    Channel::parse(name).expect("valid")
}

fn epoch() -> Epoch {
    Epoch::parse("abcdef").expect("valid")
}

fn exact(pos: u64) -> Last {
    Last { pos: Position(pos), exact: true }
}

fn marker(nonce: u64, lasts: Vec<(Channel, Option<Position>)>) -> Arc<Marker> {
    let (base, last, floor) = (Position(0), Position(10), Position(0));
    Arc::new(Marker { nonce, epoch: epoch(), previous: None, base, last, floor, lasts })
}

fn event(name: &str, pos: u64, prev: u64) -> SharedEvent {
    let content = Content { name: None, key: None, ttl: None, data: "x".into() };
    SharedEvent::new(Event { channel: channel(name), pos: Position(pos), prev: exact(prev), content })
}

fn fresh(replay: u16) -> Start {
    Start::Fresh { replay: Arc::new(ByNamespace::everywhere(replay)) }
}

/// What a connection was sent: events by position, gaps by reason.
#[derive(Debug, Default, PartialEq)]
struct Sent {
    lines: Vec<String>,
    busy: bool,
}

impl Outlet for Sent {
    fn connected(&mut self, _: u32, _: bool, id: Id<'_>) {
        let at = id.points().next().map_or(0, |(_, point)| point.pos.0);
        self.lines.push(format!("connected at {at}"));
    }

    fn events(&mut self, _: u32, _: Epoch, events: &[&SharedEvent], _: Replayed, _: Id<'_>) {
        self.lines.extend(events.iter().map(|event| format!("{} on {}", event.pos, event.channel.as_str())));
    }

    fn gap(&mut self, _: u32, gap: &Gap, _: Id<'_>) {
        self.lines.push(format!("gap {} from {} to {}", gap.reason.as_str(), gap.from, gap.to));
    }

    fn subscribed(&mut self, _: u32, _: &[Channel], _: Id<'_>) {
        self.lines.push("subscribed".to_owned());
    }

    fn is_idle(&self, _: u32) -> bool {
        !self.busy
    }
}

/// A machine of one partition, and all that a test says to it.
struct Stage {
    machine: Machine,
    wishes: Arc<Mutex<Wishes>>,
    sent: Sent,
}

impl Stage {
    fn new(limits: MachineLimits) -> Self {
        let wishes = Arc::new(Mutex::new(Wishes::default()));
        let machine = Machine::new(Partitions::ONE, limits, vec![wishes.clone()]);
        Self { machine, wishes, sent: Sent::default() }
    }

    fn take(&self) -> WishBatch {
        self.wishes.lock().expect("no panic").take()
    }

    fn deliver(&mut self, delivery: Delivery) {
        self.machine.deliver(0, delivery, &mut self.sent);
        while self.machine.work(usize::MAX, &mut self.sent) {}
    }

    fn event(&mut self, event: SharedEvent) {
        self.deliver(Delivery::Event(epoch(), event));
    }

    /// A cut at a position, for everything that was wished for so far.
    fn cut(&mut self, last: u64, lasts: &[(&str, u64)]) {
        let ack = self.take().number;
        let lasts = lasts.iter().map(|(name, last)| (channel(name), Some(Position(*last)))).collect();
        let marker = Arc::new(Marker { last: Position(last), ..marker(1, lasts).as_ref().clone() });
        self.deliver(Delivery::Cut(Cut { marker, ack, connection: 1 }));
    }

    fn join(&mut self, key: u32, channels: &[&str], start: Start) {
        let channels: Vec<_> = channels.iter().map(|name| channel(name)).collect();
        self.machine.join(key, &channels, start, None);
    }

    fn sent(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent.lines)
    }
}

fn ample() -> MachineLimits {
    MachineLimits {
        tail_events_max: 100,
        tail_bytes_max: 1 << 20,
        page_events_max: 100,
        replay_bytes_max: 1 << 20,
        joins_reading_max: 100,
        join_buffer_bytes_max: 1 << 20,
        resync_bytes_max: 1 << 20,
        resync_reads_max: 8,
        hold_bytes_max: 1 << 20,
        fanout_events_max: 1_000,
        fanout_bytes_max: 1 << 20,
    }
}

/// A connection that is live on `x`, whose last event stands at 10.
fn live() -> Stage {
    let mut stage = Stage::new(ample());
    stage.join(0, &["x"], fresh(0));
    stage.cut(10, &[("x", 10)]);
    assert_eq!(stage.sent(), ["connected at 10"]);
    stage
}

#[test]
fn an_event_that_skips_another_one_is_a_hole() {
    let story = |off: &[Rule]| {
        without(off, || {
            let mut stage = live();
            stage.event(event("x", 30, 20));
            (stage.sent(), stage.take().distrust)
        })
    };
    assert_eq!(story(&[]), (vec!["gap lost from 10 to 20".to_owned()], Some(1)));
    assert_eq!(story(&[Rule::BackstopPrev]), (vec!["30 on x".to_owned()], None), "20 is lost, and nobody says so");
    assert_eq!(story(&[Rule::BackstopGapFirst]), (vec![], Some(1)), "the resync is all there is");
}

#[test]
fn a_cut_that_knows_of_a_later_event_is_a_hole() {
    let story = |off: &[Rule]| {
        without(off, || {
            let mut stage = live();
            stage.cut(25, &[("x", 20)]);
            (stage.sent(), stage.take().distrust)
        })
    };
    assert_eq!(story(&[]), (vec!["gap lost from 10 to 25".to_owned()], Some(1)));
    assert_eq!(story(&[Rule::BackstopLast]), (vec![], None), "20 is lost, and nobody says so");
}

/// The last connection's barrier was slow: its script runs when the next connection is up. It names `x`, whose
/// SUBSCRIBE is under way again, and the awaited barrier knows of the wish for it.
#[test]
fn a_marker_of_the_last_connection_is_not_the_awaited_one() {
    let story = |off: &[Rule]| {
        without(off, || {
            let timing = FeedTiming { deadline: Duration::from_secs(5), beacon_interval: Duration::from_secs(1) };
            let mut feed = Feed::new(1, timing, NOW);
            let x = channel("x");
            let want = |number, wanted: bool, cut: bool| WishBatch {
                number,
                wanted: vec![(channel("x"), wanted)],
                cut,
                cuts: if cut && wanted { vec![channel("x")] } else { Vec::new() },
                ..WishBatch::default()
            };
            let mut actions = Vec::new();
            feed.opened(NOW, &mut actions);
            feed.marker_confirmed(NOW, &mut actions);
            feed.wishes(NOW, 0, want(1, true, true), &mut actions);
            feed.confirmed(NOW, &x, Confirmation::Subscribed, &mut actions);
            feed.marker(NOW, marker(1, vec![]), &mut actions);
            let late = actions.iter().find_map(|action| match action {
                Action::Barrier(nonce, channels) if channels.contains(&x) => Some(*nonce),
                _ => None,
            });
            feed.broken(&mut actions);
            feed.opened(NOW, &mut actions);
            feed.confirmed(NOW, &x, Confirmation::Subscribed, &mut actions);
            // Nobody wants it, and then somebody does: two confirmations are outstanding when the barrier goes out.
            feed.wishes(NOW, 0, want(2, false, false), &mut actions);
            feed.wishes(NOW, 0, want(3, true, true), &mut actions);
            feed.marker_confirmed(NOW, &mut actions);
            actions.clear();
            let late = late.expect("the second barrier names it");
            feed.marker(NOW, marker(late, vec![(x, Some(Position(10)))]), &mut actions);
            actions.iter().find_map(|action| match action {
                Action::Deliver(0, Delivery::Cut(cut)) => Some(cut.ack),
                _ => None,
            })
        })
    };
    assert_eq!(story(&[]), None);
    assert_eq!(story(&[Rule::Nonce]), Some(3), "it would sync what is not subscribed");
}

/// Wanted, left and wanted again before the first confirmation came: that one is not the last.
#[test]
fn a_confirmation_counts_only_when_no_other_is_outstanding() {
    let story = |off: &[Rule]| {
        without(off, || {
            let timing = FeedTiming { deadline: Duration::from_secs(5), beacon_interval: Duration::from_secs(1) };
            let mut feed = Feed::new(1, timing, NOW);
            let mut actions = Vec::new();
            feed.opened(NOW, &mut actions);
            feed.marker_confirmed(NOW, &mut actions);
            for (number, wanted) in [(1, true), (2, false), (3, true)] {
                let wanted = vec![(channel("x"), wanted)];
                feed.wishes(NOW, 0, WishBatch { number, wanted, ..WishBatch::default() }, &mut actions);
            }
            let (cut, cuts) = (true, vec![channel("x")]);
            feed.wishes(NOW, 0, WishBatch { number: 4, cut, cuts, ..WishBatch::default() }, &mut actions);
            feed.marker(NOW, marker(1, vec![]), &mut actions);
            let confirmations = [Confirmation::Subscribed, Confirmation::Unsubscribed, Confirmation::Subscribed];
            let asked_after = confirmations.iter().position(|what| {
                feed.confirmed(NOW, &channel("x"), *what, &mut actions);
                actions.iter().any(|action| matches!(action, Action::Barrier(_, channels) if !channels.is_empty()))
            });
            asked_after.expect("it is asked for in the end") + 1
        })
    };
    assert_eq!(story(&[]), 3);
    assert_eq!(story(&[Rule::Count]), 1, "it is not subscribed then");
}

/// The server lost everything: its new epoch begins at 100 and knows of nothing before, but what stood between 10 and
/// there may be gone.
#[test]
fn what_may_be_lost_with_an_epoch_begins_where_the_client_stands() {
    let epoch = Epoch::parse("fedcba").expect("valid");
    let cut = |stage: &mut Stage| {
        let (base, last, floor) = (Position(100), Position(110), Position(100));
        let lasts = vec![(channel("x"), None)];
        let marker = Arc::new(Marker { nonce: 1, epoch, previous: None, base, last, floor, lasts });
        let ack = stage.take().number;
        stage.deliver(Delivery::Cut(Cut { marker, ack, connection: 2 }));
    };
    let mut stage = live();
    stage.deliver(Delivery::Break);
    cut(&mut stage);
    let tag = stage.take().reads[0].tag;
    let lasts = Answer::Lasts(vec![(channel("x"), None)], Position(100), Some(epoch));
    stage.deliver(Delivery::Answer(tag, lasts));
    assert_eq!(stage.sent(), ["gap lost from 10 to 110"], "one that is there");

    let mut stage = Stage::new(ample());
    stage.join(0, &["x"], Start::Cursor(crate::Cursor::parse("abcdef-20").expect("valid")));
    cut(&mut stage);
    assert_eq!(stage.sent(), ["connected at 20", "gap lost from 20 to 110"], "one that comes back");
}

#[test]
fn a_gap_is_told_before_the_cursor_enters_it() {
    let mut limits = ample();
    limits.page_events_max = 1;
    let mut stage = Stage::new(limits);
    let cursor = crate::Cursor::parse("abcdef-10").expect("valid");
    stage.join(0, &["x", "y"], Start::Cursor(cursor));
    stage.cut(100, &[("x", 90), ("y", 80)]);
    let tags: Vec<_> = stage.take().reads.iter().map(|read| read.tag).collect();
    stage.sent.busy = true; // So that it is parked after the first window.
    // Of `x` everything up to 50 is trimmed; of `y` the first page ends at 30.
    let page = |event| Page { epoch: Some(epoch()), events: vec![event], more: true };
    stage.deliver(Delivery::Answer(tags[0], Answer::Page(channel("x"), page(event("x", 60, 50)))));
    stage.deliver(Delivery::Answer(tags[0], Answer::Page(channel("y"), page(event("y", 30, 10)))));
    assert_eq!(stage.sent(), ["connected at 10", "gap expired from 10 to 50", "30 on y"]);
}

/// The history is wiped between a join's cut and its reads, and positions run ahead of the clock.
#[test]
fn a_read_of_another_epochs_history_is_not_replayed_under_the_cuts_name() {
    let story = |off: &[Rule]| {
        without(off, || {
            let mut stage = Stage::new(ample());
            stage.join(0, &["x"], Start::Cursor(crate::Cursor::parse("abcdef-10").expect("valid")));
            stage.cut(100, &[("x", 90)]);
            let tag = stage.take().reads[0].tag;
            let page = Page { epoch: Epoch::parse("ghijkl"), events: vec![event("x", 90, 10)], more: false };
            stage.deliver(Delivery::Answer(tag, Answer::Page(channel("x"), page)));
            (stage.sent(), stage.take().cut)
        })
    };
    let (connected, event) = ("connected at 10".to_owned(), "90 on x".to_owned());
    assert_eq!(story(&[]), (vec![connected.clone()], true), "it waits for a cut of that epoch");
    assert_eq!(story(&[Rule::ReadEpoch]), (vec![connected, event], false), "it will come again after the gap");
}

#[test]
fn a_tail_begins_after_the_gap_that_a_resync_told() {
    let mut stage = live();
    stage.deliver(Delivery::Break);
    stage.cut(100, &[]);
    let tag = stage.take().reads[0].tag;
    stage.deliver(Delivery::Answer(
        tag,
        Answer::Lasts(vec![(channel("x"), Some(Position(90)))], Position(0), Some(epoch())),
    ));
    let tag = stage.take().reads[0].tag;
    // 20 is there, 90 was the last, and what lies between is gone.
    let page = Page { epoch: Some(epoch()), events: vec![event("x", 20, 10)], more: false };
    stage.deliver(Delivery::Answer(tag, Answer::Page(channel("x"), page)));
    assert_eq!(stage.sent(), ["gap expired from 20 to 90", "20 on x"]);
    stage.join(1, &["x"], Start::Cursor(crate::Cursor::parse("abcdef-20").expect("valid")));
    stage.cut(100, &[]);
    let reads = stage.take().reads;
    assert!(matches!(&reads[..], [read] if matches!(read.query, Query::After(..))), "it must read: {reads:?}");
}

#[test]
fn a_channel_that_is_left_before_it_has_begun_never_begins() {
    let mut stage = live();
    let plus = Patch { subscribe: vec![channel("y")], ..Patch::default() };
    let minus = Patch { unsubscribe: vec![channel("y")], ..Patch::default() };
    for patch in [plus.clone(), minus, plus] {
        stage.machine.patch(0, patch, &mut stage.sent);
    }
    stage.cut(20, &[("y", 20)]);
    stage.event(event("y", 30, 20));
    assert_eq!(stage.sent(), ["subscribed", "subscribed", "30 on y"], "once");
    stage.machine.leave(0);
}

#[test]
fn a_new_client_that_must_start_again_is_still_replayed_the_newest() {
    let mut stage = Stage::new(ample());
    stage.join(0, &["x"], fresh(2));
    stage.cut(10, &[("x", 10)]);
    assert_eq!(stage.take().reads.len(), 1);
    stage.deliver(Delivery::Break);
    stage.cut(10, &[]);
    let tag = stage.take().reads[0].tag;
    stage.deliver(Delivery::Answer(
        tag,
        Answer::Lasts(vec![(channel("x"), Some(Position(10)))], Position(0), Some(epoch())),
    ));
    let reads = stage.take().reads;
    assert!(matches!(&reads[..], [read] if matches!(read.query, Query::Newest(..))), "{reads:?}");
    let page = Page { epoch: Some(epoch()), events: vec![event("x", 5, 0), event("x", 10, 5)], more: false };
    stage.deliver(Delivery::Answer(reads[0].tag, Answer::Page(channel("x"), page)));
    assert_eq!(stage.sent(), ["connected at 4", "5 on x", "10 on x"]);
}

const KEEP: Keep = Keep { events_max: 10, age: Some(Duration::from_secs(60)) };

#[test]
fn a_page_that_has_room_for_nothing_has_one_event() {
    let mut store = crate::Store::new(crate::Retention {
        history: ByNamespace::everywhere(KEEP),
        forget_age: Duration::from_secs(60),
        idempotency_window: Duration::from_secs(60),
    });
    let identity = crate::Identity { replication: 1, run: 1, first_history: true };
    let caller = crate::Caller { now: Position(100), identity, new_epoch: epoch() };
    for _ in 0..2 {
        let content = Content { name: None, key: None, ttl: None, data: "x".into() };
        store.publish(caller, crate::Draft { channel: channel("x"), content, idempotency: None }, KEEP);
    }
    let limit = crate::PageLimit { events_max: 10, bytes_max: 0 };
    let page = store.history_after(&channel("x"), Position(0), limit, Position(100));
    assert_eq!((page.events.len(), page.more), (1, true));
}

/// A poll whose answer has room for one event.
struct Answering(Poll, Vec<String>);

impl Outlet for Answering {
    fn connected(&mut self, _: u32, _: bool, _: Id<'_>) {}

    fn events(&mut self, _: u32, epoch: Epoch, events: &[&SharedEvent], _: Replayed, before: Id<'_>) {
        for event in events {
            if self.0.take(1, before.at(Point { epoch, pos: event.pos })) {
                self.1.push(event.pos.to_string());
            }
        }
    }

    fn gap(&mut self, _: u32, gap: &Gap, id: Id<'_>) {
        if self.0.take_gap(id) {
            self.1.push(format!("gap to {}", gap.to));
        }
    }

    fn subscribed(&mut self, _: u32, _: &[Channel], _: Id<'_>) {}

    fn is_idle(&self, _: u32) -> bool {
        !self.0.is_full()
    }
}

/// A gap's id is the client's own cursor. In an answer that it filled, the client would be told it again and again.
#[test]
fn an_answer_with_a_gap_leads_on() {
    let story = |off: &[Rule]| {
        without(off, || {
            let mut stage = Stage::new(ample());
            let start = Start::Cursor(crate::Cursor::parse("abcdef-5").expect("a cursor"));
            let mut answering = Answering(Poll::with_bounds(&start, 1, 1 << 20), Vec::new());
            stage.join(0, &["x"], start);
            stage.cut(30, &[("x", 20)]);
            let tag = stage.take().reads[0].tag;
            let page = Page { epoch: Some(epoch()), events: vec![event("x", 20, 15)], more: false };
            stage.machine.deliver(0, Delivery::Answer(tag, Answer::Page(channel("x"), page)), &mut answering);
            let Answering(mut poll, heard) = answering;
            let (cursor, more) = poll.end(stage.machine.id(0));
            (heard, cursor.to_owned(), more)
        })
    };
    let heard = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(story(&[]), (heard(&["gap to 15", "20"]), "abcdef-30".to_owned(), false));
    let nowhere = (heard(&["gap to 15"]), "abcdef-5".to_owned(), true);
    assert_eq!(story(&[Rule::PollGaps]), nowhere, "it comes back with what it came with");
}

/// What each connection was given, and what came in one piece.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<(u32, u64)>,
    pieces: Vec<usize>,
    finished: Vec<u64>,
}

impl Heard {
    fn by(&self, key: u32) -> Vec<u64> {
        self.events.iter().filter(|(to, _)| *to == key).map(|(_, pos)| *pos).collect()
    }
}

impl Outlet for Heard {
    fn connected(&mut self, _: u32, _: bool, _: Id<'_>) {}

    fn events(&mut self, to: u32, _: Epoch, events: &[&SharedEvent], _: Replayed, _: Id<'_>) {
        self.pieces.push(events.len());
        self.events.extend(events.iter().map(|event| (to, event.pos.0)));
    }

    fn finished(&mut self, _: Partition, event: &SharedEvent) {
        self.finished.push(event.pos.0);
    }

    fn gap(&mut self, _: u32, _: &Gap, _: Id<'_>) {}

    fn subscribed(&mut self, _: u32, _: &[Channel], _: Id<'_>) {}

    fn is_idle(&self, _: u32) -> bool {
        true
    }
}

/// A hundred connections on `all`, and number 7 also on `mine`.
fn crowd() -> (Machine, Heard) {
    let mut stage = Stage::new(ample());
    for key in 0..100 {
        stage.join(key, if key == 7 { &["all", "mine"] } else { &["all"] }, fresh(0));
    }
    stage.cut(10, &[("all", 10), ("mine", 10)]);
    (stage.machine, Heard::default())
}

fn start(machine: &mut Machine, event: SharedEvent, heard: &mut Heard) {
    machine.deliver(0, Delivery::Event(epoch(), event), heard);
}

#[test]
fn a_small_channel_is_not_stuck_behind_a_huge_one_and_overtakes_nothing_that_its_reader_is_owed() {
    let (mut machine, mut heard) = crowd();
    start(&mut machine, event("all", 20, 10), &mut heard);
    assert!(machine.work(10, &mut heard), "most of it is still to do");
    let early = heard.events.len();
    assert!((1..=10).contains(&early) && heard.by(7).is_empty());
    start(&mut machine, event("mine", 30, 10), &mut heard);
    machine.work(4, &mut heard);
    assert_eq!(heard.by(7), [20, 30], "the huge one's event first, and long before its turn");
    assert!(heard.events.len() < 20 && heard.finished == [30]);
    while machine.work(9, &mut heard) {}
    assert!((0..100).all(|key| heard.by(key) == if key == 7 { vec![20, 30] } else { vec![20] }));
    assert_eq!(heard.finished, [30, 20]);
}

#[test]
fn a_cursor_counts_nothing_that_is_still_on_its_way() {
    let (mut machine, mut heard) = crowd();
    start(&mut machine, event("all", 20, 10), &mut heard);
    machine.work(10, &mut heard);
    let at = |machine: &Machine, key| machine.id(key).and_then(|id| id.shared()).map(|point| point.pos.0);
    for key in 0..100 {
        assert_eq!(at(&machine, key), Some(if heard.by(key).is_empty() { 19 } else { 20 }));
    }
    while machine.work(10, &mut heard) {}
    assert!((0..100).all(|key| at(&machine, key) == Some(20)));
}

#[test]
fn events_that_wait_leave_together_and_a_lone_one_waits_for_nothing() {
    let (mut machine, mut heard) = crowd();
    start(&mut machine, event("all", 20, 10), &mut heard);
    machine.work(50, &mut heard);
    for pos in [30, 40] {
        start(&mut machine, event("all", pos, pos - 10), &mut heard);
    }
    while machine.work(50, &mut heard) {}
    assert!((0..100).all(|key| heard.by(key) == [20, 30, 40]));
    let pieces = |len| heard.pieces.iter().filter(|piece| **piece == len).count();
    assert_eq!((pieces(1), pieces(2), pieces(3)), (50, 50, 50), "half had the first one before the others came");
}

#[test]
fn who_leaves_in_the_middle_of_a_fan_out_takes_nobodys_event_along() {
    for leaver in 0..100 {
        let (mut machine, mut heard) = crowd();
        start(&mut machine, event("all", 20, 10), &mut heard);
        machine.work(50, &mut heard);
        machine.leave(leaver);
        while machine.work(7, &mut heard) {}
        let others = (0..100).filter(|key| *key != leaver);
        assert!(others.into_iter().all(|key| heard.by(key) == [20]), "each once, without {leaver}");
    }
}

#[test]
fn a_stream_waits_when_too_much_has_started() {
    let mut stage = Stage::new(MachineLimits { fanout_events_max: 2, ..ample() });
    stage.join(0, &["x"], fresh(0));
    stage.cut(10, &[("x", 10)]);
    let mut heard = Heard::default();
    start(&mut stage.machine, event("x", 20, 10), &mut heard);
    assert!(stage.machine.has_room(0));
    start(&mut stage.machine, event("x", 30, 20), &mut heard);
    assert!(!stage.machine.has_room(0) && heard.events.is_empty());
    start(&mut stage.machine, event("x", 40, 30), &mut heard);
    assert_eq!(heard.by(0), [20, 30], "what comes all the same makes room for itself");
    while stage.machine.work(1, &mut heard) {}
    assert_eq!(heard.by(0), [20, 30, 40]);
}
