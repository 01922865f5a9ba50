//! `pii_international_v1`: e-mails, IPv4 and IPv6 addresses, telephone numbers of any country, accounts.

use std::iter::Peekable;

use super::accounts::account;
use super::emails::emails;
use super::{ipv4, ipv6, phones, ADDRESS, EMAIL, PHONE};

/// Start byte, end byte, kind.
pub type Found = (usize, usize, &'static str);

/// All of them in the order of the text, as (start byte, end byte, kind). They do not overlap.
pub fn find(text: &str) -> Vec<Found> {
    let bytes = text.as_bytes();
    let mut named: Vec<Found> = emails(text).map(|(start, end)| (start, end, EMAIL)).collect();
    named.extend(ipv6::addresses(text).into_iter().map(|(start, end)| (start, end, ADDRESS)));
    named.extend(ipv4::addresses(text).into_iter().map(|(start, end)| (start, end, ADDRESS)));
    let named = without_overlaps(named);
    let mut numbers = Vec::new();
    let mut covers = named.iter().peekable();
    let mut from = 0;
    while let Some(digit) = next_number(bytes, from) {
        from = match covering(&mut covers, digit) {
            Some(end) => end,
            None => match number(text, digit) {
                Some(found) => {
                    numbers.push(found);
                    found.1
                }
                None => digit + bytes[digit..].iter().take_while(|byte| byte.is_ascii_digit()).count(),
            },
        };
    }
    if numbers.is_empty() {
        return named;
    }
    numbers.extend(named);
    without_overlaps(numbers)
}

/// What begins with the digits at `digit`, or right before them.
fn number(text: &str, digit: usize) -> Option<Found> {
    account(text, digit).or_else(|| phones::phone(text, digit).map(|(start, end)| (start, end, PHONE)))
}

/// Where the next digits begin, at `from` or after.
fn next_number(bytes: &[u8], from: usize) -> Option<usize> {
    bytes[from..].iter().position(u8::is_ascii_digit).map(|offset| from + offset)
}

/// The end of the hit that covers the byte `at`.
fn covering<'a>(covers: &mut Peekable<impl Iterator<Item = &'a Found>>, at: usize) -> Option<usize> {
    while covers.next_if(|cover| cover.1 <= at).is_some() {}
    covers.peek().filter(|cover| cover.0 <= at).map(|cover| cover.1)
}

/// Of hits that overlap the first, of those that begin together the longest.
fn without_overlaps(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_unstable_by_key(|&(start, end, kind)| (start, std::cmp::Reverse(end), kind));
    let mut covered_to = 0;
    found.retain(|&(start, end, _)| {
        let is_free = start >= covered_to;
        covered_to = if is_free { end } else { covered_to };
        is_free
    });
    found
}

#[cfg(test)]
mod tests {
    use super::super::{CARD_NUMBER, IBAN};
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str) -> Vec<(&str, &'static str)> {
        find(text).into_iter().map(|(start, end, kind)| (&text[start..end], kind)).collect()
    }

    #[test]
    fn every_kind_stands_in_one_text() {
        let text = "Jo (jo@b.co, fe80::1, 10.0.0.1) at +44 20 7946 0958; GB29 NWBK 6016 1331 9268 19, 4111 1111 1111 1111, 078-05-1120";
        let kinds: Vec<&str> = found(text).iter().map(|hit| hit.1).collect();
        assert_eq!(kinds, [EMAIL, ADDRESS, ADDRESS, PHONE, IBAN, CARD_NUMBER, super::super::SECURITY_NUMBER]);
    }

    /// The digits with the last one that the check of ISO/IEC 7812-1 wants.
    fn with_check_digit(digits: &[u8]) -> String {
        let sum: u32 = digits
            .iter()
            .rev()
            .enumerate()
            .map(|(index, &digit)| u32::from(if index % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }))
            .sum();
        let last = (10 - sum % 10) % 10;
        digits.iter().map(|&digit| u32::from(digit)).chain([last]).map(|digit| digit.to_string()).collect()
    }

    /// The text with another digit at its `at`-th digit from the end.
    fn corrupted(text: &str, at: usize, by: u8) -> String {
        let place = text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_digit()).nth(at);
        let Some((place, digit)) = place else { return text.to_owned() };
        let other = (digit - b'0' + by) % 10;
        format!("{}{other}{}", &text[..place], &text[place + 1..])
    }

    /// The number whose account is `account`, with its check digits.
    fn iban_of(country: &str, account: &str) -> String {
        let value = format!("{account}{country}00").bytes().fold(0_u64, |sum, byte| match byte {
            b'0'..=b'9' => (sum * 10 + u64::from(byte - b'0')) % 97,
            _ => (sum * 100 + u64::from(byte - b'A') + 10) % 97,
        });
        format!("{country}{:02}{account}", 98 - value)
    }

    proptest! {
        #[test]
        fn hits_are_parts_of_any_text_in_order(text in "[\\x00-\\x7f0-9@:.+() \\-éß€日\u{1F469}\u{301}]{0,80}|\\PC{0,60}") {
            let mut last = 0;
            for (start, end, _) in find(&text) {
                prop_assert!(last <= start && start < end && text.get(start..end).is_some());
                last = end;
            }
        }

        #[test]
        fn cards_are_found_and_corrupted_ones_are_not(digits in prop::collection::vec(0..10_u8, 14), at in 0..16_usize, by in 1..10_u8) {
            let mut start = vec![4];
            start.extend(digits);
            let number = with_check_digit(&start);
            let groups: Vec<&str> = (0..4).map(|group| &number[group * 4..group * 4 + 4]).collect();
            for number in [number.clone(), groups.join(" "), groups.join("-")] {
                let text = format!("é paid by {number}.");
                prop_assert_eq!(found(&text), [(number.as_str(), CARD_NUMBER)]);
                let text = format!("my card {}", corrupted(&number, at, by));
                prop_assert!(found(&text).iter().all(|hit| hit.1 != CARD_NUMBER));
            }
        }

        #[test]
        fn ibans_are_found_and_corrupted_ones_are_not(bank in "[A-Z]{4}", digits in "[0-9]{14}", at in 0..16_usize, by in 1..10_u8) {
            for number in [iban_of("GB", &format!("{bank}{digits}")), iban_of("DE", &format!("1234{digits}"))] {
                let text = format!("an {number}, é");
                prop_assert_eq!(found(&text), [(number.as_str(), IBAN)]);
                let text = format!("an {}, é", corrupted(&number, at, by));
                prop_assert!(found(&text).iter().all(|hit| hit.1 != IBAN));
            }
        }

        #[test]
        fn numbers_with_a_calling_code_are_found(area in 21..999_u32, rest in 1_000_000..9_999_999_u32) {
            for number in [format!("+49 {area} {rest}"), format!("+49-{area}-{rest}"), format!("+49{area}{rest}")] {
                let different = number.bytes().filter(u8::is_ascii_digit).collect::<std::collections::BTreeSet<_>>().len();
                prop_assume!(different > 2);
                let text = format!("é ({number}) 日");
                prop_assert_eq!(found(&text), [(number.as_str(), PHONE)]);
            }
        }
    }
}
