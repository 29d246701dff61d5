//! One row of a config table: what a key is, what it takes, and typed access to its value.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// Kafka's types of config values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Any text.
    String,
    /// 32-bit number.
    Int,
    /// 16-bit number.
    Short,
    /// 64-bit number.
    Long,
    /// Floating point number.
    Double,
    /// Texts separated by commas.
    List,
    /// Name of a Java class.
    Class,
    /// Text that is never shown.
    Password,
}

impl Kind {
    /// Kafka's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }

    /// The number of the type in DescribeConfigs answers (KIP-569).
    pub fn code(self) -> i8 {
        self as i8 + 1
    }
}

/// What values a key takes beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Valid {
    Any,
    Min(i64),
    Between(i64, i64),
    BetweenOr(i64, i64, i64),
    Ratio(f64, f64),
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    EachOf(&'static [&'static str]),
    NotEmpty,
    Replicas,
}

/// How much a key matters to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// Most should know it.
    High,
    /// Some need it.
    Medium,
    /// Few need it.
    Low,
}

impl Importance {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Importance::High => "HIGH",
            Importance::Medium => "MEDIUM",
            Importance::Low => "LOW",
        }
    }
}

/// Whether a broker key may change while the node runs (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only by a restart.
    ReadOnly,
    /// For one broker at a time.
    PerBroker,
    /// For one broker or as the default of all.
    ClusterWide,
}

impl UpdateMode {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            UpdateMode::ReadOnly => "read-only",
            UpdateMode::PerBroker => "per-broker",
            UpdateMode::ClusterWide => "cluster-wide",
        }
    }
}

/// What a key of Kafka's does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// What Kafka does with it.
    Honoured,
    /// Nothing: any valid value is taken, with a note that "has no effect here, because" of this.
    Accepted(&'static str),
    /// Nothing, and ignoring it could do harm: a value other than the default is refused with this reason.
    DefaultOnly(&'static str),
}

/// One row of a config table.
#[derive(Debug)]
pub struct ConfigKey {
    /// Kafka's name.
    pub name: &'static str,
    /// Type of the value.
    pub kind: Kind,
    /// Default in text form; `None` is null.
    pub default: Option<&'static str>,
    pub(super) valid: Valid,
    /// How much it matters.
    pub importance: Importance,
    /// Whether it may change while the node runs; [`UpdateMode::ClusterWide`] for topic keys.
    pub update: UpdateMode,
    /// Not shown to clients and not in the documentation, as Kafka does with keys for its own tests.
    pub internal: bool,
    /// For topic keys: the broker keys that give the value when the topic does not, in the order in
    /// which they count, with the factor from their unit to the topic key's.
    pub synonyms: &'static [(&'static str, i64)],
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
    /// Whether it has effect here.
    pub effect: Effect,
}

macro_rules! row_starters {
    ($($function:ident $kind:ident;)*) => {
        $(pub(super) const fn $function(name: &'static str) -> ConfigKey {
            ConfigKey::new(name, Kind::$kind)
        })*
    };
}

row_starters! {
    boolean Boolean;
    string String;
    int Int;
    short Short;
    long Long;
    double Double;
    list List;
    class Class;
    password Password;
}

/// Building of rows, in constants only.
impl ConfigKey {
    const fn new(name: &'static str, kind: Kind) -> ConfigKey {
        ConfigKey {
            name,
            kind,
            default: None,
            valid: Valid::Any,
            importance: Importance::Medium,
            update: UpdateMode::ReadOnly,
            internal: false,
            synonyms: &[],
            doc: "",
            effect: Effect::Honoured,
        }
    }

    pub(super) const fn default(self, default: &'static str) -> ConfigKey {
        ConfigKey { default: Some(default), ..self }
    }

    pub(super) const fn min(self, least: i64) -> ConfigKey {
        ConfigKey { valid: Valid::Min(least), ..self }
    }

    pub(super) const fn between(self, least: i64, most: i64) -> ConfigKey {
        ConfigKey { valid: Valid::Between(least, most), ..self }
    }

    pub(super) const fn between_or(self, least: i64, most: i64, other: i64) -> ConfigKey {
        ConfigKey { valid: Valid::BetweenOr(least, most, other), ..self }
    }

    pub(super) const fn ratio(self, least: f64, most: f64) -> ConfigKey {
        ConfigKey { valid: Valid::Ratio(least, most), ..self }
    }

