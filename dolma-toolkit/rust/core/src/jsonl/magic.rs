//! Compares a file's first bytes with its name.

use std::io::{self, Read, Seek};
use std::path::Path;

use super::Compression;

/// First bytes, their meaning, and the extension for it.
const SIGNATURES: [(&[u8], &str, &str); 10] = [
    (b"\x1f\x8b", "gzip data", ".gz"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", ".zst"),
    (b"BZh", "bzip2 data", ".bz2"),
    (b"\xfd7zXZ\0", "xz data", ".xz"),
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"PK\x03\x04", "a zip archive", ""),
    (b"ARROW1", "an Arrow file", ""),
    (b"\x04\x22\x4d\x18", "lz4 data", ""),
    (b"\xff\xfe", "UTF-16 text", ""),
    (b"\xfe\xff", "UTF-16 text", ""),
];

/// What is wrong if the bytes and the name disagree. Leaves the file at its start.
pub(super) fn mismatch(
    file: &mut (impl Read + Seek),
    name: &str,
    compression: Compression,
) -> io::Result<Option<String>> {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if matches!(extension, "br" | "lz4" | "zip" | "7z" | "rar" | "Z" | "snappy") && compression == Compression::None {
        let message = format!(
            "the name ends in \".{extension}\", a compression that is not supported; expected .gz, .zst, .bz2 or .xz"
        );
        return Ok(Some(message));
    }
    let mut first = Vec::with_capacity(8);
    (&mut *file).take(8).read_to_end(&mut first)?;
    file.rewind()?;
    let found = SIGNATURES.iter().find(|(signature, _, _)| first.starts_with(signature));
    let own = match compression {
        Compression::None => "",
        Compression::Gzip => ".gz",
        Compression::Zstandard => ".zst",
        Compression::Bzip2 => ".bz2",
        Compression::Xz => ".xz",
        Compression::Parquet => ".parquet",
    };
    Ok(match found {
        Some((_, _, extension)) if *extension == own && !own.is_empty() => None,
        Some((_, what, "")) => Some(format!("the file contains {what}; expected lines of UTF-8 text")),
        Some((_, what, extension)) => {
            Some(format!("the file contains {what}; expected a name that ends in \"{extension}\""))
        }
        // a row may begin like this, but not a compressed file
        None if !own.is_empty() && (first.starts_with(b"{") || first.starts_with(b"\xef\xbb\xbf{")) => {
            let actually = if own == ".parquet" { "not a Parquet file" } else { "not compressed" };
            Some(format!("the file contains JSON lines, {actually}; expected \"{own}\", from its name or the settings"))
        }
        None => None,
    })
}
