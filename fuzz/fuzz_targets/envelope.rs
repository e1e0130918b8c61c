//! What is taken for an entry or a message is what would be written for it.
#![no_main]

use fanfare_protocol::{
    Channel, Message, decode_entry, decode_message, encode_entry, encode_message, encode_purge,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = decode_entry(Channel::broadcast(), bytes) {
        assert_eq!(encode_entry(&event), bytes);
    }
    if let Ok((epoch, message)) = decode_message(Channel::broadcast(), bytes) {
        let written = match message {
            Message::Event(event) => encode_message(epoch, &event),
            Message::Purge(purge) => encode_purge(epoch, &purge),
        };
        assert_eq!(written, bytes);
    }
});
