//! The promises of an edge, over real sockets. A file for each.

mod access;
mod bad_input;
mod calls;
mod directory;
mod disconnect;
mod drain;
mod history;
mod http2;
mod lifetimes;
mod limits;
mod namespaces;
mod overload;
mod patch;
mod poll;
mod resume;
mod routes;
mod slow_readers;
mod stats;
mod stream;
mod support;
