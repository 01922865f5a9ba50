//! Words near a number that say what it is.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

use super::scripts::{letters, Letters};

/// Lower-case beginnings of words that name a telephone, in scripts that separate words.
const PHONE: &[&str] = &[
    "answer",
    "call",
    "cell",
    "celular",
    "contact",
    "desk",
    "dial",
    "faks",
    "fax",
    "fon",
    "fone",
    "handy",
    "helpline",
    "hotline",
    "hubungi",
    "landline",
    "messag",
    "mobil",
    "móvil",
    "movil",
    "pager",
    "phone",
    "ponsel",
    "portable",
    "ring",
    "sms",
    "sđt",
    "teléf",
    "telp",
    "tél",
    "tel",
    "tfn",
    "thoại",
    "tlf",
    "viber",
    "voicemail",
    "whatsapp",
    "гаряч",
    "горяч",
    "дзвон",
    "звон",
    "моб",
    "телефон",
    "тел",
    "факс",
    "κινητό",
    "τηλ",
    "φαξ",
    "טל",
    "فون",
    "հեռ",
    "ტელ",
    "მობ",
];
/// The same for scripts that do not separate words, or that prefix articles and prepositions: they match anywhere.
const PHONE_PARTS: &[&str] = &[
    "传真",
    "傳真",
    "座机",
    "拨打",
    "撥打",
    "手机",
    "手機",
    "热线",
    "熱線",
    "电话",
    "電話",
    "致电",
    "致電",
    "联系",
    "聯絡",
    "聯繫",
    "お問い合わせ",
    "テル",
    "ファクス",
    "ファックス",
    "携帯",
    "連絡先",
    "문의",
    "모바일",
    "연락",
    "전화",
    "팩스",
    "핸드폰",
    "휴대",
    "โทร",
    "ติดต่อ",
    "เบอร์",
    "มือถือ",
    "แฟกซ์",
    "ແຟັກ",
    "ໂທ",
    "ມືຖື",
    "ទូរសព្ទ",
    "ទូរស័ព្ទ",
    "ဖုန်း",
    "اتصل",
    "اتصال",
    "الجوال",
    "تلفن",
    "تلفون",
    "تليفون",
    "تماس",
    "جوال",
    "فاكس",
    "فکس",
    "موبائل",
    "موبايل",
    "موبایل",
    "هاتف",
    "واتس",
    "התקשר",
    "טלפון",
    "נייד",
    "פקס",
    "कॉल",
    "दूरभाष",
    "फोन",
    "फ़ोन",
    "फ़ोन",
    "मोबाइल",
    "संपर्क",
    "सम्पर्क",
    "ফোন",
    "মোবাইল",
    "ਫੋਨ",
    "ફોન",
    "தொலைபேசி",
    "கைபேசி",
    "ఫోన్",
    "ಫೋನ್",
    "ഫോൺ",
    "ስልክ",
];
/// Words that name a telephone behind its number.
const PHONE_AFTER: &[&str] = &["cell", "desk", "fax", "home", "mobil", "office", "phone", "tel", "voice", "work"];
/// Words that name a payment card.
pub const CARD: Names = Names {
    begin: &["amex", "card", "cc", "credit", "debit", "karte", "maestro", "mastercard", "tarjeta", "visa", "карт"],
    parts: &[
        "信用",
        "储蓄",
        "借记",
        "卡号",
        "卡號",
        "银行卡",
        "カード",
        "카드",
        "บัตร",
        "بطاقة",
        "کارت",
        "כרטיס",
        "कार्ड",
    ],
};
/// Words that name a social security number.
pub const SECURITY: Names = Names { begin: &["security", "social", "ssn"], parts: &["社会安全", "社會安全"] };
/// Words that name a number of something else.
const OTHER_NUMBERS: &[&str] = &["doi", "isbn", "issn", "pmid"];

/// Words that name a thing.
pub struct Names {
    /// Beginnings of words.
    begin: &'static [&'static str],
    /// Parts that match anywhere.
    parts: &'static [&'static str],
}

/// How far before and after a number a word may be, in words and in bytes. Text that is not ASCII gets twice as many bytes.
const WORDS_BEFORE: usize = 6;
const BYTES_BEFORE: usize = 48;
const BYTES_AFTER: usize = 16;

/// What dotted numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// The address of a host.
    Address,
    /// The version of anything.
    Version,
    /// A section of a text or a class of a classification.
    Section,
    /// The version of a program, after its name.
    Program,
}

use Thing::{Address, Program, Section, Version};

