//! The five codecs of a record batch, each with a limit on what it may produce.
//!
//! Writing follows the Java client, so that every client reads it: gzip; snappy in Xerial framing; lz4
//! as a frame of independent 64 KiB blocks; zstd as one frame. Reading takes what clients send in
//! practice: snappy raw or framed, lz4 frames of any block size, zstd frames with or without their
//! size, gzip of several members.
//!
//! A short input that unfolds into gigabytes ends with [`BatchError::TooLarge`] before memory beyond
//! the limit is touched.

use std::cell::RefCell;
use std::fmt;
use std::io::{BufRead, Read, Write};
use std::str::FromStr;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe::{self, zstd_sys::ZSTD_ErrorCode};

use super::BatchError;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, levels 1 to 9, 6 by default.
    Gzip,
    /// Snappy; it has no levels.
    Snappy,
    /// LZ4 frame; levels are accepted and written alike.
    Lz4,
    /// Zstandard, levels -131072 to 22, 3 by default (KIP-110).
    Zstd,
}

/// First bytes of snappy in the framing of the Java library.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Version and oldest compatible version, which follow the magic.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Uncompressed bytes per chunk of Xerial framing.
const XERIAL_CHUNK: usize = 32 * 1024;
/// No snappy element of n bytes unfolds to more than this times n.
const SNAPPY_MAX_RATIO: usize = 22;
/// First guess at what zstd data without a size unfolds to, times its length.
const ZSTD_GUESS_RATIO: usize = 8;
/// A buffer that grew beyond this is given back after use.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

impl Compression {
    /// All codecs, in the order of their codes.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The codec of attribute bits 0 to 2.
    pub fn from_code(code: u8) -> Result<Compression, BatchError> {
        Compression::ALL.get(usize::from(code)).copied().ok_or(BatchError::UnknownCompression(code))
    }

    /// The value of attribute bits 0 to 2.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Kafka's name, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// Appends the compressed form of `input` to `out`. A level outside the codec's range is moved into it.
    pub fn compress(self, level: Option<i32>, input: &[u8], out: &mut Vec<u8>) {
        match self {
            Compression::None => out.extend_from_slice(input),
            Compression::Gzip => gzip_compress(level, input, out),
            Compression::Snappy => snappy_compress(input, out),
            Compression::Lz4 => lz4_compress(input, out),
            Compression::Zstd => zstd_compress(level, input, out),
        }
    }

    /// Replaces the content of `out` by what `input` unfolds to, at most `limit` bytes.
    fn decompress(self, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
        out.clear();
        let done = match self {
            Compression::None if input.len() > limit => Err(Failure::TooLarge),
            Compression::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Compression::Gzip => gzip_decompress(input, limit, out),
            Compression::Snappy => snappy_decompress(input, limit, out),
            Compression::Lz4 => lz4_decompress(input, limit, out),
            Compression::Zstd => zstd_decompress(input, limit, out),
        };
        done.map_err(|failure| match failure {
            Failure::TooLarge => BatchError::TooLarge { limit },
            Failure::Malformed(reason) => BatchError::Decompression { codec: self, reason },
        })
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no codec.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compression: expected none, gzip, snappy, lz4 or zstd")]
pub struct ParseCompressionError(String);

impl FromStr for Compression {
    type Err = ParseCompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Compression::ALL.into_iter().find(|codec| codec.name() == text);
        known.ok_or_else(|| ParseCompressionError(text.chars().take(64).collect()))
    }
}

/// Where records are unfolded, with the limit on their size. Keep one per task and reuse it.
#[derive(Debug)]
pub struct DecompressBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl DecompressBuffer {
    /// A buffer in which no batch may unfold to more than `limit` bytes.
    pub fn new(limit: usize) -> DecompressBuffer {
        DecompressBuffer { bytes: Vec::new(), limit }
    }

    /// The limit, bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Unfolds `input`; the result lives until the next call.
    pub fn decompress(&mut self, codec: Compression, input: &[u8]) -> Result<&[u8], BatchError> {
        if self.bytes.capacity() > KEPT_BUFFER_BYTES {
            self.bytes = Vec::new();
        }
        codec.decompress(input, self.limit, &mut self.bytes)?;
        Ok(&self.bytes)
    }
}

enum Failure {
    TooLarge,
    Malformed(String),
}

fn malformed(error: impl fmt::Display) -> Failure {
    Failure::Malformed(error.to_string())
}

fn gzip_compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) {
    let level = flate2::Compression::new(level.map_or(6, |level| level.clamp(1, 9) as u32));
    let mut encoder = flate2::write::GzEncoder::new(out, level);
    encoder.write_all(input).and_then(|()| encoder.finish()).expect("writing to memory does not fail");
}

