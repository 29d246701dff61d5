//! Emits what the proofs need of every struct: a random value that a given version can carry, and a
//! dump of a value by field name, for comparison with codecs in other languages.

use std::fmt::Write as _;

use super::layout::{Layout, When, field_name, module_name};
use super::message::reads_variable;
use super::notation::{Field, Kind, Message, Struct, Type};

/// The text of `tests/proof/samples.rs`, not yet formatted.
pub(super) fn emit(messages: &[Message]) -> String {
    let mut text = "//! Random values of all messages.

        use wire::message::*;

        use crate::source::{Sample, Source};

        "
    .to_owned();
    for message in messages {
        let layout = Layout::new(message);
        for owner in &message.structs {
            emit_sample(&mut text, &layout, owner);
        }
    }
    text
}

/// The text of `examples/codec_peer/dumps.rs`, not yet formatted.
pub(super) fn emit_dumps(messages: &[Message]) -> String {
    let mut text = "//! Dumps of all messages.

        use wire::message::*;

        use crate::dump::{Dump, field};

        "
    .to_owned();
    for message in messages {
        for owner in &message.structs {
            emit_dump(&mut text, &Layout::new(message), owner);
        }
    }
    text
}

/// The text of `tests/proof/all.rs`, not yet formatted: macros that name every message.
pub(super) fn emit_lists(messages: &[Message]) -> String {
    let mut text = "//! Macros that call another one for every message.

        /// Calls the macro `$each` with the type of every message.
        macro_rules! for_each_message { ($each:ident) => { "
        .to_owned();
    for message in messages {
        let _ = write!(text, "$each!({});", message.name());
    }
    text.push_str("}; }\npub(crate) use for_each_message;\n\n");
    text.push_str("/// Likewise for the bodies of requests and responses, with the name of the API.\n");
    text.push_str("macro_rules! for_each_body { ($each:ident) => {");
    for message in messages {
        if matches!(message.kind, Kind::Request(_) | Kind::Response(_)) {
            let api = message.name().trim_end_matches("Request").trim_end_matches("Response");
            let _ = write!(text, "$each!({}, {api});", message.name());
        }
    }
    text.push_str("}; }\npub(crate) use for_each_body;\n");
    text
}

fn path(message: &Message, name: &str) -> String {
    format!("{}::{name}", module_name(message.name()))
}

fn emit_sample(out: &mut String, layout: &Layout<'_>, owner: &Struct) {
    let mut fields = String::new();
    for field in &owner.fields {
        let default = layout.default_value(field).replace("Uuid::ZERO", "Default::default()");
        let default = match &field.ty {
            Type::Struct(_) | Type::String | Type::Bytes | Type::Records if !layout.is_option(field) => {
                "Default::default()".to_owned()
            }
            Type::String | Type::Bytes if default != "None" => "Some(Default::default())".to_owned(),
            _ => default,
        };
        let value = match layout.present(owner, field) {
            When::Always => sample(layout, owner, field),
            When::Never => default,
            When::If(condition, _) => {
                format!("if {condition} {{ {} }} else {{ {default} }}", sample(layout, owner, field))
            }
        };
        let _ = writeln!(fields, "{}: {value},", field_name(&field.name));
    }
    let parameter = |name: &str| {
        if reads_variable(&fields, name) { name.to_owned() } else { format!("_{name}") }
    };
    let (source, version) = (parameter("source"), parameter("version"));
    let lifetime = if layout.borrows(owner) { "<'_>" } else { "" };
    let _ = writeln!(
        out,
        "impl Sample for {}{lifetime} {{ fn sample({source}: &mut Source, {version}: i16) -> Self {{ \
         Self {{ {fields} }} }} }}\n",
        path(layout.message, &owner.name)
    );
}

fn sample(layout: &Layout<'_>, owner: &Struct, field: &Field) -> String {
    let plain = match field.ty {
        Type::Records if layout.is_option(field) => "source.records()".to_owned(),
        Type::Records => "source.payload()".to_owned(),
        _ => sample_plain(&field.ty),
    };
    match layout.is_option(field) {
        false => plain,
        true => {
            let nullable = format!("source.nullable(|source| {plain})");
            match layout.null_allowed(owner, field) {
                When::Always => nullable,
                When::Never => format!("Some({plain})"),
                When::If(condition, _) => format!("if {condition} {{ {nullable} }} else {{ Some({plain}) }}"),
            }
        }
    }
}

fn sample_plain(ty: &Type) -> String {
    match ty {
        Type::Bool => "source.bool()".to_owned(),
        Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64 | Type::Uint16 => "source.number()".to_owned(),
        Type::Float64 => "source.f64()".to_owned(),
        Type::Uuid => "source.uuid()".to_owned(),
        Type::String => "source.string()".to_owned(),
        Type::Bytes => "source.bytes()".to_owned(),
        Type::Struct(_) => "Sample::sample(source, version)".to_owned(),
        Type::Array(element) => format!("source.array(|source| {})", sample_plain(element)),
        Type::Records => unreachable!("records are made by `sample`"),
    }
}

fn emit_dump(out: &mut String, layout: &Layout<'_>, owner: &Struct) {
    let mut fields = String::new();
    for field in &owner.fields {
        let name = field_name(&field.name);
        let _ = writeln!(fields, "field(&self.{name}, path, \"{}\", out);", field.name);
    }
    let parameter = |name: &str| {
        if reads_variable(&fields, name) { name.to_owned() } else { format!("_{name}") }
    };
    let lifetime = if layout.borrows(owner) { "<'_>" } else { "" };
    let _ = writeln!(
        out,
        "impl Dump for {}{lifetime} {{ fn dump(&self, {}: &str, {}: &mut Vec<String>) {{ {fields} }} }}\n",
        path(layout.message, &owner.name),
        parameter("path"),
        parameter("out"),
    );
}
