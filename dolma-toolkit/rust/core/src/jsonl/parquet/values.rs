//! Values of columns as JSON text.

use std::io::{self, Write};

use parquet::basic::{LogicalType, TimeUnit, Type as PhysicalType};
use parquet::data_type::Decimal;
pub(super) use parquet::record::Field;
use parquet::schema::types::Type;
use serde::Serialize;
use serde_json::value::RawValue;

use super::invalid;
use crate::jsonl::hex;

const DAY_S: i64 = 86_400;

/// `"name":`, after a comma where something is before it.
pub(super) fn put_key(line: &mut Vec<u8>, name: &str) -> io::Result<()> {
    if line.last() != Some(&b'{') {
        line.push(b',');
    }
    serde_json::to_writer(&mut *line, name)?;
    line.push(b':');
    Ok(())
}

/// JSON text, on one line; other text stays a string.
pub(super) fn put_json(line: &mut Vec<u8>, text: &str) -> io::Result<()> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) if !raw.get().contains(['\n', '\r']) => line.extend_from_slice(raw.get().as_bytes()),
        Ok(raw) => {
            // line ends within strings are escaped, so these are between values, where a space is as good
            line.extend(raw.get().bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
        }
        Err(_) => serde_json::to_writer(&mut *line, text)?,
    }
    Ok(())
}

/// `of` is the type of the column, or of its part, which decides how the value is written.
pub(super) fn put_field(line: &mut Vec<u8>, field: &Field, of: &Type) -> io::Result<()> {
    match field {
        Field::Null => line.extend_from_slice(b"null"),
        Field::Bool(value) => write!(line, "{value}")?,
        Field::Byte(value) => write!(line, "{value}")?,
        Field::Short(value) => write!(line, "{value}")?,
        Field::Int(value) => write!(line, "{value}")?,
        Field::Long(value) => match of.get_basic_info().logical_type_ref() {
            Some(LogicalType::Timestamp(time)) => put_timestamp(line, *value, digits(time.unit), of)?,
            Some(LogicalType::Time(of)) => put_text(line, &time(*value, digits(of.unit)))?,
            _ => write!(line, "{value}")?,
        },
        Field::UByte(value) => write!(line, "{value}")?,
        Field::UShort(value) => write!(line, "{value}")?,
        Field::UInt(value) => write!(line, "{value}")?,
        Field::ULong(value) => write!(line, "{value}")?,
        Field::Float16(value) => put_float(line, value.to_f32())?,
        Field::Float(value) => put_float(line, *value)?,
        Field::Double(value) => put_float(line, *value)?,
        Field::Decimal(value) => put_decimal(line, value)?,
        Field::Str(value) => put_text(line, value)?,
        Field::Bytes(value) => match of.get_basic_info().logical_type_ref() {
            Some(LogicalType::Uuid) => put_text(line, &uuid(value.data())?)?,
            _ => {
                let text = std::str::from_utf8(value.data());
                put_text(line, text.map_err(|_| invalid("has bytes that are not UTF-8; expected text"))?)?;
            }
        },
        Field::Date(days) => put_text(line, &date(i64::from(*days)))?,
        Field::TimeMillis(value) => put_text(line, &time(i64::from(*value), 3))?,
        Field::TimeMicros(value) => put_text(line, &time(*value, 6))?,
        Field::TimestampMillis(value) => put_timestamp(line, *value, 3, of)?,
        Field::TimestampMicros(value) => put_timestamp(line, *value, 6, of)?,
        Field::Group(row) => {
            line.push(b'{');
            let is_there = |(_, value): &(&String, &Field)| !matches!(value, Field::Null);
            for (name, value) in row.get_column_iter().filter(is_there) {
                put_key(line, name)?;
                put_field(line, value, part(of, name))?;
            }
            line.push(b'}');
        }
        Field::ListInternal(list) => {
            let of = list
                .elements()
                .iter()
                .find(|value| !matches!(value, Field::Null))
                .map_or(of, |value| element(of, value));
            line.push(b'[');
            for (index, value) in list.elements().iter().enumerate() {
                if index > 0 {
                    line.push(b',');
                }
                put_field(line, value, of)?;
            }
            line.push(b']');
        }
        Field::MapInternal(map) => {
            // a repeated group of a key and a value, with any names
            let values = of.get_fields().first().and_then(|pair| pair.get_fields().get(1));
            line.push(b'{');
            for (key, value) in map.entries() {
                let Field::Str(name) = key else {
                    return Err(invalid("is a map with keys that are not text; expected names"));
                };
                put_key(line, name)?;
                put_field(line, value, values.map_or(of, AsRef::as_ref))?;
            }
            line.push(b'}');
        }
    }
    Ok(())
}

