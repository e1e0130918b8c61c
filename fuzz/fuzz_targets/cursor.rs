//! What is taken for a cursor is read again as the same one.
#![no_main]

use fanfare_protocol::Cursor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|id: &str| {
    if let Ok(cursor) = Cursor::parse(id) {
        assert_eq!(Cursor::parse(&cursor.to_string()), Ok(cursor));
    }
});