    pub(super) const fn one_of(self, values: &'static [&'static str]) -> ConfigKey {
        ConfigKey { valid: Valid::OneOf(values), ..self }
    }

    pub(super) const fn one_of_any_case(self, values: &'static [&'static str]) -> ConfigKey {
        ConfigKey { valid: Valid::OneOfAnyCase(values), ..self }
    }

    pub(super) const fn each_of(self, values: &'static [&'static str]) -> ConfigKey {
        ConfigKey { valid: Valid::EachOf(values), ..self }
    }

    pub(super) const fn not_empty(self) -> ConfigKey {
        ConfigKey { valid: Valid::NotEmpty, ..self }
    }

    pub(super) const fn replicas(self) -> ConfigKey {
        ConfigKey { valid: Valid::Replicas, ..self }
    }

    pub(super) const fn high(self) -> ConfigKey {
        ConfigKey { importance: Importance::High, ..self }
    }

    pub(super) const fn low(self) -> ConfigKey {
        ConfigKey { importance: Importance::Low, ..self }
    }

    pub(super) const fn per_broker(self) -> ConfigKey {
        ConfigKey { update: UpdateMode::PerBroker, ..self }
    }

    pub(super) const fn cluster_wide(self) -> ConfigKey {
        ConfigKey { update: UpdateMode::ClusterWide, ..self }
    }

    pub(super) const fn internal(self) -> ConfigKey {
        ConfigKey { internal: true, ..self }
    }

    pub(super) const fn synonyms(self, synonyms: &'static [(&'static str, i64)]) -> ConfigKey {
        ConfigKey { synonyms, ..self }
    }

    pub(super) const fn doc(self, doc: &'static str) -> ConfigKey {
        ConfigKey { doc, ..self }
    }

    pub(super) const fn no_effect(self, reason: &'static str) -> ConfigKey {
        ConfigKey { effect: Effect::Accepted(reason), ..self }
    }

    pub(super) const fn default_only(self, reason: &'static str) -> ConfigKey {
        ConfigKey { effect: Effect::DefaultOnly(reason), ..self }
    }
}

/// A parsed value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Not set, and no default.
    Null,
    /// Of [`Kind::Boolean`].
    Bool(bool),
    /// Of the number kinds.
    Number(i64),
    /// Of [`Kind::Double`].
    Double(f64),
    /// Of [`Kind::String`], [`Kind::Class`] and [`Kind::Password`].
    Text(String),
    /// Of [`Kind::List`].
    List(Vec<String>),
}

impl Value {
    /// Kafka's text form of the value; `None` for null.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Value::Null => None,
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(value) => Some(value.to_string()),
            Value::Double(value) => Some(double_text(*value)),
            Value::Text(value) => Some(value.clone()),
            Value::List(values) => Some(values.join(",")),
        }
    }
}

/// The form Java prints: plain between 0.001 and 10^7, else with an exponent, always with a point.
fn double_text(value: f64) -> String {
    let plain = value == 0.0 || (1e-3..1e7).contains(&value.abs());
    if plain || !value.is_finite() {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => text,
    }
}

/// A value that a key does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// Name of the key.
    pub key: &'static str,
    /// The value; stars for a password.
    pub value: String,
    /// What the key takes.
    pub allowed: String,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Invalid value `{}` for `{}`: it takes {}", self.value, self.key, self.allowed)
    }
}

impl std::error::Error for InvalidValue {}

/// Values longer than this are cut in messages.
const SHOWN_CHARS: usize = 100;

impl ConfigKey {
    /// Passwords are told to nobody.
    pub fn is_sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The default as a value.
    pub fn default_value(&self) -> Value {
        match self.default {
            None => Value::Null,
            Some(text) => self.read(text).expect("a test reads the default of every row"),
        }
    }

    /// Reads a value in text form and checks it. Blanks around it do not count, nor does an item of a list of choices
    /// that is there already (KIP-1161).
    pub fn parse(&self, text: &str) -> Result<Value, InvalidValue> {
        let value = self.read(text).filter(|value| self.takes(value));
        let mut value = value.ok_or_else(|| self.invalid(text))?;
        if let (Valid::EachOf(_), Value::List(items)) = (self.valid, &mut value) {
            let mut seen = HashSet::new();
            items.retain(|item| seen.insert(item.clone()));
        }
        Ok(value)
    }

    /// The error that `text` is nothing this key takes.
    pub(super) fn invalid(&self, text: &str) -> InvalidValue {
        let value = match self.is_sensitive() {
            true => "***".to_owned(),
            false => text.chars().take(SHOWN_CHARS).collect(),
        };
        InvalidValue { key: self.name, value, allowed: self.allowed() }
    }

