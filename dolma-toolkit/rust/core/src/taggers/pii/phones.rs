//! Telephone numbers of any country: with a calling code, with a trunk prefix or an area code in the shapes in which they are written, and
//! in any other shape where a word names them.

use super::calling_codes::calling_code;
use super::exact::extension_end;
use super::scripts::{is_word, letters, Letters};
use super::words::{is_other_number, is_phone_after, is_phone_before};

/// Digits of a number with its calling code (ITU-T E.164, section 6), and of one that is written without.
const MAX_DIGITS: usize = 15;
const NATIONAL_DIGITS: std::ops::RangeInclusive<usize> = 7..=12;
/// Digits behind the trunk prefix 0, itself among them, in numbers that no word names.
const TRUNK_DIGITS: std::ops::RangeInclusive<usize> = 9..=11;
const MAX_GROUPS: usize = 8;

/// What makes the number before it an amount, a year or a count.
const UNITS: &str = "元円圆圓원年个個万萬만亿億억人件℃";

/// Digits without a gap.
#[derive(Clone, Copy, Default)]
struct Group {
    len: usize,
    /// After the digits, and after the bracket that closes behind them.
    end: usize,
    in_brackets: bool,
    /// What parts it from the one before; 0 for nothing but a bracket.
    separator: u8,
}

/// Digits in groups, and all of them in a row.
#[derive(Default)]
struct Run {
    groups: [Group; MAX_GROUPS],
    count: usize,
    digits: [u8; MAX_DIGITS + 5],
}

/// How sure it is that digits are a telephone number.
#[derive(PartialEq)]
enum Likeness {
    None,
    /// Where a word names it.
    Named,
    /// In that shape nothing else is written.
    Certain,
}

use Likeness::{Certain, Named, None as Unlike};

/// The telephone number whose first digits are at `digit`, where digits begin, as (start, end).
pub fn phone(text: &str, digit: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let before = |count: usize, byte: u8| digit >= count && bytes[digit - count] == byte;
    let in_brackets = before(1, b'(');
    let has_plus = before(1 + usize::from(in_brackets), b'+');
    let bracket_start = digit - usize::from(in_brackets);
    let start = bracket_start - usize::from(has_plus);
    if !begins(text, start, has_plus) {
        return None;
    }
    let run = Run::read(bytes, digit, in_brackets);
    // brackets around more than the first group are the sentence's
    let start = if run.groups[0].in_brackets { start } else { digit - usize::from(has_plus && !in_brackets) };
    let follows_digits = start >= 2 && bytes[start - 1] == b' ' && bytes[start - 2].is_ascii_digit();
    let mut named_before = None;
    for count in (1..=run.count).rev() {
        let goes_on = count < run.count;
        if goes_on && run.groups[count].separator != b' ' {
            continue;
        }
        let mut likeness = run.likeness(count, has_plus, goes_on || follows_digits);
        if likeness == Unlike {
            continue;
        }
        let end = extension_end(bytes, run.groups[count - 1].end);
        if likeness == Named && run.has_chinese_shape(count) && is_among_han(text, start, end) {
            likeness = Certain;
        }
        let mut is_named =
            || *named_before.get_or_insert_with(|| is_phone_before(text, start)) || is_phone_after(text, end);
        if ends(text, end) && (likeness == Certain || is_named()) && !is_other_number(text, start) {
            return Some((start, end));
        }
    }
    None
}

/// Whether nothing before `start` makes the number a part of something longer.
fn begins(text: &str, start: usize, has_plus: bool) -> bool {
    let bytes = text.as_bytes();
    let Some(last) = text[..start].chars().next_back() else { return true };
    let other = (start >= 2).then(|| bytes[start - 2]);
    match last {
        _ if is_word(last) => false,
        '$' | '€' | '£' | '¥' | '￥' | '₩' | '₹' | '₽' | '฿' | '₫' | '#' | '+' | '=' | '&' | '%' | '*' | '^' => {
            false
        }
        '.' | ',' => !other.is_some_and(|byte| byte.is_ascii_digit()),
        '-' | '/' => has_plus || !other.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"=&".contains(&byte)),
        _ => true,
    }
}

/// Whether nothing after `end` makes the number a part of something longer.
fn ends(text: &str, end: usize) -> bool {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    match text[end..].chars().next() {
        None => true,
        Some(next) if is_word(next) || "_%@=°€".contains(next) || UNITS.contains(next) => false,
        Some('-' | '.' | ',' | '/' | ':' | '+' | '*') => !is_digit(end + 1),
        Some(_) => true,
    }
}

