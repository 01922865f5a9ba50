//! Personal data: e-mail addresses, phone numbers, IP addresses, accounts. The taggers `pii_regex_*` find what dolma 1.2.1
//! finds; `pii_exact_v1` is right about what those look for, `pii_international_*` look further.

mod accounts;
mod calling_codes;
mod emails;
mod exact;
mod fold;
mod iban;
mod international;
mod ipv4;
mod ipv6;
mod legacy;
mod phones;
mod scripts;
mod words;

pub use fold::Folded;

use memchr::memmem;

use super::{Span, Tagger, Text};
use crate::error::Result;
use crate::unicode::{count_bytes, strip};
use legacy::{contains_url_after_backspace, emails, ip_addresses, phones};

const EMAIL: &str = "EMAIL_ADDRESS";
const PHONE: &str = "PHONE_NUMBER";
const ADDRESS: &str = "IP_ADDRESS";
const CARD_NUMBER: &str = "CREDIT_CARD";
const IBAN: &str = "IBAN_CODE";
const SECURITY_NUMBER: &str = "US_SSN";

/// Code points on each side of a number in which "isbn", "doi" or "#" say that it is something else.
const CONTEXT_CHARS: usize = 100;

/// The fewest digits of a phone number and of an IP address, as the expressions have them.
const PHONE_DIGITS: usize = 10;
const ADDRESS_DIGITS: usize = 4;

/// Above this many question marks `pii_regex_with_counts_fast_v2` finds nothing: such texts made its expressions slow.
const MAX_QUESTION_MARKS: usize = 10_000;

/// `pii_regex_v1` and `_v2`, which score the document by hits per word, and `pii_regex_with_counts_v2` which also counts them.
pub struct PiiOfDocument {
    /// Whether to add the number of hits.
    pub with_count: bool,
}

impl Tagger for PiiOfDocument {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let string = text.as_str();
        let before = spans.len();
        for email in emails(string) {
            // the parts of the whole match, edges included
            let mut parts = string[email.start..email.end].split('@');
            let (local, domain) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            if domain.contains('.') && strip(local) != "(" {
                spans.push(text.span(email.start, email.end, EMAIL, 1.0));
            }
        }
        if !contains_url_after_backspace(string) {
            let is_phone = |found: &(usize, usize)| !is_other_number(string, *found);
            spans.extend(
                phones(string).into_iter().filter(is_phone).map(|(start, end)| text.span(start, end, PHONE, 1.0)),
            );
        }
        let is_address = |found: &(usize, usize)| !is_other_number(string, *found);
        spans.extend(
            ip_addresses(string).into_iter().filter(is_address).map(|(start, end)| text.span(start, end, ADDRESS, 1.0)),
        );
        let num_found = (spans.len() - before) as f64;
        let per_word = if text.num_words() == 0 { -1.0 } else { num_found / text.num_words() as f64 };
        spans.push(text.whole("doc", per_word));
        if self.with_count {
            spans.push(text.whole("doc_count", num_found));
        }
        Ok(())
    }
}

/// Whether the text around a number says that it is a book's, an article's or a ticket's.
fn is_other_number(text: &str, (start, end): (usize, usize)) -> bool {
    let from = text[..start].char_indices().rev().take(CONTEXT_CHARS).last().map_or(start, |(at, _)| at);
    let to = text[end..].char_indices().nth(CONTEXT_CHARS).map_or(text.len(), |(at, _)| end + at);
    let context = &text.as_bytes()[from..to];
    ["isbn", "doi", "#"].iter().any(|word| memmem::find(context, word.as_bytes()).is_some())
}

/// `pii_regex_with_counts_fast_v2`: each paragraph by itself, without regard to context.
pub struct PiiOfParagraphs;

