//! The pure store behind a lock, one for each partition, and the links that hear what is published to it.
//!
//! Publishing and subscribing happen under that lock, so that a link's queue holds everything in the store's own
//! order, as a Redis connection would.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_protocol::{
    Answer, ByNamespace, Caller, Channel, Confirmation, Draft, Epoch, Identity, Keep, Marker, Page, PageLimit,
    Partition, Partitions, Point, Position, Published, Query, Retention, ShardIndex, Store,
};
use tokio::sync::mpsc;

use crate::blocks::{BLOCKS_MAX, Block, since_1970};
use crate::directory::Directory;
use crate::link::LinkEvent;
use crate::{BackboneError, PublishError, Receipt};

/// Arrivals that may wait in a link. A feed that falls so far behind has its link broken and resyncs, as Redis cuts
/// off subscribers that read too slowly.
const ARRIVALS_MAX: usize = 16_384;

/// Bytes of retained events, over all partitions. Past it nothing is published until some have expired: as with a
/// Redis that is out of memory, a publisher hears of it, and no event is dropped that history promised.
const RETAINED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// All partitions, in this process.
#[derive(Debug)]
pub struct InProcess {
    partitions: Partitions,
    hubs: Vec<Arc<Hub>>,
    /// What is kept of channels.
    history: ByNamespace<Keep>,
    pub(crate) directory: Directory,
    /// Users who were disconnected, and when that may be forgotten; at most [`BLOCKS_MAX`].
    blocks: Mutex<Vec<(u64, String)>>,
}

/// A link: its place in the hub, and what arrives there.
#[derive(Debug)]
pub(crate) struct HubLink {
    id: u64,
    hub: Arc<Hub>,
    arrivals: mpsc::Receiver<LinkEvent>,
}

/// A partition's store and its links.
#[derive(Debug)]
struct Hub {
    identity: Identity,
    inside: Mutex<Inside>,
}

#[derive(Debug)]
struct Inside {
    store: Store,
    links: HashMap<u64, Subscriber>,
    subscribers: HashMap<Channel, HashSet<u64>>,
    links_opened: u64,
}

#[derive(Debug)]
struct Subscriber {
    arrivals: mpsc::Sender<LinkEvent>,
    marker: bool,
}

impl InProcess {
    pub(crate) fn new(partitions: Partitions, retention: Retention) -> Self {
        let identity = Identity { replication: fastrand::u64(..), run: fastrand::u64(..), first_history: true };
        let hub = |_| {
            let (links, subscribers) = (HashMap::new(), HashMap::new());
            let inside = Inside { store: Store::new(retention.clone()), links, subscribers, links_opened: 0 };
            Arc::new(Hub { identity, inside: Mutex::new(inside) })
        };
        let hubs = partitions.all().map(hub).collect();
        let (directory, blocks) = (Directory::default(), Mutex::default());
        Self { partitions, hubs, history: retention.history, directory, blocks }
    }

    pub(crate) fn partitions(&self) -> Partitions {
        self.partitions
    }

    pub(crate) fn publish(&self, drafts: Vec<Draft>) -> Vec<Result<Receipt, PublishError>> {
        let publish = |draft: Draft| {
            let partition = self.partitions.of(&draft.channel);
            let retained_bytes_max = RETAINED_BYTES_MAX / usize::from(self.partitions.count());
            let keep = *self.history.of(&draft.channel);
            let (point, repeated) = match self.hub(partition).publish(draft, keep, retained_bytes_max) {
                Ok(Published::Now(point, _)) => (point, false),
                Ok(Published::Before(point)) => (point, true),
                Ok(Published::Mismatch) => return Err(PublishError::Mismatch),
                Err(error) => return Err(PublishError::Unavailable(error)),
            };
            Ok(Receipt { partition, point, repeated })
        };
        drafts.into_iter().map(publish).collect()
    }

