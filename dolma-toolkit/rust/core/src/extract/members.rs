//! The bytes of an archive: gzip member after member, zstd frame after frame (with the dictionary that the file begins with),
//! or as they are stored.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::bufread::GzDecoder;

const BUFFER_BYTES: usize = 1 << 17;
const GZIP: [u8; 3] = [0x1f, 0x8b, 0x08];
const ZSTANDARD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BZIP2: &[u8] = b"BZh";
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Skippable frames of zstd have one of 16 numbers.
fn is_skippable(magic: u32) -> bool {
    magic & 0xffff_fff0 == 0x184d_2a50
}

/// The one with a dictionary: <https://iipc.github.io/warc-specifications/specifications/warc-zstd/>.
const DICTIONARY_FRAME: u32 = 0x184d_2a5d;

/// A dictionary is read to memory.
const MAX_DICTIONARY_BYTES: u64 = 64 << 20;

/// A file that knows how much of it was taken.
struct Stored {
    file: BufReader<File>,
    position: u64,
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl BufRead for Stored {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.file.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount as u64;
        self.file.consume(amount);
    }
}

impl Stored {
    fn seek(&mut self, position: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        self.position = position;
        Ok(())
    }

    /// The next bytes, which stay there.
    fn peek<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        let start = self.position;
        let mut read = 0;
        while read < N {
            match self.read(&mut bytes[read..])? {
                0 => break,
                more => read += more,
            }
        }
        self.file.seek_relative(-(read as i64))?;
        self.position = start;
        Ok((read == N).then_some(bytes))
    }

    fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.fill_buf()?.is_empty())
    }
}

