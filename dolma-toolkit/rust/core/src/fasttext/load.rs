//! The model file of fastText 0.9 (versions 11 and 12): header, dictionary, input matrix, output matrix; little-endian.

use std::fs;
use std::path::Path;

use rustc_hash::FxHashMap;

use super::dictionary::{Dictionary, KeptBuckets, Label, Parts};
use super::matrix::{Matrix, Quantized, Quantizer, NUM_CENTROIDS};
use super::{Loss, Model, Tree};
use crate::error::{Code, Error, Result};

const MAGIC: i32 = 793_712_314;
const VERSIONS: [i32; 2] = [11, 12];
const SUPERVISED: i32 = 3;

pub fn load(path: &Path) -> Result<Model> {
    let bytes = fs::read(path).map_err(|source| Error::io(path, source))?;
    let mut reader = Reader { path, rest: &bytes };
    if reader.i32()? != MAGIC {
        return Err(reader.error(Code::UnknownFormat, "is not a fastText model; expected a .bin or .ftz file"));
    }
    let version = reader.i32()?;
    if !VERSIONS.contains(&version) {
        return Err(reader.error(Code::UnsupportedVersion, format!("is of version {version}; expected 11 or 12")));
    }
    let header = Header::read(&mut reader, version)?;
    let mut dictionary = read_dictionary(&mut reader, header.parts)?;
    let input = read_matrix(&mut reader, None)?;
    let is_quantized = matches!(input, Matrix::Quantized(_));
    let output = read_matrix(&mut reader, Some(is_quantized))?;

    let num_labels = dictionary.labels.len();
    let is_tree = matches!(header.loss, LossName::HierarchicalSoftmax);
    let num_output_rows = if is_tree { num_labels - 1 } else { num_labels };
    let highest_row = dictionary.rows_of_words.iter().copied().max().unwrap_or(0).max(highest_bucket_row(&dictionary));
    let shapes_fit = input.num_columns() == header.num_columns
        && output.num_columns() == header.num_columns
        && output.num_rows() >= num_output_rows
        && input.num_rows() > highest_row as usize;
    if !shapes_fit {
        return Err(reader.error(Code::WrongSize, "has matrices that do not fit its dictionary"));
    }
    let loss = match header.loss {
        LossName::HierarchicalSoftmax => {
            let counts: Vec<i64> = dictionary.labels.iter().map(|label| label.count).collect();
            Loss::HierarchicalSoftmax(Tree::new(&counts))
        }
        LossName::Softmax => Loss::Softmax,
        LossName::Sigmoid => Loss::Sigmoid,
    };
    dictionary.labels.shrink_to_fit();
    Ok(Model { dictionary, input, output, loss, sums: Default::default() })
}

enum LossName {
    HierarchicalSoftmax,
    Softmax,
    Sigmoid,
}

struct Header {
    num_columns: usize,
    loss: LossName,
    parts: Parts,
}

impl Header {
    fn read(reader: &mut Reader<'_>, version: i32) -> Result<Header> {
        let num_columns = reader.count32()?;
        reader.skip(4 * 4)?; // window, epochs, smallest count, negatives
        let max_words = reader.count32()?;
        let loss = match reader.i32()? {
            1 => LossName::HierarchicalSoftmax,
            3 => LossName::Softmax,
            2 | 4 => LossName::Sigmoid,
            other => return Err(reader.error(Code::InvalidValue, format!("has loss {other}; expected 1 to 4"))),
        };
        let kind = reader.i32()?;
        if kind != SUPERVISED {
            return Err(reader.error(Code::InvalidValue, "holds word vectors; expected a classifier"));
        }
        let num_buckets = reader.count32()? as u32;
        let min_chars = reader.count32()?;
        let max_chars = reader.count32()?;
        reader.skip(4 + 8)?; // update rate, sampling threshold
                             // version 11 stored a length that its classifiers did not use
        let max_chars = if version == 11 { 0 } else { max_chars };
        let parts = Parts { min_chars, max_chars, max_words, num_buckets };
        if num_buckets == 0 && (max_chars > 0 || max_words > 1) {
            return Err(reader.error(Code::InvalidValue, "has no buckets; expected some for its n-grams"));
        }
        Ok(Header { num_columns, loss, parts })
    }
}

