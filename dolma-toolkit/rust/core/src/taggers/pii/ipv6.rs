//! Addresses of version 6 of the internet protocol (RFC 4291, section 2.2).

use std::net::Ipv6Addr;
use std::str::FromStr;

use memchr::memchr_iter;

use super::scripts::is_apart;

/// Longest textual form: six groups and an address of version 4.
const MAX_BYTES: usize = 45;

/// All of them in the order of the text, as (start, end). They do not overlap.
pub fn addresses(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
    let mut found = Vec::new();
    let mut from = 0;
    for colon in memchr_iter(b':', bytes) {
        if colon < from {
            continue;
        }
        let mut start = colon - bytes[from..colon].iter().rev().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let length = bytes[start..].iter().take_while(|byte| is_part(byte) || **byte == b'.').count();
        let mut end = start + length;
        from = end;
        // one colon at an end, and dots, belong to the sentence
        if bytes[start] == b':' && bytes.get(start + 1) != Some(&b':') {
            start += 1;
        }
        while end > start && (bytes[end - 1] == b'.' || (bytes[end - 1] == b':' && !bytes[..end].ends_with(b"::"))) {
            end -= 1;
        }
        if end - start <= MAX_BYTES && is_apart(text, start, end) && is_address(&text[start..end]) {
            found.push((start, end));
        }
    }
    found
}

/// Whether the text is the address of a machine: scopes of programs, as "a::b", have no digits.
fn is_address(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit()) && Ipv6Addr::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        addresses(text).into_iter().map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn addresses_are_whole_and_valid() {
        assert_eq!(found("at 2001:db8::1, fe80::1%eth0."), ["2001:db8::1", "fe80::1"]);
        assert_eq!(found("[::1]:80 ::ffff:10.0.0.1. x"), ["::1", "::ffff:10.0.0.1"]);
        assert_eq!(found("IP:2001:db8::1: up"), ["2001:db8::1"]);
        assert_eq!(found("6e40:4041:c617:e898:c11:40d2:c669:2eb4/64"), ["6e40:4041:c617:e898:c11:40d2:c669:2eb4"]);
        for text in ["地址2001:db8::1和", "주소2001:db8::1로", "ที่อยู่2001:db8::1ครับ"] {
            assert_eq!(found(text), ["2001:db8::1"], "{text}");
        }
        for text in [
            "12:30:45",
            "std::fs::read",
            "a::b",
            "::",
            "1:2:3:4:5:6:7:8:9",
            "x2001:db8::1",
            "2001:db8::1g",
            "00:1b:63:84:45:e6",
            "1::2::3",
            "é2001:db8::1",
            "",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }
}
