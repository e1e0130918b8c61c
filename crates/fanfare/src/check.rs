//! `fanfare check`: would Fanfare work as it is configured here? Every mistake at once, and an exit code.

use std::process::ExitCode;

use fanfare_auth::Missing;
use fanfare_backbone::{RedisError, Weight};

use crate::args::CheckOptions;
use crate::config::{Config, Inputs, Mistakes, Role};
use crate::role::NO_REDIS;
use crate::terminal::{self, GREEN, RED, YELLOW};

/// Reads the configuration and asks Redis.
pub(crate) async fn check(options: CheckOptions) -> anyhow::Result<ExitCode> {
    let inputs = Inputs::with_file(options.config).flag("--redis", "redis.url", options.redis);
    let config = Config::load(Role::Service, &inputs)?;
    let mut mistakes = Mistakes::default();
    let Some(redis) = config.redis() else {
        mistakes.tell(NO_REDIS);
        return Err(mistakes.into());
    };
    let (mut failed, mut warnings) = (false, config.auth.warnings());
    warnings.extend(config.auth.edge_access().err().map(|missing| role_missing(missing).to_owned()));
    warnings.extend(config.auth.publish_access().err().map(|missing| role_missing(missing).to_owned()));
    for finding in fanfare_backbone::check(&redis).await {
        match finding.weight {
            _ if is_configuration(&finding.error) => mistakes.tell(&finding.error),
            Weight::Fatal | Weight::Passing => {
                failed = true;
                terminal::note(RED, &format!("error: {}", terminal::one_line(&finding.error.to_string())));
            }
            Weight::Warning => warnings.push(finding.error.to_string()),
        }
    }
    for warning in warnings {
        terminal::note(YELLOW, &format!("warning: {}", terminal::one_line(&warning)));
    }
    if !mistakes.is_empty() {
        return Err(mistakes.into());
    }
    if failed {
        return Ok(ExitCode::FAILURE);
    }
    terminal::print(&format!("{GREEN}the configuration is right, and Redis will do{GREEN:#}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// A publish API's environment needs no secret, nor an edge's a key: here neither is a mistake.
fn role_missing(missing: Missing) -> &'static str {
    match missing {
        Missing::Secret => "FANFARE_AUTH_SECRET is not set here: an edge does not start without it",
        Missing::PublishKeys => "FANFARE_PUBLISH_KEYS is not set here: a publish API does not start without it",
    }
}

/// Whether it shows without asking Redis.
fn is_configuration(error: &RedisError) -> bool {
    matches!(
        error,
        RedisError::Url(_) | RedisError::Unsupported(_) | RedisError::Prefix(_) | RedisError::PartitionCount(_)
    )
}
