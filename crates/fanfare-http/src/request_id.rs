//! The id that follows a request through everybody's logs.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// `X-Request-Id`: taken from the request where it is one, else made; on every response.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of an id that is taken from a request, at most.
const BYTES_MAX: usize = 128;

/// The request's own id, if it has one that is fit for logs: 1 to 128 letters, digits and `._-`. Else a new one.
///
/// Handlers always find one in their request: the server has put it there.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let fit = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    };
    match headers.get(REQUEST_ID).filter(fit) {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(format!("{:032x}", fastrand::u128(..))).expect("hex digits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_fit_for_logs_is_kept_and_any_other_replaced() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).expect(id));
            request_id(&headers)
        };
        let long = "x".repeat(129);
        for kept in ["a", "4bf92f35-77b3.4da6_A", &long[1..]] {
            assert_eq!(with(kept), kept);
        }
        for replaced in ["", "a b", "a\"b", "ü", &long] {
            let made = with(replaced);
            assert_ne!(made, replaced);
            assert_eq!(made.len(), 32);
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
