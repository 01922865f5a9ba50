//! E-mail addresses: a local part, and a domain that ends in a top-level domain.

use memchr::memchr_iter;

use super::scripts::{is_invisible, letters, Letters};

/// Longest local part and domain (RFC 5321, section 4.5.3.1), in bytes.
const MAX_LOCAL_BYTES: usize = 64;
const MAX_DOMAIN_BYTES: usize = 255;
/// Longest label (RFC 1035, section 2.3.4), in characters.
const MAX_LABEL_CHARS: usize = 63;

/// Reserved top-level names (RFC 2606, RFC 6761, RFC 8244), and names for private networks (RFC 6762, appendix G).
const OWN_NAMES: &[&str] = &[
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "onion",
    "private",
    "test",
];
/// Top-level domains that are more often file extensions.
const FILE_ENDINGS: &[&str] = &["mov", "py", "zip"];
/// Top-level domains that are also file extensions, and common names of such files.
const SHARED_ENDINGS: &[&str] =
    &["ai", "app", "cc", "gz", "md", "mk", "ml", "pl", "pm", "ps", "rs", "sh", "so", "st", "tf", "vi"];
const FILE_NAMES: &[&str] = &[
    "app",
    "build",
    "changelog",
    "config",
    "file",
    "image",
    "index",
    "install",
    "lib",
    "license",
    "main",
    "mod",
    "readme",
    "run",
    "script",
    "setup",
    "start",
    "test",
    "tests",
];
/// Users as which programs fetch repositories.
const REPOSITORY_USERS: &[&str] = &["git", "hg", "svn"];

/// All of them in the order of the text, as (start, end) in bytes.
pub fn emails(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    memchr_iter(b'@', text.as_bytes()).filter_map(|at| email(text, at))
}

/// The address around the "@" at `at`.
fn email(text: &str, at: usize) -> Option<(usize, usize)> {
    let (start, needs_own_script) = local_start(text, at)?;
    let domain = Domain::read(text, at + 1)?;
    let end = domain.end;
    if needs_own_script && domain.is_ascii {
        return None;
    }
    let local = &text[start..at];
    let is_other = text[end..].starts_with('@')
        || is_user_of_url(text, start)
        || is_copied_file(text, end)
        || (REPOSITORY_USERS.contains(&local) && text[end..].starts_with([':', '/']))
        || is_file_or_version(&text[at + 1..end]);
    if is_other {
        return None;
    }
    // underscores around an address are emphasis
    let is_emphasis = local.len() > 1 && local.starts_with('_') && text[end..].starts_with('_');
    Some((start + usize::from(is_emphasis), end))
}

/// Where the local part before `at` begins, and whether its script does not separate words. The local part has letters of one
/// group, digits, and the signs that are common in addresses. The other signs of RFC 5322 end it.
fn local_start(text: &str, at: usize) -> Option<(usize, bool)> {
    let (mut start, mut group) = (at, None);
    for (index, character) in text[..at].char_indices().rev() {
        match letters(character) {
            Some(Letters::Mark) if index + character.len_utf8() != at || !is_invisible(character) => {}
            Some(Letters::Mark) => continue,
            Some(mine) if *group.get_or_insert(mine) == mine => {}
            Some(_) => break,
            None if ".+-_'~".contains(character) => {}
            None if is_invisible(character) && index + character.len_utf8() == at => continue,
            None => break,
        }
        start = index;
        if at - start > MAX_LOCAL_BYTES {
            return None;
        }
    }
    // dots in a row are an ellipsis
    start += text[start..at].rfind("..").map_or(0, |dots| dots + 2);
    // punctuation before an address belongs to the sentence
    let is_first = |character: char| character == '_' || !matches!(letters(character), None | Some(Letters::Mark));
    start += text[start..at].find(is_first)?;
    // a percent-encoded character of a URL
    let is_spelled = text[..start].ends_with('%')
        && at > start + 2
        && text.as_bytes()[start..start + 2].iter().all(u8::is_ascii_hexdigit);
    start += if is_spelled { 2 } else { 0 };
    let ends_well = !text[start..at].trim_end_matches(is_invisible).ends_with(['.', '\'']);
    (ends_well && start < at).then_some((start, matches!(group, Some(Letters::Unspaced(_)))))
}

/// The domain after an "@".
struct Domain {
    end: usize,
    is_ascii: bool,
}

