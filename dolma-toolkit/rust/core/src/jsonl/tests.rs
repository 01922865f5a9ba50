use super::*;

const NAMES: [&str; 5] = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2", "a.jsonl.xz"];

fn write(path: &Path, lines: usize) -> Written {
    let mut writer = AtomicWriter::create(path).unwrap();
    for line in 0..lines {
        writer.put(format!("{{\"id\":\"{line}\",\"text\":\"{}\"}}\n", line * 7919).as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(path: &Path) -> Result<Vec<String>> {
    let mut reader = LineReader::open(path)?;
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line()? {
        lines.push(String::from_utf8(line.to_vec()).unwrap());
    }
    Ok(lines)
}

#[test]
fn every_compression_round_trips_and_repeats_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = folder.path().join(name);
        let first = write(&path, 5000);
        assert_eq!(first.size_bytes, fs::metadata(&path).unwrap().len());
        assert_eq!(read(&path).unwrap().len(), 5000, "{name}");
        assert_eq!(first, write(&path, 5000), "{name}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), NAMES.len(), "a temporary file is left");
}

#[test]
fn several_members_are_read_in_full() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = folder.path().join(name);
        write(&path, 10);
        let twice = [fs::read(&path).unwrap(), fs::read(&path).unwrap()].concat();
        fs::write(&path, twice).unwrap();
        assert_eq!(read(&path).unwrap().len(), 20, "{name}");
    }
}

#[test]
fn a_compressed_file_that_ends_early_is_truncated_wherever_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    for name in &NAMES[1..] {
        let path = folder.path().join(name);
        write(&path, 50);
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            fs::write(&path, &whole[..length]).unwrap();
            match read(&path) {
                Err(Error::Format(error)) => {
                    assert_eq!(error.code, Code::Truncated, "{name} at {length}: {error}")
                }
                other => panic!("{name} at {length} of {}: {other:?}", whole.len()),
            }
        }
    }
}

#[test]
fn a_damaged_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in &NAMES[1..] {
        let path = folder.path().join(name);
        fs::write(&path, b"{\"id\":\"1\",\"text\":\"not compressed at all, though its name says so\"}\n").unwrap();
        assert!(matches!(read(&path), Err(Error::Format(_))), "{name}");
    }
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = AtomicWriter::create(&folder.path().join("a.gz")).unwrap();
    writer.put(b"x").unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_is_hashed_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in NAMES {
        let path = folder.path().join(name);
        let written = write(&path, 5000);
        let mut reader = LineReader::open_hashing(&path, name, Compression::of(&path), None).unwrap();
        while reader.next_line().unwrap().is_some() {}
        assert_eq!(reader.written(), Some(written), "{name}");
        let mut silent = LineReader::open(&path).unwrap();
        while silent.next_line().unwrap().is_some() {}
        assert_eq!(silent.written(), None, "{name}");
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for change in [-1_i64, 1] {
        let path = folder.path().join("a.jsonl");
        write(&path, 50_000);
        let size_bytes = fs::metadata(&path).unwrap().len();
        let mut reader = LineReader::open(&path).unwrap();
        reader.next_line().unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(size_bytes.saturating_add_signed(change * size_bytes as i64 / 2)).unwrap();
        let error = loop {
            match reader.next_line() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the end of a file that changed"),
                Err(error) => break error,
            }
        };
        assert!(error.to_string().contains("a.jsonl: the file changed while it was read"), "{error}");
    }
}
