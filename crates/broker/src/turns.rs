//! Turns of one thread among its connections while long requests are answered.
//!
//! A request may name as many things as [`crate::dispatch`] lets through. A handler that works through them takes a
//! turn for each, so that others of its thread wait for some hundreds of them and not for all.

/// Small pieces of work in one turn. Each takes about a microsecond, so a turn is well below a millisecond.
const PIECES_PER_TURN: usize = 256;

/// The work a handler has done since others had their turn.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    pieces: usize,
}

impl Turns {
    /// Says that `pieces` of work are done, one for a thing that is looked up or refused, more where that takes longer.
    /// Waits until others have had their turn if that was enough for one.
    pub(crate) async fn done(&mut self, pieces: usize) {
        self.pieces += pieces;
        if self.pieces >= PIECES_PER_TURN {
            self.pieces = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn others_get_their_turn_now_and_then() {
        let mut turns = Turns::default();
        let waits = (0..10 * PIECES_PER_TURN).filter(|_| turns.done(1).now_or_never().is_none());
        assert_eq!(waits.count(), 10);
        assert!(turns.done(PIECES_PER_TURN).now_or_never().is_none());
    }
}