    fn read(&self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self.kind {
            Kind::Boolean if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
            Kind::Boolean if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
            Kind::Boolean => None,
            Kind::Int => text.parse::<i32>().ok().map(|number| Value::Number(number.into())),
            Kind::Short => text.parse::<i16>().ok().map(|number| Value::Number(number.into())),
            Kind::Long => text.parse().ok().map(Value::Number),
            Kind::Double => text.parse().ok().filter(|number: &f64| !number.is_nan()).map(Value::Double),
            Kind::List if text.is_empty() => Some(Value::List(Vec::new())),
            Kind::List => {
                let items: Vec<_> = text.split(',').map(|item| item.trim().to_owned()).collect();
                items.iter().all(|item| !item.is_empty()).then_some(Value::List(items))
            }
            Kind::String | Kind::Class | Kind::Password => Some(Value::Text(text.to_owned())),
        }
    }

    fn takes(&self, value: &Value) -> bool {
        match (self.valid, value) {
            (Valid::Min(least), Value::Number(number)) => *number >= least,
            (Valid::Between(least, most), Value::Number(number)) => (least..=most).contains(number),
            (Valid::BetweenOr(least, most, other), Value::Number(number)) => {
                *number == other || (least..=most).contains(number)
            }
            (Valid::Min(least), Value::Double(number)) => *number >= least as f64,
            (Valid::Ratio(least, most), Value::Double(number)) => (least..=most).contains(number),
            (Valid::OneOf(values), Value::Text(text)) => values.contains(&text.as_str()),
            (Valid::OneOfAnyCase(values), Value::Text(text)) => {
                values.iter().any(|value| value.eq_ignore_ascii_case(text))
            }
            (Valid::EachOf(values), Value::List(items)) => {
                items.iter().all(|item| values.contains(&item.as_str()))
            }
            (Valid::NotEmpty, Value::Text(text)) => !text.is_empty(),
            (Valid::Replicas, Value::List(items)) => {
                items.as_slice() == ["*"] || items.iter().all(|item| is_replica(item))
            }
            _ => true,
        }
    }

    /// The values it takes, or the items of its list, where they have names.
    pub fn choices(&self) -> &'static [&'static str] {
        match self.valid {
            Valid::OneOf(values) | Valid::OneOfAnyCase(values) | Valid::EachOf(values) => values,
            _ if self.kind == Kind::Boolean => &["true", "false"],
            _ => &[],
        }
    }

    /// What the key takes, in words.
    pub fn allowed(&self) -> String {
        let number = match self.kind {
            Kind::Int => "a whole number of 32 bits",
            Kind::Short => "a whole number of 16 bits",
            Kind::Long => "a whole number of 64 bits",
            _ => "a number",
        };
        match self.valid {
            Valid::Any => match self.kind {
                Kind::Boolean => "true or false".to_owned(),
                Kind::String => "any text".to_owned(),
                Kind::List => "a list separated by commas, without empty items".to_owned(),
                Kind::Class => "the name of a class".to_owned(),
                Kind::Password => "a secret".to_owned(),
                Kind::Int | Kind::Short | Kind::Long | Kind::Double => number.to_owned(),
            },
            Valid::Min(least) => format!("{number}, at least {least}"),
            Valid::Between(least, most) => format!("{number} from {least} to {most}"),
            Valid::BetweenOr(least, most, other) => format!("{number} from {least} to {most}, or {other}"),
            Valid::Ratio(least, most) => format!("{number} from {least} to {most}"),
            Valid::OneOf(values) => format!("one of {}", values.join(", ")),
            Valid::OneOfAnyCase(values) => format!("one of {}, in capitals or not", values.join(", ")),
            Valid::EachOf(values) => format!("a list, separated by commas, of {}", values.join(", ")),
            Valid::NotEmpty => "a text that is not empty".to_owned(),
            Valid::Replicas => "* or a list of partition:broker, separated by commas".to_owned(),
        }
    }
}