fn read_dictionary(reader: &mut Reader<'_>, parts: Parts) -> Result<Dictionary> {
    let num_entries = reader.count32()?;
    let num_words = reader.count32()?;
    let num_labels = reader.count32()?;
    reader.skip(8)?; // tokens seen
    let num_kept = reader.i64()?;
    if num_words + num_labels != num_entries || num_labels == 0 {
        let message = format!("has {num_words} words and {num_labels} labels of {num_entries} entries");
        return Err(reader.error(Code::InvalidValue, message));
    }
    let mut ids = FxHashMap::default();
    let mut words: Vec<&[u8]> = Vec::new();
    let mut labels = Vec::new();
    for id in 0..num_entries as u32 {
        let name = reader.string()?;
        let count = reader.i64()?;
        let is_label = reader.take(1)?[0] == 1;
        if is_label != (id as usize >= num_words) {
            return Err(
                reader.error(Code::InvalidValue, format!("has entry {id} out of order; expected words, then labels"))
            );
        }
        ids.insert(name.into(), id);
        if is_label {
            labels.push(Label { name: String::from_utf8_lossy(name).into_owned(), count });
        } else {
            words.push(name);
        }
    }
    let mut kept_buckets = None;
    if num_kept >= 0 {
        let pairs = reader.take(usize::try_from(num_kept).unwrap_or(usize::MAX).saturating_mul(8))?;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |number, &byte| number << 8 | u32::from(byte));
        let rows = pairs.chunks_exact(8).map(|pair| (number(&pair[..4]), number(&pair[4..]))).collect();
        kept_buckets = Some(KeptBuckets::new(rows));
    }
    let mut dictionary = Dictionary {
        ids,
        num_words: num_words as u32,
        labels,
        kept_buckets,
        parts,
        rows_of_words: Vec::new(),
        first_row_of_word: vec![0],
    };
    let mut rows = Vec::new();
    for (id, word) in words.iter().enumerate() {
        dictionary.push_rows_of_known_word(id as u32, word, &mut rows);
        dictionary.first_row_of_word.push(rows.len());
    }
    dictionary.rows_of_words = rows;
    Ok(dictionary)
}

/// The highest row that a hashed part can ask for.
fn highest_bucket_row(dictionary: &Dictionary) -> u32 {
    let parts = dictionary.parts;
    match &dictionary.kept_buckets {
        Some(kept) => kept.max_row().map_or(0, |row| dictionary.num_words.saturating_add(row)),
        None if parts.max_chars > 0 || parts.max_words > 1 => {
            dictionary.num_words.saturating_add(parts.num_buckets - 1)
        }
        None => 0,
    }
}

/// A matrix, with a flag before it that says whether it is quantized. The output of a model whose input is not is dense whatever the flag.
fn read_matrix(reader: &mut Reader<'_>, input_is_quantized: Option<bool>) -> Result<Matrix> {
    let flag = reader.take(1)?[0] != 0;
    if flag && input_is_quantized.unwrap_or(true) {
        return read_quantized(reader);
    }
    let num_rows = reader.count64()?;
    let num_columns = reader.count64()?;
    let values = reader.floats(num_rows.saturating_mul(num_columns))?;
    Ok(Matrix::Dense { num_columns, values })
}

fn read_quantized(reader: &mut Reader<'_>) -> Result<Matrix> {
    let has_norms = reader.take(1)?[0] != 0;
    let num_rows = reader.count64()?;
    let num_columns = reader.count64()?;
    let num_codes = reader.count32()?;
    let codes = reader.take(num_codes)?.to_vec();
    let rows = read_quantizer(reader)?;
    let norms = match has_norms {
        true => Some((reader.take(num_rows)?.to_vec(), read_quantizer(reader)?)),
        false => None,
    };
    if rows.dimension != num_columns || num_rows.checked_mul(rows.num_parts) != Some(num_codes) {
        return Err(reader.error(Code::WrongSize, "has a quantized matrix whose codes do not fit its shape"));
    }
    Ok(Matrix::Quantized(Quantized { num_rows, codes, rows, norms }))
}

