//! E-mail addresses, phone numbers and IP addresses by their own rules rather than by what surrounds them in most texts.

use super::emails::emails;
use super::scripts::{is_word_after, is_word_before};
use super::{ipv4, ADDRESS, EMAIL, PHONE};

/// Code points before a number in which "isbn" or "doi" say that it is something else.
const CONTEXT_BYTES: usize = 40;

/// All of them in the order of the text, as (start byte, end byte, kind). They do not overlap.
pub fn find(text: &str) -> Vec<(usize, usize, &'static str)> {
    let mut found: Vec<(usize, usize, &'static str)> = Vec::new();
    found.extend(emails(text).map(|(start, end)| (start, end, EMAIL)));
    found.extend(ipv4::addresses(text).into_iter().map(|(start, end)| (start, end, ADDRESS)));
    found.extend(phones(text).into_iter().map(|(start, end)| (start, end, PHONE)));
    // an address of digits and dots is not a phone number, nor is a part of an e-mail address
    found.sort_by_key(|&(start, end, kind)| (start, std::cmp::Reverse(end), kind));
    let mut covered_to = 0;
    found.retain(|&(start, end, _)| {
        let is_free = start >= covered_to;
        covered_to = if is_free { end } else { covered_to };
        is_free
    });
    found
}

/// North American numbers: area code, exchange code, line; with or without 1 before, brackets, separators, an extension.
fn phones(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let begins = matches!(bytes[at], b'0'..=b'9' | b'(' | b'+');
        match if begins && !touches_number(text, at) { phone_end(text, at) } else { None } {
            Some(end) if !names_other_number(bytes, at) => {
                found.push((at, end));
                at = end;
            }
            _ => at += 1,
        }
    }
    found
}

fn phone_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let is = |at: usize, set: &[u8]| bytes.get(at).is_some_and(|byte| set.contains(byte));
    let digits = |at: usize, count: usize| {
        bytes.get(at..at + count).is_some_and(|part| part.iter().all(u8::is_ascii_digit)).then_some(at + count)
    };
    let mut at = start;
    if bytes[start..].starts_with(b"+1") || bytes[start..].starts_with(b"001") {
        at += if bytes[start] == b'+' { 2 } else { 3 };
        at += usize::from(is(at, b"-. "));
    } else if is(at, b"1") {
        at += 1;
        at += usize::from(is(at, b"-. "));
    }
    let is_bracketed = is(at, b"(");
    at += usize::from(is_bracketed);
    // neither code begins with 0 or 1 (North American Numbering Plan)
    if !is(at, b"23456789") {
        return None;
    }
    at = digits(at, 3)?;
    if is_bracketed {
        if !is(at, b")") {
            return None;
        }
        at += 1;
    }
    at += usize::from(is(at, b"-. "));
    if !is(at, b"23456789") {
        return None;
    }
    at = digits(at, 3)?;
    at += usize::from(is(at, b"-. "));
    at = extension_end(bytes, digits(at, 4)?);
    let continues = is(at, b"-.,/") && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    (!continues && !is_word_after(text, at)).then_some(at)
}

/// The end of an extension of up to six digits after `at`, as "x12" or " ext. 12"; `at` without one.
pub(super) fn extension_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + usize::from(bytes.get(at) == Some(&b' '));
    let Some(word) = [&b"ext."[..], b"ext", b"x"].into_iter().find(|word| bytes[end..].starts_with(word)) else {
        return at;
    };
    end += word.len();
    end += usize::from(bytes.get(end) == Some(&b' '));
    match bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count() {
        length @ 1..=6 => end + length,
        _ => at,
    }
}

/// Whether what is before `at` makes the digits there part of something longer.
fn touches_number(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    let is_joint = at >= 2 && b"-.,/+".contains(&bytes[at - 1]) && bytes[at - 2].is_ascii_alphanumeric();
    is_joint || is_part(text, at) || (at > 0 && b"$#+(".contains(&bytes[at - 1]) && bytes[at] != b'(')
}

fn names_other_number(bytes: &[u8], at: usize) -> bool {
    let context = bytes[at.saturating_sub(CONTEXT_BYTES)..at].to_ascii_lowercase();
    [&b"isbn"[..], b"doi"].iter().any(|word| memchr::memmem::find(&context, word).is_some())
}

/// Whether a letter comes before, or a dot after another digit.
fn is_part(text: &str, at: usize) -> bool {
    let bytes = text.as_bytes();
    is_word_before(text, at) || (at >= 2 && bytes[at - 1] == b'.' && bytes[at - 2].is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&str, &'static str)> {
        find(text).into_iter().map(|(start, end, kind)| (&text[start..end], kind)).collect()
    }

    #[test]
    fn emails_have_exact_ends() {
        assert_eq!(found(" Write to (jo.e+x@mail.example.org)."), [("jo.e+x@mail.example.org", EMAIL)]);
        assert_eq!(found("a@b.co"), [("a@b.co", EMAIL)]);
        assert_eq!(found("a@b.co, c_d@e-f.info!"), [("a@b.co", EMAIL), ("c_d@e-f.info", EMAIL)]);
        for text in ["@a", "a@b", "a@b.", "a@b.1", "a@-b.co", "a.@c.de", "a@@b.co", "user@host x.y"] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn addresses_are_whole_and_valid() {
        assert_eq!(found("at 192.168.0.1."), [("192.168.0.1", ADDRESS)]);
        assert_eq!(found("(10.0.0.255:80)"), [("10.0.0.255", ADDRESS)]);
        for text in
            ["1.2.3.4.5", "1.2.3", "1.2.3.256", "v1.2.3.4", "1.2.3.4a", "01.2.3.4", "1..2.3.4", "1.2.3.4.5.6.7.8"]
        {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn phones_need_no_space_before_and_have_none_in_their_span() {
        assert_eq!(found("(206) 555-0100"), [("(206) 555-0100", PHONE)]);
        assert_eq!(
            found("call 206.555.0100, or +1 206 555 0101"),
            [("206.555.0100", PHONE), ("+1 206 555 0101", PHONE)]
        );
        assert_eq!(found("2065550100"), [("2065550100", PHONE)]);
        assert_eq!(
            found("206-555-0100x12, 001 206 555 0101 ext. 7"),
            [("206-555-0100x12", PHONE), ("001 206 555 0101 ext. 7", PHONE)]
        );
        for text in [
            "12065550100123",
            "ISBN 206 555 0100",
            "106-555-0100",
            "206-155-0100",
            "3.2065550100",
            "x2065550100",
            "206-555-0100-1",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }
}
