//! Completion as people meet it: tabs typed into a real bash, and the silence of what finds nothing.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use client::admin::NewTopic;
use client::{GroupConfig, GroupConsumer};

use crate::binary;
use crate::run;
use crate::server::Home;

/// How long a person who has pressed the key is kept waiting at most.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// How long a group is awaited.
const POLL_WAIT: Duration = Duration::from_secs(5);

/// The command lines that a bash runs after somebody has typed these, with their tabs.
fn typed(lines: &[String]) -> Vec<String> {
    let binary = binary();
    // Instead of the binary runs what shows its words, each in brackets.
    let mut input =
        format!("source <('{binary}' completion bash)\nvltava() {{ printf '[%s]' got \"$@\"; echo; }}\n");
    lines.iter().for_each(|line| input += &format!("{line}\n"));
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("TERM", "dumb").env_remove("VLTAVA_BOOTSTRAP");
    bash.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bash = bash.spawn().expect("bash is there");
    bash.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("bash reads");
    let done = bash.wait_with_output().expect("bash ends");
    let shown = String::from_utf8_lossy(&done.stdout).into_owned();
    let told = String::from_utf8_lossy(&done.stderr);
    let ran: Vec<_> = shown.lines().filter(|line| line.starts_with("[got]")).map(str::to_owned).collect();
    assert_eq!(ran.len(), lines.len(), "{shown}\n{told}");
    ran
}

/// What the binary prints for the last word of a line, as a script asks it.
fn asked(line: &str) -> Output {
    let mut binary = Command::new(binary());
    binary.env("VLTAVA_COMPLETE", "bash").env_remove("VLTAVA_BOOTSTRAP").arg("--").args(line.split(' '));
    binary.output().expect("the binary was built for this test")
}

#[test]
fn a_real_bash_completes_names_keys_and_values() {
    let home = Home::new("completion", &[]);
    let _server = home.start();
    let group = run(async {
        let client = home.client().await;
        let topics = ["orders.v1-eu", "orders.v1-us", "payments"].map(NewTopic::named);
        for created in client.create_topics(&topics, false).await.expect("the broker answers") {
            created.expect("a new topic");
        }
        let mut member = GroupConsumer::new(&client, GroupConfig::new("readers/1", ["payments"]));
        while member.member_id().is_empty() {
            member.poll(POLL_WAIT).await.expect("the group takes a member");
        }
        member
    });
    let b = format!("-b {}", home.address());
    let ran = typed(&[
        format!("vltava topic {b} describe pay\t"),
        // As far as both go, and then one of them.
        format!("vltava topic {b} describe ord\tu\t"),
        format!("vltava topic --bootstrap-server={} describe orders.v1-e\t", home.address()),
        format!("vltava group {b} describe rea\t"),
        format!("vltava cat {b} -C -t pay\t"),
        "vltava topic create t -c clean\tco\t".to_owned(),
        "vltava topic create t --config=cleanup.policy=compact,d\t".to_owned(),
        "vltava topic create t -c 'cleanup.policy=de\t".to_owned(),
        "vltava serve --set listeners=PLAIN\t".to_owned(),
        "vltava topic describe pay\t".to_owned(),
        "vltava topic li\t -o j\t".to_owned(),
    ]);
    drop(group);
    let address = home.address();
    assert_eq!(
        ran,
        [
            format!("[got][topic][-b][{address}][describe][payments]"),
            format!("[got][topic][-b][{address}][describe][orders.v1-us]"),
            format!("[got][topic][--bootstrap-server={address}][describe][orders.v1-eu]"),
            format!("[got][group][-b][{address}][describe][readers/1]"),
            format!("[got][cat][-b][{address}][-C][-t][payments]"),
            "[got][topic][create][t][-c][cleanup.policy=compact]".to_owned(),
            "[got][topic][create][t][--config=cleanup.policy=compact,delete]".to_owned(),
            "[got][topic][create][t][-c][cleanup.policy=delete]".to_owned(),
            "[got][serve][--set][listeners=PLAINTEXT://127.0.0.1:9092]".to_owned(),
            // Nobody listens at the usual address: what was typed stays.
            "[got][topic][describe][pay]".to_owned(),
            "[got][topic][list][-o][json]".to_owned(),
        ]
    );
}

#[test]
fn what_finds_nothing_is_silent_and_soon_done() {
    // It takes connections and answers nothing.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mute = mute.local_addr().expect("it is bound");
    for broker in
        [mute.to_string(), "127.0.0.1:1".to_owned(), "no.such.host.invalid".to_owned(), "::".to_owned()]
    {
        let began = Instant::now();
        let done = asked(&format!("vltava topic -b {broker} describe x"));
        let took = began.elapsed();
        assert!(done.stdout.is_empty() && done.stderr.is_empty(), "{broker}: {done:?}");
        assert!(done.status.success() && took < ANSWERS_WITHIN, "{broker}: {done:?} after {took:?}");
    }
    for line in
        ["vltava topic no-such-verb a b --no-such-option x", "vltava topic describe --", "vltava x y z"]
    {
        let done = asked(line);
        assert!(done.stderr.is_empty() && done.status.success(), "{line}: {done:?}");
    }
}

#[test]
fn every_shell_gets_a_script_that_calls_back() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let binary = binary();
        let done = Command::new(binary).args(["completion", shell]).output().expect("the binary was built");
        let script = String::from_utf8(done.stdout).expect("text");
        assert!(done.status.success() && script.contains("VLTAVA_COMPLETE"), "{shell}: {script}");
        assert!(script.contains(binary) && script.contains("vltava"), "{shell}: {script}");
        if shell != "bash" {
            continue;
        }
        let mut check = Command::new(shell);
        check.args(["-n", "/dev/stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().expect("bash is there");
        check.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("the shell reads");
        let done = check.wait_with_output().expect("the shell ends");
        assert!(done.status.success() && done.stderr.is_empty(), "{shell}: {done:?}");
    }
}