fn is_replica(text: &str) -> bool {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// A Rust type that values of some kinds have.
pub trait ConfigType {
    /// What a getter returns.
    type Output<'a>;
    /// The kinds of this type.
    const KINDS: &'static [Kind];
    /// Whether null is a value of this type.
    const NULLABLE: bool = false;
    /// Takes the value out; `None` for one of another kind, which the row rules out.
    fn get(value: &Value) -> Option<Self::Output<'_>>;
}

/// Type of keys with text; the getter returns `&str`.
pub enum Text {}
/// Type of keys with lists; the getter returns `&[String]`.
pub enum List {}

impl ConfigType for bool {
    type Output<'a> = bool;
    const KINDS: &'static [Kind] = &[Kind::Boolean];
    fn get(value: &Value) -> Option<bool> {
        if let Value::Bool(value) = value { Some(*value) } else { None }
    }
}

macro_rules! number_type {
    ($($type:ty: $kind:ident;)*) => {
        $(impl ConfigType for $type {
            type Output<'a> = $type;
            const KINDS: &'static [Kind] = &[Kind::$kind];
            fn get(value: &Value) -> Option<$type> {
                if let Value::Number(value) = value { <$type>::try_from(*value).ok() } else { None }
            }
        })*
    };
}

number_type! {
    i16: Short;
    i32: Int;
    i64: Long;
}

impl ConfigType for f64 {
    type Output<'a> = f64;
    const KINDS: &'static [Kind] = &[Kind::Double];
    fn get(value: &Value) -> Option<f64> {
        if let Value::Double(value) = value { Some(*value) } else { None }
    }
}

impl ConfigType for Text {
    type Output<'a> = &'a str;
    const KINDS: &'static [Kind] = &[Kind::String, Kind::Class, Kind::Password];
    fn get(value: &Value) -> Option<&str> {
        if let Value::Text(value) = value { Some(value) } else { None }
    }
}

impl ConfigType for List {
    type Output<'a> = &'a [String];
    const KINDS: &'static [Kind] = &[Kind::List];
    fn get(value: &Value) -> Option<&[String]> {
        if let Value::List(value) = value { Some(value) } else { None }
    }
}

impl<T: ConfigType> ConfigType for Option<T> {
    type Output<'a> = Option<T::Output<'a>>;
    const KINDS: &'static [Kind] = T::KINDS;
    const NULLABLE: bool = true;
    fn get(value: &Value) -> Option<Self::Output<'_>> {
        if *value == Value::Null { Some(None) } else { T::get(value).map(Some) }
    }
}

/// A row together with the Rust type of its values, so that reading it as another does not compile.
pub struct Key<T> {
    row: &'static ConfigKey,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T: ConfigType> Key<T> {
    /// Checked when compiled: the row's kind is one of the type's, and a row without a default is read
    /// as an option.
    pub(super) const fn of(row: &'static ConfigKey) -> Key<T> {
        let mut fits = false;
        let mut index = 0;
        while index < T::KINDS.len() {
            fits |= T::KINDS[index] as u8 == row.kind as u8;
            index += 1;
        }
        assert!(fits, "the key's type does not fit the row's kind");
        assert!(T::NULLABLE == row.default.is_none(), "a key may be null exactly when it has no default");
        Key { row, value: PhantomData }
    }

    /// The row.
    pub const fn row(self) -> &'static ConfigKey {
        self.row
    }

    /// The name.
    pub fn name(self) -> &'static str {
        self.row.name
    }

    /// The value as the key's type.
    pub(super) fn value_of(self, value: &Value) -> T::Output<'_> {
        T::get(value).expect("values are read by the row of their key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(key: &ConfigKey, value: &str) -> Option<String> {
        key.parse(value).ok().and_then(|value| value.to_text())
    }

    #[test]
    fn numbers_keep_their_width_and_bounds() {
        let key = int("n").min(-1);
        assert_eq!(text(&key, " +5 "), Some("5".into()));
        assert_eq!(text(&key, "-1"), Some("-1".into()));
        for bad in ["-2", "2147483648", "1.5", "", "x", "0x10"] {
            assert_eq!(text(&key, bad), None, "{bad}");
        }
        let gzip = int("n").between_or(1, 9, -1);
        let taken: Vec<i32> = (-3..12).filter(|n| gzip.parse(&n.to_string()).is_ok()).collect();
        assert_eq!(taken, [-1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }

    #[test]
    fn doubles_print_as_java_does() {
        let key = double("d");
        for (read, printed) in [
            ("0.5", "0.5"),
            ("5e-1", "0.5"),
            ("1", "1.0"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
            ("10000000", "1.0E7"),
            ("0.0001", "1.0E-4"),
        ] {
            assert_eq!(text(&key, read).as_deref(), Some(printed));
        }
        assert_eq!(text(&double("d").ratio(0.0, 1.0), "1.01"), None);
        assert_eq!(text(&key, "NaN"), None);
    }

    #[test]
    fn lists_drop_blanks_and_refuse_empty_items() {
        let key = list("l").each_of(&["compact", "delete"]);
        assert_eq!(text(&key, " delete , compact"), Some("delete,compact".into()));
        assert_eq!(text(&key, ""), Some(String::new()));
        for bad in ["compact,", "Compact", "x"] {
            assert_eq!(text(&key, bad), None, "{bad}");
        }
        let replicas = list("l").replicas();
        assert!(replicas.parse("*").is_ok() && replicas.parse("0:1,2:3").is_ok());
        assert!(replicas.parse("0:1,*").is_err() && replicas.parse("a:1").is_err());
    }

    #[test]
    fn the_error_says_what_is_allowed_and_hides_secrets() {
        let error = string("compression.type").one_of(&["gzip", "zstd"]).parse("rar").unwrap_err();
        assert_eq!(
            error.to_string(),
            "Invalid value `rar` for `compression.type`: it takes one of gzip, zstd"
        );
        assert_eq!(password("p").invalid("hunter2").value, "***");
    }
}