/// After the second.
fn digits(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::MILLIS => 3,
        TimeUnit::MICROS => 6,
        TimeUnit::NANOS => 9,
    }
}

fn part<'t>(of: &'t Type, name: &str) -> &'t Type {
    if of.is_primitive() {
        return of;
    }
    of.get_fields().iter().find(|field| field.name() == name).map_or(of, AsRef::as_ref)
}

/// The type of a list's elements. Old writers omit one or both of the groups around it.
fn element<'t>(of: &'t Type, value: &Field) -> &'t Type {
    let mut of = of;
    loop {
        match value {
            Field::Group(row) => {
                let names = row.get_column_iter().map(|(name, _)| name.as_str());
                if !of.is_primitive() && of.get_fields().iter().map(|field| field.name()).eq(names) {
                    return of;
                }
            }
            // its own elements are below it
            Field::ListInternal(_) | Field::MapInternal(_) => return below(below(of)),
            _ if of.is_primitive() => return of,
            _ => {}
        }
        if of.is_primitive() || of.get_fields().is_empty() {
            return of;
        }
        of = below(of);
    }
}

fn below(of: &Type) -> &Type {
    if of.is_primitive() {
        return of;
    }
    of.get_fields().first().map_or(of, AsRef::as_ref)
}

fn put_text(line: &mut Vec<u8>, text: &str) -> io::Result<()> {
    Ok(serde_json::to_writer(line, text)?)
}

/// JSON cannot express these; null would hide an overflow.
fn put_float<T: Serialize + Copy + Into<f64>>(line: &mut Vec<u8>, value: T) -> io::Result<()> {
    let wide: f64 = value.into();
    match wide.is_finite() {
        true => Ok(serde_json::to_writer(line, &value)?),
        false => Err(invalid(format!("is {wide}; expected a finite number or null"))),
    }
}

fn uuid(bytes: &[u8]) -> io::Result<String> {
    if bytes.len() != 16 {
        return Err(invalid(format!("is a UUID of {} bytes; expected 16", bytes.len())));
    }
    let digits = hex(bytes);
    Ok([&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-"))
}

/// ISO 8601, with every digit that the column has, and `Z` if the column is in UTC. A time without a zone stays without one.
fn put_timestamp(line: &mut Vec<u8>, value: i64, digits: u32, of: &Type) -> io::Result<()> {
    let day = DAY_S * 10_i64.pow(digits);
    let is_utc = match of.get_basic_info().logical_type_ref() {
        Some(LogicalType::Timestamp(time)) => time.is_adjusted_to_u_t_c,
        // the older annotation means UTC; INT96 has no zone
        _ => of.is_primitive() && of.get_physical_type() != PhysicalType::INT96,
    };
    let zone = if is_utc { "Z" } else { "" };
    write!(line, "\"{}T{}{zone}\"", date(value.div_euclid(day)), time(value.rem_euclid(day), digits))
}

fn time(value: i64, digits: u32) -> String {
    let unit = 10_i64.pow(digits);
    let (seconds, fraction) = (value.div_euclid(unit), value.rem_euclid(unit));
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hours:02}:{minutes:02}:{rest:02}.{fraction:0width$}", width = digits as usize)
}

/// The day of the proleptic Gregorian calendar that lies so many days after 1970-01-01.
fn date(days: i64) -> String {
    // years begin in March here, so that the leap day is the last of its year
    const FOUR_CENTURIES: i64 = 146_097;
    const TO_MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + TO_MARCH_OF_YEAR_0;
    let (era, day) = (days.div_euclid(FOUR_CENTURIES), days.rem_euclid(FOUR_CENTURIES));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day_of_month:02}", year + era * 400 + turn)
}

