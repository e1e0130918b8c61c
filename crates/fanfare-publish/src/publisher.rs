//! Who publishes, and what they may.

use fanfare_http::{Code, Problem};
use fanfare_protocol::Channel;

/// Where one-off channels of calls begin, the only ones of Fanfare's own that are published to.
const CALL_PREFIX: &str = "$call:";

/// Who publishes. Idempotency keys are theirs alone.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    /// The name of their key.
    pub(crate) name: String,
}

impl Publisher {
    /// Who publishes where no keys are asked for.
    pub(crate) fn anonymous() -> Self {
        Self { name: String::new() }
    }

    pub(crate) fn check_publish(&self, channel: &Channel) -> Result<(), Problem> {
        let call = channel.as_str().strip_prefix(CALL_PREFIX).is_some_and(|id| !id.is_empty());
        if channel.is_internal() && !call {
            let detail = format!("{channel} is one of Fanfare's own channels, nobody publishes to it");
            return Err(Problem::new(Code::Forbidden, detail));
        }
        Ok(())
    }

    pub(crate) fn check_read(&self, channel: &Channel) -> Result<(), Problem> {
        if channel.is_internal() {
            let detail = format!("{channel} is one of Fanfare's own channels, nobody reads it");
            return Err(Problem::new(Code::Forbidden, detail));
        }
        Ok(())
    }
}
