//! Filters of Adblock Plus for addresses: which addresses they stop, asked without a page that asks for them.
//!
//! As in dolma 1.2.1 the document is a request of the kind "other" from nowhere: filters for other kinds, for the same site or for
//! named pages do not apply, `$third-party` does.

use aho_corasick::AhoCorasick;
use regex::Regex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::address::Address;

/// A list, ready to be asked.
pub struct Filters {
    /// Hosts of `||host^`.
    hosts: FxHashSet<String>,
    filters: Vec<Filter>,
    /// The filters that hold a piece of text, by the number of that piece in `finder`.
    by_piece: Vec<Vec<usize>>,
    finder: Option<AhoCorasick>,
    /// Filters without such a piece.
    always: Vec<usize>,
}

struct Filter {
    pattern: Pattern,
    exception: bool,
    important: bool,
}

enum Pattern {
    Expression(Regex),
    Parts(Parts),
}

/// Parts between the `*` of a filter; `^` is a separator or the end.
struct Parts {
    anchor: Anchor,
    at_end: bool,
    parts: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Anywhere,
    Start,
    /// At the beginning of a label; the number of bytes of the first part that belong to the host.
    Host(usize),
}

impl Filters {
    /// Adds the lines of a list. Skips comments, element filters and filters that cannot apply.
    pub fn new(lines: &[String]) -> Filters {
        let revoked: FxHashSet<&str> = lines
            .iter()
            .filter_map(|line| line.strip_suffix(",badfilter").or_else(|| line.strip_suffix("$badfilter")))
            .collect();
        let mut made = Filters {
            hosts: FxHashSet::default(),
            filters: Vec::new(),
            by_piece: Vec::new(),
            finder: None,
            always: Vec::new(),
        };
        let mut pieces: Vec<String> = Vec::new();
        let mut number_of: FxHashMap<String, usize> = FxHashMap::default();
        for line in lines.iter().filter(|line| !revoked.contains(line.as_str())) {
            let Some(filter) = parse(line) else { continue };
            if let Some(host) = filter.plain_host() {
                made.hosts.insert(host);
                continue;
            }
            let index = made.filters.len();
            match filter.longest_piece() {
                Some(piece) => {
                    let number = *number_of.entry(piece).or_insert_with_key(|piece| {
                        pieces.push(piece.clone());
                        made.by_piece.push(Vec::new());
                        pieces.len() - 1
                    });
                    made.by_piece[number].push(index);
                }
                None => made.always.push(index),
            }
            made.filters.push(filter);
        }
        // a list too large for one automaton is asked filter by filter
        match AhoCorasick::new(&pieces) {
            Ok(finder) => made.finder = Some(finder),
            Err(_) => made.always = (0..made.filters.len()).collect(),
        }
        made
    }

    /// Whether nothing in the list is about addresses.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.filters.is_empty()
    }

    /// Whether a filter stops the address, and no exception lets it pass.
    pub fn stops(&self, address: &Address) -> bool {
        let port = address.port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = address.key();
        let path = &path[(address.host.len() + port.len()).min(path.len())..];
        let path = if path.is_empty() { "/" } else { path };
        let url = format!("http://{}{port}{path}", address.host).to_lowercase();
        let host_end = "http://".len() + address.host.len();
        let mut found: Vec<usize> = self.always.clone();
        if let Some(finder) = &self.finder {
            for hit in finder.find_overlapping_iter(&url) {
                found.extend(&self.by_piece[hit.pattern().as_usize()]);
            }
        }
        found.sort_unstable();
        found.dedup();
        let (mut stopped, mut passes) = (self.stops_host(&address.host), false);
        for filter in found.into_iter().map(|index| &self.filters[index]) {
            if filter.exception && passes || !filter.exception && stopped && !filter.important {
                continue;
            }
            if filter.matches(&url, host_end) {
                match filter.exception {
                    true => passes = true,
                    false if filter.important => return true,
                    false => stopped = true,
                }
            }
        }
        stopped && !passes
    }

    fn stops_host(&self, host: &str) -> bool {
        let labels = host.match_indices('.').map(|(at, _)| &host[at + 1..]);
        std::iter::once(host).chain(labels).any(|domain| self.hosts.contains(domain))
    }
}