fn put_decimal(line: &mut Vec<u8>, value: &Decimal) -> io::Result<()> {
    const WIDEST: usize = size_of::<i128>();
    let (bytes, scale) = (value.data(), value.scale());
    if bytes.is_empty() || bytes.len() > WIDEST || !(0..=38).contains(&scale) {
        return Err(invalid("a decimal has more than 38 digits"));
    }
    // big-endian, two's complement
    let mut wide = if bytes[0] & 0x80 == 0 { [0; WIDEST] } else { [0xff; WIDEST] };
    wide[WIDEST - bytes.len()..].copy_from_slice(bytes);
    let number = i128::from_be_bytes(wide);
    let digits = format!("{:0width$}", number.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let (sign, point) = (if number < 0 { "-" } else { "" }, if scale > 0 { "." } else { "" });
    write!(line, "{sign}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use parquet::data_type::ByteArray;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    fn column(text: &str) -> Type {
        let schema = parse_message_type(&format!("message m {{ {text} }}")).unwrap();
        schema.get_fields()[0].as_ref().clone()
    }

    fn put(field: &Field, of: &str) -> io::Result<String> {
        let mut line = Vec::new();
        put_field(&mut line, field, &column(of))?;
        Ok(String::from_utf8(line).unwrap())
    }

    fn json(field: &Field) -> String {
        put(field, "optional int64 a (TIMESTAMP_MILLIS);").unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(json(&Field::Date(0)), "\"1970-01-01\"");
        assert_eq!(json(&Field::Date(19_782)), "\"2024-02-29\"");
        assert_eq!(json(&Field::Date(-1)), "\"1969-12-31\"");
        assert_eq!(json(&Field::Date(-719_528)), "\"0000-01-01\"");
        assert_eq!(json(&Field::TimestampMillis(1_709_251_199_001)), "\"2024-02-29T23:59:59.001Z\"");
        assert_eq!(json(&Field::TimestampMicros(-1)), "\"1969-12-31T23:59:59.999999Z\"");
        assert_eq!(json(&Field::TimeMillis(3_723_004)), "\"01:02:03.004\"");
        assert!(json(&Field::TimestampMillis(i64::MAX)).ends_with('"'));
        assert!(json(&Field::Date(i32::MIN)).ends_with('"'));
    }

    #[test]
    fn a_time_has_a_zone_where_its_column_has_one() {
        let second = 1_000_000_000;
        for (field, of, expected) in [
            (
                Field::TimestampMillis(1000),
                "optional int64 a (TIMESTAMP(MILLIS,true));",
                "\"1970-01-01T00:00:01.000Z\"",
            ),
            (
                Field::TimestampMillis(1000),
                "optional int64 a (TIMESTAMP(MILLIS,false));",
                "\"1970-01-01T00:00:01.000\"",
            ),
            (
                Field::TimestampMicros(1),
                "optional int64 a (TIMESTAMP(MICROS,false));",
                "\"1970-01-01T00:00:00.000001\"",
            ),
            (Field::Long(second), "optional int64 a (TIMESTAMP(NANOS,false));", "\"1970-01-01T00:00:01.000000000\""),
            (Field::Long(second), "optional int64 a (TIMESTAMP(NANOS,true));", "\"1970-01-01T00:00:01.000000000Z\""),
            (Field::Long(second), "optional int64 a (TIME(NANOS,false));", "\"00:00:01.000000000\""),
            // a writer may omit the older annotation
            (Field::Long(1_000_000), "optional int64 a (TIMESTAMP(MICROS,false));", "\"1970-01-01T00:00:01.000000\""),
            (Field::Long(second), "optional int64 a;", "1000000000"),
            (Field::TimestampMillis(1000), "optional int96 a;", "\"1970-01-01T00:00:01.000\""),
        ] {
            assert_eq!(put(&field, of).unwrap(), expected, "{of}");
        }
    }

    #[test]
    fn a_uuid_is_its_digits() {
        let bytes = Field::Bytes(ByteArray::from((0..16).collect::<Vec<u8>>()));
        let written = put(&bytes, "optional fixed_len_byte_array(16) a (UUID);").unwrap();
        assert_eq!(written, "\"00010203-0405-0607-0809-0a0b0c0d0e0f\"");
    }

    #[test]
    fn what_has_no_json_is_refused() {
        for (field, reason) in [
            (Field::Double(f64::NAN), "is NaN; expected a finite number"),
            (Field::Float(f32::INFINITY), "is inf; expected a finite number"),
            (Field::Double(f64::NEG_INFINITY), "is -inf"),
            (Field::Bytes(ByteArray::from(vec![0xff])), "not UTF-8"),
        ] {
            let error = put(&field, "optional double a;").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn decimals_keep_their_digits() {
        assert_eq!(json(&Field::Decimal(Decimal::from_i32(-1234, 6, 2))), "-12.34");
        assert_eq!(json(&Field::Decimal(Decimal::from_i64(7, 6, 3))), "0.007");
        assert_eq!(json(&Field::Decimal(Decimal::from_i32(120, 6, 0))), "120");
    }

    #[test]
    fn json_stays_on_one_line() {
        let mut line = Vec::new();
        put_json(&mut line, "{\n \"a\": \"b\\n\"}").unwrap();
        assert_eq!(line, b"{  \"a\": \"b\\n\"}");
        line.clear();
        put_json(&mut line, "{no").unwrap();
        assert_eq!(line, b"\"{no\"");
    }
}