impl Tagger for PiiOfParagraphs {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let before = spans.len();
        if memchr::memchr_iter(b'?', text.as_str().as_bytes()).count() <= MAX_QUESTION_MARKS {
            for paragraph in text.filled_paragraphs() {
                let offset = paragraph.start_byte;
                let mut push = |start, end, kind| spans.push(text.span(offset + start, offset + end, kind, 1.0));
                for email in emails(paragraph.text) {
                    let (local, domain) =
                        (&paragraph.text[email.local_start..email.at], &paragraph.text[email.at + 1..email.domain_end]);
                    if domain.contains('.') && local != "(" {
                        push(email.start, email.end, EMAIL);
                    }
                }
                let bytes = paragraph.text.as_bytes();
                let num_digits = count_bytes(bytes, |byte| byte.is_ascii_digit());
                // digits of other scripts are in phone numbers, but not in addresses
                if num_digits >= PHONE_DIGITS || !bytes.is_ascii() {
                    phones(paragraph.text).into_iter().for_each(|(start, end)| push(start, end, PHONE));
                }
                if num_digits >= ADDRESS_DIGITS {
                    ip_addresses(paragraph.text).into_iter().for_each(|(start, end)| push(start, end, ADDRESS));
                }
            }
        }
        let length = text.length_chars();
        let found_chars: usize = spans[before..].iter().map(|span| span.end - span.start).sum();
        spans.push(text.whole("doc_count", (spans.len() - before) as f64));
        // the span of "doc_count" is among those whose lengths dolma 1.2.1 adds up, hence one more
        let fraction = if length == 0 { -1.0 } else { (found_chars + length) as f64 / length as f64 };
        spans.push(text.whole("doc_frac", fraction));
        Ok(())
    }
}

/// `pii_exact_v1`: exact spans, the last e-mail too, whole IPv4 addresses only, and a fraction that is one.
pub struct PiiExact;

impl Tagger for PiiExact {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let folded = Folded::new(text.as_str());
        push_hits(text, &folded, exact::find(folded.as_str()), spans);
        Ok(())
    }
}

/// `pii_international_v1` and `pii_international_with_accounts_v1`: IPv4 and IPv6, phone numbers of any country, checked accounts.
pub struct PiiInternational {
    /// Whether to give accounts; without, they are still no phone numbers.
    pub with_accounts: bool,
}

impl Tagger for PiiInternational {
    fn tag(&self, text: &Text<'_>, spans: &mut Vec<Span>) -> Result<()> {
        let folded = Folded::new(text.as_str());
        let mut found = international::find(folded.as_str());
        found.retain(|(.., kind)| self.with_accounts || [EMAIL, PHONE, ADDRESS].contains(kind));
        push_hits(text, &folded, found, spans);
        Ok(())
    }
}

/// The hits, their number, and the share of the characters in them.
fn push_hits(text: &Text<'_>, folded: &Folded<'_>, found: Vec<international::Found>, spans: &mut Vec<Span>) {
    let (before, mut found_chars) = (spans.len(), 0);
    for (start, end, kind) in found {
        let span = text.span(folded.original(start), folded.original(end), kind, 1.0);
        found_chars += span.end - span.start;
        spans.push(span);
    }
    let count = spans.len() - before;
    spans.push(text.whole("doc_count", count as f64));
    spans.push(text.whole("doc_frac", found_chars as f64 / text.length_chars().max(1) as f64));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn paragraphs_with_few_digits_hold_no_numbers(
            pieces in prop::collection::vec(
                prop_oneof!["[ .()-]{1,2}", "\n", "[0-9]{1,4}", "(55|123)\\.4\\.5\\.6", " 206[-. ]?555[-. ]?0123", "[٣-٩]{3}", "[a-zé]"],
                0..20,
            ),
        ) {
            let text = pieces.concat();
            let mut expected = Vec::new();
            let mut before = 0;
            for paragraph in text.split_inclusive('\n') {
                let chars = |at: usize| before + paragraph[..at].chars().count();
                let mut push = |(start, end), kind| expected.push((chars(start), chars(end), kind));
                phones(paragraph).into_iter().for_each(|found| push(found, PHONE));
                ip_addresses(paragraph).into_iter().for_each(|found| push(found, ADDRESS));
                before += paragraph.chars().count();
            }
            let mut spans = Vec::new();
            PiiOfParagraphs.tag(&Text::new(&text), &mut spans).unwrap();
            let found: Vec<_> = spans.iter().map(|span| (span.start, span.end, span.kind.as_ref())).collect();
            prop_assert_eq!(&found[..found.len() - 2], expected);
        }
    }
}
