//! A pattern is the text it was read from, and opens what is reserved only where it spells it out.
#![no_main]

use fanfare_protocol::{Channel, Pattern, TypePattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    _ = TypePattern::parse(texts.0).map(|pattern| pattern.matches(texts.1));
    if let (Ok(pattern), Ok(channel)) = (Pattern::parse(texts.0), Channel::parse(texts.1)) {
        assert_eq!(pattern.to_string(), texts.0);
        let spelled_out = texts.0.starts_with(channel.namespace());
        assert!(!pattern.matches(&channel) || !channel.is_reserved() || spelled_out);
    }
});
