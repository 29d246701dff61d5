//! Lines become records: key and value are taken apart, empty ones may be null.

use crate::failure::{Failure, Outcome};
use crate::input::find;

/// How key and value are found in a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyRule {
    /// What stands between key and value; a line without it has no key.
    pub(crate) delimiter: Option<Vec<u8>>,
    /// The key of every record whose line has none.
    pub(crate) fixed: Option<Vec<u8>>,
    /// Whether an empty key or value is null.
    pub(crate) empty_is_null: bool,
}

/// A line taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    /// Key, null allowed.
    pub(crate) key: Option<&'a [u8]>,
    /// Value, null for a tombstone.
    pub(crate) value: Option<&'a [u8]>,
}

impl KeyRule {
    /// Takes a line apart.
    pub(crate) fn apply<'a>(&'a self, line: &'a [u8]) -> Parsed<'a> {
        let found =
            self.delimiter.as_ref().and_then(|delimiter| Some((find(line, delimiter)?, delimiter.len())));
        let (key, value) = match found {
            Some((at, length)) => (Some(&line[..at]), &line[at + length..]),
            None => (self.fixed.as_deref(), line),
        };
        let or_null = |bytes: &&[u8]| !(self.empty_is_null && bytes.is_empty());
        Parsed { key: key.filter(or_null), value: Some(value).filter(or_null) }
    }
}

/// Reads a header `name=value`; a name alone has a null value.
pub(crate) fn parse_header(text: &str) -> Outcome<(Vec<u8>, Option<Vec<u8>>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.as_bytes().to_vec())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(Failure::usage(format!("`{text}` is no header")).help("headers look like name=value"));
    }
    Ok((name.as_bytes().to_vec(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(delimiter: Option<&str>, fixed: Option<&str>, empty_is_null: bool) -> KeyRule {
        let bytes = |text: &str| text.as_bytes().to_vec();
        KeyRule { delimiter: delimiter.map(bytes), fixed: fixed.map(bytes), empty_is_null }
    }

    #[test]
    fn the_first_delimiter_parts_key_and_value() {
        let colon = rule(Some(":"), None, false);
        assert_eq!(colon.apply(b"k:v:w"), Parsed { key: Some(b"k"), value: Some(b"v:w") });
        assert_eq!(colon.apply(b":"), Parsed { key: Some(b""), value: Some(b"") });
        assert_eq!(colon.apply(b"no key"), Parsed { key: None, value: Some(b"no key") });
        let null = rule(Some("::"), None, true);
        assert_eq!(null.apply(b"k::"), Parsed { key: Some(b"k"), value: None });
        assert_eq!(null.apply(b"::v"), Parsed { key: None, value: Some(b"v") });
        assert_eq!(null.apply(b""), Parsed { key: None, value: None });
    }

    #[test]
    fn a_fixed_key_is_for_lines_without_one() {
        let fixed = rule(Some("="), Some("all"), false);
        assert_eq!(fixed.apply(b"v"), Parsed { key: Some(b"all"), value: Some(b"v") });
        assert_eq!(fixed.apply(b"k=v"), Parsed { key: Some(b"k"), value: Some(b"v") });
    }

    #[test]
    fn headers_have_a_name() {
        assert_eq!(parse_header("a=b=c").expect("valid"), (b"a".to_vec(), Some(b"b=c".to_vec())));
        assert_eq!(parse_header("a").expect("valid"), (b"a".to_vec(), None));
        assert!(parse_header("=b").is_err());
    }
}
