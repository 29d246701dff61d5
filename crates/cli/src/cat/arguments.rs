//! The letters.

use std::str::FromStr;

use base::batch::Compression;
use clap::{ArgGroup, Args};

use crate::arguments::Bootstrap;
use crate::completion;

/// Arguments of `vltava cat`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("mode").args(["produce", "consume", "list", "query", "group"])))]
#[command(after_help = FORMAT_HELP)]
pub(crate) struct CatArguments {
    #[command(flatten)]
    pub(super) bootstrap: Bootstrap,
    /// Write: a record for each line of standard input, or for each file
    #[arg(short = 'P')]
    pub(super) produce: bool,
    /// Read
    #[arg(short = 'C')]
    pub(super) consume: bool,
    /// List brokers, topics and partitions
    #[arg(short = 'L')]
    pub(super) list: bool,
    /// Look up offsets by time: -t TOPIC:PARTITION:MILLISECONDS
    #[arg(short = 'Q')]
    pub(super) query: bool,
    /// Read as a member of a group; its topics follow
    #[arg(short = 'G', value_name = "GROUP", add = completion::groups())]
    pub(super) group: Option<String>,
    /// The topic
    #[arg(short = 't', value_name = "TOPIC", add = completion::topics())]
    pub(super) topics: Vec<String>,
    /// The partition; -1 or none: all when reading, whichever when writing
    #[arg(short = 'p', value_name = "NUMBER", allow_hyphen_values = true, default_value_t = -1)]
    pub(super) partition: i32,
    /// Where to begin: beginning, end, an offset, -N before the end, s@MILLISECONDS; e@… where to stop
    #[arg(short = 'o', value_name = "OFFSET", allow_hyphen_values = true, add = completion::offsets())]
    pub(super) offsets: Vec<String>,
    /// Stop after that many records
    #[arg(short = 'c', value_name = "COUNT")]
    pub(super) limit: Option<u64>,
    /// Stop at the end
    #[arg(short = 'e')]
    pub(super) exit_at_end: bool,
    /// How to print a record
    #[arg(short = 'f', value_name = "FORMAT")]
    pub(super) format: Option<String>,
    /// Print JSON
    #[arg(short = 'J')]
    pub(super) json: bool,
    /// What stands between records
    #[arg(short = 'D', value_name = "TEXT", default_value = "\\n")]
    pub(super) delimiter: String,
    /// What stands between key and value
    #[arg(short = 'K', value_name = "TEXT")]
    pub(super) key_delimiter: Option<String>,
    /// The key of records that have none
    #[arg(short = 'k', value_name = "KEY")]
    pub(super) key: Option<String>,
    /// A header of every record
    #[arg(short = 'H', value_name = "NAME=VALUE")]
    pub(super) headers: Vec<String>,
    /// How to compress: none, gzip, snappy, lz4 or zstd
    #[arg(short = 'z', value_name = "CODEC", value_parser = Compression::from_str, add = completion::codecs())]
    pub(super) compression: Option<Compression>,
    /// Write empty keys and values as null, print null as NULL
    #[arg(short = 'Z')]
    pub(super) null: bool,
    /// Take files apart into lines
    #[arg(short = 'l')]
    pub(super) lines: bool,
    /// Print records that were sent, as tee does
    #[arg(short = 'T')]
    pub(super) tee: bool,
    /// Print the offset and the key delimiter in front
    #[arg(short = 'O', conflicts_with = "format")]
    pub(super) offset: bool,
    /// Do not tell when the end of a partition is reached or a group is rebalanced
    #[arg(short = 'q')]
    pub(super) quiet: bool,
    /// How long to try, seconds, like --timeout but for the writing of records
    #[arg(short = 'm', value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(super) metadata_timeout: Option<u32>,
    /// Read properties from a file, each on its line as KEY=VALUE
    #[arg(short = 'F', value_name = "FILE", add = completion::files())]
    pub(super) properties_file: Option<std::path::PathBuf>,
    /// A client property of librdkafka, as in acks=1
    #[arg(short = 'X', value_name = "KEY=VALUE", add = completion::properties())]
    pub(super) properties: Vec<String>,
    /// Write at once: it always does
    #[arg(short = 'u', hide = true)]
    pub(super) unbuffered: bool,
    /// Go on after errors that may pass: it always does
    #[arg(short = 'E', hide = true)]
    pub(super) lenient: bool,
    /// Say more: --log does
    #[arg(short = 'v', hide = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Files to write, or with -G topics to read
    #[arg(value_name = "FILE|TOPIC", add = completion::cat_operands())]
    pub(super) operands: Vec<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Produce,
    Consume,
    List,
    Query,
    Group,
}

impl CatArguments {
    /// The mode named, if any.
    pub(super) fn mode(&self) -> Option<Mode> {
        let named = [
            (self.produce, Mode::Produce),
            (self.consume, Mode::Consume),
            (self.list, Mode::List),
            (self.query, Mode::Query),
            (self.group.is_some(), Mode::Group),
        ];
        named.into_iter().find(|(is_named, _)| *is_named).map(|(_, mode)| mode)
    }
}

const FORMAT_HELP: &str = "\
Formats:
  %s value   %S its length   %R its length in 4 bytes   %k key   %K its length
  %t topic   %p partition    %o offset   %T timestamp in ms   %h headers   %% a percent sign
  \\n \\r \\t \\0 \\\\ \\xHH

Examples:
  vltava cat -L
  vltava cat -P -t orders -K : orders.txt -l
  vltava cat -C -t orders -o -10 -e -f '%p@%o %k: %s\\n'
  vltava cat -G readers orders";
