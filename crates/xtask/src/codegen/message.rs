//! Emits one message: structs, defaults, decoder, encoder.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::layout::{Layout, When, field_name};
use super::notation::{Field, Kind, Message, Struct, Type, Versions};

/// The text of the message's module, not yet formatted.
pub(super) fn emit(message: &Message) -> Result<String> {
    let layout = Layout::new(message);
    let mut body = String::new();
    for owner in &message.structs {
        let is_root = owner.name == message.name();
        emit_struct(&mut body, &layout, owner);
        emit_default(&mut body, &layout, owner);
        let (generics, hidden) = (layout.generics(owner), if is_root { "pub " } else { "" });
        let _ = writeln!(body, "impl{generics} {}{generics} {{", owner.name);
        if is_root {
            emit_constants(&mut body, message);
        }
        emit_decode(&mut body, &layout, owner, hidden)?;
        emit_encode(&mut body, &layout, owner, hidden)?;
        emit_into_owned(&mut body, &layout, owner);
        body.push_str("}\n\n");
    }
    emit_trait(&mut body, &layout);
    Ok(format!("{}\n{}\n{body}", head_comment(message), imports(&layout, &body)))
}

fn head_comment(message: &Message) -> String {
    let about = match message.kind {
        Kind::Request(key) => format!("body of a request, API key {key}"),
        Kind::Response(key) => format!("body of a response, API key {key}"),
        Kind::Header => "header of a frame".to_owned(),
        Kind::Data => "carried inside other messages".to_owned(),
        Kind::Record(number) => format!("in a record of an internal topic, type {number}"),
    };
    let flexible = message.flexible.map_or_else(String::new, |first| format!(", flexible from {first}"));
    format!("//! `{}`: {about}; {}{flexible}.\n", message.name(), versions_text(message.valid))
}

fn imports(layout: &Layout<'_>, body: &str) -> String {
    let mut text = String::new();
    if layout.uses_type("Cow<") {
        text.push_str("use std::borrow::Cow;\n\n");
    }
    if layout.uses_type("Uuid") {
        text.push_str("use base::ids::Uuid;\n\n");
    }
    if body.contains("required(") {
        text.push_str("use crate::writer::required;\n");
    }
    let mut names = vec!["DecodeError", "EncodeError", "Message", "Reader", "VersionRange", "Writer"];
    if layout.uses_type("Payload") {
        names.push("Payload");
    }
    names.sort_unstable();
    let _ = writeln!(text, "use crate::{{{}}};", names.join(", "));
    text
}

fn versions_text(versions: Versions) -> String {
    format!("version{} {versions}", if versions.min == versions.max { "" } else { "s" })
}

fn emit_struct(out: &mut String, layout: &Layout<'_>, owner: &Struct) {
    let versions = versions_text(layout.reach(owner));
    let _ = match owner.name == layout.message.name() {
        true => writeln!(out, "/// `{}`, {versions}.", owner.name),
        false => writeln!(out, "/// Part of [`{}`], {versions}.", layout.message.name()),
    };
    let derive_default = owner.fields.iter().all(|field| layout.has_plain_default(field));
    let default = if derive_default { ", Default" } else { "" };
    let _ = writeln!(out, "#[derive(Clone, Debug, PartialEq{default})]");
    let _ = writeln!(out, "pub struct {}{} {{", owner.name, layout.generics(owner));
    for field in &owner.fields {
        let _ = writeln!(out, "/// {}.", describe(field));
        let _ = writeln!(out, "pub {}: {},", field_name(&field.name), layout.rust_type(field));
    }
    out.push_str("}\n\n");
}

/// One line of documentation: what the notation says of the field besides its type.
fn describe(field: &Field) -> String {
    let plural = if field.versions.min == field.versions.max { "Version" } else { "Versions" };
    let mut text = format!("{plural} {}", field.versions);
    match field.nullable {
        Some(range) if range == field.versions => text.push_str(", nullable"),
        Some(range) => {
            let _ = write!(text, ", nullable in {range}");
        }
        None => {}
    }
    if let Some(tag) = field.tag {
        let _ = write!(text, ", tag {tag}");
    }
    if let Some(default) = &field.default {
        let _ = write!(text, ", {default} by default");
    }
    if field.ignorable {
        text.push_str(", ignorable");
    }
    text
}

