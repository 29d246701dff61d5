//! Kafka's `server.properties`: Java's properties format, read with line numbers.
//!
//! A line is `key=value`, `key:value` or `key value`; `#` or `!` begins a comment line; a backslash at
//! the end of a line goes on with the next one; `\t \n \r \f \uXXXX` are escapes, any other escaped
//! character stands for itself. Blanks before key and value do not count, those after a value do (the
//! reader of a value drops them).

/// Where an assignment was made, in the order in which assignments are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// In a file, on this line, from 1.
    Line(u32),
    /// On the command line.
    CommandLine,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Line(line) => write!(f, "line {line}"),
            Origin::CommandLine => f.write_str("command line"),
        }
    }
}

/// One `key=value` and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Name before the sign.
    pub key: String,
    /// Text after it.
    pub value: String,
    /// Where it stands.
    pub origin: Origin,
}

impl Assignment {
    /// An assignment `KEY=VALUE` of the command line.
    pub fn from_argument(argument: &str) -> Option<Assignment> {
        let (key, value) = argument.split_once('=')?;
        let (key, value) = (key.trim().to_owned(), value.to_owned());
        (!key.is_empty()).then_some(Assignment { key, value, origin: Origin::CommandLine })
    }
}

/// The text is not in properties format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct PropertiesError {
    /// Line, from 1.
    pub line: u32,
    /// What is wrong.
    pub reason: &'static str,
}

/// Reads a file's text; assignments come in the order they are written.
pub fn parse_properties(text: &str) -> Result<Vec<Assignment>, PropertiesError> {
    let mut assignments = Vec::new();
    let mut lines = text.lines().zip(1u32..);
    while let Some((first, line)) = lines.next() {
        let first = first.trim_start_matches(is_blank);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while ends_with_open_backslash(&logical) {
            logical.pop();
            match lines.next() {
                Some((next, _)) => logical.push_str(next.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let (key, value) = split(&logical);
        let unescape = |text| unescape(text).map_err(|reason| PropertiesError { line, reason });
        assignments.push(Assignment {
            key: unescape(key)?,
            value: unescape(value)?,
            origin: Origin::Line(line),
        });
    }
    Ok(assignments)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0c')
}

fn ends_with_open_backslash(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// Key and value, still escaped. The key ends at the first `=`, `:` or blank that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|character| {
        let ends = !escaped && (is_blank(character) || character == '=' || character == ':');
        escaped = character == '\\' && !escaped;
        ends
    });
    let Some(end) = end else {
        return (line, "");
    };
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    (key, rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank))
}

fn unescape(text: &str) -> Result<String, &'static str> {
    if !text.contains('\\') {
        return Ok(text.to_owned());
    }
    // Escapes give UTF-16 units: a character beyond 16 bits is written as two of them.
    let mut units = Vec::with_capacity(text.len());
    let mut characters = text.chars();
    let mut buffer = [0; 2];
    while let Some(character) = characters.next() {
        let character = match character {
            '\\' => match characters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\x0c',
                Some('u') => {
                    let digits: String = characters.by_ref().take(4).collect();
                    let hex = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    let unit = u16::from_str_radix(&digits, 16).ok().filter(|_| hex);
                    units.push(unit.ok_or("\\u must be followed by four hexadecimal digits")?);
                    continue;
                }
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(character.encode_utf16(&mut buffer));
    }
    String::from_utf16(&units).map_err(|_| "a \\u escape names half of a character")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u32, String, String)> {
        let line = |origin| if let Origin::Line(line) = origin { line } else { 0 };
        let assignments = parse_properties(text).unwrap();
        assignments.into_iter().map(|a| (line(a.origin), a.key, a.value)).collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{text}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    #[test]
    fn separators_comments_and_blanks() {
        let text = "# c\n! c\n\n a=1\n\tb : 2\nc 3\nd=\ne\nf = = x \n  # c\r\ng=h#i\r\n";
        let expected = [
            (4, "a", "1"),
            (5, "b", "2"),
            (6, "c", "3"),
            (7, "d", ""),
            (8, "e", ""),
            (9, "f", "= x "),
            (11, "g", "h#i"),
        ];
        let expected: Vec<_> = expected.map(|(line, k, v)| (line, k.to_owned(), v.to_owned())).into();
        assert_eq!(read(text), expected);
    }

    #[test]
    fn lines_go_on_behind_a_backslash() {
        let text = "listeners=PLAINTEXT://:9092,\\\n    CONTROLLER://:9093\nnext=1\nodd=a\\\\\nlast=x\\";
        let expected = [
            (1, "listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
            (3, "next", "1"),
            (4, "odd", "a\\"),
            (5, "last", "x"),
        ];
        let expected: Vec<_> = expected.map(|(line, k, v)| (line, k.to_owned(), v.to_owned())).into();
        assert_eq!(read(text), expected);
    }

    #[test]
    fn escapes() {
        assert_eq!(one(r"a\=b\:c\ d=e\tf\u00e4\:\\"), ("a=b:c d".into(), "e\tfä:\\".into()));
        assert_eq!(one(r"k=\ud83d\ude00").1, "😀");
        for bad in [r"k=\u12", r"k=\u12g4", r"k=\ud83d"] {
            assert_eq!(parse_properties(&format!("\n{bad}")).unwrap_err().line, 2, "{bad}");
        }
    }

    #[test]
    fn arguments_of_the_command_line() {
        let assignment = Assignment::from_argument("log.dirs=/a=b").unwrap();
        assert_eq!((assignment.key.as_str(), assignment.value.as_str()), ("log.dirs", "/a=b"));
        assert_eq!(Assignment::from_argument("log.dirs"), None);
        assert_eq!(Assignment::from_argument("=x"), None);
    }
}
