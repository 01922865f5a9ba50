use std::collections::VecDeque;
use std::fs;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_128;

use super::*;
use crate::error::{Code, Error};

fn key(number: u64) -> u128 {
    xxh3_128(&number.to_le_bytes())
}

fn filter(keys: u64, rate: f64) -> Filter {
    let filter = Filter::new(Sizing::for_keys(keys, rate), Record::default());
    for number in 0..keys {
        filter.insert(key(number));
    }
    filter
}

#[test]
fn the_measured_rate_is_the_one_that_was_asked_for() {
    // few keys leave blocks less uneven than the formula assumes, so only many come close to the rate
    for (keys, rate, least) in [(60_000, 0.1, 0.9), (60_000, 0.01, 0.9), (60_000, 1e-3, 0.8), (300, 0.01, 0.0)] {
        let filter = filter(keys, rate);
        assert!((0..keys).all(|number| filter.contains(key(number))));
        let asked = 400_000;
        let wrong = (1 << 32..(1 << 32) + asked).filter(|number| filter.contains(key(*number))).count();
        let measured = wrong as f64 / asked as f64;
        let deviation = (rate / asked as f64).sqrt();
        assert!(measured < rate + 4.0 * deviation, "asked {rate}, got {measured}");
        assert!(measured > rate * least - 4.0 * deviation, "asked {rate}, got {measured}: the filter is too large");
    }
}

/// At lower rates nothing would be counted with keys that were never seen. A block answers by the same rule however full it
/// is, so the rate of fuller filters shows that the formula holds.
#[test]
fn the_rate_of_a_fuller_filter_is_as_calculated() {
    for (rate, fuller) in [(1e-5, 3), (1e-6, 3), (1e-9, 5), (1e-15, 6)] {
        let sizing = Sizing::for_keys(10_000, rate);
        let filter = Filter::new(sizing, Record::default());
        for number in 0..10_000 * fuller {
            filter.insert(key(number));
        }
        let asked = 200_000;
        let wrong = (1 << 32..(1 << 32) + asked).filter(|number| filter.contains(key(*number))).count();
        let measured = wrong as f64 / asked as f64;
        let expected = filter.false_positive_rate();
        assert!((0.9..1.1).contains(&(measured / expected)), "{sizing:?}: expected {expected}, got {measured}");
    }
}

#[test]
fn sizes_are_bounded_and_close_to_the_optimum() {
    let bits_per_key = |rate| {
        let sizing = Sizing::for_keys(1_000_000, rate);
        assert!(sizing.false_positive_rate(1_000_000) <= rate, "{sizing:?}");
        assert!(sizing.max_keys(rate) >= 1_000_000 && sizing.max_keys(rate) < 1_001_000, "{sizing:?}");
        (sizing.blocks as f64 * 512.0 / 1e6, sizing.blocks_per_key, sizing.positions)
    };
    // without blocks the least is 1.44 · log2(1/p): 9.6, 24, 29, 43, 58 and 72
    for (rate, most, shape) in [
        (0.01, 10.2, (1, 5)),
        (1e-5, 31.4, (1, 10)),
        (1e-6, 33.7, (2, 6)),
        (1e-9, 54.6, (2, 9)),
        (1e-12, 70.6, (3, 8)),
        (1e-15, 94.1, (3, 10)),
    ] {
        let (bits, blocks_per_key, positions) = bits_per_key(rate);
        assert!(bits <= most, "{rate}: {bits}");
        assert_eq!((blocks_per_key, positions), shape, "{rate}");
    }
    let tiny = Sizing::for_keys(100, 1e-30);
    assert!(tiny.blocks_per_key == 4 && tiny.false_positive_rate(100) <= 1e-30 && tiny.size_bytes() < 10_000);
    assert_eq!(Sizing::for_keys(0, 0.5), Sizing { blocks: 1, blocks_per_key: 1, positions: 2 });
    let of_size = |keys, rate| Sizing::for_size(1 << 20, keys, rate);
    assert!(of_size(100, 0.0).false_positive_rate(100) < 1e-30);
    assert!(of_size(1_000_000, 0.0).false_positive_rate(1_000_000) < 0.03);
    assert!(of_size(300_000, 0.0).false_positive_rate(300_000) < 3e-5);
    assert_eq!(of_size(0, 1e-5), Sizing { blocks: 1 << 14, blocks_per_key: 1, positions: 10 });
    assert_eq!(Sizing::for_size(0, 0, 0.0), Sizing { blocks: 1, blocks_per_key: 1, positions: 8 });
}

#[test]
fn a_filter_counts_new_keys() {
    let filter = Filter::new(Sizing::for_keys(1000, 1e-9), Record::default());
    assert!(!filter.insert(key(1)));
    assert!(!filter.contains(key(2)));
    assert!(filter.insert(key(1)));
    assert_eq!(filter.keys(), 1);
}

fn contents(filter: &Filter) -> (u64, u64, Vec<u64>) {
    let words = filter.words().iter().map(|word| word.load(Ordering::Relaxed)).collect();
    (filter.size_bytes(), filter.keys(), words)
}

