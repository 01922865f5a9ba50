//! Bytes of a page as text: by its byte-order mark, its header, its `meta` element, or a guess.

use std::sync::LazyLock;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8};
use regex::bytes::Regex;

/// Where the standard looks for a `meta` element: <https://html.spec.whatwg.org/multipage/parsing.html>.
const PRESCAN_BYTES: usize = 1024;

/// A charset that does not fit more bytes than one in so many is not the page's: a page may be cut within a character.
const BYTES_PER_ERROR: usize = 1000;

/// A page as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    pub text: String,
    /// Its name, as the WHATWG's standard has it.
    pub charset: &'static str,
    /// Characters that took the place of bytes that fit no charset.
    pub replaced: usize,
}

/// Decodes a page. `header` is the charset that the server gave.
pub fn decode(bytes: &[u8], header: Option<&str>) -> Decoded {
    if let Some((encoding, mark)) = Encoding::for_bom(bytes) {
        return decoded(&bytes[mark..], encoding);
    }
    let declared = header.and_then(|label| Encoding::for_label(label.trim_matches(['"', '\'', ' ']).as_bytes()));
    for encoding in declared.into_iter().chain(in_meta(bytes)) {
        let found = decoded(bytes, encoding);
        if found.replaced <= 1 + bytes.len() / BYTES_PER_ERROR {
            return found;
        }
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    decoded(bytes, detector.guess(None, Utf8Detection::Allow))
}

fn decoded(bytes: &[u8], encoding: &'static Encoding) -> Decoded {
    let (text, has_errors) = encoding.decode_without_bom_handling(bytes);
    let replaced = if has_errors { text.matches('\u{fffd}').count() } else { 0 };
    Decoded { text: text.into_owned(), charset: encoding.name(), replaced }
}

/// The charset of a `meta` element.
fn in_meta(bytes: &[u8]) -> Option<&'static Encoding> {
    static META: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r#"(?i-u)<(?:meta\s[^>]*?|\?xml\s[^>]*?en)c(?:harset|oding)\s*=\s*["']?\s*([^\s"'/>;]+)"#).ok()
    });
    let found = META.as_ref()?.captures(&bytes[..bytes.len().min(PRESCAN_BYTES)])?;
    let encoding = Encoding::for_label(&found[1])?;
    // such a page could not say so in ASCII
    let is_wide = encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE;
    Some(if is_wide { UTF_8 } else { encoding })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], header: Option<&str>) -> (String, &'static str) {
        let decoded = decode(bytes, header);
        (decoded.text, decoded.charset)
    }

    #[test]
    fn a_mark_comes_before_the_header_and_that_before_the_meta_element() {
        let meta = b"<meta charset=\"windows-1251\">\xcf";
        assert_eq!(found(b"\xef\xbb\xbf\xc3\xa9", Some("windows-1251")), ("é".to_owned(), "UTF-8"));
        assert_eq!(found(b"\xff\xfee\0", None), ("e".to_owned(), "UTF-16LE"));
        assert_eq!(found(meta, Some("iso-8859-1")).1, "windows-1252");
        assert_eq!(found(meta, Some("no-such-charset")).1, "windows-1251");
        assert!(found(meta, None).0.ends_with('П'));
        let old = b"<META http-equiv=content-type content='text/html; charset=Shift_JIS'>\x82\xa0";
        assert!(found(old, None).0.ends_with('あ'));
        assert_eq!(found(b"<?xml version='1.0' encoding='koi8-r'?>\xd0", None).1, "KOI8-R");
        // a meta element can only be read in a charset that has ASCII
        assert_eq!(found("<meta charset=utf-16>é".as_bytes(), None).1, "UTF-8");
    }

    #[test]
    fn a_charset_that_does_not_fit_is_passed_over() {
        let text = "Съешь же ещё этих мягких французских булок, да выпей чаю. ".repeat(4);
        let (bytes, _, _) = encoding_rs::WINDOWS_1251.encode(&text);
        assert_eq!(found(&bytes, Some("utf-8")), (text.clone(), "windows-1251"));
        assert_eq!(found(&bytes, None), (text, "windows-1251"));
        // cut within a character, which is no reason to doubt the header
        let cut =
            decode("naïve café é".as_bytes().split_last().map(|(_, rest)| rest).unwrap_or_default(), Some("utf-8"));
        assert_eq!((cut.charset, cut.replaced), ("UTF-8", 1));
        assert_eq!(found(b"plain", None), ("plain".to_owned(), "UTF-8"));
    }
}