/// Whole words in lower case, how many words before the number they may be, and what they make it.
const THINGS: &[(Thing, usize, &[&str])] = &[
    (
        Address,
        4,
        &[
            "addr",
            "address",
            "addresses",
            "adresse",
            "at",
            "bind",
            "client",
            "connect",
            "dest",
            "destination",
            "dirección",
            "dns",
            "dst",
            "gateway",
            "host",
            "hosts",
            "http",
            "https",
            "inet",
            "ip",
            "ips",
            "ipv",
            "listen",
            "localhost",
            "mask",
            "nameserver",
            "netmask",
            "node",
            "on",
            "ping",
            "port",
            "proxy",
            "remote",
            "resolver",
            "router",
            "serv",
            "server",
            "servers",
            "source",
            "src",
            "ssh",
            "subnet",
            "адрес",
            "сервер",
            "хост",
        ],
    ),
    (
        Version,
        4,
        &[
            "bios",
            "build",
            "edition",
            "firmware",
            "patch",
            "release",
            "releases",
            "rev",
            "revision",
            "sdk",
            "sürüm",
            "update",
            "updates",
            "ver",
            "verze",
            "versi",
            "versie",
            "versija",
            "version",
            "versione",
            "versiones",
            "versions",
            "versión",
            "versão",
            "verzia",
            "verzió",
            "wersja",
            "wersji",
            "έκδοση",
            "версии",
            "версию",
            "версия",
            "версія",
            "обновление",
        ],
    ),
    (
        Section,
        2,
        &[
            "abs",
            "abschnitt",
            "annex",
            "appendix",
            "art",
            "article",
            "artikel",
            "artículo",
            "capítulo",
            "ch",
            "chap",
            "chapter",
            "chapters",
            "chapitre",
            "clause",
            "clauses",
            "ec",
            "eq",
            "equation",
            "fig",
            "figure",
            "figures",
            "kapitel",
            "lemma",
            "oid",
            "par",
            "para",
            "paragraph",
            "paragraphs",
            "rozdział",
            "sec",
            "sección",
            "sect",
            "section",
            "sections",
            "seção",
            "sezione",
            "subclause",
            "subsection",
            "table",
            "tables",
            "theorem",
            "глава",
            "главы",
            "п",
            "пункт",
            "пункта",
            "раздел",
            "раздела",
            "разделе",
            "ст",
            "статья",
            "статьи",
        ],
    ),
    (
        Program,
        1,
        &[
            "acrobat",
            "air",
            "android",
            "chrome",
            "chromium",
            "clang",
            "coldfusion",
            "cudnn",
            "directx",
            "edge",
            "explorer",
            "firefox",
            "flash",
            "framework",
            "gcc",
            "gecko",
            "ie",
            "internet explorer",
            "ios",
            "itunes",
            "java",
            "jdk",
            "jre",
            "macos",
            "msie",
            "mysql",
            "net",
            "nginx",
            "office",
            "opera",
            "oracle",
            "php",
            "player",
            "postgresql",
            "powershell",
            "python",
            "quicktime",
            "reader",
            "safari",
            "shockwave",
            "silverlight",
            "skype",
            "tensorrt",
            "unity",
            "webkit",
            "weblogic",
            "websphere",
            "windows",
        ],
    ),
];
/// The same for scripts that do not separate words. The last one before the number counts.
const THING_PARTS: &[(Thing, &[&str])] = &[
    (
        Address,
        &[
            "地址",
            "服务器",
            "伺服器",
            "主机",
            "主機",
            "网关",
            "アドレス",
            "サーバ",
            "ホスト",
            "주소",
            "서버",
            "호스트",
            "ที่อยู่",
            "เซิร์ฟเวอร์",
            "عنوان",
            "خادم",
            "כתובת",
            "שרת",
            "पता",
            "सर्वर",
            "آدرس",
            "سرور",
        ],
    ),
    (
        Version,
        &[
            "版本",
            "固件",
            "ヴァージョン",
            "バージョン",
            "버전",
            "เวอร์ชัน",
            "รุ่น",
            "إصدار",
            "اصدار",
            "نسخه",
            "גרסה",
            "संस्करण",
            "ვერსია",
            "កំណែ",
            "ဗားရှင်း",
        ],
    ),
    (Section, &["第", "章节", "제", "קטע", "سעיף", "סעיף", "المادة", "अनुभाग", "धारा", "หัวข้อ"]),
];
/// Words after the numbers that make them a version or a section.
const VERSION_AFTER: &[&str] = &[
    "alpha", "beta", "build", "edition", "firmware", "rc", "release", "releases", "sdk", "update", "version",
    "versions",
];
const VERSION_PARTS_AFTER: &[&str] =
    &["版", "章", "节", "節", "条", "條", "項", "项", "バージョン", "버전", "절", "조"];

/// What the words before `start` in the same sentence say the numbers are. The nearest word counts.
pub fn context(text: &str, start: usize) -> Option<Thing> {
    let window = window_before(text, start, BYTES_BEFORE);
    let sentence = window.rsplit(['\n', '。', '!', '?', '；']).next().unwrap_or(window);
    let sentence =
        sentence.rfind(". ").filter(|&stop| !ends_short(&sentence[..stop])).map_or(sentence, |at| &sentence[at + 2..]);
    let near = sentence.trim_end_matches([' ', '\u{A0}', '.', ':']);
    if near.ends_with('§') {
        return Some(Section);
    }
    if near.strip_suffix(['v', 'V']).is_some_and(|rest| rest.is_empty() || rest.ends_with([' ', '(', '\t'])) {
        return Some(Version);
    }
    let by_part = || {
        let last = |parts: &[&str]| parts.iter().filter_map(|part| sentence.rfind(part)).max();
        let found = THING_PARTS.iter().filter_map(|(thing, parts)| last(parts).map(|at| (at, *thing)));
        found.max_by_key(|(at, _)| *at).map(|(_, thing)| thing)
    };
    let by_word = || {
        words(sentence).rev().take(4).enumerate().find_map(|(index, word)| {
            let lower = word.to_lowercase();
            // a program's version directly follows its name
            let is_it = |(thing, reach, names): &&(Thing, usize, &[&str])| {
                index < *reach && names.contains(&lower.as_str()) && (*thing != Program || near.ends_with(word))
            };
            THINGS.iter().find(is_it).map(|(thing, ..)| *thing)
        })
    };
    by_word().or_else(|| if sentence.is_ascii() { None } else { by_part() })
}

