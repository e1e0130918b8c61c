//! A load generator that never lies: thousands of real connections, somebody who publishes, and every single delivery
//! checked: missing, double, out of order.
//!
//! There are two of it. **Jobs** ([`Job`]: `mixed`, `cuts`) check everything that a stream can tell, id for id, and are
//! what tests use: what was published is known exactly (`traffic` → `publish` → `ledger`), what arrived is checked as it
//! comes (`check`), and against the ledger at the end. **Scenarios** ([`scenario`]) measure one thing each, as fast as
//! the machine goes: their clients (`crowd`) are small, live in processes of their own (`worker`, `crew`), and check
//! every event by a stamp in its payload (`stamp`). Beside any server they can be sent to the floor (`floor`). Both speak
//! to servers over HTTP alone, so that any deployment can be tested.

mod answer; // How a publish is answered.
mod check; // Whether what arrived is what should have.
mod client; // One of a job's clients.
mod clock; // Time as all processes see it.
pub mod compare; // What changed from one file of results to another.
mod crew; // The processes that hold clients.
mod crowd; // What they hold.
mod cuts; // When which client of a job is cut off.
mod dialect; // How a server is spoken to.
mod endpoint;
mod fleet; // Edges that are started for a run.
mod floor; // The yardstick.
pub mod http;
mod job; // What is asked for, and the course of a run.
mod keeper; // Stops what was started.
mod ledger; // What was published, as the server answered.
mod machine; // What this machine allows, and what is used of it.
mod page; // The same, as HTML.
pub mod peers; // Other servers, in the same way.
mod publish; // Says it, over a few keep-alive connections.
mod report;
mod request;
pub mod result; // What a run leaves behind, as JSON.
pub mod scenario; // What is measured.
mod speak; // Publishes for scenarios.
mod stamp; // What their events carry.
mod swarm; // All connections of a job on one epoll set.
mod terminal; // Results for people.
mod traffic; // Who follows what, and what is published when.
mod trouble; // How everybody gets over it.
mod words; // What they are told, and say.
mod worker; // A process that holds clients.

pub use check::{Fault, FaultKind};
pub use cuts::CutOptions;
pub use dialect::{Bulk, Dialect, Post};
pub use endpoint::{Endpoint, EndpointError};
pub use fleet::{Fleet, FleetOptions};
pub use floor::{FLOOR, run as run_floor};
pub use job::{Job, RunError};
pub use keeper::{KEEPER, run as run_keeper};
pub use machine::{CLIENTS_MAX, cpu_seconds, describe, raise_descriptor_limit};
pub use page::{markdown, page};
pub use report::{Latency, Report};
pub use terminal::render;
pub use trouble::Recovery;
pub use worker::{WORKER, run as run_worker};
