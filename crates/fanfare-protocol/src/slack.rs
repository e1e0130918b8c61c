//! When a table gives memory back: after a storm, tables have room for everyone who was there.

/// Room that a table may keep, however little is in it.
const ROOM_KEPT: usize = 1_024;

/// Whether a table with room for so many entries holds so few that it should shrink, to twice as many as it holds. So
/// it shrinks only after most have gone, and each time costs no more than they did.
pub fn has_slack(room: usize, len: usize) -> bool {
    room > ROOM_KEPT && room / 8 > len
}