impl Domain {
    /// The longest run of labels that ends in a top-level domain, if any.
    fn read(text: &str, start: usize) -> Option<Domain> {
        let mut found: Option<Domain> = None;
        let mut from = start;
        for num_labels in 1.. {
            from += invisible_length(&text[from..]);
            let label = label(&text[from..]);
            if label.is_empty() || from + label.len() - start > MAX_DOMAIN_BYTES {
                break;
            }
            let end = from + label.len();
            // a capital after a lower-case name starts the next sentence
            let begins_sentence = label.starts_with(|first: char| first.is_ascii_uppercase())
                && found.as_ref().is_some_and(|known| text[..known.end].ends_with(|last: char| last.is_lowercase()));
            if num_labels > 1 && !begins_sentence {
                if is_top_level(label) {
                    found = Some(Domain { end, is_ascii: label.is_ascii() });
                } else if let Some(length) = name_before_ending(label) {
                    found = Some(Domain { end: from + length, is_ascii: true });
                }
            }
            let dot = match text[end..].chars().next() {
                Some('.') => 1,
                // these also separate labels (UTS 46, section 2.3), or end the sentence
                Some(dot @ ('。' | '｡')) if found.is_none() => dot.len_utf8(),
                _ => break,
            };
            from = end + dot;
        }
        found
    }
}

/// The length of the top-level domain in a label that adds a case ending or word after a hyphen, as in "com-ra".
fn name_before_ending(label: &str) -> Option<usize> {
    let (name, ending) = label.split_once('-')?;
    (ending.chars().all(char::is_alphabetic) && is_top_level(name)).then_some(name.len())
}

fn invisible_length(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_invisible).len()
}

/// The leading letters of one group, digits and hyphens; no hyphen at either end.
fn label(text: &str) -> &str {
    let mut group = None;
    let mut end = 0;
    for (count, (index, character)) in text.char_indices().enumerate() {
        let belongs = match letters(character) {
            Some(Letters::Mark) => index > 0 && !is_invisible(character),
            // digits belong to letters of any script
            Some(Letters::Latin) if character.is_ascii_digit() => true,
            Some(mine) => *group.get_or_insert(mine) == mine,
            None => character == '-' && index > 0,
        };
        if !belongs {
            break;
        }
        if count == MAX_LABEL_CHARS {
            return "";
        }
        end = index + character.len_utf8();
    }
    text[..end].trim_end_matches('-')
}

fn is_top_level(label: &str) -> bool {
    if label.is_ascii() {
        let lower = label.to_ascii_lowercase();
        return tld::exist(&lower) || OWN_NAMES.contains(&lower.as_str());
    }
    punycode::encode(&label.to_lowercase()).is_ok_and(|ascii| tld::exist(&format!("xn--{ascii}")))
}

/// Whether the local part is the user or password in a URL.
fn is_user_of_url(text: &str, start: usize) -> bool {
    let is_user = |character: char| character.is_ascii_alphanumeric() || "-._~%!$&'()*+,;=:".contains(character);
    let before = text[..start].char_indices().rev().take(MAX_LOCAL_BYTES);
    let from = before.take_while(|(_, character)| is_user(*character)).last().map_or(start, |(index, _)| index);
    text[..from].ends_with("://") && !text[..from].ends_with("mailto://")
        || text[..from].strip_suffix("//").is_some_and(|rest| rest.ends_with(':') && !rest.ends_with("mailto:"))
}

/// Whether a path on the host follows, as in "user@host:path/file".
fn is_copied_file(text: &str, end: usize) -> bool {
    let Some(path) = text[end..].strip_prefix(':') else { return false };
    let is_part = |character: &char| character.is_ascii_alphanumeric() || "-._~/".contains(*character);
    let length = path.chars().take(MAX_DOMAIN_BYTES).take_while(is_part).count();
    path[..length].contains('/') && !path.starts_with("//") || path[..length].ends_with(".git")
}