#[test]
fn a_file_gives_the_filter_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/a.bin");
    let mut filter = filter(5000, 1e-4);
    filter.record.runs.push(Run {
        run: "r".into(),
        partition: "0/1".into(),
        before: None,
        inputs: vec![RunInput { path: "x/documents/a.gz".into(), sha256: "00".into() }],
    });
    write(&filter, &path).unwrap();
    let AnyFilter::Current(read) = read(&path).unwrap() else { panic!() };
    assert_eq!(contents(&read), contents(&filter));
    assert_eq!(read.record, filter.record);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn damage_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    write(&filter(50, 1e-4), &path).unwrap();
    let whole = fs::read(&path).unwrap();
    let code = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match read(&path) {
            Err(Error::Format(error)) => Some(error.code),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    };
    assert_eq!(code(&whole), None);
    for length in 0..whole.len() {
        assert_eq!(code(&whole[..length]), Some(Code::Truncated), "{length}");
    }
    for index in 0..whole.len() {
        // bytes 12 to 16 are reserved, but the checksum covers them too
        let mut bytes = whole.clone();
        bytes[index] ^= 0x40;
        assert!(code(&bytes).is_some(), "a change of byte {index} was not found");
    }
    assert_eq!(code(&[whole.clone(), vec![0]].concat()), Some(Code::ChecksumMismatch));
    assert_eq!(code(b"not a filter at all"), Some(Code::UnknownFormat));
}

/// The hash of the published wheels, on keys that dolma 1.2.1 was given; see tests/legacy_filter.bin.
#[test]
fn a_filter_of_dolma_1_answers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/legacy_filter.bin");
    let AnyFilter::Legacy(filter) = read(&path).unwrap() else { panic!() };
    for text in ["hello world", "a paragraph", "zwölf Boxkämpfer"] {
        assert!(filter.contains(&VecDeque::from([text])), "{text}");
    }
    for text in ["hello", "another paragraph", "never seen"] {
        assert!(!filter.contains(&VecDeque::from([text])), "{text}");
    }
}

/// Made by the release before version 3 from a thousand documents, for a thousand keys at 10⁻⁴.
#[test]
fn a_filter_of_version_2_is_read_and_extended() {
    let text_key = |number: u64| xxh3_128(format!("document {number}").as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filter_v2.bin");
    let path = folder.path().join("again.bin");
    let AnyFilter::Current(filter) = read(&old).unwrap() else { panic!() };
    assert!((0..1000).all(|number| filter.contains(text_key(number))));
    assert!((1000..11_000).filter(|number| filter.contains(text_key(*number))).count() < 5);
    assert!(!filter.has_rolled_ngrams() && filter.keys() == 1000);
    assert!(filter.false_positive_rate() <= 1e-4 && (1000..1010).contains(&filter.max_keys(1e-4)));
    write(&filter, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&old).unwrap());
    assert!(!filter.insert(text_key(5000)));
    write(&filter, &path).unwrap();
    let AnyFilter::Current(filter) = read(&path).unwrap() else { panic!() };
    assert!(filter.contains(text_key(5000)) && filter.keys() == 1001 && !filter.has_rolled_ngrams());
}

#[test]
fn a_group_is_asked_before_it_is_inserted() {
    let filter = filter(0, 1e-9);
    let mut questions = Questions::default();
    for group in [&[1, 1, 2][..], &[2], &[], &[3, 2, 1, 3]] {
        group.iter().for_each(|number| questions.push(key(*number)));
        questions.end_group();
    }
    let mut seen = vec![false; questions.len()];
    filter.ask(&questions, &mut seen);
    assert!(!seen.contains(&true));
    filter.decide(&questions, &mut seen);
    assert_eq!(seen, [false, false, false, true, false, true, true, false]);
    assert_eq!(filter.keys(), 3);
    filter.ask(&questions, &mut seen);
    assert!(!seen.contains(&false));
}

fn sizings() -> impl Strategy<Value = Sizing> {
    (1u64..20, 1u32..=4, 1u32..=14).prop_map(|(blocks, blocks_per_key, positions)| Sizing {
        blocks,
        blocks_per_key,
        positions,
    })
}

proptest! {
    #[test]
    fn positions_are_within_the_filter(key in any::<u128>(), words in 1u64..100, hashes in 1u32..=32) {
        let mut count = 0;
        for (word, bit) in scattered::positions(key, words, hashes) {
            prop_assert!(word < words as usize && bit.is_power_of_two());
            count += 1;
        }
        prop_assert_eq!(count, hashes);
    }

    #[test]
    fn nothing_that_was_inserted_is_forgotten(keys in prop::collection::vec(any::<u128>(), 0..200), sizing in sizings()) {
        let filter = Filter::new(sizing, Record::default());
        for key in &keys {
            filter.insert(*key);
        }
        prop_assert!(keys.iter().all(|key| filter.contains(*key)));
    }

    #[test]
    fn what_is_known_before_changes_no_answer(
        groups in prop::collection::vec(prop::collection::vec(0u64..40, 0..6), 0..20), asked_at in 0usize..20, sizing in sizings(),
    ) {
        let ask = |groups: &[Vec<u64>]| {
            let mut questions = Questions::default();
            for group in groups {
                group.iter().for_each(|number| questions.push(key(*number)));
                questions.end_group();
            }
            questions
        };
        let one_by_one = Filter::new(sizing, Record::default());
        let mut expected = Vec::new();
        for group in &groups {
            expected.extend(group.iter().map(|number| one_by_one.contains(key(*number))));
            for number in group {
                one_by_one.insert(key(*number));
            }
        }
        let (earlier, later) = groups.split_at(asked_at.min(groups.len()));
        let filter = Filter::new(sizing, Record::default());
        let mut seen = vec![false; earlier.concat().len()];
        filter.decide(&ask(earlier), &mut seen);
        let mut seen_later = vec![false; later.concat().len()];
        filter.ask(&ask(later), &mut seen_later);
        filter.decide(&ask(later), &mut seen_later);
        prop_assert_eq!([seen, seen_later].concat(), expected);
        prop_assert_eq!(contents(&filter), contents(&one_by_one));
    }
}