fn gzip_decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let decoder = flate2::bufread::MultiGzDecoder::new(input);
    let count = decoder.take(limit as u64 + 1).read_to_end(out).map_err(malformed)?;
    if count > limit { Err(Failure::TooLarge) } else { Ok(()) }
}

fn snappy_compress(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for chunk in input.chunks(XERIAL_CHUNK) {
        let length_at = out.len();
        let data_at = length_at + 4;
        out.resize(data_at + snap::raw::max_compress_len(chunk.len()), 0);
        let length =
            encoder.compress(chunk, &mut out[data_at..]).expect("the output has the room snappy asks for");
        out[length_at..data_at].copy_from_slice(&(length as u32).to_be_bytes());
        out.truncate(data_at + length);
    }
}

fn snappy_decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut decoder = snap::raw::Decoder::new();
    let Some(mut rest) = input.strip_prefix(&XERIAL_MAGIC) else {
        return snappy_block(&mut decoder, input, limit, out);
    };
    rest = rest.get(XERIAL_VERSIONS.len()..).ok_or_else(|| malformed("the framing header is cut"))?;
    while !rest.is_empty() {
        // Streams that were written one after the other repeat the header.
        if let Some(next) = rest.strip_prefix(&XERIAL_MAGIC) {
            rest = next.get(XERIAL_VERSIONS.len()..).ok_or_else(|| malformed("the framing header is cut"))?;
            continue;
        }
        let (length, after) = rest.split_first_chunk().ok_or_else(|| malformed("a chunk length is cut"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let (chunk, after) = after.split_at_checked(length).ok_or_else(|| malformed("a chunk is cut"))?;
        snappy_block(&mut decoder, chunk, limit, out)?;
        rest = after;
    }
    Ok(())
}

fn snappy_block(
    decoder: &mut snap::raw::Decoder,
    block: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let length = snap::raw::decompress_len(block).map_err(malformed)?;
    if length > limit.saturating_sub(out.len()) {
        return Err(Failure::TooLarge);
    }
    // The announced length is not to be believed: do not zero megabytes for a few bytes.
    if length > block.len().saturating_mul(SNAPPY_MAX_RATIO) {
        return Err(malformed("the announced length is more than the bytes can unfold to"));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = decoder.decompress(block, &mut out[start..]).map_err(malformed)?;
    out.truncate(start + written);
    Ok(())
}

fn lz4_compress(input: &[u8], out: &mut Vec<u8>) {
    let frame = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(input).expect("writing to memory does not fail");
    encoder.finish().expect("writing to memory does not fail");
}

fn lz4_decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let mut decoder = FrameDecoder::new(input);
    loop {
        let block = decoder.fill_buf().map_err(malformed)?;
        if block.is_empty() {
            return Ok(());
        }
        if block.len() > limit - out.len() {
            return Err(Failure::TooLarge);
        }
        out.extend_from_slice(block);
        let length = block.len();
        decoder.consume(length);
    }
}

thread_local! {
    // A zstd context takes 100 KiB and more to set up; it holds no data between calls.
    static ZSTD_DECODER: RefCell<zstd_safe::DCtx<'static>> = RefCell::new(zstd_safe::DCtx::create());
}

fn zstd_compress(level: Option<i32>, input: &[u8], out: &mut Vec<u8>) {
    let range = zstd::compression_level_range();
    let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).clamp(*range.start(), *range.end());
    let mut compressed = vec![0; zstd_safe::compress_bound(input.len())];
    let length = zstd::bulk::compress_to_buffer(input, &mut compressed[..], level)
        .expect("the output has the room zstd asks for");
    out.extend_from_slice(&compressed[..length]);
}

