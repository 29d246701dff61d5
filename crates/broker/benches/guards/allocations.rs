//! Sends the requests of one name to a broker and prints how many allocations and bytes each of them took.
//!
//! `cargo xtask guards` runs this. Arguments: the name of the requests and an empty folder; without any it prints
//! the names. What the simulated network allocates is counted, too; the client allocates nothing.

use std::path::PathBuf;

use crate::requests::{COUNTED, NAMES, Requests, WARM_UP};

mod machine;
mod requests;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = &arguments[..] else { return println!("{}", NAMES.join("\n")) };
    let runtime = machine::runtime();
    let mut requests = runtime.block_on(Requests::prepare(name, &PathBuf::from(folder)));
    runtime.block_on(requests.send(WARM_UP));
    let spent = allocation_counter::measure(|| runtime.block_on(requests.send(COUNTED)));
    requests.check();
    println!("{COUNTED} requests {} allocations {} bytes", spent.count_total, spent.bytes_total);
}
