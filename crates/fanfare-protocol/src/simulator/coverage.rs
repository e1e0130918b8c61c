//! Which of the branches that matter were taken: `visited!("…")` in the store, the feed and the machine.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static HITS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Everything that has a `visited!`.
const SOURCES: [&str; 10] = [
    include_str!("../store.rs"),
    include_str!("../wishes.rs"),
    include_str!("../feed.rs"),
    include_str!("../machine/mod.rs"),
    include_str!("../machine/chain.rs"),
    include_str!("../machine/fanout.rs"),
    include_str!("../machine/join.rs"),
    include_str!("../machine/patch.rs"),
    include_str!("../machine/resync.rs"),
    include_str!("../poll.rs"),
];

/// Counts a visit.
pub(crate) fn hit(branch: &'static str) {
    HITS.with_borrow_mut(|hits| *hits.entry(branch).or_default() += 1);
}

/// Every branch that there is, with how often this thread was there.
pub(super) fn table() -> BTreeMap<&'static str, u64> {
    let mut table = BTreeMap::new();
    for source in SOURCES {
        for rest in source.split("visited!(\"").skip(1) {
            let (name, _) = rest.split_once('"').expect("a name ends");
            table.insert(name, 0);
        }
    }
    HITS.with_borrow(|hits| table.extend(hits.iter().map(|(name, count)| (*name, *count))));
    table
}
