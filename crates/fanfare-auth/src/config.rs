//! What can be set.

use serde::Deserialize;

use crate::access::{Access, TokenRules};
use crate::admin::AdminKey;
use crate::grants::Grants;
use crate::keys::{PublishAccess, PublishKeys};
use crate::setting::{CookieName, Patterns};
use crate::token::Secrets;

/// Whose tokens and keys count. The variables' names are in the contract. Each field holds only what is valid: its
/// type's `parse` tells every mistake.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Secrets that subscriber tokens are signed with. The first one signs, any verifies: a new one is put first, the
    /// old one goes when the last token of it has expired.
    pub secret: Option<Secrets>,
    /// Patterns that every token gets, filled from its claims, so that whoever issues tokens needn't know channels.
    pub grants: Grants,
    /// The cookie that holds a token. A browser's `EventSource` can send nothing else that is out of sight.
    pub cookie: CookieName,
    /// Whether `?token=` and `?auth=` are taken. Off: URLs end up in the logs of every proxy on the way.
    pub query_token: bool,
    /// Patterns that are open without a token. None: nothing is, the broadcast included.
    pub anonymous_channels: Patterns,
    /// Keys that may publish, read, mint and disconnect.
    pub publish_keys: PublishKeys,
    /// What operators show for what the admin address has of users. None: it is off.
    pub admin_key: Option<AdminKey>,
}

/// A setting without which a role doesn't start outside `dev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// An edge needs it.
    #[error("FANFARE_AUTH_SECRET is not set: without it an edge can't tell whose tokens are good")]
    Secret,
    /// A publisher needs them.
    #[error("FANFARE_PUBLISH_KEYS is not set: without it nobody may publish, expected name=KEY")]
    PublishKeys,
}

/// Bytes below which a secret can be guessed from a token alone: an HS256 key is as long as its hash (RFC 7518 §3.2).
const SECRET_BYTES_GOOD: usize = 32;

/// Bytes below which a publish key can be guessed.
const KEY_BYTES_GOOD: usize = 16;

impl AuthConfig {
    /// What an edge asks.
    ///
    /// # Errors
    /// There is no secret.
    pub fn edge_access(&self) -> Result<Access, Missing> {
        let secrets = self.secret.clone().ok_or(Missing::Secret)?;
        Ok(Access::Tokens(Box::new(self.rules(secrets))))
    }

    /// What an edge asks in `dev`, where nobody needs a token and those signed with these secrets count.
    pub fn dev_access(&self, secrets: Secrets) -> Access {
        Access::Dev(Some(Box::new(TokenRules { query_token: true, ..self.rules(secrets) })))
    }

    fn rules(&self, secrets: Secrets) -> TokenRules {
        TokenRules {
            secrets,
            grants: self.grants.clone(),
            cookie: self.cookie.clone(),
            query_token: self.query_token,
            anonymous_channels: self.anonymous_channels.clone(),
        }
    }

    /// What a publish API asks.
    ///
    /// # Errors
    /// There is no key.
    pub fn publish_access(&self) -> Result<PublishAccess, Missing> {
        match self.publish_keys.is_empty() {
            true => Err(Missing::PublishKeys),
            false => Ok(PublishAccess::Keys(self.publish_keys.clone())),
        }
    }

    /// What is allowed but unwise, one sentence each, for the log at start and for `fanfare check`.
    pub fn warnings(&self) -> Vec<String> {
        let secrets = self.secret.iter().flat_map(Secrets::lengths).zip(1..);
        let short_secrets = secrets.filter(|(bytes, _)| *bytes < SECRET_BYTES_GOOD).map(|(bytes, number)| {
            format!(
                "FANFARE_AUTH_SECRET: secret {number} has {bytes} bytes, with fewer than {SECRET_BYTES_GOOD} it can be \
                 guessed from a token (`openssl rand -hex 32` makes one)"
            )
        });
        let short_keys = self.publish_keys.shorter_than(KEY_BYTES_GOOD).map(|name| {
            format!(
                "FANFARE_PUBLISH_KEYS: the key {name} has fewer than {KEY_BYTES_GOOD} bytes and can be guessed \
                 (`openssl rand -hex 32` makes one)"
            )
        });
        let open_ended = self.grants.open_ended().map(|grant| {
            format!(
                "FANFARE_AUTH_GRANTS: in {grant} nothing separates the claim from the *, so that 1 opens 10, too \
                 (end it in :*)"
            )
        });
        short_secrets.chain(short_keys).chain(open_ended).collect()
    }
}
