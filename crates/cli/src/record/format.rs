//! kcat's format strings: `%k %o %s …` and escapes, so that scripts carry over.

use client::ConsumedRecord;

use crate::failure::{Failure, Outcome};

/// What stands for null where nulls are shown at all.
const NULL: &[u8] = b"NULL";

/// One part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(Vec<u8>),
    Key,
    KeyLength,
    Value,
    ValueLength,
    /// Length of the value as four bytes, the highest first.
    ValueLengthBinary,
    Offset,
    Partition,
    Topic,
    Timestamp,
    Headers,
}

/// A format that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    parts: Vec<Part>,
    /// Whether null keys and values are shown as `NULL` rather than as nothing.
    show_null: bool,
}

impl Format {
    /// Reads a format string.
    pub(crate) fn parse(text: &str, show_null: bool) -> Outcome<Format> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let bytes = unescape_keeping_percent(text)?;
        let mut rest = bytes.into_iter();
        while let Some(unit) = rest.next() {
            let Unit::Percent = unit else {
                plain.push(unit.byte());
                continue;
            };
            let part = match rest.next() {
                Some(Unit::Percent) => {
                    plain.push(b'%');
                    continue;
                }
                Some(Unit::Byte(letter)) => part_of(letter),
                None => None,
            };
            let part = part.ok_or_else(|| unknown_token(text))?;
            if !plain.is_empty() {
                parts.push(Part::Bytes(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Bytes(plain));
        }
        Ok(Format { parts, show_null })
    }

    /// Value and delimiter, with the key and its delimiter in front if there is one: what kcat prints
    /// when it is given no format.
    pub(crate) fn usual(key_delimiter: Option<&[u8]>, delimiter: &[u8], show_null: bool) -> Format {
        let mut parts = Vec::new();
        if let Some(key_delimiter) = key_delimiter {
            parts.extend([Part::Key, Part::Bytes(key_delimiter.to_vec())]);
        }
        parts.extend([Part::Value, Part::Bytes(delimiter.to_vec())]);
        Format { parts, show_null }
    }

    /// The same with the offset in front, and a delimiter between them (a tab unless named).
    pub(crate) fn behind_offset(mut self, delimiter: Option<&[u8]>) -> Format {
        let front = [Part::Offset, Part::Bytes(delimiter.unwrap_or(b"\t").to_vec())];
        self.parts.splice(0..0, front);
        self
    }

    /// Appends a record to `out`.
    pub(crate) fn put(&self, record: &ConsumedRecord, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) => out.extend_from_slice(bytes),
                Part::Key => self.put_nullable(record.key.as_deref(), out),
                Part::Value => self.put_nullable(record.value.as_deref(), out),
                Part::KeyLength => put_number(length(record.key.as_deref()), out),
                Part::ValueLength => put_number(length(record.value.as_deref()), out),
                Part::ValueLengthBinary => {
                    out.extend_from_slice(&(length(record.value.as_deref()) as i32).to_be_bytes());
                }
                Part::Offset => put_number(record.offset, out),
                Part::Partition => put_number(record.partition.into(), out),
                Part::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Part::Timestamp => put_number(record.timestamp.unwrap_or(-1), out),
                Part::Headers => put_headers(record, out),
            }
        }
    }

    fn put_nullable(&self, bytes: Option<&[u8]>, out: &mut Vec<u8>) {
        match bytes {
            Some(bytes) => out.extend_from_slice(bytes),
            None if self.show_null => out.extend_from_slice(NULL),
            None => {}
        }
    }
}

fn part_of(letter: u8) -> Option<Part> {
    Some(match letter {
        b's' => Part::Value,
        b'S' => Part::ValueLength,
        b'R' => Part::ValueLengthBinary,
        b'k' => Part::Key,
        b'K' => Part::KeyLength,
        b'T' => Part::Timestamp,
        b'h' => Part::Headers,
        b't' => Part::Topic,
        b'p' => Part::Partition,
        b'o' => Part::Offset,
        _ => return None,
    })
}

fn unknown_token(text: &str) -> Failure {
    Failure::usage(format!("`{text}` has a % token that is not known")).help(
        "tokens: %s value, %S its length, %R the same in 4 bytes, %k key, %K its length, %T time, %h headers, \
         %t topic, %p partition, %o offset, %% a percent sign",
    )
}

/// Bytes of a value; -1 for null.
fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

fn put_number(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(number.to_string().as_bytes());
}

fn put_headers(record: &ConsumedRecord, out: &mut Vec<u8>) {
    for (index, (name, value)) in record.headers.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value.as_deref().unwrap_or(NULL));
    }
}

/// A byte of a format, told apart from a percent sign that was not written as an escape.
#[derive(Clone, Copy)]
enum Unit {
    Byte(u8),
    Percent,
}

impl Unit {
    fn byte(self) -> u8 {
        match self {
            Unit::Byte(byte) => byte,
            Unit::Percent => b'%',
        }
    }
}

/// Reads the escapes `\n \r \t \0 \\ \xHH` of a delimiter or format.
pub(crate) fn unescape(text: &str) -> Outcome<Vec<u8>> {
    Ok(unescape_keeping_percent(text)?.into_iter().map(Unit::byte).collect())
}

fn unescape_keeping_percent(text: &str) -> Outcome<Vec<Unit>> {
    let mut units = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let unit = match byte {
            b'%' => Unit::Percent,
            b'\\' => match bytes.next() {
                Some(b'n') => Unit::Byte(b'\n'),
                Some(b'r') => Unit::Byte(b'\r'),
                Some(b't') => Unit::Byte(b'\t'),
                Some(b'0') => Unit::Byte(0),
                Some(b'x') => Unit::Byte(hexadecimal(&mut bytes).ok_or_else(|| bad_escape(text))?),
                Some(other @ (b'\\' | b'%')) => Unit::Byte(other),
                _ => return Err(bad_escape(text)),
            },
            byte => Unit::Byte(byte),
        };
        units.push(unit);
    }
    Ok(units)
}

fn hexadecimal(bytes: &mut impl Iterator<Item = u8>) -> Option<u8> {
    let mut digit = || char::from(bytes.next()?).to_digit(16);
    Some((digit()? * 16 + digit()?) as u8)
}

fn bad_escape(text: &str) -> Failure {
    Failure::usage(format!("`{text}` has an escape that is not known"))
        .help("escapes: \\n \\r \\t \\0 \\\\ \\% and \\xHH with two hexadecimal digits")
}

#[cfg(test)]
#[path = "format_tests.rs"]
pub(crate) mod tests;
