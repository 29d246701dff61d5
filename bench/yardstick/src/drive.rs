//! The clients: requests are encoded once and sent again and again; of answers they read the error and, when fetching,
//! the heads of batches.

use std::io::{Error, Result, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::frame::{self, Cursor};

/// Answers that do not come for so long are an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends batches over connections of their own, with so many unanswered on each.
pub fn produce(address: &str, connections: i32, window: u64, batch_bytes: usize, total: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(Error::other)?;
    let batch = frame::batch(batch_bytes, now.as_millis() as i64);
    let count = total.div_ceil(batch.len() as u64 * connections as u64);
    measure(address, connections, count * connections as u64 * batch.len() as u64, |mut stream, partition| {
        let request = produce_request(partition, &batch);
        let mut answer = Vec::new();
        for sent in 0..count + window {
            if sent < count {
                stream.write_all(&request)?;
            }
            if sent >= window {
                frame::read_frame(&mut stream, &mut answer)?;
                check_produced(&answer)?;
            }
        }
        Ok(())
    })
}

fn produce_request(partition: i32, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((-1_i16).to_be_bytes()); // no transactional id
    body.extend((-1_i16).to_be_bytes()); // acks of all
    body.extend(30_000_i32.to_be_bytes());
    frame::put_partition(&mut body, partition);
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    frame::request(frame::PRODUCE, frame::PRODUCE_VERSION, &body)
}

fn check_produced(answer: &[u8]) -> Result<()> {
    let mut cursor = Cursor { left: answer };
    cursor.take(4 + 4)?; // correlation, one topic
    cursor.text()?;
    cursor.take(4 + 4)?; // one partition, its number
    refused(cursor.i16()?)
}

/// Reads partitions again and again, each over a connection of its own.
pub fn fetch(address: &str, connections: i32, fetch_bytes: i32, total: u64) -> Result<()> {
    let each = total / connections as u64;
    measure(address, connections, each * connections as u64, |mut stream, partition| {
        let (mut request, offset_at) = fetch_request(partition, fetch_bytes);
        let (mut answer, mut offset, mut got) = (Vec::new(), 0, 0);
        while got < each {
            request[offset_at..offset_at + 8].copy_from_slice(&i64::to_be_bytes(offset));
            stream.write_all(&request)?;
            frame::read_frame(&mut stream, &mut answer)?;
            let (bytes, next) = fetched(&answer, offset)?;
            if bytes == 0 && offset == 0 {
                return Err(Error::other("there is nothing to fetch"));
            }
            got += bytes;
            // The end: from the beginning again.
            offset = if bytes == 0 { 0 } else { next };
        }
        Ok(())
    })
}

/// The request, and where in it the offset stands.
fn fetch_request(partition: i32, fetch_bytes: i32) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    body.extend((-1_i32).to_be_bytes()); // a consumer
    body.extend(0_i32.to_be_bytes()); // no waiting
    body.extend(0_i32.to_be_bytes()); // for no least bytes
    body.extend(fetch_bytes.to_be_bytes());
    body.push(0); // whatever is committed
    frame::put_partition(&mut body, partition);
    body.extend(0_i64.to_be_bytes());
    body.extend(fetch_bytes.to_be_bytes());
    let request = frame::request(frame::FETCH, frame::FETCH_VERSION, &body);
    let offset_at = request.len() - 12;
    (request, offset_at)
}

/// Bytes of whole batches in an answer, and the offset behind them.
fn fetched(answer: &[u8], offset: i64) -> Result<(u64, i64)> {
    let mut cursor = Cursor { left: answer };
    cursor.take(4 + 4 + 4)?; // correlation, throttle time, one topic
    cursor.text()?;
    cursor.take(4 + 4)?; // one partition, its number
    refused(cursor.i16()?)?;
    cursor.take(8 + 8)?; // high watermark, last stable offset
    let aborted = cursor.i32()?.max(0) as usize;
    cursor.take(16 * aborted)?;
    let length = cursor.i32()?.max(0) as usize;
    let mut records = cursor.take(length)?;
    let (mut bytes, mut next) = (0, offset);
    while let Some(length) = frame::length_of(records).filter(|&length| length <= records.len()) {
        let (batch, rest) = records.split_at(length);
        if batch.len() < frame::BATCH_HEAD {
            return Err(Error::other("a batch is too short"));
        }
        next = i64::from_be_bytes(batch[..8].try_into().expect("eight bytes")) + frame::offsets_of(batch);
        bytes += length as u64;
        records = rest;
    }
    Ok((bytes, next))
}

fn refused(code: i16) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::other(format!("the broker answered error {code}"))) }
}

/// Runs the work on connections of their own at once, and prints how long all took.
fn measure(
    address: &str,
    connections: i32,
    bytes: u64,
    work: impl Fn(TcpStream, i32) -> Result<()> + Sync,
) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        streams.push(stream);
    }
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(streams)
            .map(|(number, stream)| {
                scope.spawn({
                    let work = &work;
                    move || work(stream, number)
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a connection does not panic"))
    })?;
    let seconds = began.elapsed().as_secs_f64();
    let rate = bytes as f64 / seconds;
    println!("{{\"bytes\":{bytes},\"seconds\":{seconds:.6},\"bytes_per_second\":{rate:.0}}}");
    Ok(())
}
