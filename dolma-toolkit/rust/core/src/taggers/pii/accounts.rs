//! Payment cards and American social security numbers.

use super::iban;
use super::scripts::is_apart;
use super::words::{is_named, CARD, SECURITY};
use super::{CARD_NUMBER, IBAN, SECURITY_NUMBER};

/// Digits of a card (ISO/IEC 7812-1).
const MIN_CARD_DIGITS: usize = 12;
const MAX_CARD_DIGITS: usize = 19;
/// Below that, and for issuers that are not known, one number in ten has the check digit by chance, so a word must name it.
const MIN_PLAIN_DIGITS: usize = 14;

/// The account whose first digits are at `digit`, where digits begin, as (start, end, kind).
pub fn account(text: &str, digit: usize) -> Option<(usize, usize, &'static str)> {
    let bytes = text.as_bytes();
    if digit >= 2 && bytes[digit - 1].is_ascii_alphabetic() {
        let (start, end) = iban::iban(bytes, digit)?;
        return is_whole(text, start, end).then_some((start, end, IBAN));
    }
    let found = card(text, digit).map(|end| (end, CARD_NUMBER));
    let (end, kind) = found.or_else(|| security_number(text, digit).map(|end| (end, SECURITY_NUMBER)))?;
    is_whole(text, digit, end).then_some((digit, end, kind))
}

/// Whether nothing before or after makes it part of something longer.
fn is_whole(text: &str, start: usize, end: usize) -> bool {
    let bytes = text.as_bytes();
    let goes_on = |joint: usize, other: Option<&u8>| {
        bytes.get(joint).is_some_and(|byte| b"-.,/".contains(byte)) && other.is_some_and(u8::is_ascii_digit)
    };
    let begins_before = start.checked_sub(2).is_some_and(|before| goes_on(before + 1, bytes.get(before)));
    is_apart(text, start, end) && !begins_before && !goes_on(end, bytes.get(end + 1))
}

/// The end of the card number at `start`: digits without gaps, or in the groups that are printed on the card.
fn card(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut digits = [0_u8; MAX_CARD_DIGITS];
    let (mut count, mut end, mut groups) = (0, start, [0_usize; 5]);
    let (mut group, mut separator) = (0, None);
    loop {
        match bytes.get(end) {
            Some(byte) if byte.is_ascii_digit() => {
                *digits.get_mut(count)? = byte - b'0';
                count += 1;
                groups[group] += 1;
                end += 1;
            }
            Some(byte)
                if b" -".contains(byte)
                    && *separator.get_or_insert(*byte) == *byte
                    && group + 1 < groups.len()
                    && (4..=6).contains(&groups[group])
                    && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) =>
            {
                group += 1;
                end += 1;
            }
            _ => break,
        }
    }
    let is_shape = matches!(groups[..=group], [_] | [4, 4, 4, 4] | [4, 4, 4, 4, 3] | [4, 6, 5] | [4, 6, 4]);
    let digits = &digits[..count];
    let is_number = is_shape && count >= MIN_CARD_DIGITS && has_luhn_digit(digits);
    let is_certain = || count >= MIN_PLAIN_DIGITS && is_issued(digits);
    let is_filler = digits.iter().all(|digit| *digit == digits[0]);
    (is_number && !is_filler && (is_certain() || is_named(text, start, end, &CARD))).then_some(end)
}

/// Whether a network gives out numbers that begin so, and of that length (ISO/IEC 7812 ranges as the networks publish them).
fn is_issued(digits: &[u8]) -> bool {
    let first = |count: usize| digits[..count].iter().fold(0_u32, |sum, &digit| sum * 10 + u32::from(digit));
    let length = digits.len();
    match (first(1), first(2), first(4)) {
        // Visa
        (4, ..) => matches!(length, 13 | 16 | 19),
        // American Express
        (_, 34 | 37, _) => length == 15,
        // Diners Club
        (_, 36 | 38 | 39, _) | (.., 3000..=3059 | 3095) => (14..=19).contains(&length),
        // JCB
        (.., 3528..=3589) => (16..=19).contains(&length),
        (.., 1800 | 2131) => length == 15,
        // Mir
        (.., 2200..=2204) => (16..=19).contains(&length),
        // Mastercard
        (_, 51..=55, _) | (.., 2221..=2720) => length == 16,
        // Maestro
        (_, 50 | 56..=58 | 67, _) | (.., 6304 | 6390) => length >= MIN_CARD_DIGITS,
        // Discover, UnionPay, RuPay
        (_, 60 | 62 | 64 | 65 | 81 | 82, _) => (16..=19).contains(&length),
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812-1, annex B.
fn has_luhn_digit(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, &digit)| match (index % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The end of a social security number at `start`: 3, 2 and 4 digits by hyphens; by blanks or nothing where a word names it.
fn security_number(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let separator = bytes.get(start + 3).copied().filter(|byte| b"- ".contains(byte));
    let gap = usize::from(separator.is_some());
    let (group, serial) = (start + 3 + gap, start + 5 + 2 * gap);
    let end = serial + 4;
    let number = bytes.get(start..end)?;
    let is_separated = bytes[group + 2..serial].iter().all(|&byte| Some(byte) == separator);
    let is_digits = |from: usize, to: usize| bytes[from..to].iter().all(u8::is_ascii_digit);
    let is_shape = is_separated && is_digits(start, start + 3) && is_digits(group, group + 2) && is_digits(serial, end);
    // no area is 000, 666 or from 900, no group 00, no serial 0000 (Social Security Administration, 2011)
    let is_given = !matches!(&number[..3], b"000" | b"666" | [b'9', ..])
        && &bytes[group..group + 2] != b"00"
        && &bytes[serial..end] != b"0000";
    (is_shape && is_given && (separator == Some(b'-') || is_named(text, start, end, &SECURITY))).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(&str, &'static str)> {
        let digit = text.find(|character: char| character.is_ascii_digit())?;
        account(text, digit).map(|(start, end, kind)| (&text[start..end], kind))
    }

    #[test]
    fn cards_have_a_network_a_length_and_a_check_digit() {
        for number in [
            "4111111111111111",
            "5500005555555559",
            "2223003122003222",
            "378282246310005",
            "6011000990139424",
            "30569309025904",
            "3530111333300000",
            "4111-1111-1111-1111",
            "3782 822463 10005",
        ] {
            assert_eq!(found(&format!("pay {number}.")), Some((number, CARD_NUMBER)));
            let wrong = format!("{}{}", &number[..number.len() - 1], if number.ends_with('7') { '8' } else { '7' });
            assert_eq!(found(&wrong), None);
        }
        assert_eq!(found("card 4222222222222 is"), Some(("4222222222222", CARD_NUMBER)));
        for text in
            ["4222222222222", "x4111111111111111", "41111111 11111111", "4111111111111111-2", "0.4111111111111111"]
        {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn security_numbers_are_in_what_is_given_out() {
        assert_eq!(found("ssn 078 05 1120"), Some(("078 05 1120", SECURITY_NUMBER)));
        assert_eq!(found("(078-05-1120)"), Some(("078-05-1120", SECURITY_NUMBER)));
        for text in
            ["078 05 1120", "078051120", "666-05-1120", "078-00-1120", "900-05-1120", "078-05-0000", "078-05-11"]
        {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
