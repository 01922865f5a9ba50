//! Records of an archive (WARC, ARC), one after the other. What is damaged costs its record, and no other.
//!
//! WARC: <https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/>. ARC:
//! <https://archive.org/web/researcher/ArcFileFormat.php>.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::members::Members;
use super::reason::{Problem, Reason};

/// Of all header lines of a record.
const MAX_HEADER_BYTES: u64 = 1 << 16;

/// The header lines of a record or of an HTTP message. Names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Takes a line; one that begins with white space goes on with the one before.
    pub fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = self.0.last_mut() {
                *value = format!("{value} {}", line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            self.0.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }

    /// Sets a value.
    pub fn put(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }
}

/// What kind of archive it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Warc,
    Arc,
}

/// A record.
#[derive(Debug)]
pub struct Record {
    /// Where it begins in the stored file, as fastwarc's `stream_pos`.
    pub offset: u64,
    /// Those of an ARC record have the names of WARC.
    pub headers: Headers,
    /// Its content.
    pub block: Vec<u8>,
}

impl Record {
    /// Whether it is of this type.
    pub fn is(&self, kind: &str) -> bool {
        self.headers.get("WARC-Type").is_some_and(|found| found.eq_ignore_ascii_case(kind))
    }
}

/// Reads records of the types that may become documents, and passes over the others.
pub struct Records {
    path: PathBuf,
    input: BufReader<Members>,
    kind: Kind,
    max_bytes: u64,
    /// bytes of the member that were taken, and where it began
    taken: u64,
    member: u64,
    ended: bool,
}

/// What comes next in an archive.
#[derive(Debug)]
pub enum Next {
    Record(Record),
    /// A record of a type that nobody wants.
    Passed,
    /// A record that cannot be used.
    Bad(Problem),
    End,
}

impl Records {
    /// Of an archive whose first bytes were looked at.
    pub fn open(path: &Path, kind: Kind, max_bytes: u64) -> io::Result<Records> {
        let members = Members::open(path)?;
        let member = members.start();
        let input = BufReader::with_capacity(1 << 16, members);
        Ok(Records { path: path.to_owned(), input, kind, max_bytes, taken: 0, member, ended: false })
    }

    /// Bytes of the file that were taken so far.
    pub fn stored_bytes(&self) -> u64 {
        self.input.get_ref().stored_bytes()
    }

    /// The next record. An error is one of the file system; damage is a [`Next::Bad`].
    pub fn next(&mut self) -> io::Result<Next> {
        if self.ended {
            return Ok(Next::End);
        }
        match self.record() {
            Ok(next) => {
                self.ended = matches!(next, Next::End);
                Ok(next)
            }
            Err(error) => match (error.kind(), self.offset()) {
                (io::ErrorKind::UnexpectedEof, at) => {
                    let message = "the file ends in the middle of a record; expected its end".to_owned();
                    self.resume(Problem { offset: at, reason: Reason::Truncated, message })
                }
                (io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other, at) => {
                    let message = format!("the packed bytes are damaged ({error}); expected gzip or zstd");
                    self.resume(Problem { offset: at, reason: Reason::Damaged, message })
                }
                _ => Err(error),
            },
        }
    }

    /// After damage: the next member that begins with a record.
    fn resume(&mut self, problem: Problem) -> io::Result<Next> {
        let path = self.path.clone();
        loop {
            self.ended = !self.input.get_mut().next_sound(&path)?;
            self.restart();
            // packed bytes may look like the start of a member by chance
            if self.ended || self.is_at_start().unwrap_or(false) {
                return Ok(Next::Bad(problem));
            }
        }
    }

    /// Forgets what was read ahead.
    fn restart(&mut self) {
        let buffered = self.input.buffer().len();
        self.input.consume(buffered);
        self.member = self.input.get_ref().start();
        self.taken = 0;
    }

    /// Of what comes next, in the stored file.
    fn offset(&self) -> u64 {
        if self.input.get_ref().are_many() {
            self.member
        } else {
            self.member + self.taken
        }
    }

    fn next_member(&mut self) -> io::Result<bool> {
        if !self.input.get_mut().next()? {
            return Ok(false);
        }
        self.member = self.input.get_ref().start();
        self.taken = 0;
        Ok(true)
    }

    fn consume(&mut self, amount: usize) {
        self.taken += amount as u64;
        self.input.consume(amount);
    }