/// Whether the domain is really a file name or a version: "2x.ai", "file.py", "1.0.dev".
fn is_file_or_version(domain: &str) -> bool {
    let domain = domain.to_lowercase();
    let mut labels = domain.split('.');
    let (first, second) = (labels.next().unwrap_or(""), labels.next().unwrap_or(""));
    let last = domain.rsplit('.').next().unwrap_or("");
    let is_file = FILE_ENDINGS.contains(&last);
    let digits = first.trim_start_matches('v').trim_start_matches(|character: char| character.is_ascii_digit());
    let is_number = digits.is_empty() && first.ends_with(|character: char| character.is_ascii_digit());
    let is_scaled = digits.len() < first.len()
        && first.starts_with(|character: char| character.is_ascii_digit())
        && (digits == "x" || digits.starts_with("x-"));
    (is_scaled && (is_file || SHARED_ENDINGS.contains(&last)))
        || (is_number
            && domain.matches('.').count() < 4
            && second.starts_with(|character: char| character.is_ascii_digit()))
        || (domain.matches('.').count() == 1
            && (is_file || (SHARED_ENDINGS.contains(&last) && FILE_NAMES.contains(&first))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        emails(text).map(|(start, end)| &text[start..end]).collect()
    }

    #[test]
    fn ends_are_exact() {
        assert_eq!(found(" Write to (jo.e+x@mail.example.org)."), ["jo.e+x@mail.example.org"]);
        assert_eq!(found("a@b.co,c_d@e-f.org. mailto:g@h.io?x"), ["a@b.co", "c_d@e-f.org", "g@h.io"]);
        assert_eq!(found("https://x.org/?mail=jo@b.org&y=1"), ["jo@b.org"]);
        assert_eq!(found("_jo@b.org_ *jo@b.org* <jo@b.org> 'jo@b.org'"), ["jo@b.org"; 4]);
        assert_eq!(found("ask...jo@b.org...or %20jo@b.org"), ["jo@b.org"; 2]);
        assert_eq!(found("o'brien@b.org l-a@b.org +jo@b.org"), ["o'brien@b.org", "l-a@b.org", "jo@b.org"]);
    }

    #[test]
    fn a_domain_ends_in_a_top_level_domain() {
        assert_eq!(
            found("jo@b.com.au jo@b.com.Then jo@b.com.In jo@163.com"),
            ["jo@b.com.au", "jo@b.com", "jo@b.com", "jo@163.com"]
        );
        assert_eq!(found("jo@b.com-ra jo@b.com-Adresse jo@b.com's"), ["jo@b.com"; 3]);
        assert_eq!(
            found("jo@218.Red-217-126.pooles.net a@C-450.LINZ.AC.AT b@80.17.9.13.dsl.012.net.il"),
            ["jo@218.Red-217-126.pooles.net", "a@C-450.LINZ.AC.AT", "b@80.17.9.13.dsl.012.net.il"]
        );
        assert_eq!(found("jo@host.local jo@mail.example"), ["jo@host.local", "jo@mail.example"]);
        for text in ["a@b", "a@b.c", "@b.org", "a..@b.org", "a.@b.org", "a@.org", "a@-b.org", "a@b.1", "a@b..org"] {
            assert!(found(text).is_empty(), "{text}");
        }
        assert!(found(&format!("{}@b.org", "a".repeat(65))).is_empty());
    }

    #[test]
    fn letters_of_other_scripts_end_an_address() {
        for (before, after) in [
            ("请发邮件到", "。谢谢"),
            ("メールは", "まで"),
            ("이메일", "으로"),
            ("อีเมล", "ครับ"),
            ("អ៊ីមែល", "។"),
            ("ອີເມວ", "ໄດ້"),
            ("အီးမေးလ်", "သို့"),
            ("ईमेल", "पर"),
            ("ל", "או"),
            ("إلى", "أو"),
            ("почта", "или"),
            ("\u{200F}", "\u{200F}"),
            ("\u{200B}", "\u{200B}"),
            ("：", "，"),
            ("「", "」"),
            ("", "。Thanks"),
        ] {
            assert_eq!(found(&format!("{before}jo.e1@b.co.th{after}")), ["jo.e1@b.co.th"], "{before}");
        }
    }

    #[test]
    fn addresses_may_have_letters_outside_ascii() {
        for address in [
            "josé@b.org",
            "jo@müller.de",
            "иван@пример.рф",
            "χρήστης@παράδειγμα.ελ",
            "अजय@डाटा.भारत",
            "用户@例子.公司",
            "jo@例子。中国",
            "jo@\u{200B}b.\u{200B}org",
        ] {
            assert_eq!(found(&format!("to {address}, or")), [address]);
        }
        assert!(found("感谢@xinhua.org").is_empty());
    }

    #[test]
    fn files_versions_and_users_are_not_addresses() {
        for text in [
            "logo@2x.png icon@3x.webp image@2x-dark.svg i@2x.ai a@1.5x.png",
            "user@file.py jo@main.rs x@README.md code@v2.zip",
            "@scope/pkg@1.2.3 name@1.0.0 pkg@2.0.0-beta.dev pkg@1.0.dev a@v1.2.app vue@3.2.1/dist.js",
            "git@github.com:org/repo.git ssh://git@host.org/x.git jo@host.org:/var/log jo@host.org:src/main",
            "https://jo:secret@host.org/ ftp://jo@host.org/x https://medium.com/@jo.dev",
            "getty@tty1.service Foo@1a2b.c",
        ] {
            assert!(found(text).is_empty(), "{text}: {:?}", found(text));
        }
        assert_eq!(
            found("git@vger.kernel.org mailto:jo@b.org jo@firma.rs info@2x.com"),
            ["git@vger.kernel.org", "jo@b.org", "jo@firma.rs", "info@2x.com"]
        );
    }
}