fn emit_default(out: &mut String, layout: &Layout<'_>, owner: &Struct) {
    if owner.fields.iter().all(|field| layout.has_plain_default(field)) {
        return;
    }
    let generics = if layout.borrows(owner) { "<'_>" } else { "" };
    let _ = writeln!(out, "impl Default for {}{generics} {{ fn default() -> Self {{ Self {{", owner.name);
    for field in &owner.fields {
        let _ = writeln!(out, "{}: {},", field_name(&field.name), layout.default_value(field));
    }
    out.push_str("}}}\n\n");
}

fn emit_constants(out: &mut String, message: &Message) {
    let _ = writeln!(
        out,
        "/// Kafka's name of the message.\npub const NAME: &'static str = \"{}\";\n\
         /// The versions that can be read and written.\n\
         pub const VERSIONS: VersionRange = VersionRange {{ min: {}, max: {} }};",
        message.name(),
        message.valid.min,
        message.valid.max,
    );
    if let Kind::Record(number) = message.kind {
        let _ = writeln!(
            out,
            "/// Begins the key of such a record, as an int16.\npub const RECORD_TYPE: i16 = {number};"
        );
    }
    out.push('\n');
}

/// The argument that tells the reader or writer which length coding to use.
fn coding(layout: &Layout<'_>, owner: &Struct, field: &Field) -> &'static str {
    match layout.flexible(owner) {
        _ if field.inflexible => "false",
        _ if field.tag.is_some() => "true",
        When::Always => "true",
        When::Never => "false",
        When::If(..) => "flexible",
    }
}

/// Starts a function body: checks the version of a message, names the coding if it varies.
fn preamble(layout: &Layout<'_>, owner: &Struct, body: &str, check: &str) -> String {
    let mut text = String::new();
    if owner.name == layout.message.name() {
        let _ = writeln!(text, "Self::VERSIONS.{check}(Self::NAME, version)?;");
    }
    if let (When::If(condition, _), true) = (layout.flexible(owner), reads_variable(body, "flexible")) {
        let _ = writeln!(text, "let flexible = {condition};");
    }
    text
}

/// A parameter's name, with the underscore Rust wants when `body` does not read it.
fn parameter(name: &str, body: &str) -> String {
    if reads_variable(body, name) { name.to_owned() } else { format!("_{name}") }
}

/// Whether `name` stands in `text` as a variable: not as part of a word, a field or a literal.
pub(super) fn reads_variable(text: &str, name: &str) -> bool {
    let part_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '"';
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let after = text[start + name.len()..].chars().next();
        !before.is_some_and(|letter| part_of_word(letter) || letter == '.')
            && !after.is_some_and(|letter| part_of_word(letter) || letter == ':')
    })
}

fn emit_decode(out: &mut String, layout: &Layout<'_>, owner: &Struct, hidden: &str) -> Result<()> {
    let mut body = String::new();
    let tagged = owner.fields.iter().any(|field| field.tag.is_some());
    let flexible = layout.flexible(owner);
    if flexible == When::Never {
        body.push_str("Ok(Self {\n");
    } else {
        let _ = writeln!(body, "let {}value = Self {{", if tagged { "mut " } else { "" });
    }
    for field in &owner.fields {
        let default = layout.default_value(field);
        let value = match layout.present(owner, field) {
            _ if field.tag.is_some() => default,
            When::Never => default,
            When::Always => read_field(layout, owner, field)?,
            When::If(condition, _) => {
                format!("if {condition} {{ {} }} else {{ {default} }}", read_field(layout, owner, field)?)
            }
        };
        let _ = writeln!(body, "{}: {value},", field_name(&field.name));
    }
    if flexible == When::Never {
        body.push_str("})\n");
    } else {
        body.push_str("};\n");
        let tags =
            if tagged { read_tags(layout, owner)? } else { "reader.skip_tagged_fields()?;\n".to_owned() };
        match flexible {
            When::If(..) => {
                let _ = writeln!(body, "if flexible {{ {tags} }}");
            }
            _ => body.push_str(&tags),
        }
        body.push_str("Ok(value)\n");
    }
    let body = preamble(layout, owner, &body, "check_decode") + &body;
    if !hidden.is_empty() {
        out.push_str("/// Reads a message of `version`; what follows it is left unread.\n");
    }
    let reader = if layout.borrows(owner) { "Reader<'a>" } else { "Reader<'_>" };
    let _ = writeln!(
        out,
        "{hidden}fn decode({}: &mut {reader}, {}: i16) -> Result<Self, DecodeError> {{\n{body}}}\n",
        parameter("reader", &body),
        parameter("version", &body),
    );
    Ok(())
}

