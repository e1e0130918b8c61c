//! Why connections end.

/// Why an edge ended a connection. In kebab-case they are metric labels and the `reason` in `closing`: add some,
/// never rename one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client hung up.
    ClientLeft,
    /// Its backlog passed the bound.
    TooSlow,
    /// Its token has ended.
    TokenExpired,
    /// Its user was disconnected.
    Disconnected,
    /// It has had no event for too long.
    Idle,
    /// It has been open for too long.
    MaxAge,
    /// Its user has opened another one, and may have no more.
    Replaced,
    /// A call has its result, or a poll its answer.
    Answered,
    /// A call has none.
    CallFailed,
    /// The edge goes away.
    Draining,
    /// A limit of connections is reached.
    Limit,
    /// The edge can't take more right now.
    Overloaded,
    /// The backbone could not be reached for too long.
    Unavailable,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ClientLeft,
        Self::TooSlow,
        Self::TokenExpired,
        Self::Disconnected,
        Self::Idle,
        Self::MaxAge,
        Self::Replaced,
        Self::Answered,
        Self::CallFailed,
        Self::Draining,
        Self::Limit,
        Self::Overloaded,
        Self::Unavailable,
    ];

    /// In kebab-case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientLeft => "client-left",
            Self::Answered => "answered",
            Self::TooSlow => "too-slow",
            Self::TokenExpired => "token-expired",
            Self::Disconnected => "disconnected",
            Self::Idle => "idle",
            Self::MaxAge => "max-age",
            Self::Replaced => "replaced",
            Self::CallFailed => "call-failed",
            Self::Draining => "draining",
            Self::Limit => "limit",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
        }
    }
}