/// One shot into a buffer that grows until the data fits. A streaming decoder would allocate the window
/// the frame asks for, up to 128 MiB; here the output is the window.
fn zstd_decompress(input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    let announced = zstd_safe::get_frame_content_size(input).ok().flatten();
    let mut capacity = match announced {
        Some(size) if size > limit as u64 => return Err(Failure::TooLarge),
        Some(size) => size as usize,
        None => input.len().saturating_mul(ZSTD_GUESS_RATIO).min(limit),
    };
    let full = 0usize.wrapping_sub(ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize);
    loop {
        out.clear();
        out.reserve_exact(capacity);
        let result = ZSTD_DECODER.with_borrow_mut(|decoder| decoder.decompress(out, input));
        match result {
            Ok(length) if length > limit => return Err(Failure::TooLarge),
            Ok(_) => return Ok(()),
            Err(code) if code == full && capacity >= limit => return Err(Failure::TooLarge),
            Err(code) if code == full => capacity = capacity.saturating_mul(4).clamp(1024, limit.max(1024)),
            Err(code) => return Err(malformed(zstd_safe::get_error_name(code))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODECS: [Compression; 4] =
        [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    fn compressed(codec: Compression, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        codec.compress(None, input, &mut out);
        out
    }

    #[test]
    fn every_codec_gives_back_what_it_took() {
        let mut buffer = DecompressBuffer::new(1 << 20);
        let noise: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for codec in Compression::ALL {
            for input in [&b""[..], b"a", &[7; 100_000], &noise] {
                let out = compressed(codec, input);
                assert_eq!(buffer.decompress(codec, &out).unwrap(), input, "{codec} {}", input.len());
            }
        }
    }

    #[test]
    fn levels_beyond_the_range_are_moved_into_it() {
        let mut buffer = DecompressBuffer::new(1 << 20);
        for codec in CODECS {
            for level in [i32::MIN, -1, 0, 1, i32::MAX] {
                let mut out = Vec::new();
                codec.compress(Some(level), b"hello hello hello", &mut out);
                assert_eq!(buffer.decompress(codec, &out).unwrap(), b"hello hello hello", "{codec} {level}");
            }
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        for codec in CODECS {
            let bomb = compressed(codec, &vec![0; 1 << 20]);
            assert!(bomb.len() < 60_000, "{codec} {}", bomb.len());
            let limit = (1 << 20) - 1;
            let mut buffer = DecompressBuffer::new(limit);
            assert_eq!(buffer.decompress(codec, &bomb), Err(BatchError::TooLarge { limit }), "{codec}");
            assert_eq!(DecompressBuffer::new(1 << 20).decompress(codec, &bomb).map(<[u8]>::len), Ok(1 << 20));
        }
    }

    #[test]
    fn zstd_without_its_size_is_read_and_limited() {
        let data = vec![42; 3 << 20];
        // A streaming encoder does not know the size when it writes the frame header.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.write_all(&data).unwrap();
        let frame = encoder.finish().unwrap();
        assert_eq!(zstd_safe::get_frame_content_size(&frame).ok().flatten(), None);
        let decompressed =
            DecompressBuffer::new(data.len()).decompress(Compression::Zstd, &frame).map(<[u8]>::len);
        assert_eq!(decompressed, Ok(data.len()));
        let limit = data.len() - 1;
        let refused = DecompressBuffer::new(limit).decompress(Compression::Zstd, &frame).map(<[u8]>::len);
        assert_eq!(refused, Err(BatchError::TooLarge { limit }));
    }

    #[test]
    fn raw_snappy_is_read_and_a_false_length_allocates_nothing() {
        let raw = snap::raw::Encoder::new().compress_vec(b"raw raw raw raw raw").unwrap();
        let mut buffer = DecompressBuffer::new(1 << 30);
        assert_eq!(buffer.decompress(Compression::Snappy, &raw).unwrap(), b"raw raw raw raw raw");
        // A varint that announces 512 MiB, then nothing.
        let lie = [0x80, 0x80, 0x80, 0x80, 0x02];
        assert!(matches!(
            buffer.decompress(Compression::Snappy, &lie),
            Err(BatchError::Decompression { .. })
        ));
        assert!(buffer.bytes.capacity() < 1024);
    }

    #[test]
    fn snappy_streams_one_after_the_other_are_one() {
        let mut both = compressed(Compression::Snappy, b"first ");
        both.extend(compressed(Compression::Snappy, b"second"));
        let mut buffer = DecompressBuffer::new(100);
        assert_eq!(buffer.decompress(Compression::Snappy, &both).unwrap(), b"first second");
    }

    #[test]
    fn every_truncation_is_an_error_or_less_output_never_a_panic() {
        let mut buffer = DecompressBuffer::new(1 << 16);
        let text = b"some text some text some text".repeat(20);
        for codec in CODECS {
            let whole = compressed(codec, &text);
            for length in 0..whole.len() {
                if let Ok(bytes) = buffer.decompress(codec, &whole[..length]) {
                    assert!(text.starts_with(bytes), "{codec} {length}");
                }
            }
        }
    }

    #[test]
    fn large_buffers_are_given_back() {
        let big = compressed(Compression::Gzip, &vec![0; 8 << 20]);
        let small = compressed(Compression::Gzip, b"x");
        let mut buffer = DecompressBuffer::new(16 << 20);
        buffer.decompress(Compression::Gzip, &big).unwrap();
        assert!(buffer.bytes.capacity() >= 8 << 20);
        buffer.decompress(Compression::Gzip, &small).unwrap();
        assert!(buffer.bytes.capacity() <= KEPT_BUFFER_BYTES);
    }
}
