//! Sends the requests of one name to a broker; run under callgrind, which counts while [`counted`] runs.
//!
//! `cargo xtask guards` runs this. Arguments: the name of the requests and an empty folder; without any it prints
//! the names.

use std::path::PathBuf;

use tokio::runtime::Runtime;

use crate::requests::{COUNTED, NAMES, Requests, WARM_UP};

mod machine;
mod requests;

/// As in the binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Callgrind is told to count in the function of this name.
#[inline(never)]
fn counted(runtime: &Runtime, requests: &mut Requests) {
    runtime.block_on(requests.send(COUNTED));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder] = &arguments[..] else { return println!("{}", NAMES.join("\n")) };
    let runtime = machine::runtime();
    let mut requests = runtime.block_on(Requests::prepare(name, &PathBuf::from(folder)));
    runtime.block_on(requests.send(WARM_UP));
    counted(&runtime, &mut requests);
    requests.check();
    println!("{COUNTED} requests");
}
