//! Ends that come from outside: a signal in the midst of the work, a standard error that nobody reads.

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base::env::Env;
use client::admin::{NewTopic, OffsetAt};
use client::{Client, Isolation, PartitionName};
use rustix::process::{Pid, Signal, kill_process};

use crate::binary;
use crate::run;
use crate::server::{Home, free_address};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// `vltava topic produce` to a broker; `-` as file is its standard input.
fn produce(home: &Home, topic: &str, file: &str) -> Child {
    let mut command = Command::new(binary());
    command.args(["topic", "-b", &home.address(), "produce", topic, file]).env_remove("RUST_LOG");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary was built for this test")
}

fn interrupted(child: Child) -> (Output, String) {
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is our child");
    let done = child.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    (done, said)
}

async fn end(client: &Client, topic: &str) -> i64 {
    let partition = PartitionName::new(topic, 0);
    let wanted = [(partition.clone(), OffsetAt::Latest)];
    let mut ends = client.list_offsets(&wanted, Isolation::ReadUncommitted).await.expect("an answer");
    ends.remove(&partition).expect("asked for").expect("it is led").offset.expect("it has an end")
}

async fn wait_for_end(client: &Client, topic: &str, least: i64) {
    let began = Instant::now();
    while end(client, topic).await < least {
        assert!(began.elapsed() < PATIENCE, "{topic} does not reach {least}");
        client.env().clock.sleep(Duration::from_millis(10)).await;
    }
}

async fn create(client: &Client, topic: &str) {
    let created = client.create_topics(&[NewTopic::named(topic)], false).await.expect("an answer");
    for topic in created {
        topic.expect("a new topic");
    }
}

#[test]
fn an_interrupted_producer_writes_what_it_has_read_and_says_how_much() {
    let home = Home::new("interrupted", &[]);
    let _server = home.start();
    run(async {
        let client = home.client().await;
        create(&client, "typed").await;
        let mut typing = produce(&home, "typed", "-");
        // It stays open: somebody types.
        let mut input = typing.stdin.take().expect("a pipe");
        input.write_all(b"one\ntwo\n").expect("it reads");
        wait_for_end(&client, "typed", 2).await;
        let (done, said) = interrupted(typing);
        assert!(done.status.success() && said.contains("2 records"), "{said}");
        drop(input);

        create(&client, "filed").await;
        let file = lines(&home);
        let sending = produce(&home, "filed", &file.display().to_string());
        wait_for_end(&client, "filed", 1).await;
        let (done, said) = interrupted(sending);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("error: ended by SIGINT before the end of"), "{said}");
        let told = said.split("help: its first ").nth(1).and_then(|rest| rest.split(' ').next());
        let told: i64 = told.expect("it says how many").replace(',', "").parse().expect("a number");
        assert_eq!(end(&client, "filed").await, told);
    });
}

/// A file that takes long to send.
fn lines(home: &Home) -> PathBuf {
    let path = home.data().join("lines");
    let mut file = std::io::BufWriter::new(File::create(&path).expect("the directory is there"));
    (0..20_000_000).for_each(|number| writeln!(file, "{number}").expect("room"));
    file.flush().expect("room");
    path
}

#[test]
fn a_server_whose_words_nobody_can_take_serves_on() {
    let address = free_address().to_string();
    let mut command = Command::new(binary());
    command.args(["serve", "--memory", "--log", "trace", "--set", "vltava.http.listener="]);
    command.args(["--set", &format!("listeners=PLAINTEXT://{address}")]);
    let full = File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut server = command.stdin(Stdio::null()).stderr(full).spawn().expect("the binary was built");
    let began = Instant::now();
    while TcpStream::connect(&address).is_err() {
        let ended = server.try_wait().expect("it is our child");
        assert!(ended.is_none() && began.elapsed() < PATIENCE, "{ended:?} after {:?}", began.elapsed());
        sleep(Duration::from_millis(5));
    }
    run(async {
        let config = client::ClientConfig::new([address]);
        let client = Client::connect(&Env::os(), config).await.expect("it answers");
        create(&client, "silent").await;
        assert_eq!(end(&client, "silent").await, 0);
    });
    kill_process(Pid::from_child(&server), Signal::TERM).expect("it is our child");
    assert!(server.wait().expect("it is our child").success());
}

#[test]
fn a_tool_whose_words_nobody_can_take_ends_with_its_status() {
    let full = || File::options().write(true).open("/dev/full").expect("Linux has it");
    let mut command = Command::new(binary());
    command.args(["topic", "-b", "127.0.0.1:1", "list"]);
    assert_eq!(command.stderr(full()).status().expect("it runs").code(), Some(1));
}
