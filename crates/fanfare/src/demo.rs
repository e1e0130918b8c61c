//! The page at `/`: shows events arriving and publishes some. One file, which needs nothing from elsewhere.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fanfare_http::{Response, full};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("demo.html");

/// Its own script and style, its own server, and nothing else.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let (style, script) = (hash(inside("<style>", "</style>")), hash(inside("<script>", "</script>")));
    let policy = format!(
        "default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::try_from(policy).expect("ASCII")
});

/// The page.
pub(crate) fn page() -> Response {
    let mut response = Response::new(full(Bytes::from_static(PAGE.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn inside(open: &str, close: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(open).expect("the page has it");
    rest.split_once(close).expect("and its end").0
}

fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_with_one_style_and_one_script() {
        for once in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(once).count(), 1, "{once}");
        }
        for elsewhere in ["src=\"http", "href=\"http", "@import", " url(", ":url(", " style=\"", " onclick="] {
            assert!(!PAGE.contains(elsewhere), "{elsewhere}");
        }
        assert!(POLICY.to_str().expect("ASCII").contains("script-src 'sha256-"));
    }
}
