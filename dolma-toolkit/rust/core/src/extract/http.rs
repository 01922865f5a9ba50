//! The payload of an HTTP response as it was archived.

use std::io::{self, Read};

use super::reason::Reason;
use super::records::Headers;

/// A response.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// `None` where there is no status line.
    pub status: Option<u16>,
    pub headers: Headers,
    /// As sent: digests are of these bytes.
    pub payload: Vec<u8>,
}

impl Response {
    /// Takes a response apart; a block that does not begin like one is all payload.
    pub fn parse(mut block: Vec<u8>) -> Response {
        if !block.starts_with(b"HTTP/") {
            return Response { payload: block, ..Response::default() };
        }
        let (mut headers, mut status, mut at) = (Headers::default(), None, 0);
        while at < block.len() {
            let end = memchr::memchr(b'\n', &block[at..]).map_or(block.len(), |end| at + end + 1);
            let line = block[at..end].trim_ascii_end();
            let is_first = at == 0;
            at = end;
            if is_first {
                let code = line.split(|byte| *byte == b' ').nth(1).and_then(|code| std::str::from_utf8(code).ok());
                status = code.and_then(|code| code.parse().ok());
            } else if line.is_empty() {
                break;
            } else {
                headers.add(line);
            }
        }
        let payload = block.split_off(at);
        Response { status, headers, payload }
    }

    /// The content: without chunks, unpacked. At most `limit` bytes, whatever a small body unpacks to.
    pub fn content(self, limit: u64) -> Result<Vec<u8>, (Reason, String)> {
        let mut content = self.payload;
        if self.headers.get("Transfer-Encoding").is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked")) {
            // many archives have the header and no chunks
            if let Some(joined) = joined(&content) {
                content = joined;
            }
        }
        let encodings = self.headers.get("Content-Encoding").unwrap_or_default().to_ascii_lowercase();
        for encoding in encodings.split(',').rev().map(str::trim) {
            content = match unpacked(&content, encoding, limit) {
                Ok(None) => content,
                Ok(Some(unpacked)) if unpacked.len() as u64 > limit => {
                    let (from, to) = (content.len(), limit);
                    let message = format!(
                        "{from} bytes of {encoding} unpack to more than {to}; expected at most {to} (max_record_bytes)"
                    );
                    return Err((Reason::TooLarge, message));
                }
                Ok(Some(unpacked)) => unpacked,
                Err(error) => {
                    let message =
                        format!("the content is not {encoding} ({error}); expected what Content-Encoding says");
                    return Err((Reason::Damaged, message));
                }
            };
        }
        Ok(content)
    }
}

/// The content of chunks; `None` if these are none.
fn joined(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut joined, mut at) = (Vec::with_capacity(bytes.len()), 0);
    loop {
        let end = at + memchr::memchr(b'\n', bytes.get(at..)?)?;
        let size = bytes[at..end].split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return Some(joined);
        }
        let chunk = bytes.get(end + 1..)?;
        // the last chunk of a capture may be cut
        joined.extend_from_slice(&chunk[..size.min(chunk.len())]);
        at = (end + 3).saturating_add(size); // a damaged size may be anything
        if at >= bytes.len() {
            return Some(joined);
        }
    }
}

/// `None` if the bytes are not packed, or nobody knows how. One byte more than the limit says that there is more.
fn unpacked(bytes: &[u8], encoding: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut unpacked = Vec::new();
    let mut read = |reader: &mut dyn Read| match reader.take(limit + 1).read_to_end(&mut unpacked) {
        // a capture may be cut: what is there counts
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !unpacked.is_empty() => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    };
    match encoding {
        // many archives have the header and unpacked content
        "gzip" | "x-gzip" if bytes.starts_with(&[0x1f, 0x8b]) => read(&mut flate2::read::MultiGzDecoder::new(bytes))?,
        "zstd" if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => read(&mut zstd::stream::read::Decoder::new(bytes)?)?,
        "deflate" if bytes.first().is_some_and(|first| first & 0x0f == 8) && is_zlib(bytes) => {
            read(&mut flate2::read::ZlibDecoder::new(bytes))?;
        }
        "deflate" if !bytes.starts_with(b"<") => read(&mut flate2::read::DeflateDecoder::new(bytes))?,
        "br" if !bytes.trim_ascii_start().starts_with(b"<") => {
            read(&mut brotli_decompressor::Decompressor::new(bytes, 1 << 14))?;
        }
        _ => return Ok(None),
    }
    Ok(Some(unpacked))
}

/// RFC 1950: the first two bytes are a multiple of 31.
fn is_zlib(bytes: &[u8]) -> bool {
    bytes.len() > 1 && (u16::from(bytes[0]) << 8 | u16::from(bytes[1])) % 31 == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    }

    fn response(headers: &str, payload: &[u8]) -> Response {
        Response::parse([format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n").as_bytes(), payload].concat())
    }

    #[test]
    fn chunks_are_joined_and_content_is_unpacked() {
        let chunked = response("Transfer-Encoding: chunked", b"3\r\nabc\r\n2;x=1\r\nde\r\n0\r\n\r\n");
        assert_eq!((chunked.status, chunked.content(9).unwrap()), (Some(200), b"abcde".to_vec()));
        // a header that the content does not keep
        assert_eq!(response("Transfer-Encoding: chunked", b"<html>").content(9).unwrap(), b"<html>");
        assert_eq!(response("Content-Encoding: gzip", b"<html>").content(9).unwrap(), b"<html>");
        assert_eq!(response("Content-Encoding: gzip", &gzip(b"abc")).content(9).unwrap(), b"abc");
        let both = response("Content-Encoding: gzip, gzip", &gzip(&gzip(b"abc"))).content(99).unwrap();
        assert_eq!(both, b"abc");
        assert_eq!(response("Transfer-Encoding: chunked", b"ffffffffffffffff\r\nab").content(9).unwrap(), b"ab");
        assert_eq!(Response::parse(b"<p>".to_vec()), Response { payload: b"<p>".to_vec(), ..Response::default() });
    }

    #[test]
    fn a_bomb_is_not_unpacked_and_damage_is_named() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 1 << 15);
        let (reason, message) = response("Content-Encoding: gzip", &bomb).content(1 << 16).unwrap_err();
        assert_eq!(reason, Reason::TooLarge);
        assert!(message.contains("unpack to more than 65536"), "{message}");
        let (reason, _) = response("Content-Encoding: gzip", &[0x1f, 0x8b, 9, 9, 9]).content(99).unwrap_err();
        assert_eq!(reason, Reason::Damaged);
        // a capture that was cut keeps what is there
        let text = b"some words that a page may have ".repeat(100);
        let cut = gzip(&text);
        let found = response("Content-Encoding: gzip", &cut[..cut.len() - 9]).content(1 << 16).unwrap();
        assert!(text.starts_with(&found));
    }
}
