//! The message notation: its grammar as types, and the parser.
//!
//! `crates/wire/schema/README.md` describes the notation for people. The parser refuses what the
//! generator could not express (an unknown struct, a tag in a message that has no flexible version),
//! so the generator may rely on a sound model.

use anyhow::{Context, Result, bail, ensure};

/// An inclusive range of versions; `max` is [`i16::MAX`] for an open end such as `3+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    pub(super) min: i16,
    pub(super) max: i16,
}

impl Versions {
    fn parse(text: &str) -> Result<Self> {
        let number = |digits: &str| digits.parse::<i16>().with_context(|| format!("bad versions `{text}`"));
        let (min, max) = if let Some(min) = text.strip_suffix('+') {
            (number(min)?, i16::MAX)
        } else if let Some((min, max)) = text.split_once('-') {
            (number(min)?, number(max)?)
        } else {
            (number(text)?, number(text)?)
        };
        ensure!(min >= 0 && min <= max, "bad versions `{text}`");
        Ok(Self { min, max })
    }

    fn looks_like(text: &str) -> bool {
        text.starts_with(|first: char| first.is_ascii_digit())
    }

    pub(super) fn contains(self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// The common part, or `None` if there is none.
    pub(super) fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { min: self.min.max(other.min), max: self.max.min(other.max) };
        (both.min <= both.max).then_some(both)
    }

    /// True if every version of `other` is one of these.
    pub(super) fn covers(self, other: Self) -> bool {
        self.min <= other.min && other.max <= self.max
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.max {
            i16::MAX => write!(f, "{}+", self.min),
            max if max == self.min => write!(f, "{max}"),
            max => write!(f, "{}-{max}", self.min),
        }
    }
}

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Body of a request of the API with this key.
    Request(i16),
    /// Body of a response of the API with this key.
    Response(i16),
    /// A request or response header.
    Header,
    /// Bytes inside another message or a record.
    Data,
    /// Key or value of a record in an internal topic, told apart by this type number.
    Record(i16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint16,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Array(Box<Type>),
    Struct(String),
}

impl Type {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "bool" => Self::Bool,
            "int8" => Self::Int8,
            "int16" => Self::Int16,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "uint16" => Self::Uint16,
            "float64" => Self::Float64,
            "uuid" => Self::Uuid,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "records" => Self::Records,
            _ if text.starts_with("[]") => match Self::parse(&text[2..])? {
                Self::Array(_) | Self::Records => bail!("`{text}`: arrays hold neither arrays nor records"),
                element => Self::Array(Box::new(element)),
            },
            _ if text.starts_with(|first: char| first.is_ascii_uppercase()) => Self::Struct(text.to_owned()),
            _ => bail!("unknown type `{text}`"),
        })
    }

    /// The struct this type is or holds.
    pub(super) fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.struct_name(),
            _ => None,
        }
    }

    fn may_be_null(&self) -> bool {
        matches!(self, Self::String | Self::Bytes | Self::Records | Self::Array(_) | Self::Struct(_))
    }
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) ty: Type,
    pub(super) versions: Versions,
    pub(super) nullable: Option<Versions>,
    pub(super) tag: Option<u32>,
    /// As written after `default`; `None` means zero, empty or, for records, null.
    pub(super) default: Option<String>,
    pub(super) ignorable: bool,
    /// Keeps the coding of non-flexible versions for ever.
    pub(super) inflexible: bool,
}

impl Field {
    /// Null when nothing is said, be it by `default null` or because records are null by nature.
    pub(super) fn defaults_to_null(&self) -> bool {
        self.default.as_deref() == Some("null") || self.ty == Type::Records
    }
}

#[derive(Clone, Debug)]
pub(super) struct Struct {
    pub(super) name: String,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) valid: Versions,
    /// First flexible version, if there is one.
    pub(super) flexible: Option<i16>,
    /// The message's own struct first, then those within it in the order of their appearance.
    pub(super) structs: Vec<Struct>,
}

impl Message {
    pub(super) fn name(&self) -> &str {
        &self.structs[0].name
    }