impl Run {
    /// The groups from `digit` on, up to what parts no groups of a number.
    fn read(bytes: &[u8], digit: usize, in_brackets: bool) -> Run {
        let mut run = Run::default();
        let (mut at, mut total) = (digit, 0);
        let (mut separator, mut is_open) = (0, in_brackets);
        while run.count < MAX_GROUPS {
            let first = at;
            while let Some(byte) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
                let Some(place) = run.digits.get_mut(total) else {
                    // longer than any number: what is read so far does not count either
                    return Run::default();
                };
                *place = byte - b'0';
                total += 1;
                at += 1;
            }
            let closes = is_open && bytes.get(at) == Some(&b')');
            if at == first || (is_open && !closes && run.count > 0) {
                break;
            }
            let end = at + usize::from(closes);
            run.groups[run.count] = Group { len: at - first, end, in_brackets: closes, separator };
            run.count += 1;
            at = end;
            (separator, is_open) = (0, false);
            let (byte, length) = gap(&bytes[at..]);
            if length > 0 {
                separator = byte;
                at += length;
            }
            if bytes.get(at) == Some(&b'(') {
                is_open = true;
                at += 1;
            }
            if length == 0 && !is_open && !closes {
                break;
            }
        }
        run
    }

    /// What the first groups look like. `goes_on`: a blank parts them from more.
    fn likeness(&self, count: usize, has_plus: bool, goes_on: bool) -> Likeness {
        let groups = &self.groups[..count];
        let total: usize = groups.iter().map(|group| group.len).sum();
        let digits = &self.digits[..total];
        let is_international = has_plus || (digits.starts_with(&[0, 0]) && groups[0].len > 2);
        if is_international {
            return self.international(groups, &digits[if has_plus { 0 } else { 2 }..], has_plus || count > 1);
        }
        if !NATIONAL_DIGITS.contains(&total) || is_something_else(groups, digits) {
            return Unlike;
        }
        if has_north_american_shape(groups) && is_north_american(digits) {
            let is_spaced = groups.iter().skip(1).all(|group| group.separator == b' ');
            return if goes_on && is_spaced && !groups[0].in_brackets { Named } else { Certain };
        }
        if !goes_on && has_trunk_prefix(groups, digits) {
            return Certain;
        }
        let is_shape = groups[0].len <= 5 && groups.iter().skip(1).all(|group| (2..=8).contains(&group.len));
        let is_plain = count == 1 && !groups[0].in_brackets;
        let is_parted = groups.iter().all(|group| group.separator != b'/' && (!group.in_brackets || group.len <= 5));
        if (is_plain || is_shape) && count <= 5 && is_parted {
            Named
        } else {
            Unlike
        }
    }

    /// Chinese mobile numbers: eleven digits, unbroken or in groups of three, four and four.
    fn has_chinese_shape(&self, count: usize) -> bool {
        let lengths = || self.groups[..count].iter().map(|group| group.len);
        let is_grouped = lengths().eq([11]) || lengths().eq([3, 4, 4]);
        is_grouped && self.digits[0] == 1 && self.digits[1] > 2
    }

    /// `digits` begin with the calling code; a trunk prefix in brackets behind it is not dialled.
    fn international(&self, groups: &[Group], digits: &[u8], is_sure: bool) -> Likeness {
        let mut dialled = [0_u8; MAX_DIGITS + 5];
        let (mut length, mut at, skipped) = (0, 0, self.digits.len());
        let prefix = groups.iter().map(|group| group.len).sum::<usize>() - digits.len();
        for (index, group) in groups.iter().enumerate() {
            let from = if index == 0 { prefix } else { at };
            let part = &self.digits[from..(at + group.len).min(skipped)];
            at += group.len;
            if index > 0 && group.in_brackets && part == [0] {
                continue;
            }
            dialled[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        let dialled = &dialled[..length];
        let is_length = (7..=MAX_DIGITS).contains(&length);
        let has_tail = groups.len() == 1 || groups.last().is_some_and(|group| group.len > 1);
        let is_parted = groups.iter().all(|group| group.separator != b'/');
        let is_number = match calling_code(dialled) {
            Some(1) if dialled[0] == 1 => dialled[1] > 1,
            Some(_) => true,
            None => false,
        };
        match is_length && has_tail && is_parted && is_number && num_different(dialled) > 2 {
            true if is_sure => Certain,
            true => Named,
            false => Unlike,
        }
    }
}

/// Whether the text next to the number, ignoring spaces and signs, is Chinese.
fn is_among_han(text: &str, start: usize, end: usize) -> bool {
    const SIGNS: [char; 12] = [' ', ':', '：', '，', '。', '、', '；', '(', ')', '「', '」', '\n'];
    let is_han = |character: Option<char>| {
        character.is_some_and(|it| letters(it) == Some(Letters::Unspaced(unicode_script::Script::Han)))
    };
    if text[end..].trim_start_matches(' ').starts_with(|next: char| UNITS.contains(next)) {
        return false;
    }
    is_han(text[..start].trim_end_matches(SIGNS).chars().next_back())
        || is_han(text[end..].trim_start_matches(SIGNS).chars().next())
}

/// What parts two groups, and how many bytes it has: a blank, hyphen, dot or slash; those of print as those of ASCII.
fn gap(bytes: &[u8]) -> (u8, usize) {
    match bytes {
        [byte @ (b' ' | b'-' | b'.' | b'/'), ..] => (*byte, 1),
        // U+00A0
        [0xC2, 0xA0, ..] => (b' ', 2),
        // U+2010 to U+2013, U+202F
        [0xE2, 0x80, 0x90..=0x93, ..] => (b'-', 3),
        [0xE2, 0x80, 0xAF, ..] => (b' ', 3),
        _ => (0, 0),
    }
}

/// Area code, exchange, line; with or without 1 before them.
fn has_north_american_shape(groups: &[Group]) -> bool {
    let lengths = |lengths: &[usize]| groups.iter().map(|group| group.len).eq(lengths.iter().copied());
    let is_parted = groups.iter().all(|group| group.separator != b'/');
    is_parted
        && (lengths(&[3, 3, 4])
            || lengths(&[1, 3, 3, 4])
            || (lengths(&[3, 7]) && (groups[0].in_brackets || groups[1].separator == b'-')))
}

/// Neither area code nor exchange begins with 0 or 1 (North American Numbering Plan).
fn is_north_american(digits: &[u8]) -> bool {
    let national = if digits.len() == 11 && digits[0] == 1 { &digits[1..] } else { digits };
    national.len() == 10 && national[0] > 1 && national[3] > 1
}

/// Whether 0 is before an area code, in groups that belong together.
fn has_trunk_prefix(groups: &[Group], digits: &[u8]) -> bool {
    let lengths = || groups.iter().map(|group| group.len);
    let is_area_and_eight = digits.len() == 12 && lengths().eq([4, 8]);
    let is_length = TRUNK_DIGITS.contains(&digits.len()) || is_area_and_eight;
    let is_prefix = digits[0] == 0 && digits[1] != 0 && is_length && groups.len() > 1;
    let is_grouped = (2..=6).contains(&groups[0].len) && lengths().skip(1).all(|length| (2..=9).contains(&length));
    // what follows the bracket around an area code does not separate groups
    let skipped = 1 + usize::from(groups.iter().take(2).any(|group| group.in_brackets));
    let is_even =
        groups.windows(2).skip(skipped).all(|two| two[0].separator == two[1].separator && two[1].separator != b'/');
    // dots part decimals, dates and versions as well, so these must be the groups of France or of equal length
    let is_dotted = groups[1..].iter().any(|group| group.separator == b'.');
    let is_dotted_number =
        !is_dotted || lengths().all(|length| length == 2) || lengths().skip(1).all(|length| length > 2);
    // Japan puts the exchange in brackets
    let is_bracketed = groups[1..].iter().any(|group| group.in_brackets)
        && !(groups.len() == 3 && groups[1].in_brackets && groups[2].len == 4);
    is_prefix && is_grouped && is_even && is_dotted_number && !is_bracketed && num_different(digits) > 2
}

/// Dates, years, social security numbers, American postal codes.
fn is_something_else(groups: &[Group], digits: &[u8]) -> bool {
    let mut lengths = [0; MAX_GROUPS];
    groups.iter().zip(&mut lengths).for_each(|(group, length)| *length = group.len);
    let number = |from: usize, to: usize| digits[from..to].iter().fold(0, |sum, &digit| sum * 10 + u32::from(digit));
    let is_year = |value: u32| (1900..2100).contains(&value);
    let is_day = |first: u32, second: u32| (1..=31).contains(&first) && (1..=31).contains(&second);
    match lengths[..groups.len()] {
        [4, 4] => is_year(number(0, 4)) && is_year(number(4, 8)),
        [4, 2, 2, ..] => is_year(number(0, 4)) && is_day(number(4, 6), number(6, 8)),
        [2, 2, 4, ..] => is_day(number(0, 2), number(2, 4)) && is_year(number(4, 8)),
        [3, 2, 4] | [5, 4] => true,
        [8] => is_year(number(0, 4)) && is_day(number(4, 6), number(6, 8)),
        _ => digits.iter().all(|digit| *digit == digits[0]),
    }
}

fn num_different(digits: &[u8]) -> u32 {
    digits.iter().fold(0_u16, |seen, digit| seen | 1 << digit).count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<&str> {
        let digits = text.bytes().enumerate().filter(|(at, byte)| {
            byte.is_ascii_digit() && !at.checked_sub(1).is_some_and(|before| text.as_bytes()[before].is_ascii_digit())
        });
        digits.map(|(at, _)| at).find_map(|at| phone(text, at)).map(|(start, end)| &text[start..end])
    }

    #[test]
    fn shapes_that_need_no_word() {
        for number in [
            "(206) 555-0100",
            "206.555.0100",
            "1-206-555-0100",
            "206-555-0100 ext. 12",
            "+1 206 555 0100",
            "+1 (206) 555-0100x7",
            "001-206-555-0100",
            "+44 20 7946 0958",
            "+442079460958",
            "+46 (0)8 928 571 38",
            "0044 20 7946 0958",
            "020 7946 0958",
            "(020) 7946 0958",
            "01.84.17.61.18",
            "01 84 17 61 18",
            "030/1234567",
            "(02)2345-6789",
            "(03) 1234-5678",
            "03(1234)5678",
            "0755-12345678",
            "010-1234-5678",
            "0961-7596216",
            "+49\u{a0}30\u{a0}1234567",
            "+49 30\u{2011}1234567",
        ] {
            for text in
                [number.to_owned(), format!("or ({number})."), format!("a\n{number}, b"), format!("É {number} é")]
            {
                assert_eq!(found(&text), Some(number), "{text}");
            }
        }
    }

    #[test]
    fn shapes_that_need_a_word() {
        for number in
            ["467 3395", "60-56-85-91", "9472 7916", "(37) 788-063", "99 577450", "2065550100", "21 284 698 2548"]
        {
            assert_eq!(found(&format!("it has {number} of them")), None);
            for text in [
                format!("Phone:\n{number}"),
                format!("call me on {number}?"),
                format!("Tél. {number}"),
                format!("{number} (fax)"),
            ] {
                assert_eq!(found(&text), Some(number), "{text}");
            }
        }
    }

    #[test]
    fn letters_of_other_scripts_may_touch_a_number() {
        for (before, number, after) in [
            ("手机：", "13812345678", "。"),
            ("可拨打", "138 1234 5678", "咨询"),
            ("客服热线", "400-123-4567", "，"),
            ("连絡先は", "03-1234-5678", "まで"),
            ("携帯", "09012345678", "へ"),
            ("연락처 ", "010-1234-5678", "로"),
            ("전화", "1588-1234", "번"),
            ("โทร", "02-123-4567", "ครับ"),
            ("โทรศัพท์ ", "0812345678", "ค่ะ"),
            ("ໂທ", "020 5551 2345", "ໄດ້"),
            ("ទូរស័ព្ទ", "012 345 678", "។"),
            ("ဖုန်း", "09-421234567", "သို့"),
            ("الهاتف:", "0501234567", "و"),
            ("בטלפון", "050-1234567", "או"),
            ("फ़ोन ", "9876543210", "पर"),
            ("тел", "8 912 345-67-89", "или"),
        ] {
            assert_eq!(found(&format!("{before}{number}{after}")), Some(number), "{before}{number}{after}");
        }
        for text in ["收入13812345678元", "共 138 1234 5678 万", "in 13812345678 of", "编号12345678901"] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_number_is_not() {
        for text in [
            "Phone 2001-12-24",
            "call on 24.12.2001",
            "call 1999-2004",
            "on 20011224 we call",
            "call SSN 078-05-1120",
            "ISBN 020 7946 0958",
            "+0 20 7946 0958",
            "+44 20",
            "+999 555 123 456",
            "$206-555-0100",
            "id=206-555-0100",
            "206-555-0100-1",
            "106-555-0100",
            "206-155-0100",
            "3.206-555-0100",
            "x206-555-0100",
            "206-555-0100é",
            "0123456789012345678901234567890",
            "0.123 456 789",
            "000 111 000 11",
            "tell 467 3395",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }
}
