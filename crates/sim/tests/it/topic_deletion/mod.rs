//! Topics deleted and created anew under load, over power loss and kills: a deletion that was acknowledged
//! holds, a topic never shows a record of an older one of its name, a topic that was not deleted for certain is
//! there with all it acknowledged or is gone, and what was deleted leaves no files. `SIM_SEEDS=a..b` picks
//! seeds.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::time::Duration;

use base::batch::BatchBuilder;
use base::error::ErrorCode;
use base::ids::TopicId;
use sim::{Connection, Life, World, decode, run, seeds};
use wire::message::delete_topics_request::DeleteTopicState;
use wire::message::{DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest, MetadataResponse};

use ledger::{Fate, Ledger, NAMES, PARTITIONS};

mod ledger;

const ADDRESS: &str = "127.0.0.1:9092";
const LIVES: u64 = 5;

/// Segments that roll while their topic is deleted.
const SETTINGS: [&str; 2] = ["log.segment.bytes=1048576", "log.roll.ms=150"];

/// Clients of one life.
struct Clients<'a> {
    world: &'a World,
    ledger: RefCell<&'a mut Ledger>,
    /// The life is ending: whatever is refused now is no wonder.
    ending: Cell<bool>,
}

type Work = Result<(), String>;

impl Clients<'_> {
    fn draw(&self, bound: u64) -> u64 {
        self.world.draw(bound)
    }

    async fn sleep(&self, up_to_ms: u64) {
        self.world.sim.env.clock.sleep(Duration::from_millis(self.draw(up_to_ms))).await;
    }

    /// The end of a client's work: fine if the broker is going down, else what went wrong.
    fn end(&self, what: impl FnOnce() -> String) -> Work {
        if self.ending.get() || self.world.sim.disk.is_cut() { Ok(()) } else { Err(what()) }
    }

    /// Everybody at work, on every name.
    async fn work(&self) -> Work {
        let (first, second, third) = tokio::join!(self.around(0), self.around(1), self.around(2));
        first.and(second).and(third)
    }

    async fn around(&self, name: usize) -> Work {
        let Ok(connection) = self.connect().await else { return self.end(|| "nobody listens".to_owned()) };
        let [by_id, by_name, reading] = [(); 3].map(|()| self.connect());
        let (Ok(by_id), Ok(by_name), Ok(reading)) = tokio::join!(by_id, by_name, reading) else {
            return self.end(|| "nobody listens".to_owned());
        };
        let (administered, by_id, by_name, read) = tokio::join!(
            self.administer(name, connection),
            self.write(name, by_id, true),
            self.write(name, by_name, false),
            self.read(name, reading),
        );
        administered.and(by_id).and(by_name).and(read)
    }

    async fn connect(&self) -> io::Result<Connection> {
        Connection::open(self.world, ADDRESS).await
    }

    /// Creates the topic when it is not there, deletes it when it is.
    async fn administer(&self, name: usize, mut connection: Connection) -> Work {
        for _ in 0..12 {
            let present = self.ledger.borrow().present(name);
            let Some(id) = present else {
                self.ledger.borrow_mut().ask_creation(name);
                let answer = connection.create_new_topic(NAMES[name], PARTITIONS as i32).await;
                let Ok((0, id)) = answer else { return self.end(|| format!("creation: {answer:?}")) };
                self.ledger.borrow_mut().created(name, id)?;
                self.read_by_name(name, &mut connection).await?;
                self.sleep(400).await;
                continue;
            };
            self.ledger.borrow_mut().ask_deletion(id);
            let answer = delete(&mut connection, NAMES[name], id, self.draw(2) == 0).await;
            let Ok(0) = answer else { return self.end(|| format!("deletion: {answer:?}")) };
            self.ledger.borrow_mut().deleted(id);
            self.sleep(100).await;
        }
        Ok(())
    }

    /// Writes to the topic, naming it by id or by name.
    async fn write(&self, name: usize, mut connection: Connection, by_id: bool) -> Work {
        for _ in 0..60 {
            self.sleep(60).await;
            let present = self.ledger.borrow().writable(name, self.draw(1 << 20));
            let (number, partition) =
                (self.ledger.borrow_mut().number(), self.draw(PARTITIONS as u64) as usize);
            let mut value = format!("{number} ").into_bytes();
            let longest = if self.draw(6) == 0 { 60_000 } else { 200 };
            value.resize(value.len() + self.draw(longest) as usize, b'.');
            let mut batch = BatchBuilder::new();
            batch.append(self.world.sim.env.clock.wall_ms(), None, Some(&value));
            let batch = batch.finish().expect("a batch of one record");
            let (token, answer) = match present {
                Some(id) if by_id => {
                    let token = self.ledger.borrow_mut().send(number, name, partition, Some(id));
                    (token, connection.produce_by_id(id, partition as i32, &batch).await)
                }
                None if by_id => continue,
                _ => {
                    let token = self.ledger.borrow_mut().send(number, name, partition, None);
                    (token, connection.produce(NAMES[name], partition as i32, &batch).await)
                }
            };
            match answer {
                Ok((offset, 0)) => self.ledger.borrow_mut().acknowledged(&token, offset)?,
                Ok((_, code)) => {
                    self.ledger.borrow_mut().refused(&token);
                    if !self.ledger.borrow().explains(&token, ErrorCode::from_code(code)) {
                        return self.end(|| format!("{} answered {code} to {token:?}", NAMES[name]));
                    }
                }
                Err(error) => return self.end(|| format!("a connection broke: {error}")),
            }
        }
        Ok(())
    }

    async fn read(&self, name: usize, mut connection: Connection) -> Work {
        for _ in 0..15 {
            self.sleep(200).await;
            self.read_by_name(name, &mut connection).await?;
            let gone = self.ledger.borrow().gone(self.draw(1 << 20));
            if let Some(id) = gone
                && !self.check_gone(id, &mut connection).await?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a partition of whatever topic has the name, and holds it against the ledger.
    async fn read_by_name(&self, name: usize, connection: &mut Connection) -> Work {
        let partition = self.draw(PARTITIONS as u64) as usize;
        let before = self.ledger.borrow().view(name, partition);
        let Ok(read) = connection.read(NAMES[name], partition as i32).await else {
            return self.end(|| "a connection broke".to_owned());
        };
        if self.ledger.borrow().view(name, partition).id != before.id {
            // Which topic it was is not known.
            return Ok(());
        }
        match (before.id, read) {
            (Some(_), Ok(bytes)) => self.ledger.borrow().check(&before, &bytes),
            (None, Ok(_)) if !self.ledger.borrow().is_asked(name) => {
                Err(format!("{} was deleted and is read", NAMES[name]))
            }
            (Some(_), Err(code)) if !self.ledger.borrow().is_asked(name) => {
                self.end(|| format!("{} is there, and reading it gives {code}", NAMES[name]))
            }
            _ => Ok(()),
        }
    }

    /// Holds that a deleted topic is not read; false when the connection broke.
    async fn check_gone(&self, id: TopicId, connection: &mut Connection) -> Result<bool, String> {
        match connection.read_by_id(id, 0).await {
            Ok(Err(code)) if code == ErrorCode::UnknownTopicId.code() => Ok(true),
            Ok(other) => Err(format!("{id} was deleted; reading it gives {other:?}")),
            Err(error) => self.end(|| format!("a connection broke: {error}")).map(|()| false),
        }
    }
}

async fn delete(connection: &mut Connection, name: &str, id: TopicId, by_id: bool) -> io::Result<i16> {
    const VERSION: i16 = 6;
    let topic = match by_id {
        true => DeleteTopicState { name: None, topic_id: id },
        false => DeleteTopicState { name: Some(name.into()), ..Default::default() },
    };
    let request = DeleteTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
    let body = connection.ask(VERSION, &request).await?;
    let response: DeleteTopicsResponse<'_> = decode(&body, VERSION)?;
    Ok(response.responses.first().map_or(-1, |answer| answer.error_code))
}

/// Every topic there is: id and name.
async fn list(connection: &mut Connection) -> io::Result<Vec<(TopicId, String)>> {
    const VERSION: i16 = 12;
    let request =
        MetadataRequest { topics: None, allow_auto_topic_creation: false, ..MetadataRequest::default() };
    let body = connection.ask(VERSION, &request).await?;
    let response: MetadataResponse<'_> = decode(&body, VERSION)?;
    let name = |name: &Option<std::borrow::Cow<'_, str>>| name.as_deref().unwrap_or_default().to_owned();
    Ok(response.topics.iter().map(|topic| (topic.topic_id, name(&topic.name))).collect())
}

/// Holds what a broker has after its start against the ledger, partition by partition.
async fn check(world: &World, ledger: &mut Ledger) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let mut connection = Connection::open(world, ADDRESS).await.map_err(text)?;
    ledger.settle(&list(&mut connection).await.map_err(text)?)?;
    for (name, text_name) in NAMES.iter().enumerate() {
        for partition in 0..PARTITIONS {
            let view = ledger.view(name, partition);
            let by_name = connection.read(text_name, partition as i32).await.map_err(text)?;
            let Some(id) = view.id else {
                if by_name.is_ok() {
                    return Err(format!("{text_name} was deleted and is read"));
                }
                continue;
            };
            let by_id = connection.read_by_id(id, partition as i32).await.map_err(text)?;
            let bytes = by_id.map_err(|code| format!("{text_name} {partition}: {code}"))?;
            ledger.check(&view, &bytes)?;
            if by_name.as_ref() != Ok(&bytes) {
                return Err(format!("{text_name} {partition} reads otherwise by name than by id"));
            }
        }
    }
    for id in ledger.all_gone() {
        let read = connection.read_by_id(id, 0).await.map_err(text)?;
        if read != Err(ErrorCode::UnknownTopicId.code()) {
            return Err(format!("{id} was deleted; reading it gives {read:?}"));
        }
    }
    Ok(())
}

