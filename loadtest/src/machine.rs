//! What this machine allows a process, and what processes have used of it.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Clients of one process at most: more ask for several processes.
pub const CLIENTS_MAX: u32 = 19_000;

/// Descriptors that are no client's: standard streams, epoll, publishers, what is being read of `/proc`.
const DESCRIPTORS_APART: u64 = 128;

/// Raises the limit of open files to the hard limit, and tells how many clients that allows.
///
/// # Errors
/// Where the system refuses.
pub fn raise_descriptor_limit() -> io::Result<u32> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    let free = maximum.map_or(u64::from(CLIENTS_MAX), |limit| limit.saturating_sub(DESCRIPTORS_APART));
    Ok(u32::try_from(free).unwrap_or(u32::MAX).min(CLIENTS_MAX))
}

/// CPU seconds, user and system, that a process has used so far; `None` where it can't be seen.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the state after it is field 3, utime and stime are 14 and 15.
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect::<Vec<_>>();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Bytes of memory that a process has resident.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages = statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_what_it_uses() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).is_some_and(|seconds| seconds < 3600.0));
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(cpu_seconds(u32::MAX), None);
    }
}
