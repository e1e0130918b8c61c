//! A channel is the text it was read from, and the inbox of a user leads back to the user.
#![no_main]

use fanfare_protocol::{Channel, UserId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(channel) = Channel::parse(text) {
        assert_eq!(channel.as_str(), text);
    }
    if let Ok(user) = UserId::parse(text) {
        assert_eq!(Channel::parse(user.inbox().as_str()).expect("an inbox").user(), Some(user));
    }
});
