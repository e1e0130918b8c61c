//! What can be wrong with Redis, each in one sentence.

/// What is wrong with Redis, or with how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisError {
    /// The URL isn't one.
    #[error("the address of Redis can't be used: {0}")]
    Url(&'static str),
    /// The URL asks for something that isn't built.
    #[error("{0} is not supported yet, give the redis:// address of one server")]
    Unsupported(&'static str),
    /// The prefix would break keys.
    #[error("the prefix {0:?} can't begin keys: it has 1 or more printable ASCII characters and no braces")]
    Prefix(String),
    /// No deployment has so many partitions.
    #[error("there are 1 to 64 partitions, not {0}")]
    PartitionCount(u16),
    /// Nobody answers there.
    #[error("no Redis can be reached at {address} ({reason})")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// Two connections to one address ended at two servers.
    #[error("{0} leads to several servers: a subscription and its commands must reach the same one")]
    SeveralServers(String),
    /// It wants a password.
    #[error("Redis asks for a password and none is set")]
    PasswordMissing,
    /// It wants another one.
    #[error("Redis refuses the username or the password")]
    PasswordWrong,
    /// The ACL forbids a command, a key or a Pub/Sub channel.
    #[error("the Redis user lacks a right ({0}), docs/redis.md has the ACL that Fanfare needs")]
    NoRight(String),
    /// Scripts can't learn whose history this is.
    #[error("this Redis does not allow INFO in scripts ({0}), which tells a failover from business as usual")]
    InfoRefused(String),
    /// The deployment has another number of partitions.
    #[error("this prefix was set up with {stored} partitions, not {configured}: keep that number or take a new prefix")]
    Partitions {
        /// What Redis has.
        stored: String,
        /// What this process was given.
        configured: u16,
    },
    /// A newer or older Fanfare laid the keys out.
    #[error("the keys of this prefix have layout {0}, this program knows 1: update it or take a new prefix")]
    Layout(String),
    /// Not where events can be published.
    #[error("this Redis is a replica, give the address of the primary")]
    Replica,
    /// Too few replicas have what was published.
    #[error("only {have} of the {wanted} replicas that must have an event confirm it (FANFARE_REDIS_MIN_REPLICAS)")]
    Replicas {
        /// As many confirmed it.
        have: u16,
        /// As many had to.
        wanted: u16,
    },
    /// Commands are missing.
    #[error("Redis {0} is too old, it must be 6.2 or newer")]
    TooOld(String),
    /// It drops keys when memory runs short.
    #[error("maxmemory-policy is {0}, which drops retained events without a word: set it to noeviction")]
    Evicts(String),
    /// It takes no more.
    #[error("Redis is out of memory (maxmemory) and takes no more")]
    Memory,
    /// It reads its data from disk.
    #[error("Redis is still loading its data")]
    Loading,
    /// No answer.
    #[error("Redis did not answer in time")]
    TimedOut,
    /// The connection ended.
    #[error("Redis closed the connection")]
    Closed,
    /// More came than was taken.
    #[error("the edge fell behind what Redis sends, by more than {0} bytes")]
    TooSlow(usize),
    /// More was asked than could be sent.
    #[error("more waits to be sent to Redis than memory is set aside for")]
    TooMuch,
    /// Something that can't be.
    #[error("Redis said something unexpected: {0}")]
    Unexpected(String),
    /// Any other error that it answers with.
    #[error("Redis refuses: {0}")]
    Refused(String),
}

impl RedisError {
    /// Finds the meaning of an error's text: in Redis 6.2, what a script's command is refused with stands in the
    /// middle of it.
    pub(crate) fn of(text: &str, partitions: u16) -> Self {
        let after = |code: &str| text.split_once(code).map(|(_, rest)| rest.trim().to_owned());
        let first_word = |text: String| text.split_whitespace().next().unwrap_or_default().to_owned();
        if let Some(stored) = after("FANFARE_PARTITIONS ") {
            Self::Partitions { stored: first_word(stored), configured: partitions }
        } else if let Some(stored) = after("FANFARE_LAYOUT ") {
            Self::Layout(first_word(stored))
        } else if let Some(reason) = after("FANFARE_INFO ") {
            Self::InfoRefused(reason)
        } else if text.contains("FANFARE_REPLICA") || text.contains("READONLY") {
            Self::Replica
        } else if text.contains("NOAUTH") {
            Self::PasswordMissing
        } else if text.contains("WRONGPASS") || text.contains("without any password configured") {
            Self::PasswordWrong
        } else if let Some(reason) = after("NOPERM") {
            Self::NoRight(reason)
        } else if let Some(reason) = after("The user executing the script ") {
            Self::NoRight(reason) // Redis 6.2, of a script's command …
        } else if let Some(reason) = after("ACL failure in script: ") {
            Self::NoRight(reason) // … and Valkey.
        } else if text.contains("OOM ") {
            Self::Memory
        } else if text.contains("LOADING") {
            Self::Loading
        } else {
            Self::Refused(text.trim().to_owned())
        }
    }
}

/// Whether a script has to be loaded first.
pub(crate) fn is_no_script(text: &str) -> bool {
    text.starts_with("NOSCRIPT")
}