    pub(super) fn find(&self, name: &str) -> &Struct {
        self.structs.iter().find(|found| found.name == name).expect("the parser checked all struct names")
    }

    /// Fewest bytes a value of `ty` takes in any of `versions`: what bounds an array's length before it is read.
    pub(super) fn least_bytes(&self, ty: &Type, versions: Versions) -> usize {
        let versions = versions.min..=versions.max.min(self.valid.max);
        let bytes = versions.map(|version| self.least_bytes_at(ty, version, false));
        bytes.min().expect("a range is not empty")
    }

    fn least_bytes_at(&self, ty: &Type, version: i16, nullable: bool) -> usize {
        let compact = self.flexible.is_some_and(|flexible| version >= flexible);
        match ty {
            Type::Bool | Type::Int8 => 1,
            Type::Int16 | Type::Uint16 => 2,
            Type::Int32 => 4,
            Type::Int64 | Type::Float64 => 8,
            Type::Uuid => 16,
            Type::String | Type::Bytes | Type::Records | Type::Array(_) if compact => 1,
            Type::String => 2,
            Type::Bytes | Type::Records | Type::Array(_) => 4,
            Type::Struct(_) if nullable => 1,
            Type::Struct(name) => {
                let present = |field: &&Field| field.tag.is_none() && field.versions.contains(version);
                let fields = self.find(name).fields.iter().filter(present);
                let nullable = |field: &Field| field.nullable.is_some_and(|range| range.contains(version));
                let bytes = fields.map(|field| self.least_bytes_at(&field.ty, version, nullable(field)));
                bytes.sum::<usize>() + usize::from(compact)
            }
        }
    }
}

/// An API or a data message, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) messages: Vec<Message>,
}

struct Line<'t> {
    number: usize,
    indent: usize,
    text: &'t str,
}

/// Reads one file of the notation.
pub(super) fn parse(text: &str) -> Result<File> {
    let mut lines = Vec::new();
    for (index, raw) in text.lines().enumerate() {
        let content = raw.split('#').next().unwrap_or_default().trim_end();
        if content.is_empty() {
            continue;
        }
        let text = content.trim_start();
        let spaces = content.len() - text.len();
        ensure!(spaces % 2 == 0, "line {}: indent by two spaces", index + 1);
        lines.push(Line { number: index + 1, indent: spaces / 2, text });
    }
    let mut file = File::default();
    let mut api: Option<Head> = None;
    let mut rest = &lines[..];
    while let Some((line, after)) = rest.split_first() {
        let length = after.iter().take_while(|line| line.indent > 0).count();
        let (body, next) = after.split_at(length);
        let at = || format!("line {}: `{}`", line.number, line.text);
        ensure!(line.indent == 0, "line {}: unexpected indent", line.number);
        match line.text {
            "request" | "response" => {
                let head = api.as_ref().with_context(|| format!("{}: no `api` line before", at()))?;
                file.messages.push(head.side(line.text == "request").message(body).with_context(at)?);
            }
            _ => {
                let head = Head::parse(line.text).with_context(at)?;
                if head.word == "api" {
                    ensure!(body.is_empty(), "{}: fields belong under `request` or `response`", at());
                    api = Some(head);
                } else {
                    file.messages.push(head.message(body).with_context(at)?);
                }
            }
        }
        rest = next;
    }
    Ok(file)
}

/// The line that opens a message or an API: `api 11 JoinGroup 0-9 flexible 6+`.
#[derive(Clone)]
struct Head {
    word: String,
    kind: Kind,
    name: String,
    valid: Versions,
    flexible: Option<i16>,
}

