//! The lists of dolma 1.2.1: their names, kinds, and where it has them from.

use super::ListKind;

/// One tagger: name, description, kind of list, URLs.
pub struct Source {
    /// Of the tagger.
    pub name: &'static str,
    /// One line.
    pub description: &'static str,
    /// How the list is written and compared.
    pub kind: ListKind,
    /// All of them are read.
    pub urls: &'static [&'static str],
}

macro_rules! at {
    ($folder:literal: $($file:literal),+ $(,)?) => {
        &[$(concat!("https://dolma-artifacts.org/", $folder, "/", $file)),+]
    };
}

/// Sorted by name.
pub static SOURCES: &[Source] = &[
    Source {
        name: "allowlist_wikidata_cleaned_v1",
        description: "address of a periodical or website that Wikidata knows, without the doubtful ones",
        kind: ListKind::WikidataCleaned,
        urls: at!("wikidata/wikidata-20220208": "periodical-Q1002697/response.json", "website-Q35127/response.json"),
    },
    Source {
        name: "allowlist_wikidata_v1",
        description: "address of a periodical or website that Wikidata knows",
        kind: ListKind::Wikidata,
        urls: at!("wikidata/wikidata-20220208": "periodical-Q1002697/response.json", "website-Q35127/response.json"),
    },
    Source {
        name: "blocklist_firebog_ads_v1",
        description: "address of a host on the lists of Firebog (ads)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "ads/blue/hosts.txt", "ads/green/AdguardDNS.txt", "ads/green/Admiral.txt", "ads/green/adservers.txt", "ads/green/Easylist-2.txt", "ads/green/hosts-2.txt", "ads/green/hosts-3.txt", "ads/green/hosts.txt", "ads/green/serverlist.txt", "ads/green/simple_ad.txt"),
    },
    Source {
        name: "blocklist_firebog_crypto_v1",
        description: "address of a host on the lists of Firebog (crypto)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "crypto/green/hosts_browser.txt"),
    },
    Source {
        name: "blocklist_firebog_malicious_v1",
        description: "address of a host on the lists of Firebog (malicious)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "malicious/blue/phishing-filter-hosts.txt", "malicious/blue/Prigent-Malware.txt", "malicious/green/AntiMalwareHosts.txt", "malicious/green/hostfile.txt", "malicious/green/hosts-2.txt", "malicious/green/hosts.txt", "malicious/green/latestdomains.txt", "malicious/green/main-blacklist.txt", "malicious/green/Mandiant_APT1_Report_Appendix_D.txt", "malicious/green/notrack-malware.txt", "malicious/green/phishing_army_blocklist_extended.txt", "malicious/green/Prigent-Crypto.txt", "malicious/green/RPiList-Malware.txt", "malicious/green/RPiList-Phishing.txt", "malicious/green/simple_malvertising.txt"),
    },
    Source {
        name: "blocklist_firebog_nsfw_v1",
        description: "address of a host on the lists of Firebog (nsfw)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "nsfw/blue/pi_blocklist_porn_top1m.list.txt", "nsfw/blue/Prigent-Adult.txt"),
    },
    Source {
        name: "blocklist_firebog_social_v1",
        description: "address of a host on the lists of Firebog (social)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "social/blue/facebook.txt"),
    },
    Source {
        name: "blocklist_firebog_suspicious_v1",
        description: "address of a host on the lists of Firebog (suspicious)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "suspicious/blue/hosts-2.txt", "suspicious/blue/hosts-3.txt", "suspicious/blue/hosts-4.txt", "suspicious/blue/hosts-file.txt", "suspicious/blue/neohostsbasic.txt", "suspicious/blue/SNAFU.txt", "suspicious/blue/spammers.txt", "suspicious/green/hosts.txt", "suspicious/green/KADhosts.txt", "suspicious/green/w3kbl.txt"),
    },
    Source {
        name: "blocklist_firebog_trackers_v1",
        description: "address of a host on the lists of Firebog (trackers)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_firebog/blocklist_firebog-20240208": "trackers/blue/ads-and-tracking-extended.txt", "trackers/blue/AmazonFireTV.txt", "trackers/blue/android-tracking.txt", "trackers/blue/notrack-blocklist.txt", "trackers/blue/SmartTV.txt", "trackers/green/Easyprivacy.txt", "trackers/green/firstparty-trackers-hosts.txt", "trackers/green/hosts.txt", "trackers/green/Prigent-Ads.txt", "trackers/green/spy.txt"),
    },
    Source {
        name: "blocklist_hosts_adware_malware_v1",
        description: "address of a host on the lists of Steven Black's hosts (adware malware)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_hosts/blocklist_hosts-20240208": "adware_malware.txt"),
    },
    Source {
        name: "blocklist_hosts_fakenews_v1",
        description: "address of a host on the lists of Steven Black's hosts (fakenews)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_hosts/blocklist_hosts-20240208": "fakenews.txt"),
    },
    Source {
        name: "blocklist_hosts_gambling_v1",
        description: "address of a host on the lists of Steven Black's hosts (gambling)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_hosts/blocklist_hosts-20240208": "gambling.txt"),
    },
    Source {
        name: "blocklist_hosts_porn_v1",
        description: "address of a host on the lists of Steven Black's hosts (porn)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_hosts/blocklist_hosts-20240208": "porn.txt"),
    },
    Source {
        name: "blocklist_hosts_social_v1",
        description: "address of a host on the lists of Steven Black's hosts (social)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_hosts/blocklist_hosts-20240208": "social.txt"),
    },
    Source {
        name: "blocklist_project_ads_v1",
        description: "address of a host on the lists of The Block List Project (ads)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_project/blocklist_project-20240207": "adobe.txt", "ads.txt", "basic.txt", "smart-tv.txt", "tracking.txt"),
    },
    Source {
        name: "blocklist_project_crime_v1",
        description: "address of a host on the lists of The Block List Project (crime)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_project/blocklist_project-20240207": "abuse.txt", "fraud.txt", "malware.txt", "phishing.txt", "piracy.txt", "ransomware.txt", "scam.txt", "redirect.txt"),
    },
    Source {
        name: "blocklist_project_nsfw_v1",
        description: "address of a host on the lists of The Block List Project (nsfw)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_project/blocklist_project-20240207": "porn.txt"),
    },
    Source {
        name: "blocklist_project_social_v1",
        description: "address of a host on the lists of The Block List Project (social)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_project/blocklist_project-20240207": "facebook.txt", "fortnite.txt", "tiktok.txt", "twitter.txt", "whatsapp.txt", "youtube.txt"),
    },
    Source {
        name: "blocklist_project_vice_v1",
        description: "address of a host on the lists of The Block List Project (vice)",
        kind: ListKind::Hosts,
        urls: at!("blocklist_project/blocklist_project-20240207": "crypto.txt", "drugs.txt", "gambling.txt", "vaping.txt"),
    },
    Source {
        name: "brave_core_abp_v1",
        description: "address that a filter of Brave (core) stops",
        kind: ListKind::Filters,
        urls: at!("blocklist_brave/blocklist_brave-20240206": "brave_ad_block_first_party_filters.txt", "brave_ad_block_updater.txt"),
    },
    Source {
        name: "brave_nsfw_abp_v1",
        description: "address that a filter of Brave (nsfw) stops",
        kind: ListKind::Filters,
        urls: at!("blocklist_brave/blocklist_brave-20240206": "blocklists_anti_porn.txt"),
    },
    Source {
        name: "domain_blocklist_phishing_v1",
        description: "address of a host on the Phishing Database's list",
        kind: ListKind::Hosts,
        urls: at!("blocklist_phishing_db/blocklist_phishing_db-20240205": "domains.txt.gz"),
    },
    Source {
        name: "domain_blocklist_utp_v1",
        description: "address of a host on the adult list of the Université Toulouse Capitole",
        kind: ListKind::Hosts,
        urls: at!("blocklist_utp/blocklist_utp-20240205": "adult/domains"),
    },
    Source {
        name: "link_blocklist_phishing_v1",
        description: "address on the Phishing Database's list",
        kind: ListKind::Addresses,
        urls: at!("blocklist_phishing_db/blocklist_phishing_db-20240205": "domains.txt.gz"),
    },
    Source {
        name: "oisd_big_abp_v1",
        description: "address that a filter of OISD (big) stops",
        kind: ListKind::Filters,
        urls: at!("blocklist_oisd/blocklist_oisd-20240205": "oisd_big_abp.txt.gz"),
    },
    Source {
        name: "oisd_nsfw_abp_v1",
        description: "address that a filter of OISD (nsfw) stops",
        kind: ListKind::Filters,
        urls: at!("blocklist_oisd/blocklist_oisd-20240205": "oisd_nsfw_abp.txt.gz"),
    },
    Source {
        name: "oisd_small_abp_v1",
        description: "address that a filter of OISD (small) stops",
        kind: ListKind::Filters,
        urls: at!("blocklist_oisd/blocklist_oisd-20240205": "oisd_small_abp.txt.gz"),
    },
];
