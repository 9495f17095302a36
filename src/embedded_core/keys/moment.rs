//! A reading of the wall clock and the monotonic clock.

/// One reading of both clocks, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Since the Unix epoch, by the wall clock. May jump.
    wall: u64,
    /// Since this process loaded its keys or made the first ones, by the monotonic clock.
    elapsed: u64,
}

impl Moment {
    /// Both in milliseconds.
    pub(super) fn new(wall: u64, elapsed: u64) -> Self {
        Self { wall, elapsed }
    }

    pub(super) fn wall(self) -> u64 {
        self.wall
    }

    pub(super) fn elapsed(self) -> u64 {
        self.elapsed
    }
}
