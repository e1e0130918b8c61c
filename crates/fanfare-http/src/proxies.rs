//! Who asks, where proxies stand between: whose word about an address counts, and what one client's addresses are.
//!
//! Each proxy appends to `X-Forwarded-For` whom it was asked by. So the header is read from its end, for as long as
//! the one who says it is trusted; what stands before that is whatever a client made up.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Proxies whose `X-Forwarded-For` counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// Addresses that begin with the same bits, written as in `10.0.0.0/8`; one address is a network too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

/// What was given as a network is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network; expected an address with or without its bits, such as 10.0.0.0/8")]
pub struct NetworkError(String);

impl TrustedProxies {
    /// The proxies of these networks.
    ///
    /// # Errors
    /// One of them is no network.
    pub fn of<S: AsRef<str>>(networks: impl IntoIterator<Item = S>) -> Result<Self, NetworkError> {
        networks.into_iter().map(|network| network.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nobody's word counts.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom a request comes from: the last one named who is no trusted proxy. Where a proxy names something that is
    /// no address, it is the proxy itself.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let named = headers.get_all(FORWARDED_FOR).iter().rev();
        let named = named.flat_map(|value| value.to_str().unwrap_or("?").rsplit(','));
        for named in named {
            match parse_named(named.trim()) {
                Some(address) if self.trusts(client) => client = address.to_canonical(),
                _ => break,
            }
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Network { address, bits }) in self.0.iter().enumerate() {
            write!(f, "{}{address}/{bits}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// What counts as one client among addresses: an IPv4 address, or the first 64 bits of an IPv6 one, since whoever has
/// one has the whole network of it.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & mask::<128>(64)).into(),
        address => address,
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (u128::from(own.to_bits() ^ other.to_bits()) & mask::<32>(self.bits)) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => ((own.to_bits() ^ other.to_bits()) & mask::<128>(self.bits)) == 0,
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let refused = || NetworkError(text.to_owned());
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| refused()))?;
        if bits > most {
            return Err(refused());
        }
        Ok(Self { address, bits })
    }
}

/// The first so many of `WIDTH` bits.
fn mask<const WIDTH: u8>(bits: u8) -> u128 {
    let all = u128::MAX >> (128 - WIDTH);
    all & !all.checked_shr(u32::from(bits)).unwrap_or(0)
}

/// An address, as proxies write it: some add the port, and then brackets around IPv6.
fn parse_named(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(text, |(bare, _)| bare);
    let parsed = bare.parse().ok();
    parsed.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().expect("a header value"));
        }
        let proxies = TrustedProxies::of(trusted).expect("networks");
        proxies.client(peer.parse().expect("an address"), &headers).to_string()
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_no_trusted_proxy() {
        let trusted = ["10.0.0.0/8", "192.168.1.7", "fd00::/8"];
        for (peer, forwarded, expected) in [
            ("10.1.1.1", &["203.0.113.9"][..], "203.0.113.9"),
            ("10.1.1.1", &["1.1.1.1, 203.0.113.9, 10.2.2.2"], "203.0.113.9"),
            ("10.1.1.1", &["1.1.1.1", "203.0.113.9,192.168.1.7"], "203.0.113.9"),
            ("10.1.1.1", &["192.168.1.8"], "192.168.1.8"),
            ("10.1.1.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("::ffff:10.1.1.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("fd12::1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("fd12::1", &["2001:db8::1"], "2001:db8::1"),
            // Nobody to believe, or nothing said.
            ("203.0.113.1", &["1.1.1.1"], "203.0.113.1"),
            ("10.1.1.1", &[], "10.1.1.1"),
            ("10.1.1.1", &["10.3.3.3"], "10.3.3.3"),
            // What a proxy says that is no address counts for the proxy; what stands before it, for nothing.
            ("10.1.1.1", &["203.0.113.9, unknown"], "10.1.1.1"),
            ("10.1.1.1", &["203.0.113.9, unknown, 10.2.2.2"], "10.2.2.2"),
            ("10.1.1.1", &["203.0.113.9,"], "10.1.1.1"),
        ] {
            assert_eq!(client(&trusted, peer, forwarded), expected, "{peer} {forwarded:?}");
        }
        assert_eq!(client(&[], "10.1.1.1", &["203.0.113.9"]), "10.1.1.1");
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        for (address, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ] {
            assert_eq!(client_network(address.parse().expect("an address")).to_string(), expected);
        }
    }

    #[test]
    fn networks_are_addresses_with_as_many_bits_as_count() {
        let proxies = TrustedProxies::of(["10.0.0.0/8", "192.168.1.7", "0.0.0.0/0", "::1", "fd00::/8"]);
        assert_eq!(proxies.expect("networks").to_string(), "10.0.0.0/8,192.168.1.7/32,0.0.0.0/0,::1/128,fd00::/8");
        assert_eq!(client(&["0.0.0.0/0"], "9.9.9.9", &["8.8.8.8"]), "8.8.8.8");
        assert_eq!(client(&["10.1.2.3/8"], "10.9.9.9", &["8.8.8.8"]), "8.8.8.8");
        for text in ["", "10.0.0.0/33", "10.0.0.0/", "::/129", "10.0.0/8", "example.com", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert_eq!(TrustedProxies::of([text]), Err(NetworkError(text.to_owned())));
        }
    }
}
