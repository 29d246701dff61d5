//! Emits what spans all messages: the module list, the API keys, the enums over all bodies.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::layout::{Layout, module_name};
use super::notation::{Kind, Message};

/// `message/mod.rs`: modules and re-exports.
///
/// Structs inside messages are re-exported where their name is unique; the others are reached through
/// the module of their message.
pub(super) fn emit_module(messages: &[Message]) -> String {
    let mut owners: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for message in messages {
        for found in &message.structs {
            owners.entry(&found.name).or_default().push(message);
        }
    }
    let mut text = "//! All messages, a module each; structs whose name is unique are re-exported here.\n\n\
                    mod any;\nmod api_key;\n"
        .to_owned();
    let mut sorted: Vec<&Message> = messages.iter().collect();
    sorted.sort_by_key(|message| module_name(message.name()));
    for message in &sorted {
        let _ = writeln!(text, "pub mod {};", module_name(message.name()));
    }
    text.push_str("\npub use any::{Request, Response};\npub use api_key::ApiKey;\n");
    for message in &sorted {
        let unique = message.structs.iter().filter(|found| owners[found.name.as_str()].len() == 1);
        let names: Vec<&str> = unique.map(|found| found.name.as_str()).collect();
        let _ = writeln!(text, "pub use {}::{{{}}};", module_name(message.name()), names.join(", "));
    }
    text
}

/// `message/api_key.rs`: the keys and what differs between them.
pub(super) fn emit_api_key(messages: &[Message]) -> String {
    let apis: Vec<(i16, &str, &Message)> = apis(messages).collect();
    let mut keys = String::new();
    let mut arms = [String::new(), String::new(), String::new()];
    for (key, name, message) in &apis {
        let _ = writeln!(keys, "/// Versions {}.\n{name} = {key},", message.valid);
        let [names, versions, flexible] = &mut arms;
        let _ = writeln!(names, "Self::{name} => \"{name}\",");
        let valid = message.valid;
        let _ =
            writeln!(versions, "Self::{name} => VersionRange {{ min: {}, max: {} }},", valid.min, valid.max);
        if let Some(first) = message.flexible {
            let _ = writeln!(flexible, "Self::{name} => Some({first}),");
        }
    }
    let never = if apis.iter().any(|(_, _, message)| message.flexible.is_none()) { "_ => None," } else { "" };
    let all: String = apis.iter().map(|(_, name, _)| format!("Self::{name},")).collect();
    let [names, versions, flexible] = arms;
    format!(
        "//! The APIs and the versions of them that can be read and written.

        use crate::VersionRange;

        /// An API, by the number that opens its requests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {{ {keys} }}

        impl ApiKey {{
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[{all}];

            /// Kafka's name of the API.
            pub const fn name(self) -> &'static str {{ match self {{ {names} }} }}

            /// The versions that can be read and written, the same for request and response.
            pub const fn versions(self) -> VersionRange {{ match self {{ {versions} }} }}

            /// The first version with tagged fields and compact lengths, if there is one (KIP-482).
            pub const fn first_flexible(self) -> Option<i16> {{ match self {{ {flexible} {never} }} }}
        }}
        "
    )
}

/// `message/any.rs`: enums over all requests and all responses, and what ties the two together.
pub(super) fn emit_any(messages: &[Message]) -> String {
    let mut text = "//! Any request, any response.

        use crate::{ApiKey, DecodeError, EncodeError, Reader, RequestMessage, ResponseMessage, Writer};
        use super::*;

        "
    .to_owned();
    text.push_str(&emit_enum(messages, "Request"));
    text.push_str(&emit_enum(messages, "Response"));
    for (_, api, request) in apis(messages) {
        let response = messages.iter().find(|message| message.name() == format!("{api}Response"));
        let response = response.expect("an API has both sides");
        let generics = |message| Layout::new(message).generics(&message.structs[0]);
        let (request_generics, response_generics) = (generics(request), generics(response));
        let _ = writeln!(
            text,
            "impl<'a> RequestMessage<'a> for {api}Request{request_generics} {{
                const API_KEY: ApiKey = ApiKey::{api};
                type Response<'r> = {api}Response{};
            }}

            impl<'a> ResponseMessage<'a> for {api}Response{response_generics} {{
                const API_KEY: ApiKey = ApiKey::{api};
            }}\n",
            response_generics.replace("'a", "'r"),
        );
    }
    text
}

fn emit_enum(messages: &[Message], side: &str) -> String {
    let lower = side.to_lowercase();
    let [mut variants, mut keys, mut decode, mut encode, mut from] = [const { String::new() }; 5];
    for (_, api, _) in apis(messages) {
        let message = messages.iter().find(|message| message.name() == format!("{api}{side}"));
        let message = message.expect("an API has both sides");
        let full = format!("{api}{side}{}", Layout::new(message).generics(&message.structs[0]));
        let _ = writeln!(variants, "/// [`{api}{side}`].\n{api}({full}),");
        let _ = writeln!(keys, "Self::{api}(_) => ApiKey::{api},");
        let _ = writeln!(decode, "ApiKey::{api} => Self::{api}({api}{side}::decode(reader, version)?),");
        let _ = writeln!(encode, "Self::{api}(body) => body.encode(writer, version),");
        let _ = writeln!(
            from,
            "impl<'a> From<{full}> for {side}<'a> {{ fn from(body: {full}) -> Self {{ Self::{api}(body) }} }}\n"
        );
    }
    format!(
        "/// The body of a {lower} of any API.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = \"bodies live briefly and are matched on, not collected\")]
        pub enum {side}<'a> {{ {variants} }}

        impl<'a> {side}<'a> {{
            /// The API of the body.
            pub fn api_key(&self) -> ApiKey {{ match self {{ {keys} }} }}

            /// Reads the body of a {lower}; what follows it is left unread.
            pub fn decode(api_key: ApiKey, reader: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError> {{
                Ok(match api_key {{ {decode} }})
            }}

            /// Appends the body as `version` has it.
            pub fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {{
                match self {{ {encode} }}
            }}
        }}

        {from}
        "
    )
}

/// Key, name and request of each API, by key.
fn apis(messages: &[Message]) -> impl Iterator<Item = (i16, &str, &Message)> {
    messages.iter().filter_map(|message| match message.kind {
        Kind::Request(key) => Some((key, message.name().trim_end_matches("Request"), message)),
        _ => None,
    })
}
