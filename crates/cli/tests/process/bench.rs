//! `vltava bench` against a real broker: it sends at the rate it was told to, loses nothing, and tidies up.

use std::process::{Command, Output};

use serde_json::Value;

use crate::binary;
use crate::server::Home;

fn bench(home: &Home, words: &str) -> Output {
    let mut command = Command::new(binary());
    command
        .args(["bench", "-b", &home.address(), "-o", "json"])
        .args(words.split(' '))
        .env_remove("RUST_LOG");
    command.output().expect("the binary was built for this test")
}

fn measured(home: &Home, words: &str) -> Value {
    let done = bench(home, words);
    assert!(done.status.success(), "{words}: {done:?}");
    serde_json::from_slice(&done.stdout).expect("JSON")
}

fn topics(home: &Home) -> String {
    let mut command = Command::new(binary());
    let done = command.args(["topic", "-b", &home.address(), "list"]).output().expect("the binary was built");
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn a_bench_sends_what_is_due_and_hears_of_all_of_it() {
    let home = Home::new("bench", &[]);
    let _server = home.start();
    let seen =
        measured(&home, "latency --rate 500 --for 2 --warm-up 0 --producers 2 --consumers 2 -p 3 -z lz4");
    assert_eq!(seen["records"], 1_000);
    assert_eq!(seen["bytes"], 1_000 * 1_024);
    assert_eq!(seen["ack_latency_ms"]["samples"], 1_000);
    assert_eq!(seen["end_to_end_latency_ms"]["samples"], 2_000, "each consumer has each record");
    let rate = seen["records_per_second"].as_f64().expect("a number");
    assert!((300.0..=510.0).contains(&rate), "{rate}");
    assert!(!topics(&home).contains("vltava-bench"), "it deletes the topic it made");

    let kept = measured(&home, "produce --for 1 --warm-up 0 --keep -p 2 -s 100");
    let consumed = measured(&home, "consume vltava-bench --consumers 3");
    let number = |value: &Value| value["records"].as_u64().expect("a number");
    assert!(number(&kept) > 1_000, "{kept}");
    assert_eq!(number(&consumed), 3 * number(&kept));

    let round =
        "produce --rate 600 --for 1 --warm-up 0 --producers 2 -p 30 --topic round --keep --round-robin";
    assert_eq!(measured(&home, round)["records"], 600);
    let offsets = Command::new(binary())
        .args(["topic", "-b", &home.address(), "offsets", "round", "-o", "json"])
        .output()
        .expect("the binary was built");
    let text = String::from_utf8(offsets.stdout).expect("text");
    assert_eq!(text.matches("\"end_offset\": 20").count(), 30, "each partition got as many: {text}");

    let one = measured(&home, "produce --for 1 --warm-up 0 --one-at-a-time --topic vltava-bench");
    assert_eq!(one["ack_latency_ms"]["samples"], one["records"]);
    assert!(topics(&home).contains("vltava-bench"), "a topic that was there stays");
}

#[test]
fn a_bench_says_what_is_wrong() {
    let home = Home::new("bench-wrong", &[]);
    let _server = home.start();
    for (words, said) in [
        ("consume nowhere", "nowhere"),
        ("produce -c no.such.key=1", "no.such.key"),
        ("produce --rate 0", "records a second"),
        ("produce -s 8", "16"),
    ] {
        let done = bench(&home, words);
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && text.contains(said), "{words}: {text}");
    }
    assert!(!topics(&home).contains("vltava-bench"));
}