fn read_tags(layout: &Layout<'_>, owner: &Struct) -> Result<String> {
    let mut arms = String::new();
    let mut conditional = Vec::new();
    for field in owner.fields.iter().filter(|field| field.tag.is_some()) {
        let tag = field.tag.expect("filtered").to_string();
        let guard = match tag_present(layout, owner, field) {
            When::Always => String::new(),
            When::Never => {
                conditional.push(tag);
                continue;
            }
            When::If(condition, _) => {
                conditional.push(tag.clone());
                format!(" if {condition}")
            }
        };
        let read = read_field(layout, owner, field)?;
        let _ = writeln!(arms, "{tag}{guard} => value.{} = {read},", field_name(&field.name));
    }
    if !conditional.is_empty() {
        let _ = writeln!(arms, "{} => return Err(reader.unexpected_tag(tag)),", conditional.join(" | "));
    }
    Ok(format!(
        "reader.tagged_fields(|tag, reader| {{ match tag {{ {arms} _ => reader.skip_rest(), }} Ok(()) }})?;\n"
    ))
}

/// When, among the struct's flexible versions, the tagged field is known.
fn tag_present(layout: &Layout<'_>, owner: &Struct, field: &Field) -> When {
    let reach = layout.reach(owner);
    let first = layout.message.flexible.expect("the parser refuses tags otherwise");
    let flexible = Versions { min: reach.min.max(first), max: reach.max };
    Layout::when(field.versions, flexible)
}

/// The expression that reads the field in a version that has it.
fn read_field(layout: &Layout<'_>, owner: &Struct, field: &Field) -> Result<String> {
    let coding = coding(layout, owner, field);
    let versions = field.versions.intersect(layout.reach(owner)).unwrap_or(layout.message.valid);
    let plain = read_plain(layout, &field.ty, versions, coding);
    if field.ty == Type::Records {
        let always = layout.null_allowed(owner, field) == When::Always;
        ensure!(always, "{}.{}: records are always nullable", owner.name, field.name);
        return Ok(plain);
    }
    if !layout.is_option(field) {
        return Ok(plain);
    }
    let nullable = match &field.ty {
        Type::Struct(name) => {
            let method = if field.tag.is_some() { "tagged_struct" } else { "nullable_struct" };
            format!("reader.{method}(|reader| {name}::decode(reader, version))?")
        }
        _ => plain.replacen("reader.", "reader.nullable_", 1),
    };
    Ok(match layout.null_allowed(owner, field) {
        When::Always => nullable,
        When::Never => format!("Some({plain})"),
        When::If(condition, _) => format!("if {condition} {{ {nullable} }} else {{ Some({plain}) }}"),
    })
}

fn read_plain(layout: &Layout<'_>, ty: &Type, versions: Versions, coding: &str) -> String {
    match ty {
        Type::Bool => "reader.bool()?".to_owned(),
        Type::Int8 => "reader.i8()?".to_owned(),
        Type::Int16 => "reader.i16()?".to_owned(),
        Type::Int32 => "reader.i32()?".to_owned(),
        Type::Int64 => "reader.i64()?".to_owned(),
        Type::Uint16 => "reader.u16()?".to_owned(),
        Type::Float64 => "reader.f64()?".to_owned(),
        Type::Uuid => "reader.uuid()?".to_owned(),
        Type::String => format!("reader.string({coding})?"),
        Type::Bytes => format!("reader.bytes({coding})?"),
        Type::Records if matches!(layout.message.kind, Kind::Request(_)) => {
            format!("reader.records({coding})?")
        }
        Type::Records => format!("reader.payload({coding})?"),
        Type::Struct(name) => format!("{name}::decode(reader, version)?"),
        Type::Array(element) => {
            let least = layout.message.least_bytes(element, versions);
            let read = read_plain(layout, element, versions, coding);
            let read = read.trim_end_matches('?');
            let closure = match read.strip_prefix("reader.").and_then(|call| call.strip_suffix("()")) {
                Some(method) => format!("Reader::{method}"),
                None => format!("|reader| {read}"),
            };
            format!("reader.array({coding}, {least}, {closure})?")
        }
    }
}

