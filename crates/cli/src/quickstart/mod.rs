//! `vltava quickstart`: the shortest way to see records go through a broker and come back unchanged.
//!
//! It starts a node, sends a file line by line over the Kafka protocol, reads it back in a group, and
//! compares every byte. Only the last word, "served until Ctrl-C", is no work.

mod ports;
mod round_trip;

use base::config::{Assignment, BrokerConfig, Origin, UnknownKeys};
use base::env::Env;
use clap::Args;
use client::{Client, ClientConfig};

use crate::completion;
use crate::failure::{Failure, Outcome};
use crate::serve::{Node, Place, Wanted};
use crate::signals::EndSignals;
use round_trip::round_trip;

/// Arguments of `vltava quickstart`.
#[derive(Args, Debug)]
pub(crate) struct QuickstartArguments {
    /// The file to send, a record for each line; - is standard input [default: Vltava's own documents]
    #[arg(add = completion::files())]
    file: Option<String>,
    /// Keep the data in this directory [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR", add = completion::directories())]
    data: Option<String>,
    /// End when all is compared, instead of serving on
    #[arg(long)]
    exit: bool,
    /// The topic, which must not exist yet [default: quickstart, with a number where that exists]
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(arguments: QuickstartArguments) -> Outcome {
    let env = Env::os();
    let mut signals = EndSignals::listen()?;
    // What is to be sent is looked at first: a slip in its name must not start anything.
    let source = tokio::select! {
        source = round_trip::source(&env, arguments.file.as_deref()) => source?,
        signal = signals.next() => return Err(Failure::new(format!("ended by {signal}"))),
    };
    let node = start_node(&env, arguments.data.clone()).await?;
    let work = async {
        let client = Client::connect(&env, ClientConfig::new([bootstrap(&node)?])).await?;
        let durability = node.config().durability();
        round_trip(&client, source, arguments.topic.as_deref(), durability).await
    };
    let result = tokio::select! {
        result = work => result,
        signal = signals.next() => Err(Failure::new(format!("ended by {signal}"))),
    };
    let topic = match result {
        Ok(topic) if !arguments.exit => topic,
        result => {
            let ended = node.shutdown().await;
            return result.and(ended);
        }
    };
    let address = bootstrap(&node)?;
    tell!("serving at {address}: try `vltava topic consume -b {address} {topic}`");
    tell!("data: {}; end with Ctrl-C", node.place_text());
    signals.next().await;
    node.shutdown().await
}

async fn start_node(env: &Env, data: Option<String>) -> Outcome<Node> {
    // On a disk: the latency shown is then that of durable answers.
    let wanted = data.map_or(Wanted::Temporary, |data| Wanted::Directory(Some(data)));
    let place = Place::choose(env, wanted)?;
    let ports = ports::choose(env).await?;
    let assign =
        |key: &str, value: String| Assignment { key: key.to_owned(), value, origin: Origin::CommandLine };
    let assignments = vec![
        assign("listeners", format!("PLAINTEXT://127.0.0.1:{}", ports.kafka)),
        assign("vltava.http.listener", format!("127.0.0.1:{}", ports.http)),
        // Nobody else will join: the group need not wait for more members.
        assign("group.initial.rebalance.delay.ms", "0".to_owned()),
    ];
    let loaded = BrokerConfig::load(&place.complete(assignments)?, UnknownKeys::Refuse);
    let config = loaded.expect("what this command sets is valid").config;
    let node = Node::start(env, config, place).await?;
    let console =
        node.console_address().map_or_else(|| "none".to_owned(), |address| format!("http://{address}/"));
    tell!("Vltava {} serves at {}; console {console}", env!("CARGO_PKG_VERSION"), bootstrap(&node)?);
    Ok(node)
}

fn bootstrap(node: &Node) -> Outcome<String> {
    let addresses = node.addresses();
    let first = addresses.first().ok_or_else(|| Failure::new("the broker listens nowhere"))?;
    Ok(first.1.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_serves_several_runs() {
        let env = Env::os();
        let home = std::env::temp_dir().join(format!("vltava-quickstart-{}", std::process::id()));
        let file = home.join("lines");
        env.disk.create_dir_all(&home).expect("a directory");
        env.disk.replace(&file, b"one\ntwo\n").expect("a file");
        let results = [1, 2].map(|_| {
            // One for each run, as for each process: with its tasks ends their hold of the directory.
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
            runtime.expect("threads").block_on(run(QuickstartArguments {
                file: Some(file.display().to_string()),
                data: Some(home.join("data").display().to_string()),
                exit: true,
                topic: None,
            }))
        });
        env.disk.remove_dir_all(&home).expect("it was made");
        assert_eq!(results, [Ok(()), Ok(())]);
    }
}
