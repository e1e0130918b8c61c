//! What this machine is and allows a process, and what processes have used of it.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::result::{CpuSplit, Machine};

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

/// What this machine is.
pub fn describe() -> Machine {
    let system = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    Machine {
        kernel: format!("{} {}", text(system.sysname()), text(system.release())),
        processor: processor.trim_start_matches(['\t', ' ', ':']).to_owned(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: field("/proc/meminfo", "MemTotal:").unwrap_or(0),
        descriptors_max: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
    }
}

/// CPU seconds, user and system, that a process has used so far; `None` where it can't be seen.
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    cpu(pid).map(CpuSplit::total)
}

/// CPU seconds that a process has used so far; `None` where it can't be seen.
pub(crate) fn cpu(pid: u32) -> Option<CpuSplit> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the state after it is field 3, utime and stime are 14 and 15.
    let fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect::<Vec<_>>();
    let seconds = |field: usize| {
        let ticks = fields.get(field)?.parse::<f64>().ok()?;
        Some(ticks / rustix::param::clock_ticks_per_second() as f64)
    };
    Some(CpuSplit { user: seconds(11)?, system: seconds(12)? })
}

/// What several processes have used together; `None` where there is none, or one of them can't be seen.
pub(crate) fn cpu_of(pids: &[u32]) -> Option<CpuSplit> {
    if pids.is_empty() {
        return None;
    }
    pids.iter().try_fold(CpuSplit::default(), |sum, pid| {
        let of = cpu(*pid)?;
        Some(CpuSplit { user: sum.user + of.user, system: sum.system + of.system })
    })
}

/// Bytes of memory that a process has resident.
pub(crate) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages = statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Bytes of memory of their own that processes have resident (`RssAnon` and `RssShmem`: what they wrote themselves, be it
/// where others can read it, and not the program's text); `None` where there is none, or one of them can't be seen.
pub(crate) fn user_bytes(pids: &[u32]) -> Option<f64> {
    if pids.is_empty() {
        return None;
    }
    let bytes = pids.iter().map(|pid| {
        let of = |name| field(&format!("/proc/{pid}/status"), name);
        Some(of("RssAnon:")? + of("RssShmem:")?)
    });
    bytes.sum::<Option<u64>>().map(|bytes| bytes as f64)
}

/// Bytes that the kernel of this machine has for sockets and all that belongs to them: its slabs, and the pages that
/// sockets buffer.
pub(crate) fn kernel_bytes() -> f64 {
    let slab = field("/proc/meminfo", "Slab:").unwrap_or(0);
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = tcp.split_ascii_whitespace().skip_while(|word| *word != "mem").nth(1);
    let pages = pages.and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    (slab + pages * rustix::param::page_size() as u64) as f64
}

/// A field in kB of a file in `/proc`, in bytes.
fn field(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// Established connections of a server on this machine, at its end of them: one that the server has closed doesn't
/// count, whatever its peer knows of it. IPv4 alone.
pub(crate) fn established(server: SocketAddr) -> usize {
    const ESTABLISHED: &str = "01";
    let IpAddr::V4(ip) = server.ip() else { return 0 };
    // As it lies in memory; of IPv6 sockets these are the last digits.
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), server.port());
    let is_ours = |line: &&str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|address| address.ends_with(&local)) && fields.nth(1) == Some(ESTABLISHED)
    };
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().map(|table| table.lines().filter(is_ours).count()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_what_it_uses() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).is_some_and(|seconds| seconds < 3600.0));
        assert!(resident_bytes(pid).is_some_and(|bytes| bytes > 100_000));
        assert!(user_bytes(&[pid, pid]).zip(user_bytes(&[pid])).is_some_and(|(two, one)| two > 1.5 * one));
        assert_eq!((cpu_seconds(u32::MAX), user_bytes(&[]), user_bytes(&[pid, u32::MAX])), (None, None, None));
    }

    #[test]
    fn a_machine_knows_itself() {
        let machine = describe();
        assert!(machine.kernel.starts_with("Linux ") && machine.cores > 0 && machine.memory_bytes > 1 << 20);
        assert!(kernel_bytes() > 100_000.0);
    }

    #[test]
    fn connections_of_a_server_are_counted_at_its_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let clients = [(); 3].map(|()| std::net::TcpStream::connect(address).expect("it listens"));
        let accepted = [(); 3].map(|()| listener.accept().expect("they came").0);
        assert_eq!(established(address), 3);
        drop(accepted);
        assert_eq!(established(address), 0, "the clients have not closed yet");
        drop(clients);
    }
}
