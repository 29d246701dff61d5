//! Records out of a file, standard input or memory: pieces between delimiters.
//!
//! A thread of its own reads, because standard input blocks; it is at most [`BLOCKS_AHEAD`] blocks ahead.

use std::io::{self, Read};
use std::path::PathBuf;

use base::env::{Env, OpenMode};
use bytes::Bytes;
use client::io_text;
use tokio::sync::mpsc;

use crate::failure::{Failure, Outcome};

/// Bytes read at a time.
const BLOCK_BYTES: usize = 64 * 1024;
/// Blocks that may wait to be taken apart.
const BLOCKS_AHEAD: usize = 4;
/// Longest piece, bytes: beyond any record a broker takes.
const PIECE_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Where bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// Bytes in memory.
    Memory(Bytes),
}

impl Source {
    /// `-` is standard input, everything else a file.
    pub(crate) fn from_argument(argument: &str) -> Source {
        if argument == "-" { Source::Stdin } else { Source::File(argument.into()) }
    }

    /// How many bytes it has; `None` where only its end will tell, as of a pipe.
    pub(crate) fn size(&self, env: &Env) -> Option<u64> {
        match self {
            Source::Stdin => None,
            // What is no plain file has no length.
            Source::File(path) => env
                .disk
                .open(path, OpenMode::Read)
                .and_then(|file| file.len())
                .ok()
                .filter(|length| *length > 0),
            Source::Memory(bytes) => Some(bytes.len() as u64),
        }
    }
}

/// The pieces of a source, in order.
pub(crate) struct Pieces {
    blocks: mpsc::Receiver<io::Result<Vec<u8>>>,
    splitter: Splitter,
    name: String,
}

