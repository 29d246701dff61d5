//! `vltava group list`.

use client::Client;
use client::admin::ListedGroup;
use serde_json::json;

use crate::failure::Outcome;
use crate::output::{self, Align, Form, Table};

pub(crate) async fn run(client: &Client, form: Form) -> Outcome {
    let groups = client.list_groups().await?;
    match form {
        Form::Json => {
            let object = |group: &ListedGroup| {
                json!({
                    "group": group.group,
                    "state": group.state,
                    "type": group.kind,
                    "protocol_type": group.protocol_type,
                })
            };
            output::json(&groups.iter().map(object).collect::<Vec<_>>())
        }
        Form::Table => {
            let columns = ["GROUP", "STATE", "TYPE", "PROTOCOL"].map(|name| (name, Align::Left));
            let mut table = Table::new(&columns);
            for group in groups {
                table.row([group.group, group.state, group.kind, group.protocol_type]);
            }
            table.print()
        }
    }
}
