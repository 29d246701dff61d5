//! Any keys and values as records of the offsets topic: a shard takes them over or refuses them, and afterwards
//! answers for the groups it then has.

#![no_main]

use coordinator::{GroupConfig, GroupShard, ListGroupsRequest, OffsetFetchRequest, Request, Token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut shard = GroupShard::new(GroupConfig::default());
    let mut rest = bytes;
    while let [kind, length, content @ ..] = rest {
        let (value, behind) = content.split_at(content.len().min(usize::from(*length)));
        rest = behind;
        let (key, value) = match kind % 4 {
            // An offset: group g, topic t, some partition.
            0 => ([&[0, kind / 4 % 2, 0, 1, b'g', 0, 1, b't', 0, 0, 0][..], &[kind / 8]].concat(), value),
            // A group: g or h.
            1 => (vec![0, 2, 0, 1, b'g' + kind / 4 % 2], value),
            _ => {
                let (key, value) = value.split_at(value.len().min(usize::from(kind / 4)));
                (key.to_vec(), value)
            }
        };
        let _ = shard.replay(&key, (*length > 0).then_some(value));
    }
    let effects = shard.finish_loading(0);
    drop(effects);
    let groups: Vec<String> = ["g", "h"].map(String::from).into();
    for (token, group) in (0..).map(Token).zip(&groups) {
        let request =
            OffsetFetchRequest { group_id: group.clone().into(), topics: None, require_stable: false };
        shard.request(token, Request::OffsetFetch(request), 0);
    }
    shard.request(
        Token(8),
        Request::DescribeGroups { groups: groups.into_iter().map(Into::into).collect(), api_version: 6 },
        0,
    );
    let all = ListGroupsRequest::default();
    shard.request(Token(9), Request::ListGroups(all), 0);
    let _ = (shard.summaries(), shard.size());
});