    /// A header line, which may go on in the next member.
    fn line(&mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") && (line.len() as u64) < limit {
            let read = (&mut self.input).take(limit - line.len() as u64).read_until(b'\n', &mut line)?;
            self.taken += read as u64;
            if read == 0 && (!self.next_member()? || self.is_at_start()?) {
                break;
            }
        }
        while matches!(line.last(), Some(b'\n' | b'\r')) {
            line.pop();
        }
        Ok(line)
    }

    /// Passes over empty lines and ends of members. Says whether something follows.
    fn skip_blank(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                if !self.next_member()? {
                    return Ok(false);
                }
                continue;
            }
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let all = bytes.len();
            self.consume(blank);
            if blank < all {
                return Ok(true);
            }
        }
    }

    fn record(&mut self) -> io::Result<Next> {
        if !self.skip_blank()? {
            return Ok(Next::End);
        }
        let offset = self.offset();
        let first = self.line(MAX_HEADER_BYTES)?;
        if !is_start(self.kind, &first) {
            let message = format!("{} is no record; expected {}", shown(&first), self.expected());
            return self.scan(Problem { offset, reason: Reason::BadHeader, message });
        }
        let headers = match self.kind {
            Kind::Warc => self.warc_headers()?,
            Kind::Arc => arc_headers(&first),
        };
        let length = headers.get("Content-Length").and_then(|length| length.trim().parse::<u64>().ok());
        let Some(length) = length else {
            let found = headers.get("Content-Length").map_or("missing".to_owned(), |length| format!("\"{length}\""));
            let message = format!("Content-Length is {found}; expected a number of bytes");
            return self.scan(Problem { offset, reason: Reason::WrongLength, message });
        };
        let kind = headers.get("WARC-Type").unwrap_or_default().to_ascii_lowercase();
        let is_wanted = matches!(kind.as_str(), "warcinfo" | "response" | "resource" | "conversion");
        let is_kept = is_wanted && length <= self.max_bytes;
        let (member, start) = (self.member, self.taken);
        let mut block =
            Vec::with_capacity(if is_kept { usize::try_from(length).unwrap_or_default().min(1 << 20) } else { 0 });
        let read = self.block(length, is_kept.then_some(&mut block))?;
        if read < length || !self.is_between()? {
            let found = if read < length { format!("only {read} follow") } else { "more follow".to_owned() };
            let message = format!("Content-Length is {length} bytes, but {found}; expected the length of the content");
            if read == length || self.member == member {
                // the next record may begin within what was taken
                let path = self.path.clone();
                self.input.get_mut().back(&path, member, start)?;
                let buffered = self.input.buffer().len();
                self.input.consume(buffered);
                (self.member, self.taken) = (member, start);
            }
            return self.scan(Problem { offset, reason: Reason::WrongLength, message });
        }
        if !is_wanted {
            return Ok(Next::Passed);
        }
        if !is_kept {
            let message =
                format!("the record has {length} bytes; expected at most {} (max_record_bytes)", self.max_bytes);
            return Ok(Next::Bad(Problem { offset, reason: Reason::TooLarge, message }));
        }
        Ok(Next::Record(Record { offset, headers, block }))
    }

    fn warc_headers(&mut self) -> io::Result<Headers> {
        let (mut headers, mut left) = (Headers::default(), MAX_HEADER_BYTES);
        loop {
            let line = self.line(left)?;
            left = left.saturating_sub(line.len() as u64 + 1);
            if line.is_empty() || left == 0 {
                return Ok(headers);
            }
            headers.add(&line);
        }
    }

    /// Reads the content, or passes over it. Gives how much there was; less if another record begins before.
    fn block(&mut self, length: u64, mut block: Option<&mut Vec<u8>>) -> io::Result<u64> {
        let mut read = 0;
        while read < length {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                // a member usually is a record; if it is not, the record goes on in the next one
                if !self.next_member()? || self.is_at_start()? {
                    break;
                }
                continue;
            }
            let taken = bytes.len().min(usize::try_from(length - read).unwrap_or(usize::MAX));
            if let Some(block) = &mut block {
                block.extend_from_slice(&bytes[..taken]);
            }
            self.consume(taken);
            read += taken as u64;
        }
        Ok(read)
    }

    /// Whether the content ends here: nothing follows in the member, the two empty lines that end a record of WARC do, or
    /// another record.
    fn is_between(&mut self) -> io::Result<bool> {
        let start = self.taken;
        loop {
            // the next member may be damaged, which is no fault of this record
            let bytes = self.input.fill_buf()?;
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let all = bytes.len();
            self.consume(blank);
            if all == 0 {
                return Ok(true);
            }
            if blank < all {
                break;
            }
        }
        let is_trailer = self.kind == Kind::Warc && self.taken - start >= 4;
        Ok(is_trailer || self.is_at_start()?)
    }

    /// Whether a record begins here, as far as its first bytes tell.
    fn is_at_start(&mut self) -> io::Result<bool> {
        let kind = self.kind;
        let bytes = self.input.fill_buf()?;
        let line = &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // the line may go on behind what is here
        let is_cut = line.len() == bytes.len() && (kind == Kind::Arc || b"WARC/".starts_with(line));
        Ok(is_cut || is_start(kind, line))
    }

    fn expected(&self) -> &'static str {
        match self.kind {
            Kind::Warc => "\"WARC/1.0\" or \"WARC/1.1\"",
            Kind::Arc => "URL, address, date, type and length",
        }
    }

    /// Goes to the next line that begins a record, and gives the problem. If there is none, the file was cut.
    fn scan(&mut self, mut problem: Problem) -> io::Result<Next> {
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                if !self.next_member()? {
                    if problem.reason == Reason::WrongLength && !self.input.get_ref().are_many() {
                        problem.reason = Reason::Truncated;
                    }
                    break;
                }
                continue;
            }
            let may_start = self.kind == Kind::Arc || bytes[0] == b'W';
            if may_start && self.is_at_start()? {
                break;
            }
            let bytes = self.input.fill_buf()?;
            let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1);
            self.consume(line);
        }
        Ok(Next::Bad(problem))
    }
}

