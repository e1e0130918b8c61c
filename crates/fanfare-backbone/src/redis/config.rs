//! Where Redis is and what Fanfare is called there.

use std::fmt;

use fanfare_protocol::Partitions;
use serde::Deserialize;
use url::Url;

use super::RedisError;

const PORT: u16 = 6379;

/// Where Redis is and what Fanfare is called there. The variables' names are in `fanfare config`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://[username:password@]host[:port]`. A secret, since it may hold a password.
    pub url: Secret,
    /// The ACL user. Apart from the URL, so that it can come from another place than the password.
    pub username: Option<String>,
    /// The password. Apart from the URL, so that the URL can be shown.
    pub password: Option<Secret>,
    /// Begins every key and every Pub/Sub name: Pub/Sub ignores database numbers, so this is what keeps two
    /// deployments on one Redis apart. No braces, since a partition's own `{…}` decides its place on a cluster.
    pub prefix: String,
    /// Slices of all channels, each with an order of its own, 1 to 64. Stored in Redis; changing it means a new prefix.
    pub partitions: u16,
    /// Replicas that must have an event before its publish is answered. None: a primary that is deposed without
    /// knowing answers as ever, and what it took is lost.
    pub min_replicas: u16,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            username: None,
            password: None,
            prefix: "fanfare".to_owned(),
            // One order over all channels. More pay off where there are more masters to spread them over.
            partitions: 1,
            // Whoever runs replicas knows how many of them are a majority.
            min_replicas: 0,
        }
    }
}

/// A text that isn't shown.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) prefix: String,
    pub(crate) partitions: Partitions,
    pub(crate) min_replicas: u16,
}

impl Server {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(crate) fn read(config: &RedisConfig) -> Result<Self, Vec<RedisError>> {
        let mut mistakes = Vec::new();
        let partitions = Partitions::new(config.partitions);
        if partitions.is_none() {
            mistakes.push(RedisError::PartitionCount(config.partitions));
        }
        let fit = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
        if config.prefix.is_empty() || !config.prefix.chars().all(fit) {
            mistakes.push(RedisError::Prefix(config.prefix.clone()));
        }
        let address = read_url(config.url.reveal()).map_err(|mistake| mistakes.push(mistake)).ok();
        match (address, partitions) {
            (Some(mut server), Some(partitions)) if mistakes.is_empty() => {
                server.username = config.username.clone().or(server.username);
                server.password = config.password.clone().or(server.password);
                Ok(Self { prefix: config.prefix.clone(), partitions, min_replicas: config.min_replicas, ..server })
            }
            _ => Err(mistakes),
        }
    }

    /// Where it is, as people write it.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn read_url(text: &str) -> Result<Server, RedisError> {
    // Several hosts are no URL to a parser, so what isn't offered is told apart before.
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    match scheme {
        "redis" => {}
        "rediss" => return Err(RedisError::Unsupported("TLS (rediss://)")),
        "redis+sentinel" | "rediss+sentinel" => return Err(RedisError::Unsupported("Redis Sentinel")),
        _ => return Err(RedisError::Url("it begins with redis://")),
    }
    if text.contains("cluster=") || text.split('@').next_back().unwrap_or(text).contains(',') {
        return Err(RedisError::Unsupported("Redis Cluster"));
    }
    let url = Url::parse(text).map_err(|_| RedisError::Url("it is redis://[username:password@]host[:port]"))?;
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(RedisError::Url("it names a host"))?;
    if !matches!(url.path(), "" | "/" | "/0") {
        return Err(RedisError::Url("it names no database, since Pub/Sub ignores them: take another prefix instead"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(RedisError::Url("it has nothing after the port"));
    }
    let decode = |text: &str| {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
        decoded.map(|text| text.into_owned()).map_err(|_| RedisError::Url("its username and password are UTF-8"))
    };
    let username = Some(decode(url.username())?).filter(|name| !name.is_empty());
    let password = url.password().map(decode).transpose()?.map(Secret);
    Ok(Server {
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(PORT),
        username,
        password,
        prefix: String::new(),
        partitions: Partitions::ONE,
        min_replicas: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> RedisConfig {
        RedisConfig { url: Secret::new(url), ..RedisConfig::default() }
    }

    #[test]
    fn a_url_names_host_port_and_credentials() {
        let server = Server::read(&config("redis://me:p%40ss@[::1]:7000/0")).expect("valid");
        assert_eq!((server.host.as_str(), server.port), ("::1", 7000));
        assert_eq!(server.username.as_deref(), Some("me"));
        assert_eq!(server.password.as_ref().map(Secret::reveal), Some("p@ss"));
        let server = Server::read(&config("redis://:secret@redis")).expect("valid");
        assert_eq!((server.address().as_str(), server.username), ("redis:6379", None));
        let apart = RedisConfig { password: Some(Secret::new("other")), ..config("redis://:secret@redis") };
        assert_eq!(Server::read(&apart).expect("valid").password.as_ref().map(Secret::reveal), Some("other"));
    }

    #[test]
    fn what_is_not_offered_yet_is_said() {
        for (url, part) in [
            ("rediss://a", "TLS"),
            ("redis+sentinel://a,b/master", "Sentinel"),
            ("redis://a,b,c?cluster=true", "Cluster"),
            ("redis://u:p@a,b", "Cluster"),
            ("redis://a/3", "database"),
            ("redis://a:6379?x=1", "nothing after"),
            ("redis://", "host"),
            ("localhost:6379", "redis://"),
            ("redis://a:99999", "redis://"),
        ] {
            let mistakes = Server::read(&config(url)).expect_err(url);
            assert!(mistakes[0].to_string().contains(part), "{url}: {}", mistakes[0]);
        }
    }

    #[test]
    fn every_mistake_is_told_and_no_password_is() {
        let wrong = RedisConfig { prefix: "a{b}".to_owned(), partitions: 65, ..config("http://u:secret@a") };
        let mistakes = Server::read(&wrong).expect_err("wrong");
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
        assert!(!format!("{wrong:?}{mistakes:?}").contains("secret"));
    }
}