    pub(crate) fn purge(&self, channel: &Channel) -> Point {
        self.hub(self.partitions.of(channel)).purge(channel.clone())
    }

    pub(crate) fn standing(&self, channel: &Channel) -> Marker {
        let hub = self.hub(self.partitions.of(channel));
        let caller = hub.caller();
        hub.lock().store.barrier(caller, 0, vec![channel.clone()])
    }

    pub(crate) fn standings(&self) -> Vec<Point> {
        let standing = |hub: &Arc<Hub>| {
            let caller = hub.caller();
            let marker = hub.lock().store.barrier(caller, 0, Vec::new());
            Point { epoch: marker.epoch, pos: marker.last }
        };
        self.hubs.iter().map(standing).collect()
    }

    pub(crate) fn read(&self, channel: &Channel, after: Option<Position>, limit: PageLimit) -> Page {
        self.hub(self.partitions.of(channel)).lock().page(channel, after, limit)
    }

    pub(crate) fn connect(&self, partition: Partition) -> HubLink {
        let hub = self.hub(partition).clone();
        let (sender, arrivals) = mpsc::channel(ARRIVALS_MAX);
        let mut inside = hub.lock();
        inside.links_opened += 1;
        let id = inside.links_opened;
        inside.links.insert(id, Subscriber { arrivals: sender, marker: false });
        drop(inside);
        HubLink { id, hub, arrivals }
    }

    /// Whether there was room for it.
    pub(crate) fn block(&self, block: &Block) -> bool {
        let mut blocks = self.remembered();
        let has_room = blocks.len() < BLOCKS_MAX;
        if has_room {
            blocks.push((block.remembered_until(), block.encode()));
        }
        has_room
    }

    pub(crate) fn blocks(&self) -> Vec<String> {
        self.remembered().iter().map(|(_, row)| row.clone()).collect()
    }

    fn remembered(&self) -> MutexGuard<'_, Vec<(u64, String)>> {
        let mut blocks = self.blocks.lock().expect("no one panics while holding the blocks");
        let now = since_1970(SystemTime::now());
        blocks.retain(|(until, _)| *until > now);
        blocks
    }

    fn hub(&self, partition: Partition) -> &Arc<Hub> {
        &self.hubs[usize::from(partition)]
    }
}

impl HubLink {
    pub(crate) async fn arrivals(&mut self, into: &mut Vec<LinkEvent>, max: usize) -> Option<()> {
        (self.arrivals.recv_many(into, max).await > 0).then_some(())
    }

    pub(crate) fn subscribe(&self, channels: Vec<Channel>) {
        self.hub.subscribe(self.id, channels);
    }

    pub(crate) fn subscribe_marker(&self) {
        self.hub.subscribe_marker(self.id);
    }

    pub(crate) fn unsubscribe(&self, channels: Vec<Channel>) {
        self.hub.unsubscribe(self.id, channels);
    }

    pub(crate) fn barrier(&self, nonce: u64, channels: Vec<Channel>) {
        self.hub.barrier(self.id, nonce, channels);
    }

    pub(crate) fn read(&self, shard: ShardIndex, tag: u64, query: Query) {
        self.hub.answer(self.id, shard, tag, query);
    }
}

impl Drop for HubLink {
    fn drop(&mut self) {
        self.hub.close(self.id);
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no one panics while holding the store")
    }

    fn caller(&self) -> Caller {
        Caller { now: now(), identity: self.identity, new_epoch: Epoch::from_random(fastrand::u64(..)) }
    }

    fn publish(&self, draft: Draft, keep: Keep, retained_bytes_max: usize) -> Result<Published, BackboneError> {
        let caller = self.caller();
        let mut inside = self.lock();
        inside.store.expire(caller.now);
        if inside.store.retained_bytes() >= retained_bytes_max {
            return Err(BackboneError::Full);
        }
        let published = inside.store.publish(caller, draft, keep);
        if let Published::Now(point, event) = &published {
            let Inside { links, subscribers, .. } = &mut *inside;
            for link in subscribers.get(&event.channel).into_iter().flatten() {
                send(links, *link, LinkEvent::Event(point.epoch, event.clone()));
            }
        }
        Ok(published)
    }

