//! A stream says the same, whether it comes at once or byte by byte.
#![no_main]

use fanfare_protocol::sse::{Decoder, Message};
use libfuzzer_sys::fuzz_target;

fn read(decoder: &mut Decoder, mut bytes: &[u8]) -> Vec<Message> {
    std::iter::from_fn(|| decoder.next_message(&mut bytes).ok()?).collect()
}

fuzz_target!(|stream: &[u8]| {
    let (mut whole, mut pieces) = (Decoder::new(1 << 20), Decoder::new(1 << 20));
    let messages = stream.iter().flat_map(|byte| read(&mut pieces, &[*byte])).collect::<Vec<_>>();
    assert_eq!(read(&mut whole, stream), messages);
    assert_eq!(whole.last_event_id(), pieces.last_event_id());
});
