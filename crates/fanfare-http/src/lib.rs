//! What the edge and the publish API share of HTTP, so that they needn't know each other: the server, requests and
//! how they are read, answers and how they are made.
//!
//! The server can give a socket away: a handler that wants to hold a stream for hours replies
//! [`Reply::TakeOver`] and gets the plain socket, and everything that hyper kept for the connection is freed. Over
//! HTTP/2, where a connection has many streams, the same handler answers with the body of a [`Pipe`].
//! Nothing here knows a channel, an event or a route.

mod exchange; // What a handler gets and gives.
mod server;

mod connection;
mod http2;
mod wire;

mod pipe; // A body that is fed from outside.

mod body;
mod cors;
mod json;
mod problem;
mod proxies;
mod query;
mod request_id;
mod response;

pub use body::{accept_json, accept_uncompressed, media_type, read_body};
pub use cors::{Cors, LocalHosts, OriginError};
pub use exchange::{Handler, Peer, Reply, ReplyFuture, Request, TakeOver, Taken};
pub use hyper::body::Incoming;
pub use json::{from_json, from_json_object};
pub use pipe::{Gone, Pipe};
pub use problem::{Code, Problem};
pub use proxies::{NetworkError, TrustedProxies, client_network};
pub use query::{Query, path_is, path_segments};
pub use request_id::{REQUEST_ID, request_id};
pub use response::{Body, BodyError, Response, empty, full, json, options, streamed, text};
pub use server::{Server, listen};