enum Decoder {
    Plain(Stored),
    Gzip(Box<GzDecoder<Stored>>),
    Zstandard(Box<zstd::stream::read::Decoder<'static, Stored>>),
    /// One stream for the whole file.
    Whole(Box<dyn Read + Send>),
    /// Nothing is left.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Packing {
    None,
    Gzip,
    Zstandard,
    Whole,
}

/// Reads one member at a time: a read gives nothing at the end of each, until [`Members::next`].
pub struct Members {
    decoder: Decoder,
    packing: Packing,
    dictionary: Vec<u8>,
    /// where the member begins in the file
    start: u64,
}

impl Members {
    /// Opens the first member. The first bytes tell how the file is packed, not its name.
    pub fn open(path: &Path) -> io::Result<Members> {
        let mut stored = Stored { file: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?), position: 0 };
        let first = stored.peek::<6>()?.unwrap_or_default();
        let number = u32::from_le_bytes([first[0], first[1], first[2], first[3]]);
        let packing = match first {
            _ if first.starts_with(&GZIP) => Packing::Gzip,
            _ if first.starts_with(&ZSTANDARD) || is_skippable(number) => Packing::Zstandard,
            _ if first.starts_with(BZIP2) || first == XZ => Packing::Whole,
            _ => Packing::None,
        };
        let decoder = match packing {
            Packing::Whole if first == XZ => {
                Decoder::Whole(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(stored.file)))
            }
            Packing::Whole => Decoder::Whole(Box::new(bzip2::bufread::MultiBzDecoder::new(stored.file))),
            _ => Decoder::Plain(stored),
        };
        let mut members = Members { decoder, packing, dictionary: Vec::new(), start: 0 };
        if packing != Packing::Whole {
            members.next()?;
        }
        Ok(members)
    }

    /// Where the member begins in the file.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Whether a member may be one record.
    pub fn are_many(&self) -> bool {
        matches!(self.packing, Packing::Gzip | Packing::Zstandard)
    }

    /// Bytes of the file that were taken so far; 0 if that is not known.
    pub fn stored_bytes(&self) -> u64 {
        match &self.decoder {
            Decoder::Plain(stored) => stored.position,
            Decoder::Gzip(decoder) => decoder.get_ref().position,
            Decoder::Zstandard(decoder) => decoder.get_ref().position,
            Decoder::Whole(_) | Decoder::End => 0,
        }
    }

    /// Goes on with the member after this one, which was read to its end. Says whether there is one.
    pub fn next(&mut self) -> io::Result<bool> {
        let mut stored = match std::mem::replace(&mut self.decoder, Decoder::End) {
            Decoder::Plain(stored) => stored,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstandard(decoder) => decoder.finish(),
            Decoder::Whole(_) | Decoder::End => return Ok(false),
        };
        if self.packing == Packing::Zstandard {
            while let Some(frame) = stored.peek::<8>()? {
                let [magic, size] = [&frame[..4], &frame[4..]]
                    .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                if !is_skippable(magic) {
                    break;
                }
                let (from, to) = (stored.position + 8, stored.position + 8 + u64::from(size));
                if magic == DICTIONARY_FRAME && stored.position == 0 {
                    stored.seek(from)?;
                    self.dictionary = dictionary((&mut stored).take(u64::from(size)))?;
                }
                stored.seek(to)?;
            }
        }
        // some programs fill up a file
        while self.packing == Packing::Gzip && stored.fill_buf()?.first() == Some(&0) {
            stored.consume(1);
        }
        if stored.is_at_end()? {
            return Ok(false);
        }
        self.start = stored.position;
        self.decoder = self.decode(stored)?;
        Ok(true)
    }

    fn decode(&self, stored: Stored) -> io::Result<Decoder> {
        Ok(match self.packing {
            Packing::Gzip => Decoder::Gzip(Box::new(GzDecoder::new(stored))),
            Packing::Zstandard => {
                let decoder = zstd::stream::read::Decoder::with_dictionary(stored, &self.dictionary)?;
                Decoder::Zstandard(Box::new(decoder.single_frame()))
            }
            Packing::None | Packing::Whole => Decoder::Plain(stored),
        })
    }

    /// Goes to a place of an earlier read: bytes that were given since `start`, a value of [`Members::start`].
    pub fn back(&mut self, path: &Path, start: u64, skipped: u64) -> io::Result<()> {
        if self.packing == Packing::Whole {
            *self = Members::open(path)?;
        } else {
            let mut stored = Stored { file: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?), position: 0 };
            let is_plain = self.packing == Packing::None;
            stored.seek(if is_plain { start + skipped } else { start })?;
            self.start = start;
            self.decoder = self.decode(stored)?;
            if is_plain {
                return Ok(());
            }
        }
        io::copy(&mut Read::by_ref(self).take(skipped), &mut io::sink()).map(drop)
    }

    /// Goes on with the next member after damage in this one: the next place that looks like the start of one. Says whether
    /// there is one.
    pub fn next_sound(&mut self, path: &Path) -> io::Result<bool> {
        let magic: &[u8] = match self.packing {
            Packing::Gzip => &GZIP,
            Packing::Zstandard => &ZSTANDARD,
            Packing::None | Packing::Whole => {
                self.decoder = Decoder::End;
                return Ok(false);
            }
        };
        let mut stored = Stored { file: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?), position: 0 };
        stored.seek(self.start + 1)?;
        loop {
            let bytes = stored.fill_buf()?;
            if bytes.is_empty() {
                self.decoder = Decoder::End;
                return Ok(false);
            }
            match memchr::memchr(magic[0], bytes) {
                None => {
                    let all = bytes.len();
                    stored.consume(all);
                }
                Some(at) => {
                    stored.consume(at);
                    if stored.peek::<4>()?.is_some_and(|found| found.starts_with(magic)) {
                        self.start = stored.position;
                        self.decoder = self.decode(stored)?;
                        return Ok(true);
                    }
                    stored.consume(1);
                }
            }
        }
    }
}

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.decoder {
            Decoder::Plain(stored) => stored.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstandard(decoder) => decoder.read(buffer),
            Decoder::Whole(reader) => reader.read(buffer),
            Decoder::End => Ok(0),
        }
    }
}

/// A dictionary may be packed itself.
fn dictionary(frame: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    frame.take(MAX_DICTIONARY_BYTES).read_to_end(&mut bytes)?;
    if !bytes.starts_with(&ZSTANDARD) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    zstd::stream::read::Decoder::new(&bytes[..])?.take(MAX_DICTIONARY_BYTES).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}
