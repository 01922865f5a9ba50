//! IPv4 addresses. Version and section numbers look like them.

use memchr::{memchr_iter, memmem};

use super::scripts::{is_apart, letters, Letters};
use super::words::{context, next_word, Thing};

/// Section numbers have no part above this.
const MAX_SECTION: u8 = 40;
/// Well-known addresses with low numbers.
const WELL_KNOWN: &[[u8; 4]] = &[[8, 8, 8, 8], [8, 8, 4, 4], [9, 9, 9, 9]];
/// Extensions of files that often have a version in their names.
const FILE_ENDINGS: &[&str] = &[
    "7z", "apk", "bin", "bz", "deb", "dll", "dmg", "exe", "gem", "gz", "html", "img", "iso", "jar", "msi", "nupkg",
    "orig", "pdf", "pkg", "rpm", "so", "tar", "tgz", "txt", "whl", "xz", "zip",
];

/// All of them in the order of the text, as (start, end) in bytes. They do not overlap.
pub fn addresses(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let dots = memchr_iter(b'.', bytes);
    let mut found = quads(text, dots, ".");
    let own_dots = memmem::find_iter(bytes, "。").filter(|&dot| dot > 0 && bytes[dot - 1].is_ascii_digit());
    let others = quads(text, own_dots, "。");
    if !others.is_empty() {
        found.extend(others);
        found.sort_unstable();
    }
    found
}