impl Pieces {
    /// Begins to read. The delimiter must not be empty.
    pub(crate) fn open(env: &Env, source: Source, delimiter: &[u8]) -> Outcome<Pieces> {
        let (sender, blocks) = mpsc::channel(BLOCKS_AHEAD);
        let name = match &source {
            Source::Stdin => "standard input".to_owned(),
            Source::File(path) => path.display().to_string(),
            Source::Memory(_) => "memory".to_owned(),
        };
        let mut reader: Box<dyn Read + Send> = match source {
            Source::Stdin => Box::new(io::stdin()),
            Source::Memory(bytes) => Box::new(io::Cursor::new(bytes)),
            Source::File(path) => {
                let file = env.disk.open(&path, OpenMode::Read);
                let file = file.map_err(|error| Failure::new(format!("{name}: {}", io_text(&error))))?;
                Box::new(Sequential { file, position: 0 })
            }
        };
        env.workers.run(Box::new(move || {
            loop {
                let mut block = vec![0; BLOCK_BYTES];
                let read = match reader.read(&mut block) {
                    Ok(0) => return,
                    Ok(count) => {
                        block.truncate(count);
                        Ok(block)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let ended = read.is_err();
                if sender.blocking_send(read).is_err() || ended {
                    return;
                }
            }
        }));
        Ok(Pieces { blocks, splitter: Splitter::new(delimiter), name })
    }

    /// Bytes of the source that the pieces so far were taken from, delimiters too.
    pub(crate) fn taken(&self) -> u64 {
        self.splitter.taken
    }

    /// The next piece without its delimiter; what follows the last delimiter is one too unless it is empty.
    pub(crate) async fn next(&mut self) -> Outcome<Option<Vec<u8>>> {
        loop {
            if let Some(piece) = self.splitter.next() {
                return Ok(Some(piece));
            }
            if self.splitter.waiting() > PIECE_BYTES_MAX {
                let message = format!("{}: a record is longer than {PIECE_BYTES_MAX} bytes", self.name);
                return Err(Failure::new(message).help("`-D` names the delimiter between records"));
            }
            match self.blocks.recv().await {
                Some(Ok(block)) => self.splitter.add(&block),
                Some(Err(error)) => return Err(Failure::new(format!("{}: {}", self.name, io_text(&error)))),
                None => return Ok(self.splitter.rest()),
            }
        }
    }
}

/// All bytes of a file, or of standard input when it is called `-`.
pub(crate) fn read_whole(env: &Env, name: &str, limit: usize) -> Outcome<Vec<u8>> {
    let failed = |error: io::Error| Failure::new(format!("{name}: {}", io_text(&error)));
    if name != "-" {
        return env.disk.read(name.as_ref(), limit).map_err(failed);
    }
    let mut content = Vec::new();
    io::stdin().take(limit as u64 + 1).read_to_end(&mut content).map_err(failed)?;
    match content.len() > limit {
        true => Err(Failure::new(format!("standard input is longer than {limit} bytes"))),
        false => Ok(content),
    }
}

/// Reads a file of the environment from its beginning to its end.
struct Sequential {
    file: std::sync::Arc<dyn base::env::File>,
    position: u64,
}

impl Read for Sequential {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Takes bytes apart at a delimiter, wherever blocks begin and end.
struct Splitter {
    delimiter: Vec<u8>,
    bytes: Vec<u8>,
    /// Where the next piece begins.
    start: usize,
    /// Up to here no delimiter begins.
    searched: usize,
    /// Bytes of all pieces that were given out, with their delimiters.
    taken: u64,
}

impl Splitter {
    fn new(delimiter: &[u8]) -> Splitter {
        Splitter { delimiter: delimiter.to_vec(), bytes: Vec::new(), start: 0, searched: 0, taken: 0 }
    }

    fn add(&mut self, block: &[u8]) {
        self.bytes.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(block);
    }

    fn waiting(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        match find(&self.bytes[self.searched..], &self.delimiter) {
            Some(found) => {
                let end = self.searched + found;
                let piece = self.bytes[self.start..end].to_vec();
                let begin = std::mem::replace(&mut self.start, end + self.delimiter.len());
                self.taken += (self.start - begin) as u64;
                self.searched = self.start;
                Some(piece)
            }
            None => {
                // A delimiter may begin in the last bytes and end in the next block.
                let open = self.delimiter.len().saturating_sub(1);
                self.searched = self.bytes.len().saturating_sub(open).max(self.start);
                None
            }
        }
    }

    fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = self.bytes.split_off(self.start);
        *self = Splitter { taken: self.taken + rest.len() as u64, ..Splitter::new(&self.delimiter) };
        (!rest.is_empty()).then_some(rest)
    }
}

/// Where `needle` begins in `bytes`.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    match needle {
        [] => None,
        [only] => bytes.iter().position(|byte| byte == only),
        _ => bytes.windows(needle.len()).position(|window| window == needle),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pieces(text: &str, delimiter: &[u8]) -> Vec<String> {
        let source = Source::Memory(text.to_owned().into());
        let mut pieces = Pieces::open(&Env::os(), source, delimiter).expect("a text opens");
        let mut found = Vec::new();
        while let Some(piece) = pieces.next().await.expect("a text is read") {
            found.push(String::from_utf8(piece).expect("it was text"));
        }
        found
    }

    #[tokio::test]
    async fn pieces_stand_between_delimiters() {
        assert_eq!(pieces("a\nb\n", b"\n").await, ["a", "b"]);
        assert_eq!(pieces("a\n\nb", b"\n").await, ["a", "", "b"]);
        assert_eq!(pieces("", b"\n").await, [""; 0]);
        assert_eq!(pieces("a--b-c--", b"--").await, ["a", "b-c"]);
    }

    #[tokio::test]
    async fn every_byte_of_a_source_is_counted_once() {
        let source = Source::Memory(Bytes::from_static(b"a--bc--d"));
        assert_eq!(source.size(&Env::os()), Some(8));
        let mut pieces = Pieces::open(&Env::os(), source, b"--").expect("a text opens");
        let mut taken = Vec::new();
        while pieces.next().await.expect("a text is read").is_some() {
            taken.push(pieces.taken());
        }
        assert_eq!(taken, [3, 7, 8]);
        assert_eq!(Source::Stdin.size(&Env::os()), None);
    }

    #[tokio::test]
    async fn blocks_may_cut_pieces_and_delimiters_anywhere() {
        let line = "x".repeat(BLOCK_BYTES - 1);
        let text = format!("{line}--{line}--short");
        assert_eq!(pieces(&text, b"--").await, [line.as_str(), &line, "short"]);
        let mut splitter = Splitter::new(b"abc");
        for byte in b"1abc22abcabc3" {
            splitter.add(&[*byte]);
        }
        let found: Vec<_> = std::iter::from_fn(|| splitter.next()).collect();
        assert_eq!(found, [b"1".to_vec(), b"22".to_vec(), b"".to_vec()]);
        assert_eq!(splitter.rest(), Some(b"3".to_vec()));
    }
}
