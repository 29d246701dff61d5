//! What the machine can do: a miniature broker that does the least a broker must, and a client that has encoded its
//! requests beforehand and reads no more of an answer than it needs. The client drives real brokers, too.
//!
//!     yardstick serve PORT FOLDER
//!     yardstick produce HOST:PORT CONNECTIONS WINDOW BATCH_BYTES TOTAL_BYTES
//!     yardstick fetch HOST:PORT CONNECTIONS FETCH_BYTES TOTAL_BYTES
//!
//! Connection number n works on partition n of the topic `yardstick`, which must exist. The clients print JSON.

mod drive;
mod frame;
mod serve;

use std::io::{Error, Result};
use std::path::Path;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", port, folder] => serve::serve(number(port)?, Path::new(folder)),
        ["produce", address, connections, window, batch_bytes, total_bytes] => {
            let (connections, window) = (number(connections)?, number(window)?);
            drive::produce(address, connections, window, number(batch_bytes)?, number(total_bytes)?)
        }
        ["fetch", address, connections, fetch_bytes, total_bytes] => {
            drive::fetch(address, number(connections)?, number(fetch_bytes)?, number(total_bytes)?)
        }
        _ => Err(Error::other("serve PORT FOLDER | produce … | fetch …: see the head of src/main.rs")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T> {
    word.parse().map_err(|_| Error::other(format!("{word} is not a number that fits")))
}
