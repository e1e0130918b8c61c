//! What processes and the kernel have used: read before and after, the difference is the measurement's.

use std::fs;

use crate::machine;
use crate::result::CpuSplit;

/// CPU seconds of processes so far.
pub(super) fn cpu(pids: &[u32]) -> CpuSplit {
    let mut all = CpuSplit::default();
    for CpuSplit { user, system } in pids.iter().filter_map(|pid| machine::cpu(*pid)) {
        all.user += user;
        all.system += system;
    }
    all
}

/// Memory in user space of processes, in bytes: what is theirs alone, and their share of what they share with each
/// other, as nginx's workers do.
pub(super) fn user_bytes(pids: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        kibibytes(&rollup, "Pss_Anon:") + kibibytes(&rollup, "Pss_Shmem:")
    };
    pids.iter().map(of).sum::<f64>() * 1024.0
}

/// Bytes that wait in TCP sockets of this machine.
pub(super) fn socket_bytes() -> f64 {
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "mem").skip(1);
    words.next().and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) * rustix::param::page_size() as f64
}

/// Descriptors that processes have open.
pub(super) fn descriptors(pids: &[u32]) -> usize {
    pids.iter().map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)).sum()
}

fn kibibytes(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_what_it_uses() {
        let pids = [std::process::id()];
        assert!(cpu(&pids).total() < 3600.0 && cpu(&[u32::MAX]) == CpuSplit::default());
        assert!(user_bytes(&pids) > 100_000.0 && user_bytes(&[u32::MAX]) == 0.0);
        assert!(descriptors(&pids) >= 3);
    }
}
