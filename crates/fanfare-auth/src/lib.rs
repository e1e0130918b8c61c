//! Who may do what: subscriber tokens and what they open, publish keys and what they reach.
//!
//! Everything here is a decision: headers, settings and the time are passed in, a subscriber, a key or a reason comes
//! out. Nothing does I/O, and neither the edge nor the publish API learns what the other asks for. Refusals know
//! which [`Problem`](fanfare_http::Problem) they are (see `problem`) and never repeat what they were shown: a
//! credential that is wrong here may be right elsewhere.

mod config;
mod setting;

mod admin; // What operators show.

mod access; // What an edge asks.
mod credential;
mod token;

mod claims;
mod grants;
mod subscriber;

mod key; // What the publish API asks.
mod keys;
mod mint;

mod problem;
mod secret;

pub use access::{Access, Admitted, AuthError, TokenRules};
pub use admin::{AdminKey, WrongAdminKey};
pub use config::{AuthConfig, Missing};
pub use credential::Source;
pub use grants::Grants;
pub use key::{KeyRefusal, PublishKey, Right};
pub use keys::{KeyError, PublishAccess, PublishKeys};
pub use mint::{MintError, Minted, TokenOrder};
pub use secret::Secret;
pub use setting::{CookieName, Patterns, SettingError};
pub use subscriber::{ChannelRefusal, Reach, Subscriber};
pub use token::{Secrets, TOKEN_BYTES_MAX, TokenError};