fn emit_encode(out: &mut String, layout: &Layout<'_>, owner: &Struct, hidden: &str) -> Result<()> {
    let mut body = String::new();
    for field in &owner.fields {
        let differs = layout.differs_from_default(field);
        let absent = format!(
            "return Err(EncodeError::Absent {{ message: \"{}\", field: \"{}\", version }});",
            owner.name, field.name
        );
        let strict = !field.ignorable;
        let _ = match (layout.present(owner, field), field.tag.is_some()) {
            (When::Always, true) => Ok(()),
            (When::Always, false) => writeln!(body, "{}", write_field(layout, owner, field)),
            (When::Never, _) if strict => writeln!(body, "if {differs} {{ {absent} }}"),
            (When::If(_, opposite), true) if strict => {
                writeln!(body, "if {opposite} && {differs} {{ {absent} }}")
            }
            (When::Never, _) | (When::If(..), true) => Ok(()),
            (When::If(condition, _), false) => {
                let write = write_field(layout, owner, field);
                let otherwise =
                    if strict { format!("else if {differs} {{ {absent} }}") } else { String::new() };
                writeln!(body, "if {condition} {{ {write} }} {otherwise}")
            }
        };
    }
    let tags = write_tags(layout, owner);
    match layout.flexible(owner) {
        When::Never => {}
        When::Always => body.push_str(&tags),
        When::If(..) => {
            let _ = writeln!(body, "if flexible {{ {tags} }}");
        }
    }
    body.push_str("Ok(())\n");
    let body = preamble(layout, owner, &body, "check_encode") + &body;
    if !hidden.is_empty() {
        out.push_str(
            "/// Appends the message as `version` has it; after an error the writer holds a part of it.\n",
        );
    }
    let _ = writeln!(
        out,
        "{hidden}fn encode(&self, {}: &mut Writer, {}: i16) -> Result<(), EncodeError> {{\n{body}}}\n",
        parameter("writer", &body),
        parameter("version", &body),
    );
    Ok(())
}

fn write_tags(layout: &Layout<'_>, owner: &Struct) -> String {
    let mut fields: Vec<&Field> = owner.fields.iter().filter(|field| field.tag.is_some()).collect();
    fields.retain(|field| tag_present(layout, owner, field) != When::Never);
    fields.sort_by_key(|field| field.tag);
    if fields.is_empty() {
        return "writer.tags();\n".to_owned();
    }
    let mut text = "let mut tags = writer.tags();\n".to_owned();
    for field in fields {
        let differs = layout.differs_from_default(field);
        let condition = match tag_present(layout, owner, field) {
            When::If(condition, _) => format!("{condition} && {differs}"),
            _ => differs,
        };
        let write = write_field(layout, owner, field);
        let write = as_result(&write);
        let _ = writeln!(
            text,
            "if {condition} {{ tags.field({}, |writer| {write})?; }}",
            field.tag.expect("filtered")
        );
    }
    text
}

/// The statement that writes the field in a version that has it.
fn write_field(layout: &Layout<'_>, owner: &Struct, field: &Field) -> String {
    let coding = coding(layout, owner, field);
    let value = format!("self.{}", field_name(&field.name));
    if field.ty == Type::Records {
        return match layout.is_option(field) {
            true => format!("writer.records({value}, {coding})?;"),
            false => format!("writer.payload(&{value}, {coding})?;"),
        };
    }
    if !layout.is_option(field) {
        return write_value(&field.ty, &value, coding, Form::Place);
    }
    let view = match field.ty {
        Type::Struct(_) => format!("{value}.as_ref()"),
        _ => format!("{value}.as_deref()"),
    };
    let checked = format!("required({view}, \"{}\", \"{}\", version)?", owner.name, field.name);
    let nullable = match &field.ty {
        Type::Struct(_) => {
            let method = if field.tag.is_some() { "tagged_struct" } else { "nullable_struct" };
            format!("writer.{method}({view}, |writer, item| item.encode(writer, version))?;")
        }
        _ => write_value(&field.ty, &view, coding, Form::Nullable),
    };
    let plain = write_value(&field.ty, &checked, coding, Form::View);
    match layout.null_allowed(owner, field) {
        When::Always => nullable,
        When::Never => plain,
        When::If(condition, _) => format!("if {condition} {{ {nullable} }} else {{ {plain} }}"),
    }
}

