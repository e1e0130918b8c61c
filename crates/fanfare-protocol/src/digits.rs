//! Numbers as text, in cursors, envelopes and chunks: each number has one spelling, and no other is read.

/// Writes a number in decimal.
pub(crate) fn push_decimal(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a number in base 10 to 36, in lower case.
pub(crate) fn push<const RADIX: u64>(out: &mut Vec<u8>, mut number: u64) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    const { assert!(RADIX >= 10 && RADIX <= 36, "20 digits are enough from base 10 on") };
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = DIGITS[(number % RADIX) as usize];
        number /= RADIX;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Reads a number as [`push`] writes it: no sign, no leading zero, no capitals.
pub(crate) fn parse<const RADIX: u64>(text: &[u8]) -> Option<u64> {
    if text.is_empty() || (text[0] == b'0' && text.len() > 1) {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'z' => digit - b'a' + 10,
            _ => return None,
        };
        let digit = Some(u64::from(digit)).filter(|digit| *digit < RADIX)?;
        number.checked_mul(RADIX)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_number_has_one_spelling() {
        for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "a", "18446744073709551616"] {
            assert_eq!(parse::<10>(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse::<10>(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse::<36>(b"Z"), None);
        assert_eq!(parse::<36>(b"zz"), Some(1295));
    }

    proptest! {
        #[test]
        fn a_number_is_read_as_it_was_written(number: u64) {
            let (mut decimal, mut ten, mut sixteen, mut thirty_six) = (vec![], vec![], vec![], vec![]);
            push_decimal(&mut decimal, number);
            push::<10>(&mut ten, number);
            push::<16>(&mut sixteen, number);
            push::<36>(&mut thirty_six, number);
            prop_assert_eq!(&decimal, &ten);
            prop_assert_eq!(parse::<10>(&decimal), Some(number));
            prop_assert_eq!(parse::<36>(&thirty_six), Some(number));
            prop_assert_eq!(sixteen, format!("{number:x}").into_bytes());
        }
    }
}
