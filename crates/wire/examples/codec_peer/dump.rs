//! Values as text by field name, the same text in every language.
//!
//! Numbers are decimal; strings, bytes, UUIDs and floats are hexadecimal behind `s`, `b`, `u` and `f`.

use std::borrow::Cow;

use base::ids::Uuid;
use wire::Payload;

/// A value as lines of `path=value`, so that codecs in other languages can compare by field name.
pub(crate) trait Dump {
    /// Appends the lines of the value that stands at `path`.
    fn dump(&self, path: &str, out: &mut Vec<String>);
}

/// Dumps the field `name` of the struct at `path`.
pub(crate) fn field(value: &impl Dump, path: &str, name: &str, out: &mut Vec<String>) {
    value.dump(&format!("{path}.{name}"), out);
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

macro_rules! plain {
    ($($plain:ty),*) => {$(
        impl Dump for $plain {
            fn dump(&self, path: &str, out: &mut Vec<String>) {
                out.push(format!("{path}={self}"));
            }
        }
    )*};
}

plain!(bool, i8, i16, i32, i64, u16);

impl Dump for f64 {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}=f{}", hex(&self.to_be_bytes())));
    }
}

impl Dump for Uuid {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}=u{}", hex(&self.0)));
    }
}

impl Dump for Cow<'_, str> {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}=s{}", hex(self.as_bytes())));
    }
}

impl Dump for Cow<'_, [u8]> {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}=b{}", hex(self)));
    }
}

impl Dump for &[u8] {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}=b{}", hex(self)));
    }
}

impl Dump for Payload {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(if self.is_null() {
            format!("{path}=null")
        } else {
            format!("{path}=b{}", hex(&self.to_bytes().expect("what was decoded is in memory")))
        });
    }
}

impl<T: Dump> Dump for Option<T> {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        match self {
            Some(value) => value.dump(path, out),
            None => out.push(format!("{path}=null")),
        }
    }
}

impl<T: Dump> Dump for Vec<T> {
    fn dump(&self, path: &str, out: &mut Vec<String>) {
        out.push(format!("{path}=[{}]", self.len()));
        for (index, item) in self.iter().enumerate() {
            item.dump(&format!("{path}[{index}]"), out);
        }
    }
}
