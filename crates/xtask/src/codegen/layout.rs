//! How a message looks in Rust: names, types, lifetimes, defaults and the conditions on versions.
//!
//! The emitters share this view, so that the struct, its codec and its samples cannot disagree.

use std::collections::BTreeMap;

use super::notation::{Field, Kind, Message, Struct, Type, Versions};

/// A message with what the generator worked out about its structs.
pub(super) struct Layout<'m> {
    pub(super) message: &'m Message,
    /// Versions in which each struct can occur at all.
    reach: BTreeMap<&'m str, Versions>,
}

/// When, among the versions a struct can occur in, something holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum When {
    Always,
    Never,
    /// Under this condition on `version`; the second is its opposite.
    If(String, String),
}

impl<'m> Layout<'m> {
    pub(super) fn new(message: &'m Message) -> Self {
        let mut reach: BTreeMap<&str, Versions> = BTreeMap::from([(message.name(), message.valid)]);
        // A struct is used only by structs around it, so the depth of nesting bounds the rounds.
        for _ in &message.structs {
            for owner in &message.structs {
                let Some(owner_reach) = reach.get(owner.name.as_str()).copied() else { continue };
                for field in &owner.fields {
                    let Some(name) = field.ty.struct_name() else { continue };
                    let Some(used) = field.versions.intersect(owner_reach) else { continue };
                    let known = reach.entry(name).or_insert(used);
                    *known = Versions { min: known.min.min(used.min), max: known.max.max(used.max) };
                }
            }
        }
        Self { message, reach }
    }

    pub(super) fn reach(&self, owner: &Struct) -> Versions {
        self.reach.get(owner.name.as_str()).copied().unwrap_or(self.message.valid)
    }

    /// When `versions` hold within `among`.
    pub(super) fn when(versions: Versions, among: Versions) -> When {
        let Some(common) = versions.intersect(among) else { return When::Never };
        match (common.min == among.min, common.max == among.max) {
            (true, true) => When::Always,
            (false, true) => {
                When::If(format!("version >= {}", common.min), format!("version < {}", common.min))
            }
            (true, false) => {
                When::If(format!("version <= {}", common.max), format!("version > {}", common.max))
            }
            (false, false) => {
                let range = format!("({}..={}).contains(&version)", common.min, common.max);
                let opposite = format!("!{range}");
                When::If(range, opposite)
            }
        }
    }

    /// When the field is on the wire.
    pub(super) fn present(&self, owner: &Struct, field: &Field) -> When {
        Self::when(field.versions, self.reach(owner))
    }

    /// When, among the versions that have the field, it may be null.
    pub(super) fn null_allowed(&self, owner: &Struct, field: &Field) -> When {
        match (field.nullable, field.versions.intersect(self.reach(owner))) {
            (Some(nullable), Some(present)) => Self::when(nullable, present),
            _ => When::Never,
        }
    }

    /// When the struct has tagged fields and compact lengths.
    pub(super) fn flexible(&self, owner: &Struct) -> When {
        match self.message.flexible {
            Some(min) => Self::when(Versions { min, max: i16::MAX }, self.reach(owner)),
            None => When::Never,
        }
    }

    /// Whether the Rust type is an `Option`.
    pub(super) fn is_option(&self, field: &Field) -> bool {
        match field.ty {
            Type::Records => matches!(self.message.kind, Kind::Request(_)),
            _ => field.nullable.is_some_and(|range| range.intersect(self.message.valid).is_some()),
        }
    }

    /// The field's type in Rust.
    pub(super) fn rust_type(&self, field: &Field) -> String {
        let plain = self.plain_type(&field.ty);
        if self.is_option(field) { format!("Option<{plain}>") } else { plain }
    }

    fn plain_type(&self, ty: &Type) -> String {
        match ty {
            Type::Bool => "bool".to_owned(),
            Type::Int8 => "i8".to_owned(),
            Type::Int16 => "i16".to_owned(),
            Type::Int32 => "i32".to_owned(),
            Type::Int64 => "i64".to_owned(),
            Type::Uint16 => "u16".to_owned(),
            Type::Float64 => "f64".to_owned(),
            Type::Uuid => "Uuid".to_owned(),
            Type::String => "Cow<'a, str>".to_owned(),
            Type::Bytes => "Cow<'a, [u8]>".to_owned(),
            Type::Records if self.records_are_borrowed() => "&'a [u8]".to_owned(),
            Type::Records => "Payload".to_owned(),
            Type::Array(element) => format!("Vec<{}>", self.plain_type(element)),
            Type::Struct(name) => format!("{name}{}", self.generics(self.message.find(name))),
        }
    }

    fn records_are_borrowed(&self) -> bool {
        matches!(self.message.kind, Kind::Request(_))
    }