/// Four numbers up to 255, separated by `dot`, that touch no letter, digit or fifth number and are not a version.
fn quads(text: &str, dots: impl Iterator<Item = usize>, dot: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    for at in dots {
        if at < from {
            continue;
        }
        let start = at - bytes[from..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (mut end, mut count, mut octets) = (start, 0, [0; 4]);
        loop {
            let length = bytes[end..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if length == 0 {
                // the last dot ends a sentence
                end -= if count > 0 { dot.len() } else { 0 };
                break;
            }
            let has_leading_zero = length > 1 && bytes[end] == b'0';
            count = match text[end..end + length].parse::<u8>() {
                Ok(octet) if !has_leading_zero && count < 4 => {
                    octets[count] = octet;
                    count + 1
                }
                _ => 5,
            };
            end += length;
            if !bytes[end..].starts_with(dot.as_bytes()) {
                break;
            }
            end += dot.len();
        }
        from = end.max(at + dot.len());
        let is_quad = count == 4 && is_apart(text, start, end);
        if is_quad && !follows_number(text, start, dot) && !is_version(text, (start, end), octets) {
            found.push((start, end));
        }
    }
    found
}

fn follows_number(text: &str, start: usize, dot: &str) -> bool {
    text[..start].strip_suffix(dot).is_some_and(|before| before.ends_with(|byte: char| byte.is_ascii_digit()))
}

/// Whether the numbers are the version of a program, the number of a section, an amount, …
fn is_version(text: &str, (start, end): (usize, usize), octets: [u8; 4]) -> bool {
    let before = &text[..start];
    let joined = before.strip_suffix(['/', '-', '=', '^', '~', '>']);
    // a word that names an address wins, unless a sign joins the numbers to a name
    let meant = context(text, start);
    if meant == Some(Thing::Address)
        && !joined.is_some_and(|before| before.ends_with(|last: char| last.is_alphanumeric()))
    {
        return false;
    }
    let is_section = is_heading(text, start, end, octets);
    matches!(meant, Some(Thing::Version | Thing::Section))
        || is_part_of_name(before)
        || goes_on(&text[end..])
        || next_word(text, end) == Some(Thing::Version)
        || is_amount(before, &text[end..])
        || (!is_private(octets) && (is_section || meant == Some(Thing::Program) || is_bare(octets, &text[end..])))
}

/// "Chrome/1.2.3.4", "lib-1.2.3.4", "lib==1.2.3.4", "^1.2.3.4".
fn is_part_of_name(before: &str) -> bool {
    let is_name = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    if let Some(rest) = before.strip_suffix(['/', '-']) {
        let name = &rest[rest.trim_end_matches(is_name).len()..];
        // a path or a URL's host follows a slash, and the end of a range follows digits
        let is_path = rest[..rest.len() - name.len()].ends_with(['/', ':']);
        return name.contains(|character: char| character.is_ascii_alphabetic()) && !is_path && !names_address(name);
    }
    let is_pinned = ["==", ">=", "<=", "~=", "~>", "^", "~"].iter().find_map(|sign| before.strip_suffix(sign));
    is_pinned.is_some_and(|rest| !names_address(&rest[rest.trim_end_matches(is_name).len()..]))
}

fn names_address(name: &str) -> bool {
    let last = name.trim_end_matches(|character: char| !character.is_ascii_alphabetic());
    context(last, last.len()) == Some(Thing::Address) || name.to_ascii_lowercase().starts_with("ip")
}

/// "1.2.3.4-beta", "1.2.3.4-1", "1.2.3.4+b", "1.2.3.4.tar"; not the range "10.0.0.1-10.0.0.9" or "10.0.0.1-9".
fn goes_on(after: &str) -> bool {
    let begins = |text: &str| text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    if let Some(rest) = after.strip_prefix('+') {
        return begins(rest);
    }
    if let Some(rest) = after.strip_prefix('.') {
        let ending = &rest[..rest.bytes().take_while(u8::is_ascii_alphanumeric).count()];
        return FILE_ENDINGS.contains(&ending);
    }
    let Some(rest) = after.strip_prefix('-') else { return false };
    let length = digits(rest);
    let is_octet = rest[..length].parse::<u8>().is_ok();
    begins(rest) && (!is_octet || rest[length..].starts_with(|next: char| next == '_' || next.is_ascii_alphabetic()))
}

/// An amount, with a currency before or after it.
fn is_amount(before: &str, after: &str) -> bool {
    let is_currency = |character: char| "$€£¥￥₩₹₽฿₫".contains(character);
    before.trim_end_matches(' ').ends_with(is_currency) || after.trim_start_matches(' ').starts_with(is_currency)
}

/// The number of a heading: a low number at the start of a line, before a capitalized word.
fn is_heading(text: &str, start: usize, end: usize, octets: [u8; 4]) -> bool {
    let line = text[..start].rsplit('\n').next().unwrap_or("");
    let is_first = line.len() < 32 && line.chars().all(|character| " \t#*|>-•".contains(character));
    let is_low = octets.iter().all(|octet| (1..=MAX_SECTION).contains(octet)) && !WELL_KNOWN.contains(&octets);
    let rest = text[end..].trim_start_matches(['.', ')', ':', '*']);
    let title = rest.trim_start_matches([' ', '\t', '*', '\u{A0}']);
    let is_title = title.starts_with(char::is_uppercase)
        || title.chars().next().is_some_and(|first| matches!(letters(first), Some(Letters::Unspaced(_))));
    is_first && is_low && title.len() < rest.len() && is_title
}

/// Private networks (RFC 1918) and loopback: versions and sections rarely have such numbers.
fn is_private(octets: [u8; 4]) -> bool {
    matches!(octets, [10 | 127, ..] | [192, 168, ..] | [172, 16..=31, ..])
}

/// One number followed by zeros only, as in a version. A network has a prefix length after it.
fn is_bare(octets: [u8; 4], after: &str) -> bool {
    octets[0] != 0 && octets[1..] == [0, 0, 0] && !after.starts_with(['/', ':'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        addresses(text).into_iter().map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn addresses_are_whole_and_valid() {
        assert_eq!(found("at 10.0.0.1, 255.255.255.255."), ["10.0.0.1", "255.255.255.255"]);
        for text in ["1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.04", "1.2.3.4x", "x1.2.3.4", "é1.2.3.4", "1.2.3.4_5"] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn other_scripts_and_their_stops_do_not_hide_an_address() {
        for text in [
            "IP地址192.168.1.1",
            "서버192.168.1.1에서",
            "ไอพี192.168.1.1ครับ",
            "عنوان192.168.1.1و",
            "सर्वर192.168.1.1पर",
            "服务器：192.168.1.1，和",
            "адрес192.168.1.1или",
        ] {
            assert_eq!(found(text), ["192.168.1.1"], "{text}");
        }
        assert_eq!(found("地址是192。168。1。1。谢谢，或10.0.0.2。"), ["192。168。1。1", "10.0.0.2"]);
        assert!(found("192。168。1。1。2").is_empty());
    }

    #[test]
    fn versions_and_sections_are_not_addresses() {
        for text in [
            "version 1.2.3.4",
            "Version=4.0.0.0, Culture=neutral",
            "\"version\": \"10.0.0.1\"",
            "from versions 1.2.3.4 and 1.2.3.5",
            "upgraded from version 1.2.3.4 to 1.2.3.5",
            "v. 1.2.3.4",
            "Chrome/120.0.0.0 Safari/1.2.3.4",
            "Chrome 120.0.0.0",
            "Firefox 3.6.13.1",
            "the 1.2.3.4 release",
            "lib-1.2.3.4.jar, lib==1.2.3.4, 1.2.3.4-beta, 1.2.3.4-1ubuntu, 1.2.3.4+b1, >=1.2.3.4",
            "§ 3.2.1.1, §3.2.1.2, Section 3.2.1.1, Sec. 3.2.1.1, sections 3.2.1.1 and 3.2.1.2, Figure 2.1.3.1",
            "(EC 3.4.21.4), OID 1.3.6.1",
            "\n4.2.1.3 Results\n4.2.1.4. Methods\n## 4.2.1.5 More\n\t4.2.1.6\tLast\n",
            "4.2.1.3 结果",
            "第3.2.1.1节",
            "版本1.2.3.4",
            "バージョン1.2.3.4",
            "버전 1.2.3.4",
            "версия 1.2.3.4",
            "الإصدار 1.2.3.4",
            "€1.234.123.200",
            "1.2.3.4版本",
            "release 4.0.0.0",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
    }

    #[test]
    fn addresses_that_look_like_versions_are_found() {
        for (text, address) in [
            ("http://203.0.113.9/x", "203.0.113.9"),
            ("ssh root@203.0.113.9", "203.0.113.9"),
            ("203.0.113.9 - - [01/Jan] \"GET / HTTP/1.1\"", "203.0.113.9"),
            ("203.0.113.9 Server down", "203.0.113.9"),
            ("8.8.8.8 Google", "8.8.8.8"),
            ("10.0.0.5 Web", "10.0.0.5"),
            ("10.0.0.0/8 is", "10.0.0.0"),
            ("the new version runs on the server 203.0.113.9", "203.0.113.9"),
            ("ip.src==203.0.113.9", "203.0.113.9"),
            ("ip=203.0.113.9", "203.0.113.9"),
            ("ip-203.0.113.9", "203.0.113.9"),
            ("203.0.113.9:8080", "203.0.113.9"),
            ("203.0.113.9.", "203.0.113.9"),
            ("it is 1.2.3.4 now", "1.2.3.4"),
            ("//203.0.113.9/share", "203.0.113.9"),
            ("203.0.113.9-254", "203.0.113.9"),
            ("--resolve www.example.com:80:203.0.113.9", "203.0.113.9"),
            ("IpAddr::V4(String::from(\"203.0.113.9\"))", "203.0.113.9"),
            ("mount -v 203.0.113.9:files", "203.0.113.9"),
            ("[n=python@203.0.113.9] v2@", "203.0.113.9"),
            ("v2@203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(found(text), [address], "{text}");
        }
        assert_eq!(found("10.0.0.1-10.0.0.9"), ["10.0.0.1", "10.0.0.9"]);
    }
}