fn is_start(kind: Kind, line: &[u8]) -> bool {
    match kind {
        Kind::Warc => line.starts_with(b"WARC/"),
        Kind::Arc => is_arc_header(line),
    }
}

/// `URL address date type length`, with more fields between type and length in version 2.
fn is_arc_header(line: &[u8]) -> bool {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let is_number = |field: &[u8]| !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    fields.len() >= 5
        && memchr::memmem::find(fields[0], b":").is_some()
        && fields[2].len() >= 8
        && is_number(fields[2])
        && is_number(fields[fields.len() - 1])
}

fn arc_headers(line: &[u8]) -> Headers {
    let text = String::from_utf8_lossy(line);
    let fields: Vec<&str> = text.split(' ').collect();
    let (url, date, length) = (fields[0], fields[2], fields[fields.len() - 1]);
    let mut headers = Headers::default();
    let kind = match () {
        () if url.starts_with("filedesc:") => "warcinfo",
        () if url.starts_with("http:") || url.starts_with("https:") => "response",
        () => "resource",
    };
    headers.put("WARC-Type", kind);
    headers.put("WARC-Target-URI", url);
    if let Some(date) = arc_date(date) {
        headers.put("WARC-Date", date);
    }
    if kind == "resource" {
        headers.put("Content-Type", fields[3]);
    }
    headers.put("Content-Length", length);
    headers
}

/// `20140216050221` as `2014-02-16T05:02:21Z`; a date without a time is one at midnight.
fn arc_date(digits: &str) -> Option<String> {
    let digits = format!("{digits:0<14}");
    let part = |from: usize, to: usize| digits.get(from..to);
    Some(format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4)?,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?
    ))
}

fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(40)]).into_owned();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn record(number: usize) -> Vec<u8> {
        let block = format!("content of record {number}\n").repeat(20);
        let length = block.len();
        let head = format!("WARC/1.0\r\nWARC-Type: resource\r\nWARC-Record-ID: {number}\r\nContent-Length: {length}");
        format!("{head}\r\n\r\n{block}\r\n\r\n").into_bytes()
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    /// The numbers of the whole records, and how many problems there are.
    fn read(bytes: &[u8]) -> (Vec<usize>, usize) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut records = Records::open(file.path(), Kind::Warc, 1 << 16).unwrap();
        let (mut found, mut problems) = (Vec::new(), 0);
        loop {
            match records.next().unwrap() {
                Next::End => return (found, problems),
                Next::Bad(_) => problems += 1,
                Next::Passed => {}
                Next::Record(one) => {
                    let number = one.headers.get("WARC-Record-ID").and_then(|number| number.parse().ok());
                    let whole = |number: &usize| record(*number).ends_with(&[&one.block[..], b"\r\n\r\n"].concat());
                    found.extend(number.filter(whole));
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        /// Wherever the damage is, reading ends, and of six records those that it does not touch are found.
        #[test]
        fn damage_costs_what_it_touches(
            is_packed: bool,
            at in 0.0..1.0_f64,
            noise in prop::collection::vec(any::<u8>(), 1..40),
            is_cut: bool,
        ) {
            let records: Vec<Vec<u8>> =
                (0..6).map(|number| if is_packed { packed(&record(number)) } else { record(number) }).collect();
            let mut bytes = records.concat();
            let start = (at * bytes.len() as f64) as usize;
            let end = if is_cut { bytes.len() } else { (start + noise.len()).min(bytes.len()) };
            bytes.splice(start..end, if is_cut { Vec::new() } else { noise });
            let mut place = 0;
            let mut untouched = Vec::new();
            for (number, record) in records.iter().enumerate() {
                if place + record.len() <= start || place >= end {
                    untouched.push(number);
                }
                place += record.len();
            }
            let (found, _) = read(&bytes);
            for number in untouched {
                // noise may look like a record or hide the next line from the search, but only next to the damage
                let is_next = !is_packed && number > 0 && number * records[0].len() >= start && number * records[0].len() < end + 40;
                prop_assert!(found.contains(&number) || is_next, "{number} is not in {found:?}");
            }
        }
    }

    #[test]
    fn an_empty_file_and_one_of_blank_lines_end() {
        assert_eq!(read(b""), (vec![], 0));
        assert_eq!(read(b"\r\n\r\n"), (vec![], 0));
        assert_eq!(read(&record(3)), (vec![3], 0));
        // zeros fill up the file
        assert_eq!(read(&[packed(&record(3)), vec![0; 700]].concat()), (vec![3], 0));
    }
}