/// What an expression to be written stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The value in its place, to be borrowed.
    Place,
    /// A reference, `&str` or slice.
    View,
    /// An `Option` of a view.
    Nullable,
}

/// The statement that writes a value.
fn write_value(ty: &Type, value: &str, coding: &str, form: Form) -> String {
    let borrow = if form == Form::Place { "&" } else { "" };
    let nullable = if form == Form::Nullable { "nullable_" } else { "" };
    match ty {
        Type::Bool => format!("writer.bool({value});"),
        Type::Int8 => format!("writer.i8({value});"),
        Type::Int16 => format!("writer.i16({value});"),
        Type::Int32 => format!("writer.i32({value});"),
        Type::Int64 => format!("writer.i64({value});"),
        Type::Uint16 => format!("writer.u16({value});"),
        Type::Float64 => format!("writer.f64({value});"),
        Type::Uuid => format!("writer.uuid({value});"),
        Type::String => format!("writer.{nullable}string({borrow}{value}, {coding})?;"),
        Type::Bytes => format!("writer.{nullable}bytes({borrow}{value}, {coding})?;"),
        Type::Struct(_) => format!("{value}.encode(writer, version)?;"),
        Type::Array(element) => {
            let item = match **element {
                Type::Struct(_) | Type::String | Type::Bytes => "item",
                _ => "*item",
            };
            let write = as_result(&write_value(element, item, coding, Form::View));
            format!("writer.{nullable}array({borrow}{value}, {coding}, |writer, item| {write})?;")
        }
        Type::Records => unreachable!("records are written by `write_field`"),
    }
}

/// A statement as the expression a closure ends with.
fn as_result(statement: &str) -> String {
    statement.strip_suffix("?;").map_or_else(|| format!("{{ {statement} Ok(()) }}"), str::to_owned)
}

fn emit_into_owned(out: &mut String, layout: &Layout<'_>, owner: &Struct) {
    if !layout.borrows(owner) || layout.holds_borrowed_records(owner) {
        return;
    }
    out.push_str("/// Copies what is borrowed, so that the value outlives the frame.\n");
    let _ = writeln!(out, "pub fn into_owned(self) -> {}<'static> {{ {} {{", owner.name, owner.name);
    for field in &owner.fields {
        let name = field_name(&field.name);
        let value = format!("self.{name}");
        let owned = match (layout.is_option(field), own(layout, &field.ty, "value")) {
            (_, None) => value,
            (true, Some(owned)) => format!("{value}.map(|value| {owned})"),
            (false, Some(_)) => own(layout, &field.ty, &value).expect("as above"),
        };
        let _ = writeln!(out, "{name}: {owned},");
    }
    out.push_str("}}\n");
}

/// The expression that makes `value` owned, or `None` if it is already.
fn own(layout: &Layout<'_>, ty: &Type, value: &str) -> Option<String> {
    match ty {
        Type::String | Type::Bytes => Some(format!("Cow::Owned({value}.into_owned())")),
        Type::Struct(name) if layout.borrows(layout.message.find(name)) => {
            Some(format!("{value}.into_owned()"))
        }
        Type::Array(element) => {
            let owned = own(layout, element, "item")?;
            Some(format!("{value}.into_iter().map(|item| {owned}).collect()"))
        }
        _ => None,
    }
}

fn emit_trait(out: &mut String, layout: &Layout<'_>) {
    let message = layout.message;
    let name = message.name();
    let full = format!("{name}{}", layout.generics(&message.structs[0]));
    let _ = writeln!(
        out,
        "impl<'a> Message<'a> for {full} {{
            const NAME: &'static str = Self::NAME;
            const VERSIONS: VersionRange = Self::VERSIONS;

            fn decode(reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {{
                Self::decode(reader, version)
            }}

            fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {{
                self.encode(writer, version)
            }}
        }}\n"
    );
}