impl Head {
    fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let mut next = |what: &str| words.next().with_context(|| format!("{what} missing"));
        let word = next("kind")?;
        let kind = match word {
            "api" => Kind::Request(next("API key")?.parse()?),
            "record" => Kind::Record(next("record type")?.parse()?),
            "header" => Kind::Header,
            "data" => Kind::Data,
            _ => bail!("unknown kind `{word}`"),
        };
        let name = next("name")?.to_owned();
        let valid = Versions::parse(next("versions")?)?;
        ensure!(valid.max != i16::MAX, "valid versions have an end");
        let flexible = match words.next() {
            None => None,
            Some("flexible") => {
                let range = Versions::parse(words.next().context("versions missing after `flexible`")?)?;
                ensure!(range.max == i16::MAX, "flexible versions have no end");
                Some(range.min)
            }
            Some(other) => bail!("unknown word `{other}`"),
        };
        ensure!(words.next().is_none(), "words left over");
        Ok(Self { word: word.to_owned(), kind, name, valid, flexible })
    }

    /// The head of an API's request or response.
    fn side(&self, request: bool) -> Self {
        let Kind::Request(key) = self.kind else { unreachable!("only `api` lines have sides") };
        let (kind, suffix) =
            if request { (Kind::Request(key), "Request") } else { (Kind::Response(key), "Response") };
        Self { kind, name: format!("{}{suffix}", self.name), ..self.clone() }
    }

    fn message(&self, body: &[Line<'_>]) -> Result<Message> {
        let mut structs = vec![Struct { name: self.name.clone(), fields: Vec::new() }];
        let fields = parse_fields(body, 1, &mut structs)?;
        structs[0].fields = fields;
        let message = Message { kind: self.kind, valid: self.valid, flexible: self.flexible, structs };
        check(&message)?;
        Ok(message)
    }
}

