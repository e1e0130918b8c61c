//! A swarm of subscribers that never lies: thousands of real connections on one thread, a publisher beside them, and
//! every single delivery checked: missing, double, out of order, wrongly named.
//!
//! What was published is known exactly, by number within each channel ([`Job`] → `traffic` → `publish` → `ledger`).
//! What arrived is checked as it comes (`check`), and against the ledger at the end. The swarm (`swarm`, `client`)
//! speaks to servers over HTTP alone, so that any deployment can be tested.

mod check; // Whether what arrived is what should have.
mod client; // One of them.
pub mod compare; // What changed from one to another.
mod cuts; // When which of them is cut off.
mod endpoint;
pub mod http;
mod job; // What is asked for, and the course of a run.
mod ledger; // What was published, as the server answered.
mod machine; // What this machine allows, and what is used of it.
mod page; // The same, as HTML.
mod publish; // Says it, over a few keep-alive connections.
mod report;
mod request;
pub mod result; // What a run leaves behind, as JSON.
mod swarm; // All connections on one epoll set.
mod traffic; // Who follows what, and what is published when.
mod trouble; // How everybody gets over it.

pub use check::{Fault, FaultKind};
pub use cuts::CutOptions;
pub use endpoint::{Endpoint, EndpointError};
pub use job::{Job, RunError};
pub use machine::{CLIENTS_MAX, cpu_seconds, raise_descriptor_limit};
pub use page::page;
pub use report::{Latency, Report};
pub use trouble::Recovery;