/// Whether a dot after the text ends an abbreviation, as in "Sec. 3".
fn ends_short(text: &str) -> bool {
    words(text).next_back().is_some_and(|word| text.ends_with(word) && word.chars().count() <= 4)
}

/// What the word directly after `end` says the numbers are.
pub fn next_word(text: &str, end: usize) -> Option<Thing> {
    let rest = window_after(text, end).trim_start_matches(' ');
    let is_version = words(rest)
        .next()
        .is_some_and(|word| rest.starts_with(word) && VERSION_AFTER.iter().any(|name| name.eq_ignore_ascii_case(word)));
    (is_version || VERSION_PARTS_AFTER.iter().any(|part| rest.starts_with(part))).then_some(Version)
}

/// Words that begin so and are another thing.
const NOT_MEANT: &[&str] =
    &["calling", "tell", "telling", "tells", "cells", "cellar", "cello", "fond", "mobility", "rings"];

/// Whether one of the words before `start`, or the next one after `end`, is one of `names`.
pub fn is_named(text: &str, start: usize, end: usize, names: &Names) -> bool {
    is_before(text, start, names.begin)
        || is_after(text, end, names.begin)
        || has_part(window_before(text, start, BYTES_BEFORE), names.parts)
        || has_part(window_after(text, end), names.parts)
}

/// Whether a word before `start` says that the number is that of a telephone.
pub fn is_phone_before(text: &str, start: usize) -> bool {
    static PARTS: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(PHONE_PARTS).ok());
    let has_part = || {
        let window = window_before(text, start, BYTES_BEFORE);
        !window.is_ascii() && PARTS.as_ref().is_some_and(|parts| parts.is_match(window))
    };
    is_before(text, start, PHONE) || has_part()
}

/// The same of the next word after `end`.
pub fn is_phone_after(text: &str, end: usize) -> bool {
    is_after(text, end, PHONE_AFTER)
}

/// Whether a word before `start` says that the number is that of a book, an article or a page.
pub fn is_other_number(text: &str, start: usize) -> bool {
    is_before(text, start, OTHER_NUMBERS)
}

fn is_before(text: &str, start: usize, names: &[&str]) -> bool {
    let window = window_before(text, start, BYTES_BEFORE);
    has_letters(window) && words(window).rev().take(WORDS_BEFORE).any(|word| begins_with_any(word, names))
}

fn is_after(text: &str, end: usize, names: &[&str]) -> bool {
    let window = window_after(text, end);
    has_letters(window) && words(window).next().is_some_and(|word| begins_with_any(word, names))
}

fn has_part(window: &str, parts: &[&str]) -> bool {
    !window.is_ascii() && parts.iter().any(|part| window.contains(part))
}

/// The text before `start`, with twice as many bytes if it is not ASCII.
fn window_before(text: &str, start: usize, bytes: usize) -> &str {
    let from = |bytes: usize| {
        let mut from = start.saturating_sub(bytes);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        &text[from..start]
    };
    let near = from(bytes);
    if near.is_ascii() {
        near
    } else {
        from(2 * bytes)
    }
}

fn window_after(text: &str, end: usize) -> &str {
    let mut to = (end + BYTES_AFTER).min(text.len());
    while !text.is_char_boundary(to) {
        to -= 1;
    }
    &text[end..to]
}

/// Tables of numbers have none, and should be passed over quickly.
fn has_letters(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_alphabetic() || byte >= 0x80)
}

/// Words of scripts that separate them. Letters of other scripts separate them too.
fn words(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    let is_part = |character: char| match letters(character) {
        Some(Letters::Latin) => !character.is_ascii_digit(),
        Some(Letters::Spaced(_) | Letters::Mark) => true,
        Some(Letters::Unspaced(_)) | None => false,
    };
    text.split(move |character: char| !is_part(character)).filter(|word| !word.is_empty())
}

fn begins_with_any(word: &str, names: &[&str]) -> bool {
    if word.is_ascii() {
        let begins = |name: &&str| word.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        return names.iter().any(begins) && !NOT_MEANT.iter().any(|name| name.eq_ignore_ascii_case(word));
    }
    names.iter().any(|name| {
        let mut lower = word.chars().flat_map(char::to_lowercase);
        name.chars().all(|expected| lower.next() == Some(expected))
    })
}
