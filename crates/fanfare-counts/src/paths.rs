//! The hot paths, and what of each is counted.

mod edge; // Connections come, are given events, and go.
mod envelope; // Events as they travel and as they are written.
mod publish; // Requests that publish.

use crate::place::Redis;

/// Each path: its name, and one time of what is counted.
pub(crate) const PATHS: [(&str, &str); 13] = [
    ("encode-envelope", "an event is made into the message that travels"),
    ("decode-envelope", "a message that has come is made into an event"),
    ("encode-frame", "an event is made into a frame, once for all who can share it"),
    ("authorise", "a subscriber's token is found, verified and read"),
    (
        "publish-line",
        "an event of a bulk publish, a line of `POST /publish` with an idempotency key: read, sent to Redis, answered",
    ),
    ("publish-one", "`POST /notify`, on a connection that is kept; several come at the same time"),
    ("hear", "an event comes from Redis to an edge, and goes out among others to one subscriber"),
    ("deliver", "an event goes to one connection more"),
    ("deliver-16-partitions", "the same with 16 partitions, where every connection has ids of its own"),
    ("deliver-16-events", "16 events that wait go to one connection more, in one piece"),
    ("connect", "a subscriber with a token comes, and joins its inbox, the broadcast and a channel over Redis"),
    ("resume", "the same, of one that comes back and is replayed three events of that channel out of memory"),
    ("leave", "such a subscriber goes"),
];

/// Data of an event: 200 bytes.
const DATA: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
);

/// Goes all paths.
pub(crate) fn go() {
    envelope::go();
    edge::authorise();
    let redis = Redis::start();
    publish::go(&redis);
    edge::go(&redis);
}
