//! Lists of hosts and addresses: plain, in the form of `/etc/hosts`, as `||host^`, and Wikidata's answers.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashSet;
use serde::Deserialize;

use super::address::{without_www, Address};

/// What dolma 1.2.1 drops from Wikidata's list by the words of its descriptions; it defines the rule and never asks it.
const DOUBTFUL_WORDS: &[&str] = &[
    "sex",
    "adult",
    "satire",
    "gossip",
    "tabloid",
    "tracker",
    "dating",
    "image",
    "humor",
    "joke",
    "comedy",
    "porn",
    "social media",
    "freemium",
    "betting",
    "casino",
    "gambling",
    "celebrity",
    "4chan",
    "camming",
    "escort",
    "hentai",
    "nudity",
    "crowdfunding",
    "comic",
    "online database",
    "company",
    "website",
];
const DOUBTFUL_ENDS: &[&str] = &[".xxx", ".adult", ".sex", ".porn", ".sexy", ".dating", ".cam", ".tube", ".chat"];

/// Hosts or addresses, in the form in which they are compared.
pub type Entries = FxHashSet<String>;

/// Takes the hosts of one line, without a first label `www`. Comments and what is not a host give nothing.
pub fn add_hosts(line: &str, entries: &mut Entries) {
    let line = line.trim().to_lowercase();
    if line.is_empty() || line.starts_with(['#', ';', '!', '[']) {
        return;
    }
    let mut words = line.split_whitespace();
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    if let Some(filter) = first.strip_prefix("||").or_else(|| first.strip_prefix('|')) {
        if let Some((host, _)) = filter.split_once('^') {
            add_host(host, entries);
        }
        return;
    }
    match second {
        Some(host) if is_address(first) => {
            add_host(first, entries);
            add_host(host, entries);
        }
        // a line of two words whose first is not an address is a host and a remark
        _ => add_host(first, entries),
    }
}

fn add_host(place: &str, entries: &mut Entries) {
    let host = match is_address(place) {
        true => place.to_owned(),
        false => match Address::parse(place) {
            Some(address) => address.host,
            None => return,
        },
    };
    let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte));
    if is_name && host.len() > 1 && !is_this_machine(&host) {
        entries.insert(without_www(&host).to_owned());
    }
}

fn is_address(word: &str) -> bool {
    word.parse::<Ipv4Addr>().is_ok() || word.parse::<Ipv6Addr>().is_ok()
}

/// Names and addresses that a list of hosts sends others to, and does not list itself.
fn is_this_machine(host: &str) -> bool {
    matches!(host, "localhost" | "localdomain" | "localhost.localdomain" | "local" | "broadcasthost")
        || host.starts_with("ip6-")
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback() || address.is_unspecified() || address.is_broadcast())
        || host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// Takes one address, as it is.
pub fn add_address(line: &str, entries: &mut Entries) {
    let line = line.trim().to_lowercase();
    if !line.is_empty() && !line.starts_with('#') {
        entries.insert(line);
    }
}

#[derive(Deserialize)]
struct Entity {
    url: Option<String>,
    description: Option<String>,
}

/// Takes one answer of Wikidata, an array of objects with `url` and `description`; whether it is one.
pub fn add_wikidata(line: &str, only_sound: bool, entries: &mut Entries) -> bool {
    if line.trim().is_empty() {
        return true;
    }
    let Ok(entities) = serde_json::from_str::<Vec<Entity>>(line) else { return false };
    for entity in entities {
        let Some(url) = entity.url else { continue };
        let is_sound = entity.description.is_some_and(|description| {
            let description = description.to_lowercase();
            !DOUBTFUL_WORDS.iter().any(|word| description.contains(word))
                && !DOUBTFUL_ENDS.iter().any(|end| url.contains(end))
        });
        if only_sound && !is_sound {
            continue;
        }
        if let Some(address) = Address::parse(&url) {
            entries.extend(with_base(address.bare_host()).map(str::to_owned));
        }
    }
    true
}

/// A host, and its last two labels where it has more: as dolma 1.2.1, which takes `co.uk` for the base of `bbc.co.uk`.
pub fn with_base(host: &str) -> impl Iterator<Item = &str> {
    let base = host.rmatch_indices('.').nth(1).map(|(at, _)| &host[at + 1..]);
    std::iter::once(host).chain(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &str) -> Vec<String> {
        let mut entries = Entries::default();
        list.lines().for_each(|line| add_hosts(line, &mut entries));
        let mut entries: Vec<String> = entries.into_iter().collect();
        entries.sort();
        entries
    }

    #[test]
    fn every_form_of_a_list_is_read() {
        let list = "# hosts\n0.0.0.0 ads.example\n127.0.0.1\tlocalhost\n::1 ip6-localhost\n10.1.2.3 www.Named.example # x\n\
                    plain.example\nhttps://full.example/path?x\n||filter.example^$third-party\n@@||no.example^\n*.no.example\n\
                    ; remark\n! remark\n9.9.9.9\n0.0.0.0 0.0.0.0\n";
        let expected =
            ["10.1.2.3", "9.9.9.9", "ads.example", "filter.example", "full.example", "named.example", "plain.example"];
        assert_eq!(hosts(list), expected);
    }

    #[test]
    fn wikidata_gives_hosts_and_their_bases() {
        let answer = r#"[{"url":"https://www.news.example.org/x","description":"daily newspaper"},
            {"url":"https://fun.example","description":"satire paper"},{"url":null,"description":"x"}]"#;
        let mut all = Entries::default();
        assert!(add_wikidata(&answer.replace('\n', ""), false, &mut all));
        assert!(all.contains("news.example.org") && all.contains("example.org") && all.contains("fun.example"));
        let mut sound = Entries::default();
        add_wikidata(&answer.replace('\n', ""), true, &mut sound);
        assert!(sound.contains("example.org") && !sound.contains("fun.example"));
        assert!(!add_wikidata("{}", false, &mut sound));
    }
}