impl Filter {
    fn plain_host(&self) -> Option<String> {
        let Pattern::Parts(Parts { anchor: Anchor::Host(length), at_end: false, parts }) = &self.pattern else {
            return None;
        };
        let [part] = parts.as_slice() else { return None };
        let (host, rest) = part.split_at(*length);
        let is_plain = rest == b"^" && !host.ends_with(b".") && !self.exception && !self.important;
        is_plain.then(|| String::from_utf8_lossy(host).into_owned())
    }

    fn longest_piece(&self) -> Option<String> {
        let Pattern::Parts(parts) = &self.pattern else { return None };
        let pieces = parts.parts.iter().flat_map(|part| part.split(|&byte| byte == b'^'));
        let longest = pieces.max_by_key(|piece| piece.len()).filter(|piece| piece.len() > 1)?;
        String::from_utf8(longest.to_vec()).ok()
    }

    fn matches(&self, url: &str, host_end: usize) -> bool {
        match &self.pattern {
            Pattern::Expression(expression) => expression.is_match(url),
            Pattern::Parts(parts) => parts.matches(url.as_bytes(), host_end),
        }
    }
}

impl Parts {
    fn matches(&self, url: &[u8], host_end: usize) -> bool {
        match self.anchor {
            Anchor::Start => self.matches_from(url, 0, true),
            Anchor::Anywhere => self.matches_from(url, 0, false),
            Anchor::Host(length) => {
                let host_start = "http://".len();
                let starts = (host_start..host_end).filter(|&at| at == host_start || url[at - 1] == b'.');
                starts.into_iter().any(|at| {
                    // a name ends with a label, unless the filter continues with any characters
                    let end = at + length;
                    let is_whole = end >= host_end
                        || url[end] == b'.'
                        || url[end - 1] == b'.'
                        || self.parts[0].len() == length && self.parts.len() > 1;
                    is_whole && self.matches_from(url, at, true)
                })
            }
        }
    }

    /// Each part at the first place where it fits, the last one at the end if it has to be there.
    fn matches_from(&self, url: &[u8], from: usize, anchored: bool) -> bool {
        let mut at = from;
        for (number, part) in self.parts.iter().enumerate() {
            let is_fixed = anchored && number == 0;
            let must_end = self.at_end && number + 1 == self.parts.len();
            let mut places = at..=if is_fixed { at } else { url.len() };
            let fits = |place| ends_of(part, url, place).filter(|&end| !must_end || end == url.len());
            match places.find_map(fits) {
                Some(end) => at = end,
                None => return false,
            }
        }
        true
    }
}

/// Where the part ends if it is at that place.
fn ends_of(part: &[u8], url: &[u8], place: usize) -> Option<usize> {
    let mut at = place;
    for &byte in part {
        match url.get(at) {
            None if byte == b'^' => {}
            Some(&found) if byte == found || byte == b'^' && is_separator(found) => at += 1,
            _ => return None,
        }
    }
    Some(at)
}

fn is_separator(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || b"_-.%".contains(&byte) || byte >= 0x80)
}

fn parse(line: &str) -> Option<Filter> {
    if line.is_empty() || line.starts_with(['!', '[']) || line.starts_with("# ") || is_about_elements(line) {
        return None;
    }
    let (exception, rest) = match line.strip_prefix("@@") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (pattern, options) = match rest.rfind('$') {
        Some(at) if !rest[at + 1..].starts_with('/') => (&rest[..at], &rest[at + 1..]),
        _ => (rest, ""),
    };
    let important = applies(options)?;
    Some(Filter { pattern: parse_pattern(pattern)?, exception, important })
}

/// `example.com##.banner` and its kin: a `#`, perhaps signs, and a `#`.
fn is_about_elements(line: &str) -> bool {
    line.match_indices('#').any(|(at, _)| line[at + 1..].trim_start_matches(['@', '?', '$', '%', '^']).starts_with('#'))
}