    fn purge(&self, channel: Channel) -> Point {
        let caller = self.caller();
        let mut inside = self.lock();
        let (point, purge) = inside.store.purge(caller, channel);
        let Inside { links, subscribers, .. } = &mut *inside;
        for link in subscribers.get(&purge.channel).into_iter().flatten() {
            send(links, *link, LinkEvent::Purged(point.epoch, purge.clone()));
        }
        point
    }

    fn subscribe(&self, link: u64, channels: Vec<Channel>) {
        let mut inside = self.lock();
        for channel in channels {
            inside.subscribers.entry(channel.clone()).or_default().insert(link);
            send(&mut inside.links, link, LinkEvent::Confirmed(channel, Confirmation::Subscribed));
        }
    }

    fn subscribe_marker(&self, link: u64) {
        let mut inside = self.lock();
        if let Some(subscriber) = inside.links.get_mut(&link) {
            subscriber.marker = true;
        }
        send(&mut inside.links, link, LinkEvent::MarkerConfirmed);
    }

    fn unsubscribe(&self, link: u64, channels: Vec<Channel>) {
        let mut inside = self.lock();
        for channel in channels {
            if let Some(links) = inside.subscribers.get_mut(&channel) {
                links.remove(&link);
                if links.is_empty() {
                    inside.subscribers.remove(&channel);
                }
            }
            send(&mut inside.links, link, LinkEvent::Confirmed(channel, Confirmation::Unsubscribed));
        }
    }

    fn barrier(&self, link: u64, nonce: u64, channels: Vec<Channel>) {
        let caller = self.caller();
        let mut inside = self.lock();
        let marker = Arc::new(inside.store.barrier(caller, nonce, channels));
        if inside.links.get(&link).is_some_and(|subscriber| subscriber.marker) {
            send(&mut inside.links, link, LinkEvent::Marker(marker));
        }
        send(&mut inside.links, link, LinkEvent::BarrierAnswered(nonce));
    }

    fn answer(&self, link: u64, shard: ShardIndex, tag: u64, query: Query) {
        let mut inside = self.lock();
        let answer = match query {
            Query::After(channel, after, limit) => {
                let page = inside.page(&channel, Some(after), limit);
                Answer::Page(channel, page)
            }
            Query::Newest(channel, limit) => {
                let page = inside.page(&channel, None, limit);
                Answer::Page(channel, page)
            }
            Query::Lasts(channels) => {
                let (lasts, floor, epoch) = inside.store.lasts(&channels);
                Answer::Lasts(channels.into_iter().zip(lasts).collect(), floor, epoch)
            }
        };
        send(&mut inside.links, link, LinkEvent::Answered(shard, tag, answer));
    }

    fn close(&self, link: u64) {
        let mut inside = self.lock();
        inside.links.remove(&link);
        inside.subscribers.retain(|_, links| {
            links.remove(&link);
            !links.is_empty()
        });
    }
}

impl Inside {
    fn page(&self, channel: &Channel, after: Option<Position>, limit: PageLimit) -> Page {
        match after {
            Some(after) => self.store.history_after(channel, after, limit, now()),
            None => self.store.history_newest(channel, limit, now()),
        }
    }
}

/// A link whose queue is full is broken: its reader finds the end and starts anew.
fn send(links: &mut HashMap<u64, Subscriber>, link: u64, event: LinkEvent) {
    if links.get(&link).is_some_and(|subscriber| subscriber.arrivals.try_send(event).is_err()) {
        links.remove(&link);
    }
}

fn now() -> Position {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Position(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX).min(Position::MAX.0))
}