fn read_quantizer(reader: &mut Reader<'_>) -> Result<Quantizer> {
    let dimension = reader.count32()?;
    let num_parts = reader.count32()?;
    let part_length = reader.count32()?;
    let last_part_length = reader.count32()?;
    let covered =
        num_parts.checked_sub(1).map(|whole| whole.saturating_mul(part_length).saturating_add(last_part_length));
    if covered != Some(dimension) || last_part_length == 0 {
        return Err(reader
            .error(Code::WrongSize, format!("has a quantizer of {num_parts} parts that are not {dimension} long")));
    }
    let centroids = reader.floats(dimension.saturating_mul(NUM_CENTROIDS))?;
    Ok(Quantizer { dimension, num_parts, part_length, last_part_length, centroids })
}

/// What is left of the file.
struct Reader<'a> {
    path: &'a Path,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn error(&self, code: Code, message: impl Into<String>) -> Error {
        Error::format(self.path.display().to_string(), None, None, code, message)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        if length > self.rest.len() {
            return Err(self.error(Code::Truncated, "ends too early for a fastText model"));
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Result<()> {
        self.take(length).map(|_| ())
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let mut array = [0; LENGTH];
        array.copy_from_slice(self.take(LENGTH)?);
        Ok(array)
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A number that cannot be negative.
    fn count32(&mut self) -> Result<usize> {
        let number = self.i32()?;
        usize::try_from(number)
            .map_err(|_| self.error(Code::InvalidValue, format!("has a size of {number}; expected 0 or more")))
    }

    fn count64(&mut self) -> Result<usize> {
        let number = self.i64()?;
        usize::try_from(number)
            .map_err(|_| self.error(Code::InvalidValue, format!("has a size of {number}; expected 0 or more")))
    }

    /// Bytes up to a zero.
    fn string(&mut self) -> Result<&'a [u8]> {
        let length = memchr::memchr(0, self.rest).unwrap_or(self.rest.len());
        let string = self.take(length)?;
        self.skip(1)?;
        Ok(string)
    }

    fn floats(&mut self, count: usize) -> Result<Vec<f32>> {
        let bytes = self.take(count.saturating_mul(4))?;
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
        match values.iter().find(|value| !value.is_finite()) {
            None => Ok(values),
            Some(value) => {
                Err(self.error(Code::OutOfRange, format!("has the weight {value}; expected a finite number")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn code_of(bytes: &[u8]) -> Code {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        match load(file.path()) {
            Err(Error::Format(error)) => error.code,
            _ => panic!("expected a format error"),
        }
    }

    #[test]
    fn weights_are_finite() {
        let read = |values: [f32; 2]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            Reader { path: Path::new("m.bin"), rest: &bytes }.floats(2).map_err(|error| error.to_string())
        };
        assert_eq!(read([1.0, -2.5]), Ok(vec![1.0, -2.5]));
        assert_eq!(read([1.0, f32::NAN]), Err("m.bin: has the weight NaN; expected a finite number".to_owned()));
        assert!(read([f32::NEG_INFINITY, 0.0]).is_err());
    }

    #[test]
    fn files_that_are_no_models_are_refused() {
        assert_eq!(code_of(b""), Code::Truncated);
        assert_eq!(code_of(b"not a model at all"), Code::UnknownFormat);
        assert_eq!(code_of(&[MAGIC.to_le_bytes(), 9_i32.to_le_bytes()].concat()), Code::UnsupportedVersion);
        assert_eq!(
            code_of(&[MAGIC.to_le_bytes(), 12_i32.to_le_bytes(), (-3_i32).to_le_bytes()].concat()),
            Code::InvalidValue
        );
        assert!(matches!(load(Path::new("no/such/model.bin")), Err(Error::Io { .. })));
    }
}
