//! Records on the command line: how they are printed and how lines become records.

mod format;
mod json;
mod parse;

pub(crate) use format::{Format, unescape};
pub(crate) use json::{json_line, kcat_json_line};
pub(crate) use parse::{KeyRule, parse_header};
