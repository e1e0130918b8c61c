//! Values as people write them: sizes, durations, counts, addresses. Read and written, each so that it is understood
//! by the other.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Reads `65536`, `64KiB`, `64 kB`; units of 1024 have an i, others are of 1000.
pub(super) fn parse_bytes(text: &str, range: &RangeInclusive<u64>) -> Option<u64> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit = match &*unit.trim_start().to_ascii_lowercase() {
        "" | "b" | "byte" | "bytes" => 1,
        "kb" => 1000,
        "kib" | "k" => KIB,
        "mb" => 1_000_000,
        "mib" | "m" => MIB,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| range.contains(bytes))
}

/// Writes a size in the largest unit that it is a whole number of.
pub(super) fn show_bytes(bytes: u64) -> String {
    match bytes {
        bytes if bytes > 0 && bytes % MIB == 0 => format!("{}MiB", bytes / MIB),
        bytes if bytes > 0 && bytes % KIB == 0 => format!("{}KiB", bytes / KIB),
        bytes => bytes.to_string(),
    }
}

/// Reads `15s`, `1m 30s`, `500ms`, and 0 without a unit.
pub(super) fn parse_duration(text: &str, range: &RangeInclusive<Duration>) -> Option<Duration> {
    let text = text.trim();
    let duration = if text == "0" { Duration::ZERO } else { humantime::parse_duration(text).ok()? };
    range.contains(&duration).then_some(duration)
}

/// Writes a duration.
pub(super) fn show_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Reads a whole number.
pub(super) fn parse_count(text: &str, range: &RangeInclusive<u64>) -> Option<u64> {
    text.trim().parse().ok().filter(|count| range.contains(count))
}

/// Reads `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`.
pub(super) fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    match text.strip_prefix("localhost:") {
        Some(port) => Some(([127, 0, 0, 1], port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_units() {
        let read = |text: &str| parse_bytes(text, &(1..=MIB));
        for text in ["65536", "64KiB", "64 KiB", " 64kib ", "64k"] {
            assert_eq!(read(text), Some(65_536), "{text}");
        }
        assert_eq!((read("64 kB"), read("1MiB"), read("5 bytes")), (Some(64_000), Some(MIB), Some(5)));
        for text in
            ["", "KiB", "-1", "1.5KiB", "0", "2MiB", "64 parsecs", "99999999999999999999", "18446744073709551615M"]
        {
            assert_eq!(read(text), None, "{text}");
        }
        for bytes in [1, 1000, 65_536, MIB, 3 * KIB] {
            assert_eq!(read(&show_bytes(bytes)), Some(bytes));
        }
    }

    #[test]
    fn durations_need_a_unit_but_for_nought() {
        let read = |text: &str| parse_duration(text, &(Duration::ZERO..=Duration::from_secs(3600)));
        assert_eq!(read("1m 30s"), Some(Duration::from_secs(90)));
        assert_eq!((read("0"), read("0s")), (Some(Duration::ZERO), Some(Duration::ZERO)));
        for text in ["", "15", "15 parsecs", "-1s", "2h"] {
            assert_eq!(read(text), None, "{text}");
        }
        for duration in [Duration::from_millis(1500), Duration::from_secs(300), Duration::ZERO] {
            assert_eq!(read(&show_duration(duration)), Some(duration));
        }
    }

    #[test]
    fn an_address_has_a_port() {
        assert_eq!(parse_address("localhost:80"), Some(([127, 0, 0, 1], 80).into()));
        assert!(parse_address("[::1]:0").is_some());
        for text in ["localhost", "8080", "127.0.0.1", "example.com:80", "127.0.0.1:65536"] {
            assert_eq!(parse_address(text), None, "{text}");
        }
    }
}
