//! Where a server answers.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// A server's base URL, resolved: `http://127.0.0.1:8080`, perhaps with the path that a proxy puts in front.
#[derive(Clone, Debug)]
pub struct Endpoint {
    address: SocketAddr,
    authority: String,
    path: String,
}

/// Why a text is no base URL.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme, or none.
    #[error("a server's URL begins with http://, not {0:?}")]
    Scheme(String),
    /// The name doesn't resolve.
    #[error("{0:?} can't be resolved")]
    Resolve(String, #[source] std::io::Error),
    /// It resolves to nothing.
    #[error("{0:?} has no address")]
    NoAddress(String),
}

impl Endpoint {
    /// The address to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes into `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path before `/events`, without a slash at its end.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(url: &str) -> Result<Self, EndpointError> {
        let rest = url.strip_prefix("http://").ok_or_else(|| EndpointError::Scheme(url.to_owned()))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let target = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let resolved = target.to_socket_addrs().map_err(|error| EndpointError::Resolve(target.clone(), error))?;
        let addresses = resolved.collect::<Vec<_>>();
        // `localhost` names both families; servers that listen on one listen on this one.
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *address.ok_or(EndpointError::NoAddress(target))?;
        Ok(Self { address, authority: authority.to_owned(), path: path.trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_a_host_and_a_path() {
        let endpoint = "http://127.0.0.1:8080/fanfare/".parse::<Endpoint>().expect("valid");
        assert_eq!(endpoint.address(), "127.0.0.1:8080".parse().expect("valid"));
        assert_eq!((endpoint.authority(), endpoint.path()), ("127.0.0.1:8080", "/fanfare"));
        assert_eq!("http://127.0.0.1".parse::<Endpoint>().expect("valid").address().port(), 80);
        assert!(matches!("127.0.0.1:80".parse::<Endpoint>(), Err(EndpointError::Scheme(_))));
    }
}
