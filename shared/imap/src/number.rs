//! Decimal numbers.

/// Appends `number` in decimal.
pub(crate) fn write(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut used = 0;
    for place in digits.iter_mut().rev() {
        // The remainder of a division by ten fits an octet.
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend(digits.iter().skip(digits.len() - used));
}

/// The number in `digits`, all of which are digits; `None` if it is empty or over `u64`.
pub(crate) fn read(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_survive_their_text() {
        for number in [0, 1, 9, 10, 4_294_967_295, u64::MAX] {
            let mut out = Vec::new();
            write(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
            assert_eq!(read(&out), Some(number));
        }
        assert_eq!(read(b"18446744073709551616"), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(b"1x"), None);
    }
}
