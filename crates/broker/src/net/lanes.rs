//! Which event loop serves which connection.
//!
//! Each lane is a thread with an event loop of its own, and a connection stays on one: nothing of a request crosses
//! threads, and no idle thread is woken to look for work. What a pool that steals work does by itself is planned here
//! instead, several times a second: connections of a lane that is too busy move to one that has room, and while few
//! lanes are enough for all, few are used, because a fetch that an append on its own lane satisfies wakes nobody else.
//!
//! Pure values: the server measures, and moves what the plan says.

/// A lane busier than this share of its time gives connections away, if there is a better place for them. The busier a
/// lane is, the more requests each turn of its loop serves: at 20,000 records/s a broker took 0.84 s of processor time a
/// second with two lanes and 0.67 s with one, and latencies were alike.
const FULL: f64 = 0.9;

/// How busy lanes are left by what they give away: one that is full may hold back more than shows.
const EASED: f64 = 0.6;

/// How busy a lane may become by connections that move to it so that another lane can rest, or that are new.
const ROOM: f64 = 0.8;

/// By how much more one lane must be busy than another for moves between them.
const GAP_MIN: f64 = 0.1;

/// What one connection did since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// The connection.
    pub(super) connection: u64,
    /// Where it is.
    pub(super) lane: usize,
    /// How much it did, in any unit that is the same for all.
    pub(super) work: u64,
}

/// A connection that is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The connection.
    pub(super) connection: u64,
    /// Where it goes.
    pub(super) lane: usize,
}

/// The lane for a new connection: the busiest that has room, else the one with most.
pub(super) fn place(busy: &[f64]) -> usize {
    let lanes = || (0..busy.len()).rev();
    let by_load = |a: &usize, b: &usize| busy[*a].total_cmp(&busy[*b]);
    let roomy = lanes().filter(|lane| busy[*lane] < ROOM).max_by(by_load);
    roomy.or_else(|| lanes().min_by(by_load)).unwrap_or(0)
}

/// What should move. `busy` is the share of its time each lane was busy since the last look.
pub(super) fn plan(busy: &[f64], shares: &[Share]) -> Vec<Move> {
    let mut loads = loads(busy, shares);
    let mut busy = busy.to_vec();
    let moves = spread(&mut busy, &mut loads);
    if moves.is_empty() { gather(&busy, &loads) } else { moves }
}

/// A connection, where it is, and what share of a lane's time it takes.
type Load = (u64, usize, f64);

fn loads(busy: &[f64], shares: &[Share]) -> Vec<Load> {
    let mut work = vec![0; busy.len()];
    for share in shares {
        work[share.lane] += share.work;
    }
    let load = |share: &Share| {
        let part = share.work as f64 / work[share.lane].max(1) as f64;
        (share.connection, share.lane, busy[share.lane] * part)
    };
    shares.iter().filter(|share| share.work > 0).map(load).collect()
}

/// When a lane is full: moves connections off the busiest until all are eased, as long as the busiest gains by it.
fn spread(busy: &mut [f64], loads: &mut [Load]) -> Vec<Move> {
    let mut moves = Vec::new();
    if !busy.iter().any(|busy| *busy > FULL) {
        return moves;
    }
    while moves.len() < loads.len() {
        let by_load = |a: &usize, b: &usize| busy[*a].total_cmp(&busy[*b]);
        let Some(from) = (0..busy.len()).max_by(by_load).filter(|lane| busy[*lane] > EASED) else { break };
        let Some(to) = (0..busy.len()).min_by(by_load) else { break };
        let after = |load: &Load| (busy[from] - load.2).max(busy[to] + load.2);
        let here = loads.iter_mut().filter(|load| load.1 == from);
        let Some(best) = here.min_by(|a, b| after(a).total_cmp(&after(b))) else { break };
        if busy[from] - busy[to] < GAP_MIN || after(best) >= busy[from] {
            break;
        }
        best.1 = to;
        let (connection, _, load) = *best;
        busy[from] -= load;
        busy[to] += load;
        moves.push(Move { connection, lane: to });
    }
    moves
}

