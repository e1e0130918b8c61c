//! Connections for what is bound neither to a subscription nor to a partition's publisher: reads for the publish API,
//! purges, what nodes tell of who listens. Theirs is the `redis` crate's multiplexed connection, from a pool.
//!
//! Every checkout costs a round trip, a PING that finds dead connections.

use std::time::Duration;

use deadpool_redis::redis::{
    AsyncConnectionConfig, ConnectionAddr, IntoConnectionInfo as _, Pipeline, ProtocolVersion, RedisConnectionInfo,
    Value, io::tcp::TcpSettings,
};
use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime, TimeoutType};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::RedisError;
use super::config::{Secret, Server};
use super::error::is_no_script;
use super::scripts::{Call, Scripts};
use super::wire::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, REPLICA_TIMEOUT, keepalive};

/// Connections for reads, beside one for a node's reports. Past it a read waits for its turn, for as long as a
/// connection may take.
const READERS: usize = 4;

/// A pool, and whose errors it tells.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    pool: Pool,
    address: String,
}

impl Connections {
    pub(crate) fn new(server: &Server) -> Result<Self, RedisError> {
        let mut settings = RedisConnectionInfo::default()
            // The second version of the protocol on purpose: with the third, what the server pushes is taken for
            // answers.
            .set_protocol(ProtocolVersion::RESP2)
            .set_skip_set_lib_name();
        if let Some(username) = &server.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = server.password.as_ref().map(Secret::reveal) {
            settings = settings.set_password(password);
        }
        // Each of these has a default that bites: no TCP_NODELAY, no keepalive, half a second for an answer.
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let broken = |error: &dyn std::fmt::Display| RedisError::Refused(error.to_string());
        let info = ConnectionAddr::Tcp(server.host.clone(), server.port).into_connection_info();
        let info = info.map_err(|error| broken(&error))?.set_tcp_settings(tcp).set_redis_settings(settings);
        let manager = Manager::new_with_config(info, config).map_err(|error| broken(&error))?;
        let pool = Pool::builder(manager)
            .max_size(1 + READERS)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| broken(&error))?;
        Ok(Self { pool, address: server.address() })
    }

    /// A connection that answers.
    pub(crate) async fn get(&self, scripts: &Scripts) -> Result<Connection, RedisError> {
        // Boxed: opening a connection is a future of many kilobytes, and whoever may wait for one would be as large.
        Box::pin(self.pool.get()).await.map_err(|error| match error {
            PoolError::Backend(error) => self.meaning(&error, scripts),
            PoolError::Timeout(TimeoutType::Wait) => RedisError::TimedOut,
            error => self.unreachable(error.to_string()),
        })
    }

    /// Runs a script within a time, loading it where it isn't known. After an error the connection is to be dropped
    /// with [`discard`]: its late answer is nobody's.
    pub(crate) async fn run(
        &self,
        connection: &mut Connection,
        call: &Call,
        within: Duration,
        scripts: &Scripts,
    ) -> Result<Value, RedisError> {
        let ran = timeout(within, async {
            let cmd = call.cmd();
            match cmd.query_async(connection).await {
                Err(error) if is_no_script(&text(&error)) => {
                    let mut load = redis::cmd("SCRIPT");
                    load.arg("LOAD").arg(call.script.text).query_async::<Value>(connection).await?;
                    cmd.query_async(connection).await
                }
                other => other,
            }
        });
        self.within(ran.await, scripts)
    }

    /// Runs commands in one go within a time. After an error the connection is to be dropped, as with
    /// [`Connections::run`].
    pub(crate) async fn ask(
        &self,
        connection: &mut Connection,
        pipeline: &Pipeline,
        within: Duration,
        scripts: &Scripts,
    ) -> Result<Vec<Value>, RedisError> {
        self.within(timeout(within, pipeline.query_async(connection)).await, scripts)
    }

    fn within<T>(&self, ran: Result<redis::RedisResult<T>, Elapsed>, scripts: &Scripts) -> Result<T, RedisError> {
        match ran {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.meaning(&error, scripts)),
            Err(_) => Err(RedisError::TimedOut),
        }
    }

    /// Waits until so many replicas have whatever was written before on this connection, or was there already: Redis
    /// notes after each command how far its history is. Says how many have it. After an error the connection is to be
    /// dropped, as above.
    pub(crate) async fn wait_for_replicas(
        &self,
        connection: &mut Connection,
        wanted: u16,
        scripts: &Scripts,
    ) -> Result<u16, RedisError> {
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(REPLICA_TIMEOUT.as_millis().to_string());
        match timeout(REPLICA_TIMEOUT * 2, wait.query_async(connection)).await {
            Ok(answer) => answer.map_err(|error| self.meaning(&error, scripts)),
            Err(_) => Err(RedisError::TimedOut),
        }
    }

    fn meaning(&self, error: &redis::RedisError, scripts: &Scripts) -> RedisError {
        if error.is_timeout() {
            RedisError::TimedOut
        } else if error.kind() == redis::ErrorKind::AuthenticationFailed {
            RedisError::PasswordWrong
        } else if error.is_connection_refusal() {
            self.unreachable(error.to_string())
        } else if error.is_connection_dropped() || error.is_unrecoverable_error() {
            RedisError::Closed
        } else if error.is_io_error() {
            self.unreachable(error.to_string())
        } else {
            scripts.error(&text(error))
        }
    }

    fn unreachable(&self, reason: String) -> RedisError {
        RedisError::Unreachable { address: self.address.clone(), reason }
    }
}

/// Closes a connection instead of giving it back.
pub(crate) fn discard(connection: Connection) {
    drop(Connection::take(connection));
}

/// The texts of an answer, one after another.
pub(crate) fn words(value: &Value) -> impl Iterator<Item = Option<&[u8]>> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    };
    items.iter().map(|item| match item {
        Value::BulkString(bytes) => Some(bytes.as_slice()),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    })
}

/// An error as Redis wrote it: its code, and what follows.
fn text(error: &redis::RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        _ => error.to_string(),
    }
}
