//! Whether this Redis will do: everything that is wrong with it, at once.
//!
//! Rights are found by running the real scripts and a real subscription, under names that no partition has: what an
//! ACL or a hosted edition forbids can't be guessed.

use std::time::{Duration, SystemTime};

use fanfare_protocol::{
    ByNamespace, Channel, Content, Draft, Epoch, Idempotency, Keep, PageLimit, Position, Retention, UserId,
};

use super::RedisError;
use super::config::{RedisConfig, Server};
use super::directory::{self, NodeKeys, enlist};
use super::keys::Keys;
use super::scripts::{Call, LAYOUT, SCRIPTS, Scripts};
use super::wire::{Wire, Words};
use crate::blocks::Block;

const KEEP: Keep = Keep { events_max: 1, age: Some(Duration::from_secs(1)) };

/// Short, so that what a check leaves behind is soon gone, but for three small keys.
const RETENTION: Retention = Retention {
    history: ByNamespace::everywhere(KEEP),
    forget_age: Duration::from_secs(2),
    idempotency_window: Duration::from_secs(1),
};

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub error: RedisError,
    /// What follows from it.
    pub weight: Weight,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Nothing works before it is put right.
    Fatal,
    /// It may pass by itself: Redis is away, or not up yet.
    Passing,
    /// It works for now.
    Warning,
}

impl Finding {
    fn new(error: RedisError) -> Self {
        let weight = match error {
            RedisError::Unreachable { .. }
            | RedisError::Loading
            | RedisError::TimedOut
            | RedisError::Closed
            | RedisError::Memory
            | RedisError::TooSlow(_)
            | RedisError::Replicas { .. }
            | RedisError::TooMuch => Weight::Passing,
            _ => Weight::Fatal,
        };
        Self { error, weight }
    }
}

/// Finds everything that is wrong with a Redis and how it is reached. Nothing: it will do.
pub async fn check(config: &RedisConfig) -> Vec<Finding> {
    let server = match Server::read(config) {
        Ok(server) => server,
        Err(mistakes) => return mistakes.into_iter().map(Finding::new).collect(),
    };
    let mut findings = Vec::new();
    let mut note = |error: RedisError| {
        let finding = Finding::new(error);
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    };
    let mut wire = match Wire::open(&server).await {
        Ok(wire) => wire,
        Err(error) => {
            note(error);
            return findings;
        }
    };
    match wire.info("server").await {
        Ok(info) => {
            if let Some(version) = info.field("redis_version").filter(|version| is_too_old(version)) {
                note(RedisError::TooOld(version.to_owned()));
            }
        }
        // Nothing else will be allowed before the password is right or the data loaded.
        Err(
            error @ (RedisError::PasswordMissing | RedisError::Loading | RedisError::Closed | RedisError::TimedOut),
        ) => {
            note(error);
            return findings;
        }
        Err(error) => note(error),
    }
    note_layout(&mut wire, &server, &mut note).await;
    note_rights(&mut wire, &server, &mut note).await;
    note_replicas(&mut wire, &server, &mut note).await;
    let policy = wire.info("memory").await.ok().and_then(|info| {
        let policy = info.field("maxmemory_policy")?;
        let limited = info.field("maxmemory").is_some_and(|bytes| bytes != "0");
        (policy != "noeviction").then(|| (policy.to_owned(), limited))
    });
    if let Some((policy, limited)) = policy {
        let weight = if limited { Weight::Fatal } else { Weight::Warning };
        findings.push(Finding { error: RedisError::Evicts(policy), weight });
    }
    findings
}

fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < (6, 2)
}

/// What is stored is only looked at: a check must not be what settles a deployment's number of partitions.
async fn note_layout(wire: &mut Wire, server: &Server, note: &mut impl FnMut(RedisError)) {
    let configured = server.partitions.count();
    for partition in server.partitions.all() {
        let meta = Keys::new(&server.prefix, partition).meta();
        let words = match wire.ask(&[b"HMGET", &meta, b"v", b"P"]).await {
            Ok(words) => words,
            Err(error) => return note(error),
        };
        let mut words = words.into_iter().map(|word| word.map(|word| String::from_utf8_lossy(&word).into_owned()));
        if let Some(version) = words.next().flatten()
            && version != LAYOUT
        {
            note(RedisError::Layout(version));
        }
        if let Some(stored) = words.next().flatten()
            && stored != configured.to_string()
        {
            note(RedisError::Partitions { stored, configured });
        }
    }
}