/// Empties the least busy lane in use if all that it does fits on another one.
fn gather(busy: &[f64], loads: &[Load]) -> Vec<Move> {
    let by_load = |a: &usize, b: &usize| busy[*a].total_cmp(&busy[*b]);
    let in_use = |lane: &usize| loads.iter().any(|load| load.1 == *lane);
    let Some(from) = (0..busy.len()).filter(in_use).min_by(by_load) else { return Vec::new() };
    let fits = |lane: &usize| *lane != from && in_use(lane) && busy[*lane] + busy[from] <= ROOM;
    let Some(to) = (0..busy.len()).filter(fits).max_by(by_load) else { return Vec::new() };
    let here = loads.iter().filter(|load| load.1 == from);
    here.map(|load| Move { connection: load.0, lane: to }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(connection: u64, lane: usize, work: u64) -> Share {
        Share { connection, lane, work }
    }

    fn to(connection: u64, lane: usize) -> Move {
        Move { connection, lane }
    }

    #[test]
    fn new_connections_join_a_lane_in_use_until_it_is_busy() {
        assert_eq!(place(&[0.0, 0.0]), 0);
        assert_eq!(place(&[0.1, 0.3]), 1);
        assert_eq!(place(&[0.85, 0.3, 0.0]), 1);
        assert_eq!(place(&[0.9, 0.85]), 1);
    }

    #[test]
    fn two_that_fill_a_lane_part() {
        assert_eq!(plan(&[1.0, 0.0], &[share(1, 0, 50), share(2, 0, 50)]), [to(1, 1)]);
        // Nothing is won by moving the only one.
        assert_eq!(plan(&[1.0, 0.0], &[share(1, 0, 50)]), []);
        assert_eq!(plan(&[1.0, 0.9], &[share(1, 0, 5), share(2, 0, 5), share(3, 1, 9)]), []);
    }

    #[test]
    fn a_lane_that_has_room_left_keeps_what_it_has() {
        assert_eq!(plan(&[0.85, 0.0], &[share(1, 0, 50), share(2, 0, 50)]), []);
        assert_eq!(plan(&[0.95, 0.0], &[share(1, 0, 50), share(2, 0, 50)]), [to(1, 1)]);
    }

    #[test]
    fn many_spread_evenly() {
        let shares: Vec<Share> = (0..40).map(|connection| share(connection, 0, 10)).collect();
        let moves = plan(&[1.0, 0.0, 0.0, 0.0], &shares);
        for lane in 1..4 {
            let there = moves.iter().filter(|to| to.lane == lane).count();
            assert!((4..=16).contains(&there), "{there} on lane {lane}");
        }
    }

    #[test]
    fn what_fits_on_one_lane_gathers_there() {
        let shares = [share(1, 0, 5), share(2, 1, 7), share(3, 1, 0)];
        assert_eq!(plan(&[0.1, 0.2], &shares), [to(1, 1)]);
        assert_eq!(plan(&[0.45, 0.4], &shares), []);
        assert_eq!(plan(&[0.0, 0.2], &[share(2, 1, 7)]), []);
    }

    #[test]
    fn a_plan_that_was_carried_out_gives_no_other() {
        let shares = [share(1, 0, 40), share(2, 0, 40), share(3, 0, 20)];
        let moves = plan(&[1.0, 0.0], &shares);
        let lane = |share: &Share| {
            moves.iter().find(|to| to.connection == share.connection).map_or(share.lane, |to| to.lane)
        };
        let moved = shares.map(|share| Share { lane: lane(&share), ..share });
        let mut busy = [0.0, 0.0];
        moved.iter().for_each(|share| busy[share.lane] += share.work as f64 / 100.0);
        assert_eq!(plan(&busy, &moved), []);
    }
}