async fn life(world: &World, ledger: &mut Ledger) -> Result<(), String> {
    let life = world.start().await?;
    check(world, ledger).await?;
    let clients = Clients { world, ledger: RefCell::new(ledger), ending: Cell::new(false) };
    let fate = world.draw(3);
    let (worked, ended) = if fate == 0 {
        world.sim.disk.cut_power_after(world.draw(600));
        (clients.work().await, world.lose_power(life).await)
    } else {
        let end = async {
            clients.sleep(2_000).await;
            clients.ending.set(true);
            if fate == 1 { world.kill(life).await } else { world.lose_power(life).await }
        };
        tokio::join!(clients.work(), end)
    };
    let () = ended;
    worked?;
    ledger.end_life();
    Ok(())
}

/// A life without faults; of the topics deleted in it and in the lives before no file is left.
async fn last_life(world: &World, ledger: &mut Ledger) -> Result<(), String> {
    let life = world.start().await?;
    check(world, ledger).await?;
    let clients = Clients { world, ledger: RefCell::new(ledger), ending: Cell::new(false) };
    clients.work().await?;
    world.sim.env.clock.sleep(Duration::from_secs(30)).await;
    check(world, ledger).await?;
    check_files(world, &life, ledger)?;
    life.stop(world).await
}

fn check_files(world: &World, life: &Life, ledger: &Ledger) -> Result<(), String> {
    let strays = life.strays();
    if !strays.is_empty() {
        return Err(format!("no chain lists {strays:?}"));
    }
    let there = |path: &Path| world.sim.env.disk.read_dir(path).map_err(|error| format!("{path:?}: {error}"));
    for number in 0..world.directories {
        let directory = format!("/data/log{number}");
        let topics = Path::new(&directory).join("topics");
        for topic in there(&topics)? {
            let partitions = there(&topics.join(&topic.name))?;
            if partitions.is_empty() {
                return Err(format!("{directory}: the directory of {} is empty", topic.name));
            }
            for partition in partitions {
                let id = partition.name.split_once('.').map(|(_, id)| id.to_owned()).unwrap_or_default();
                if ledger.fate_of(&id) != Some(Fate::Present) {
                    return Err(format!("{directory}: {}/{} was deleted", topic.name, partition.name));
                }
            }
        }
        for below in ["trash", "building"] {
            let left = there(&Path::new(&directory).join(below)).unwrap_or_default();
            if !left.is_empty() {
                return Err(format!("{directory}/{below} holds {left:?}"));
            }
        }
    }
    Ok(())
}

async fn lives(seed: u64) -> Result<Ledger, String> {
    let world = World::new(seed, 1 + seed as usize % 2, &SETTINGS);
    let mut ledger = Ledger::default();
    for _ in 0..LIVES {
        life(&world, &mut ledger).await?;
    }
    last_life(&world, &mut ledger).await?;
    Ok(ledger)
}

#[test]
fn a_deleted_topic_stays_deleted_and_leaves_nothing_to_the_next_of_its_name() {
    let (mut deletions, mut records, mut unclear) = (0, 0, 0);
    for seed in seeds(25) {
        let ledger = run(lives(seed)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        deletions += ledger.all_gone().len();
        records += ledger.records();
        unclear += ledger.unclear;
    }
    assert!(deletions > 0 && records > 0, "{deletions} deletions and {records} records prove nothing");
    println!(
        "{deletions} topics were deleted, {records} records acknowledged, {unclear} changes without an answer"
    );
}