    /// `<'a>` for a struct that borrows, else nothing.
    pub(super) fn generics(&self, owner: &Struct) -> &'static str {
        if self.borrows(owner) { "<'a>" } else { "" }
    }

    /// Whether a value of the struct may borrow from the frame.
    pub(super) fn borrows(&self, owner: &Struct) -> bool {
        owner.fields.iter().any(|field| self.type_borrows(&field.ty))
    }

    pub(super) fn type_borrows(&self, ty: &Type) -> bool {
        match ty {
            Type::String | Type::Bytes => true,
            Type::Records => self.records_are_borrowed(),
            Type::Array(element) => self.type_borrows(element),
            Type::Struct(name) => self.borrows(self.message.find(name)),
            _ => false,
        }
    }

    /// Whether the struct holds record bytes of the frame, which never become owned.
    pub(super) fn holds_borrowed_records(&self, owner: &Struct) -> bool {
        self.records_are_borrowed() && self.holds_records(owner)
    }

    fn holds_records(&self, owner: &Struct) -> bool {
        owner.fields.iter().any(|field| {
            let inner = field.ty.struct_name().map(|name| self.message.find(name));
            field.ty == Type::Records || inner.is_some_and(|inner| self.holds_records(inner))
        })
    }

    /// The default as a Rust expression.
    pub(super) fn default_value(&self, field: &Field) -> String {
        let plain = match &field.ty {
            Type::Records if self.records_are_borrowed() => return "None".to_owned(),
            Type::Records => return "Payload::Null".to_owned(),
            _ if field.defaults_to_null() => return "None".to_owned(),
            Type::Bool => field.default.clone().unwrap_or_else(|| "false".to_owned()),
            Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64 | Type::Uint16 => {
                digits(field.default.as_deref().unwrap_or("0"))
            }
            Type::Float64 => "0.0".to_owned(),
            Type::Uuid => "Uuid::ZERO".to_owned(),
            Type::String => "Cow::Borrowed(\"\")".to_owned(),
            Type::Bytes => "Cow::Borrowed(&[])".to_owned(),
            Type::Array(_) => "Vec::new()".to_owned(),
            Type::Struct(name) => format!("{name}::default()"),
        };
        if self.is_option(field) { format!("Some({plain})") } else { plain }
    }

    /// Whether Rust's own default of the type is the field's.
    pub(super) fn has_plain_default(&self, field: &Field) -> bool {
        match field.default.as_deref() {
            None => !self.is_option(field) || field.ty == Type::Records,
            Some(default) => default == "null",
        }
    }

    /// A condition that holds when `self.<field>` is not the default.
    pub(super) fn differs_from_default(&self, field: &Field) -> String {
        let value = format!("self.{}", field_name(&field.name));
        match &field.ty {
            Type::Records if !self.records_are_borrowed() => format!("!{value}.is_null()"),
            _ if field.defaults_to_null() => format!("{value}.is_some()"),
            Type::Bool if field.default.is_some() => format!("!{value}"),
            Type::Bool => value,
            Type::Uuid => format!("!{value}.is_zero()"),
            Type::String | Type::Bytes | Type::Array(_) if self.is_option(field) => {
                format!("{value}.as_ref().is_none_or(|value| !value.is_empty())")
            }
            Type::String | Type::Bytes | Type::Array(_) => format!("!{value}.is_empty()"),
            _ => format!("{value} != {}", self.default_value(field)),
        }
    }

    /// Rust types, besides the message's own, that the struct definitions name.
    pub(super) fn uses_type(&self, wanted: &str) -> bool {
        let mut fields = self.message.structs.iter().flat_map(|owner| &owner.fields);
        fields.any(|field| self.rust_type(field).contains(wanted))
    }
}

/// `JoinGroupRequest` as `join_group_request`.
pub(super) fn module_name(message: &str) -> String {
    let mut name = String::new();
    for letter in message.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// The name as a Rust identifier.
pub(super) fn field_name(name: &str) -> String {
    if ["match", "type", "use", "ref", "move", "where"].contains(&name) {
        format!("r#{name}")
    } else {
        name.to_owned()
    }
}

/// A number with separators where Rust's style wants them.
fn digits(number: &str) -> String {
    let (sign, plain) = number.strip_prefix('-').map_or(("", number), |plain| ("-", plain));
    if plain.len() < 6 {
        return number.to_owned();
    }
    let mut grouped = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index) % 3 == 0 {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}")
}

#[cfg(test)]
mod tests {
    use super::super::notation::parse;
    use super::*;

    fn layout_of<R>(text: &str, test: impl FnOnce(&Layout<'_>) -> R) -> R {
        let file = parse(text).expect("sound");
        test(&Layout::new(&file.messages[0]))
    }

    #[test]
    fn conditions_are_no_stricter_than_the_reach_of_the_struct() {
        let text = "data A 0-5 flexible 3+\n  a: B 2-4\n    x: int8 0+\n    y: int8 3+\n    z: int8 5+\n";
        layout_of(text, |layout| {
            let inner = layout.message.find("B");
            let when: Vec<When> = inner.fields.iter().map(|field| layout.present(inner, field)).collect();
            let from_three = When::If("version >= 3".to_owned(), "version < 3".to_owned());
            assert_eq!(when, [When::Always, from_three.clone(), When::Never]);
            assert_eq!(layout.flexible(inner), from_three);
        });
    }

    #[test]
    fn only_borrowing_structs_have_a_lifetime() {
        let text = "data A 0\n  a: []B 0+\n    x: int8 0+\n  c: C 0+ nullable\n    s: []string 0+\n";
        layout_of(text, |layout| {
            let fields = &layout.message.structs[0].fields;
            assert_eq!(layout.rust_type(&fields[0]), "Vec<B>");
            assert_eq!(layout.rust_type(&fields[1]), "Option<C<'a>>");
            assert!(layout.borrows(&layout.message.structs[0]));
        });
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(module_name("JoinGroupRequest"), "join_group_request");
        assert_eq!(field_name("match"), "r#match");
        assert_eq!(digits("-2147483648"), "-2_147_483_648");
        assert_eq!(digits("60000"), "60000");
    }
}
