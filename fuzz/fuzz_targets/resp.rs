//! Whatever a server sends is replies or an error, however it comes cut into pieces.
#![no_main]

use fanfare_backbone::resp::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let (mut reader, mut rest, mut seen) = (Reader::new(), bytes, 0);
    while seen < rest.len() {
        seen = (seen + usize::from(step) + 1).min(rest.len());
        match reader.read(&rest[..seen]) {
            Ok(Some(length)) => {
                assert!(0 < length && length <= seen);
                let whole = Reader::new().read(&rest[..length]);
                assert_eq!(whole, Ok(Some(length)), "it depends on how it came");
                _ = reader.reply(rest).error();
                assert!(reader.reply(rest).words().flatten().map(<[u8]>::len).sum::<usize>() <= length);
                rest = &rest[length..];
                seen = 0;
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
});