fn parse_fields(lines: &[Line<'_>], indent: usize, structs: &mut Vec<Struct>) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    let mut rest = lines;
    while let Some((line, after)) = rest.split_first() {
        let length = after.iter().take_while(|line| line.indent > indent).count();
        let (body, next) = after.split_at(length);
        let at = || format!("line {}: `{}`", line.number, line.text);
        ensure!(line.indent == indent, "{}: unexpected indent", at());
        let defines = if let Some(name) = line.text.strip_prefix("struct ") {
            ensure!(!body.is_empty(), "{}: a struct without fields", at());
            Some(name.to_owned())
        } else {
            let field = parse_field(line.text).with_context(at)?;
            let name = field.ty.struct_name().map(str::to_owned);
            ensure!(body.is_empty() || name.is_some(), "{}: only structs have fields", at());
            fields.push(field);
            name.filter(|_| !body.is_empty())
        };
        if let Some(name) = defines {
            ensure!(structs.iter().all(|known| known.name != name), "{}: `{name}` is defined twice", at());
            let place = structs.len();
            structs.push(Struct { name, fields: Vec::new() });
            let fields = parse_fields(body, indent + 1, structs)?;
            structs[place].fields = fields;
        }
        rest = next;
    }
    Ok(fields)
}

fn parse_field(text: &str) -> Result<Field> {
    let (name, rest) = text.split_once(": ").context("expected `name: type versions …`")?;
    let mut words = rest.split_whitespace().peekable();
    let ty = Type::parse(words.next().context("type missing")?)?;
    let versions = Versions::parse(words.next().context("versions missing")?)?;
    let mut field = Field {
        name: name.to_owned(),
        ty,
        versions,
        nullable: None,
        tag: None,
        default: None,
        ignorable: false,
        inflexible: false,
    };
    while let Some(word) = words.next() {
        match word {
            "nullable" => {
                let range = words.next_if(|word| Versions::looks_like(word));
                field.nullable = Some(range.map_or(Ok(versions), Versions::parse)?);
            }
            "tag" => field.tag = Some(words.next().context("number missing after `tag`")?.parse()?),
            "default" => {
                field.default = Some(words.next().context("value missing after `default`")?.to_owned())
            }
            "ignorable" => field.ignorable = true,
            "inflexible" => field.inflexible = true,
            _ => bail!("unknown word `{word}`"),
        }
    }
    ensure!(field.nullable.is_none() || field.ty.may_be_null(), "a field of this type is never null");
    Ok(field)
}

/// Refuses a model the generator cannot put into code.
fn check(message: &Message) -> Result<()> {
    for owner in &message.structs {
        let mut tags: Vec<u32> = Vec::new();
        for field in &owner.fields {
            let at = || format!("{}.{}", owner.name, field.name);
            if let Some(name) = field.ty.struct_name() {
                let known = message.structs.iter().any(|known| known.name == name);
                ensure!(known, "{}: struct `{name}` is not defined", at());
            }
            let default_is_sound = match (field.default.as_deref(), &field.ty) {
                (None, _) => true,
                (Some("null"), _) => field.nullable.is_some(),
                (Some("true"), Type::Bool) => true,
                (Some(digits), Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64) => {
                    digits.parse::<i64>().is_ok()
                }
                _ => false,
            };
            ensure!(default_is_sound, "{}: the default does not fit the type", at());
            if let Some(tag) = field.tag {
                let flexible =
                    message.flexible.with_context(|| format!("{}: tag without flexible versions", at()))?;
                let tagged = Versions { min: flexible, max: i16::MAX };
                let present = field.versions.intersect(message.valid);
                ensure!(
                    present.is_none_or(|range| tagged.covers(range)),
                    "{}: tag in a non-flexible version",
                    at()
                );
                ensure!(field.ty != Type::Records, "{}: records are never tagged", at());
                ensure!(!tags.contains(&tag), "{}: tag {tag} is used twice", at());
                tags.push(tag);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
api 99 Sample 1-4 flexible 3+

request
  name: string 0+ nullable 2+ default null ignorable  # a comment
  items: []Item 1+
    id: uuid 1+
    score: int32 3+ tag 0 default -1
  extra: Item 4+

response
  error_code: int16 0+
";

    #[test]
    fn reads_apis_fields_and_nested_structs() {
        let file = parse(SAMPLE).expect("sound");
        let [request, response] = &file.messages[..] else { panic!("two messages") };
        assert_eq!((request.name(), request.kind), ("SampleRequest", Kind::Request(99)));
        assert_eq!((response.name(), response.kind), ("SampleResponse", Kind::Response(99)));
        assert_eq!(request.flexible, Some(3));
        let name = &request.structs[0].fields[0];
        assert_eq!(name.nullable, Some(Versions { min: 2, max: i16::MAX }));
        assert!(name.ignorable && name.defaults_to_null());
        assert_eq!(request.find("Item").fields[1].tag, Some(0));
    }

    #[test]
    fn least_bytes_is_the_least_over_all_versions() {
        let file = parse(SAMPLE).expect("sound");
        let request = &file.messages[0];
        let (all, old) = (request.valid, Versions { min: 1, max: 2 });
        assert_eq!(request.least_bytes(&Type::String, all), 1);
        assert_eq!(request.least_bytes(&Type::String, old), 2);
        assert_eq!(request.least_bytes(&Type::Struct("Item".to_owned()), all), 16);
        assert_eq!(request.least_bytes(&Type::Struct("Item".to_owned()), Versions { min: 3, max: 4 }), 17);
    }

    #[test]
    fn refuses_unsound_messages() {
        for (text, complaint) in [
            ("data A 0\n  a: B 0+\n", "struct `B` is not defined"),
            ("data A 0\n  a: int32 0+ tag 0\n", "tag without flexible versions"),
            ("data A 0-1 flexible 1+\n  a: int32 0+ tag 0\n", "tag in a non-flexible version"),
            ("data A 0 flexible 0+\n  a: int32 0+ tag 0\n  b: int32 0+ tag 0\n", "used twice"),
            ("data A 0\n  a: int32 0+ nullable\n", "never null"),
            ("data A 0\n  a: string 0+ default null\n", "does not fit"),
            ("data A 0\n  a: int128 0+\n", "unknown type"),
            ("data A 0\n   a: int8 0+\n", "indent by two"),
            ("data A 0\n  a: int8 0+ optional\n", "unknown word"),
            ("data A 0+\n  a: int8 0+\n", "have an end"),
            ("request\n  a: int8 0+\n", "no `api` line"),
        ] {
            let error = parse(text).map(|_| ()).expect_err(text);
            assert!(format!("{error:#}").contains(complaint), "{text}: {error:#}");
        }
    }
}
