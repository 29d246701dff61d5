//! The miniature broker: a thread a connection, one file a partition. It checks a batch's checksum, writes its offset
//! into it, appends it to the page cache and answers; what is fetched goes out by sendfile.

use std::fs::File;
use std::io::{Error, Result, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::frame::{self, Cursor};

const PARTITIONS: usize = 16;

/// One partition.
struct Log {
    file: Arc<File>,
    bytes: u64,
    end_offset: i64,
    /// Base offset and position of each batch.
    batches: Vec<(i64, u64)>,
}

type Logs = Arc<Vec<Mutex<Log>>>;

/// Serves until it is killed.
pub fn serve(port: u16, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let log = |number| {
        let path = folder.join(format!("{number}.log"));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Mutex::new(Log { file: Arc::new(file), bytes: 0, end_offset: 0, batches: Vec::new() }))
    };
    let logs: Logs = Arc::new((0..PARTITIONS).map(log).collect::<Result<_>>()?);
    for stream in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let (stream, logs) = (stream?, Arc::clone(&logs));
        // A client that goes away ends its thread.
        std::thread::spawn(move || converse(stream, &logs));
    }
    Ok(())
}

fn converse(mut stream: TcpStream, logs: &Logs) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        frame::read_frame(&mut stream, &mut request)?;
        let mut head = Cursor { left: &request };
        let (api_key, version, correlation) = (head.i16()?, head.i16()?, head.i32()?);
        head.text()?; // the client's id
        let body = request.len() - head.left.len();
        match (api_key, version) {
            (frame::PRODUCE, frame::PRODUCE_VERSION) => {
                produce(&mut stream, logs, correlation, &mut request[body..])?;
            }
            (frame::FETCH, frame::FETCH_VERSION) => fetch(&mut stream, logs, correlation, &request[body..])?,
            _ => return Err(Error::other("the yardstick takes Produce 7 and Fetch 4")),
        }
    }
}

fn log_of(logs: &Logs, partition: i32) -> Result<MutexGuard<'_, Log>> {
    let log = usize::try_from(partition).ok().and_then(|number| logs.get(number));
    let log = log.ok_or_else(|| Error::other("there is no such partition"))?;
    Ok(log.lock().expect("no thread panics while it holds a log"))
}

fn produce(stream: &mut TcpStream, logs: &Logs, correlation: i32, body: &mut [u8]) -> Result<()> {
    let mut cursor = Cursor { left: body };
    cursor.text()?; // transactional id
    cursor.take(2 + 4 + 4)?; // acks, timeout, one topic
    cursor.text()?;
    cursor.i32()?; // one partition
    let (partition, length) = (cursor.i32()?, cursor.i32()?);
    let at = body.len() - cursor.left.len();
    let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
    let batch = end.and_then(|end| body.get_mut(at..end)).ok_or_else(|| Error::other("no records"))?;
    if !frame::is_sound(batch) {
        return Err(Error::other("a batch is damaged"));
    }
    let offset = append(&mut *log_of(logs, partition)?, batch)?;
    let mut answer = vec![0; 4];
    answer.extend(correlation.to_be_bytes());
    frame::put_partition(&mut answer, partition);
    answer.extend(0_i16.to_be_bytes()); // no error
    answer.extend(offset.to_be_bytes());
    answer.extend((-1_i64).to_be_bytes()); // append time
    answer.extend(0_i64.to_be_bytes()); // start of the log
    answer.extend(0_i32.to_be_bytes()); // throttle time
    frame::set_length(&mut answer);
    stream.write_all(&answer)
}

fn append(log: &mut Log, batch: &mut [u8]) -> Result<i64> {
    let offset = log.end_offset;
    batch[..8].copy_from_slice(&offset.to_be_bytes());
    log.file.write_all_at(batch, log.bytes)?;
    log.batches.push((offset, log.bytes));
    log.bytes += batch.len() as u64;
    log.end_offset += frame::offsets_of(batch);
    Ok(offset)
}

fn fetch(stream: &mut TcpStream, logs: &Logs, correlation: i32, body: &[u8]) -> Result<()> {
    let mut cursor = Cursor { left: body };
    cursor.take(4 + 4 + 4 + 4 + 1 + 4)?; // replica, longest wait, least and most bytes, isolation, one topic
    cursor.text()?;
    cursor.i32()?; // one partition
    let (partition, offset, bytes_max) = (cursor.i32()?, cursor.i64()?, cursor.i32()?);
    let (file, mut position, bytes, end_offset) = {
        let log = log_of(logs, partition)?;
        let batch = log.batches.partition_point(|&(base, _)| base <= offset).saturating_sub(1);
        let past = offset >= log.end_offset;
        let position = if past { log.bytes } else { log.batches[batch].1 };
        let bytes = (log.bytes - position).min(bytes_max.max(0) as u64);
        (Arc::clone(&log.file), position, bytes as usize, log.end_offset)
    };
    let mut answer = vec![0; 4];
    answer.extend(correlation.to_be_bytes());
    answer.extend(0_i32.to_be_bytes()); // throttle time
    frame::put_partition(&mut answer, partition);
    answer.extend(0_i16.to_be_bytes()); // no error
    answer.extend(end_offset.to_be_bytes());
    answer.extend(end_offset.to_be_bytes()); // last stable offset
    answer.extend(0_i32.to_be_bytes()); // no aborted transactions
    answer.extend((bytes as i32).to_be_bytes());
    let length = (answer.len() - 4 + bytes) as u32;
    answer[..4].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&answer)?;
    let end = position + bytes as u64;
    while position < end {
        let left = (end - position) as usize;
        let sent = rustix::fs::sendfile(&*stream, &file, Some(&mut position), left)?;
        if sent == 0 {
            return Err(Error::other("a log became shorter"));
        }
    }
    Ok(())
}
