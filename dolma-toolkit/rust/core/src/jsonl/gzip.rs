//! Reads gzip, and writes it in members of one mebibyte of text each.
//!
//! Each member is compressed at once, two to four times as fast as a stream. Where members end depends only on the bytes, so
//! equal contents make equal files. Every gzip reader reads several members as one text.

use std::io::{self, BufRead, Read, Write};

use flate2::bufread::GzDecoder;
use libdeflater::{CompressionLvl, Compressor};

const MEMBER_BYTES: usize = 1 << 20;

/// On documents the fastest level packs a tenth worse than zlib's default, at four times its speed.
const LEVEL: i32 = 1;

/// Reads all members as one text. Zeros after a member, with which tapes and some stores pad a block, are skipped as
/// in `gzip`. Other bytes there are an error.
pub(super) struct GzipReader<R: BufRead> {
    /// `None` only while the next one is made
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    pub fn new(file: R) -> Self {
        Self { member: Some(GzDecoder::new(file)) }
    }

    /// Whether another member follows; the file is then at its first byte.
    fn has_more(file: &mut R) -> io::Result<bool> {
        loop {
            let bytes = file.fill_buf()?;
            let Some(first) = bytes.first().copied() else { return Ok(false) };
            if first != 0 {
                let is_member = first == 0x1f && bytes.get(1).is_none_or(|second| *second == 0x8b);
                let error = || io::Error::new(io::ErrorKind::InvalidData, "bytes after its end that are not gzip");
                return is_member.then_some(true).ok_or_else(error);
            }
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            file.consume(zeros);
        }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            if !Self::has_more(member.get_mut())? {
                break;
            }
            self.member = self.member.take().map(|member| GzDecoder::new(member.into_inner()));
        }
        Ok(0)
    }
}

pub(super) struct GzipWriter<W: Write> {
    file: W,
    compressor: Compressor,
    /// what the next member will hold
    text: Vec<u8>,
    packed: Vec<u8>,
    has_members: bool,
}

impl<W: Write> GzipWriter<W> {
    pub fn new(file: W) -> io::Result<Self> {
        let level = CompressionLvl::new(LEVEL).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let compressor = Compressor::new(level);
        let text = Vec::with_capacity(MEMBER_BYTES);
        Ok(Self { file, compressor, text, packed: Vec::new(), has_members: false })
    }

    /// Writes the last member; a file without text has an empty one.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.text.is_empty() || !self.has_members {
            self.write_member()?;
        }
        Ok(self.file)
    }

    fn write_member(&mut self) -> io::Result<()> {
        self.packed.resize(self.compressor.gzip_compress_bound(self.text.len()), 0);
        let packed = self.compressor.gzip_compress(&self.text, &mut self.packed).map_err(io::Error::other)?;
        self.file.write_all(&self.packed[..packed])?;
        self.text.clear();
        self.has_members = true;
        Ok(())
    }
}

impl<W: Write> Write for GzipWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() == MEMBER_BYTES {
            self.write_member()?;
        }
        let taken = bytes.len().min(MEMBER_BYTES - self.text.len());
        self.text.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn packed(pieces: &[&[u8]]) -> Vec<u8> {
        let mut writer = GzipWriter::new(Vec::new()).unwrap();
        pieces.iter().for_each(|piece| writer.write_all(piece).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn bytes_do_not_depend_on_how_they_come() {
        let text: Vec<u8> = (0..3 * MEMBER_BYTES as u32 + 17).flat_map(|at| (at % 251).to_le_bytes()).collect();
        let whole = packed(&[&text]);
        assert_eq!(whole, packed(&text.chunks(70_001).collect::<Vec<_>>()));
        let mut read = Vec::new();
        flate2::read::MultiGzDecoder::new(&whole[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, text);
    }

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        // two bytes at a time, so that a member may begin anywhere in the buffer
        GzipReader::new(io::BufReader::with_capacity(2, bytes)).read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn members_and_zeros_follow_each_other_and_nothing_else_does() {
        let (one, two) = (packed(&[b"one"]), packed(&[b"two"]));
        assert_eq!(read(&[&one[..], &two].concat()).unwrap(), "onetwo");
        assert_eq!(read(&[&one[..], &[0; 512]].concat()).unwrap(), "one");
        assert_eq!(read(&[&one[..], &[0; 3], &two, &[0]].concat()).unwrap(), "onetwo");
        for garbage in [&b"x"[..], b"\0\0x", b"\x1fx", b"{}\n"] {
            let error = read(&[&one[..], garbage].concat()).unwrap_err();
            assert!(error.to_string().contains("after its end"), "{error}");
        }
        assert_eq!(read(&one[..one.len() - 1]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn nothing_is_one_empty_member_and_a_full_member_has_none_after_it() {
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&packed(&[])[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, b"");
        let full = vec![b'x'; MEMBER_BYTES];
        flate2::read::GzDecoder::new(&packed(&[&full])[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, full);
        let twice = packed(&[&full, &full]);
        assert_eq!(twice.len(), 2 * packed(&[&full]).len());
    }
}