async fn note_rights(wire: &mut Wire, server: &Server, note: &mut impl FnMut(RedisError)) {
    for script in SCRIPTS {
        let mut bytes = Vec::new();
        script.write_load(&mut bytes);
        if let Err(error) = ask(wire, &bytes).await {
            return note(error);
        }
    }
    let scripts = Scripts::for_checks(&server.prefix, server.partitions, RETENTION);
    let channel = Channel::broadcast();
    let content = Content { name: None, key: None, ttl: None, data: "fanfare check".into() };
    let random = fastrand::u128(..).to_be_bytes();
    let idempotency = Some(Idempotency { digest: random, body: random });
    let kept = Draft { channel: channel.clone(), content, idempotency: None };
    let draft = Draft { idempotency, ..kept.clone() };
    let new_epoch = Epoch::from_random(fastrand::u64(..));
    let drafts = [(&kept, Keep { age: None, ..KEEP }), (&draft, KEEP)];
    for call in [scripts.publish(new_epoch, drafts.into_iter()), scripts.purge(new_epoch, &channel)] {
        match run(wire, &call).await {
            Ok(words) => match scripts.published(words.iter().map(Option::as_deref)) {
                Ok((_, answers)) => answers.into_iter().for_each(|answer| {
                    if let super::scripts::Answer::Refused(error) = answer {
                        note(error);
                    }
                }),
                Err(error) => note(error),
            },
            Err(error) => note(error),
        }
    }
    let markers = scripts.keys.markers(fastrand::u64(..), 0);
    if let Err(error) = run(wire, &scripts.barrier(new_epoch, Some(&markers), 0, std::slice::from_ref(&channel))).await
    {
        note(error);
    }
    let limit = PageLimit { events_max: 1, bytes_max: 1 };
    if let Err(error) = run(wire, &scripts.history(&channel, Some(Position(0)), limit)).await {
        note(error);
    }
    let nobody = UserId::parse("fanfare check").expect("a user id");
    let block = Block::new(nobody, SystemTime::now(), Duration::ZERO);
    for call in [scripts.block(&block), scripts.blocks(block.before)] {
        if let Err(error) = run(wire, &call).await {
            note(error);
        }
    }
    // Who listens, as nodes tell it.
    let (prefix, node) = (&server.prefix, NodeKeys::for_checks(&server.prefix));
    let changes = [(b"c1".to_vec(), 1), (b"c2".to_vec(), 2), (b"c3".to_vec(), 0)];
    for call in [node.tell(None, 1, &changes), enlist(directory::nodes(&format!("{prefix}:check")), "check")] {
        if let Err(error) = run(wire, &call).await {
            note(error);
        }
    }
    // As links read beside the scripts, as the directory is read, and as the pool tries its connections.
    let (lasts, meta) = (scripts.keys.lasts(), scripts.keys.meta());
    let (names, counts) = (node.names(), node.counts());
    let plain: [&[&[u8]]; 9] = [
        &[b"ZMSCORE", &lasts, b"broadcast"],
        &[b"HGET", &meta, b"f"],
        &[b"HMGET", &counts, b"c1"],
        &[b"ZRANGE", &names, b"0", b"0"],
        &[b"ZRANGEBYLEX", &names, b"[c", b"(d"],
        &[b"ZREM", &names, b"c1"],
        &[b"UNLINK", &names, &counts],
        &[b"UNWATCH"],
        &[b"PING"],
    ];
    for words in plain {
        if let Err(error) = wire.ask(words).await {
            note(error);
        }
    }
    let name = format!("{}broadcast", scripts.keys.names());
    for name in [&name, &markers] {
        for command in [&b"SUBSCRIBE"[..], b"UNSUBSCRIBE"] {
            if let Err(error) = wire.ask(&[command, name.as_bytes()]).await {
                note(error);
            }
        }
    }
}

/// Whether the replicas that publishes wait for are there, and may be waited for.
async fn note_replicas(wire: &mut Wire, server: &Server, note: &mut impl FnMut(RedisError)) {
    let wanted = server.min_replicas;
    if wanted == 0 {
        return;
    }
    if let Err(error) = wire.ask(&[b"WAIT", b"0", b"1"]).await {
        note(error);
    }
    match wire.info("replication").await.map(|info| info.replicas_online()) {
        Ok(have) if have < usize::from(wanted) => note(RedisError::Replicas { have: have as u16, wanted }),
        Ok(_) => {}
        Err(error) => note(error),
    }
}

async fn run(wire: &mut Wire, call: &Call) -> Result<Words, RedisError> {
    let mut bytes = Vec::new();
    call.write(&mut bytes);
    ask(wire, &bytes).await
}

async fn ask(wire: &mut Wire, bytes: &[u8]) -> Result<Words, RedisError> {
    wire.send(bytes).await?;
    wire.answer().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_new_enough_from_6_2_on() {
        for (version, too_old) in
            [("6.0.16", true), ("5.9.9", true), ("6.2.0", false), ("7.2.4", false), ("10.0", false)]
        {
            assert_eq!(is_too_old(version), too_old, "{version}");
        }
    }
}