/// Whether the options let a filter apply, and if so, whether it is important.
fn applies(options: &str) -> Option<bool> {
    const KINDS: &[&str] = &[
        "script",
        "image",
        "stylesheet",
        "css",
        "xmlhttprequest",
        "xhr",
        "subdocument",
        "frame",
        "font",
        "media",
        "object",
        "object-subrequest",
        "ping",
        "beacon",
        "websocket",
        "other",
    ];
    let mut important = false;
    let (mut for_kinds, mut for_other, mut but_other) = (false, false, false);
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let (negated, name) = match option.strip_prefix('~') {
            Some(name) => (true, name),
            None => (false, option),
        };
        let (name, value) = name.split_once('=').unwrap_or((name, ""));
        match (name, negated) {
            ("important", false) => important = true,
            ("third-party" | "3p", false) | ("first-party" | "1p", true) | ("redirect", false) => {}
            // named pages alone: the document is asked for by none
            ("domain" | "from", false) if value.split('|').any(|page| page.starts_with('~')) => {}
            ("other", true) => but_other = true,
            ("other", false) => (for_kinds, for_other) = (true, true),
            (kind, true) if KINDS.contains(&kind) => {}
            (kind, false) if KINDS.contains(&kind) => for_kinds = true,
            _ => return None,
        }
    }
    (!but_other && (!for_kinds || for_other)).then_some(important)
}

fn parse_pattern(pattern: &str) -> Option<Pattern> {
    if pattern.len() > 1 && pattern.starts_with('/') && pattern.ends_with('/') {
        let expression = Regex::new(&format!("(?i){}", &pattern[1..pattern.len() - 1])).ok()?;
        return Some(Pattern::Expression(expression));
    }
    let pattern = pattern.to_lowercase();
    let (by_host, rest) = match pattern.strip_prefix("||") {
        Some(rest) => (true, rest),
        None => (false, pattern.as_str()),
    };
    let (at_start, rest) = match rest.strip_prefix('|') {
        Some(rest) if !by_host => (true, rest),
        _ => (false, rest),
    };
    let (at_end, rest) = match rest.strip_suffix('|') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let (open_start, open_end) = (rest.starts_with('*'), rest.ends_with('*'));
    let parts: Vec<Vec<u8>> =
        rest.split('*').filter(|part| !part.is_empty()).map(|part| part.as_bytes().to_vec()).collect();
    let first = parts.first()?;
    let anchor = match (by_host && !open_start, at_start && !open_start) {
        (true, _) => {
            let length = first.iter().position(|byte| b"/^:?".contains(byte)).unwrap_or(first.len());
            if length == 0 {
                return None;
            }
            Anchor::Host(length)
        }
        (false, true) => Anchor::Start,
        (false, false) => Anchor::Anywhere,
    };
    let mut parts = parts;
    if anchor != Anchor::Anywhere && open_end && parts.len() == 1 {
        parts.push(Vec::new()); // "||name*" need not end with a label
    }
    Some(Pattern::Parts(Parts { anchor, at_end: at_end && !open_end, parts }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(lines: &[&str], url: &str) -> bool {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        Filters::new(&lines).stops(&Address::parse(url).unwrap())
    }

    #[test]
    fn anchors_and_signs_are_those_of_adblock_plus() {
        for (filter, url, expected) in [
            ("||foo.com^", "https://a.foo.com/x?y", true),
            ("||foo.com^", "foo.com.evil.org", false),
            ("||oo.com^", "foo.com", false),
            ("||foo.co", "foo.com", false),
            ("||ads.", "ads.foo.com", true),
            ("||foo.com/a*b^c", "foo.com/axxb/c", true),
            ("||foo.com/a", "foo.com/b/a", false),
            ("||foo.com*x", "foo.community/x", true),
            ("|http://foo", "https://foo.com", true),
            ("|foo", "foo.com", false),
            ("com/x|", "foo.com/x", true),
            ("com/x|", "foo.com/xy", false),
            ("^foo^", "x.com/foo", true),
            (r"/fo+\.com/", "fooo.com", true),
            ("foo.com##.ad", "foo.com", false),
            ("*", "foo.com", false),
            ("||foo.com^", "foo.com:8080", true),
        ] {
            assert_eq!(stops(&[filter], url), expected, "{filter} {url}");
        }
    }

    #[test]
    fn exceptions_importance_and_revocation_are_weighed() {
        assert!(!stops(&["||foo.com^", "@@||foo.com/ok/"], "foo.com/ok/1"));
        assert!(stops(&["||foo.com^$important", "@@||foo.com^"], "foo.com"));
        assert!(!stops(&["||foo.com^", "||foo.com^$badfilter"], "foo.com"));
        assert!(stops(&["||foo.com^", "@@||foo.com^$document"], "foo.com"));
    }
}
