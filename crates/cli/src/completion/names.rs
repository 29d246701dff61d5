//! Names of topics and groups, from the broker that the line or the environment names.
//!
//! What a broker says ends up in somebody's command line, so a name is offered only if no shell takes any
//! of its characters for more than a letter.

use std::ffi::OsStr;
use std::time::Duration;

use base::env::Env;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter};
use client::{Client, ClientConfig, Topics};

use crate::arguments::{BOOTSTRAP_VARIABLE, USUAL_BOOTSTRAP};
use crate::connect::addresses;

/// How long a broker may take to answer, from the first attempt to connect: people are waiting.
const PATIENCE: Duration = Duration::from_millis(700);
/// The characters of a name that is offered, beside letters and digits.
const PLAIN: &str = "._-:/@+%";

/// The topics there are; the internal ones where no other fits.
pub(crate) fn topics() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| of_broker(typed, list_topics))
}

/// The groups there are.
pub(crate) fn groups() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| of_broker(typed, list_groups))
}

/// What follows the options of `cat`: topics behind `-G`, else files.
pub(crate) fn cat_operands() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| match line().iter().any(|word| word == "-G") {
        true => of_broker(typed, list_topics),
        false => PathCompleter::file().complete(typed),
    })
}

/// A name, and whether it is one that few ask for.
type Name = (String, bool);

async fn list_topics(client: Client) -> client::Result<Vec<Name>> {
    let metadata = client.metadata(Topics::All).await?;
    Ok(metadata.topics.into_iter().map(|(name, topic)| (name, topic.internal)).collect())
}

async fn list_groups(client: Client) -> client::Result<Vec<Name>> {
    Ok(client.list_groups().await?.into_iter().map(|group| (group.group, false)).collect())
}

/// Candidates from a broker; none when it does not answer in time.
fn of_broker<F>(typed: &OsStr, list: impl FnOnce(Client) -> F) -> Vec<CompletionCandidate>
where
    F: Future<Output = client::Result<Vec<Name>>>,
{
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let names = runtime.block_on(async {
        let env = Env::os();
        let asked = async { list(Client::connect(&env, config()?).await.ok()?).await.ok() };
        tokio::select! {
            names = asked => names,
            () = env.clock.sleep(PATIENCE) => None,
        }
    });
    // A name may still be looked up in a thread; nobody waits for it.
    runtime.shutdown_background();
    let fitting = names.unwrap_or_default().into_iter();
    let fitting = fitting.filter(|(name, _)| name.starts_with(typed) && is_plain(name));
    fitting.map(|(name, is_rare)| CompletionCandidate::new(name).hide(is_rare)).collect()
}

fn config() -> Option<ClientConfig> {
    let named = bootstrap(&line());
    let named = named.or_else(|| std::env::var(BOOTSTRAP_VARIABLE).ok().filter(|text| !text.is_empty()));
    let named = named.unwrap_or_else(|| USUAL_BOOTSTRAP.to_owned());
    let brokers: Vec<String> = named.split(',').map(str::to_owned).collect();
    let mut config = ClientConfig::new(addresses(&brokers).ok()?);
    (config.connect_timeout, config.request_timeout, config.retry_for) = (PATIENCE, PATIENCE, PATIENCE);
    config.client_id = "vltava-cli".to_owned();
    Some(config)
}

/// The words of the line up to the cursor: the shell's script passes them behind `--`.
fn line() -> Vec<String> {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    // As they are typed, with their quotes.
    words.map(|word| word.to_string_lossy().trim_matches(['"', '\'']).to_owned()).collect()
}

/// The brokers that a line names; of several options the last counts.
fn bootstrap(line: &[String]) -> Option<String> {
    // The last word is the one that is being typed.
    let words = line.split_last()?.1;
    let following = words.iter().skip(1).map(Some).chain([None]);
    let named = words.iter().zip(following).filter_map(|(word, following)| match word.as_str() {
        "-b" | "--bootstrap-server" => following.cloned(),
        word => {
            let attached = word.strip_prefix("--bootstrap-server=");
            let attached = attached.or_else(|| word.strip_prefix("-b").filter(|rest| !rest.is_empty()));
            attached.map(|text| text.strip_prefix('=').unwrap_or(text).to_owned())
        }
    });
    named.last()
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('-') && name.chars().all(|c| c.is_ascii_alphanumeric() || PLAIN.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_the_broker_in_every_form() {
        let named = |line: &str| bootstrap(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(named("vltava topic describe "), None);
        assert_eq!(named("vltava topic -b a:1 describe ").as_deref(), Some("a:1"));
        assert_eq!(named("vltava cat -ba:1 -t ").as_deref(), Some("a:1"));
        assert_eq!(named("vltava group --bootstrap-server=a:1,b:2 ").as_deref(), Some("a:1,b:2"));
        assert_eq!(named("vltava group --bootstrap-server a:1 -b b:2 ").as_deref(), Some("b:2"));
        // What is being typed names nobody yet.
        assert_eq!(named("vltava topic -b a:1"), None);
    }

    #[test]
    fn only_names_that_no_shell_takes_apart_are_offered() {
        assert!(is_plain("orders.v2_x-1") && is_plain("team/readers:a@b+c%d"));
        for name in ["$(reboot)", "a b", "`x`", "a;b", "a'b", "a\nb", "*", "-rf", "a\\b", "ä"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
