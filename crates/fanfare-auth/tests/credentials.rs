//! Where a token may stand, which one decides, and who needs none.

mod common;

use common::*;
use fanfare_auth::{Access, AuthError, ChannelRefusal, CookieName, Patterns, Secrets, Source};
use fanfare_http::Problem;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::json;

fn of(user: &str) -> String {
    token_with(json!({"sub": user}))
}

fn access_with(change: impl FnOnce(&mut fanfare_auth::AuthConfig)) -> Access {
    let mut config = config();
    change(&mut config);
    config.edge_access().expect("a secret")
}

/// Who a request is, and where the token stood.
fn who(access: &Access, headers: &HeaderMap, query: &str) -> (String, Option<Source>) {
    let admitted = authorise(access, headers, query).expect("let in");
    (admitted.subscriber.user().map_or(String::new(), |user| user.as_str().to_owned()), admitted.source)
}

fn refused(access: &Access, headers: &HeaderMap, query: &str) -> Problem {
    Problem::from(authorise(access, headers, query).expect_err("refused"))
}

#[test]
fn the_first_credential_decides_and_none_after_it() {
    let access = access_with(|config| config.query_token = true);
    let cookie = format!("a=b; fanfare_token={}; c=d", of("cookie"));
    let both = headers(&[("authorization", &format!("Bearer {}", of("header"))), ("cookie", &cookie)]);
    let only_cookie = headers(&[("cookie", &cookie)]);
    let in_query = format!("token={}", of("query"));
    assert_eq!(who(&access, &both, &in_query), ("header".to_owned(), Some(Source::Header)));
    assert_eq!(who(&access, &both, "ticket=x").0, "header");
    assert_eq!(who(&access, &only_cookie, &in_query), ("query".to_owned(), Some(Source::Query)));
    assert_eq!(who(&access, &only_cookie, &format!("auth={}", of("auth"))).0, "auth");
    let source = Some(Source::Cookie(CookieName::default()));
    assert_eq!(who(&access, &only_cookie, "channel=a"), ("cookie".to_owned(), source));

    // A bad one is not passed over for a good one.
    let bad = headers(&[("authorization", "Bearer nonsense"), ("cookie", &cookie)]);
    assert!(refused(&access, &bad, &in_query).detail().contains("the Authorization header is malformed"));
    assert!(refused(&access, &only_cookie, "token=nonsense").detail().contains("the query is malformed"));
    assert!(refused(&access, &only_cookie, "token=").detail().contains("the query is empty"));
}

#[test]
fn a_scheme_is_written_in_any_case_and_others_are_not_ours() {
    for scheme in ["Bearer", "bearer", "BEARER", "Bearer  "] {
        assert_eq!(who(&access(), &headers(&[("authorization", &format!("{scheme} {}", of("42")))]), "").0, "42");
    }
    let cookie = format!("fanfare_token={}", of("42"));
    let basic = headers(&[("authorization", "Basic YTpi"), ("cookie", &cookie)]);
    assert_eq!(who(&access(), &basic, "").0, "42");
    for other in ["Basic YTpi", "Bearerx", "", "x"] {
        assert!(refused(&access(), &headers(&[("authorization", other)]), "").detail().contains("there is no token"));
    }
    for empty in ["Bearer", "Bearer "] {
        assert!(refused(&access(), &headers(&[("authorization", empty)]), "").detail().contains("is empty"));
    }
}

#[test]
fn a_token_in_the_query_is_taken_only_where_it_is_allowed() {
    let cookie = headers(&[("cookie", &format!("fanfare_token={}", of("42")))]);
    for name in ["token", "auth"] {
        let token = of("42");
        let problem = refused(&access(), &cookie, &format!("{name}={token}"));
        assert_eq!(problem.status(), 401);
        assert!(json!(problem)["hint"].as_str().expect("a hint").contains("FANFARE_AUTH_QUERY_TOKEN"));
        assert_never_echoed(&problem, &token);
    }
}

#[test]
fn tickets_are_refused_with_a_hint() {
    let cookie = headers(&[("cookie", &format!("fanfare_token={}", of("42")))]);
    let problem = refused(&access(), &cookie, "ticket=secret-ticket");
    assert_eq!(problem.status(), 401);
    assert!(json!(problem)["hint"].is_string());
    assert_never_echoed(&problem, "secret-ticket");
}

#[test]
fn two_credentials_in_one_place_are_a_bad_request() {
    let access = access_with(|config| config.query_token = true);
    let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
    for problem in [
        refused(&access, &twice, ""),
        refused(&access, &HeaderMap::new(), "token=a&token=b"),
        refused(&access, &HeaderMap::new(), "token=a&auth=b"),
    ] {
        assert_eq!(problem.status(), 400, "{problem:?}");
    }
}

#[test]
fn the_cookie_is_found_among_others_by_the_name_that_is_set() {
    let token = of("42");
    for value in [
        format!("fanfare_token={token}"),
        format!("a=b;fanfare_token={token}"),
        format!("fanfare_token2=x; xfanfare_token=y; fanfare_token = {token} ;z"),
        format!("fanfare_token=\"{token}\""),
        format!("fanfare_token={token}; fanfare_token=other"),
    ] {
        assert_eq!(who(&access(), &headers(&[("cookie", &value)]), "").0, "42", "{value}");
    }
    let split = headers(&[("cookie", "a=b"), ("cookie", &format!("fanfare_token={token}"))]);
    assert_eq!(who(&access(), &split, "").0, "42");
    let renamed = access_with(|config| config.cookie = CookieName::parse("session").expect("a name"));
    assert_eq!(who(&renamed, &headers(&[("cookie", &format!("session={token}"))]), "").0, "42");
    let problem = refused(&renamed, &headers(&[("cookie", &format!("fanfare_token={token}"))]), "");
    assert!(json!(problem)["hint"].as_str().expect("a hint").contains("session"), "{problem:?}");
    let empty = headers(&[("cookie", "fanfare_token=; a=b")]);
    assert!(refused(&access(), &empty, "").detail().contains("there is no token"), "what logging out leaves");
}

#[test]
fn without_a_token_nothing_is_open_unless_it_is_set_so() {
    let problem = refused(&access(), &HeaderMap::new(), "user=42");
    assert_eq!((problem.status().as_u16(), problem.code().as_str()), (401, "AUTHENTICATION_FAILED"));
    assert!(
        json!(problem)["hint"].as_str().expect("a hint").contains("`fanfare dev` only"),
        "?user= names nobody here"
    );
    let headers = problem.into_response().headers().clone();
    assert!(headers.contains_key("www-authenticate"));
}

#[test]
fn anonymous_channels_are_open_to_everyone_and_nothing_else_is() {
    let access = access_with(|config| {
        config.anonymous_channels = Patterns::parse("news,prices:*,broadcast,$call:*").expect("patterns");
    });
    let anyone = authorise(&access, &HeaderMap::new(), "user=42").expect("let in");
    assert_eq!((anyone.source, anyone.subscriber.user(), anyone.subscriber.expires_at()), (None, None, None));
    let anyone = anyone.subscriber;
    assert_eq!(anyone.check(&channels(&["news", "prices:eur", "broadcast"])), Ok(()));
    assert_eq!(anyone.unasked(), channels(&["broadcast"]));
    let refusal = anyone.check(&channels(&["news", "server:7", "x"])).expect_err("closed");
    assert_eq!(refusal, ChannelRefusal::NeedsToken(channel("server:7")));
    assert_eq!(Problem::from(refusal).status(), 401, "a token would help");
    let internal = Problem::from(anyone.check(&channels(&["$call:0a"])).expect_err("never open"));
    assert_eq!(internal.status(), 403, "no token would");

    // Also to those who have a token; and a bad token is not passed over.
    let user = subscriber(&access, &of("42"));
    assert!(may(&user, "prices:eur") && may(&user, "user:42") && !may(&user, "server:7"));
    assert!(authorise(&access, &bearer("nonsense"), "").is_err());
}

#[test]
fn the_broadcast_is_closed_to_anonymous_ones_where_it_is_not_spelled_out() {
    let access = access_with(|config| config.anonymous_channels = Patterns::parse("*").expect("a pattern"));
    let anyone = authorise(&access, &HeaderMap::new(), "").expect("let in").subscriber;
    assert!(may(&anyone, "server:7") && !may(&anyone, "broadcast") && !may(&anyone, "user:42"));
    assert!(anyone.unasked().is_empty());
}

#[test]
fn in_dev_the_url_names_the_user_and_all_but_internal_channels_are_open() {
    let (user, source) = who(&Access::Dev(None), &bearer("nonsense"), "user=alice@example.com&token=x&ticket=y");
    assert_eq!((user.as_str(), source), ("alice@example.com", None));
    let subscriber = authorise(&Access::Dev(None), &HeaderMap::new(), "user=42").expect("let in").subscriber;
    assert_eq!(subscriber.check(&channels(&["user:43", "broadcast", "server:7"])), Ok(()));
    assert_eq!(subscriber.check(&channels(&["$call:0a"])), Err(ChannelRefusal::Internal(channel("$call:0a"))));
    assert_eq!(subscriber.unasked(), channels(&["user:42", "broadcast"]));
    let anyone = authorise(&Access::Dev(None), &HeaderMap::new(), "").expect("let in").subscriber;
    assert_eq!(anyone.unasked(), channels(&["broadcast"]), "in dev always");
    for wrong in ["user=", "user=a%0Ab", "user=a&user=b"] {
        assert_eq!(refused(&Access::Dev(None), &HeaderMap::new(), wrong).status(), 400, "{wrong}");
    }
}

#[test]
fn in_dev_a_good_token_names_the_user_and_any_other_is_not_looked_at() {
    let dev = config().dev_access(Secrets::parse(SECRET).expect("a secret"));
    let token = token_with(json!({"sub": "42", "follow": ["lobby"]}));
    for (headers, query) in [(bearer(&token), ""), (HeaderMap::new(), &*format!("token={token}"))] {
        let subscriber = authorise(&dev, &headers, query).expect("let in").subscriber;
        assert_eq!(subscriber.unasked(), channels(&["user:42", "broadcast", "lobby"]));
        assert!(may(&subscriber, "server:7") && subscriber.expires_at().is_some());
    }
    let (named, source) = who(&dev, &bearer(&token), "user=alice");
    assert_eq!((named.as_str(), source), ("alice", None), "the URL wins");
    for other in ["nonsense", ""] {
        let anyone = authorise(&dev, &bearer(other), "ticket=x").expect("let in").subscriber;
        assert_eq!((anyone.user(), anyone.unasked()), (None, channels(&["broadcast"])));
    }
    let none = fanfare_http::Query::parse(None).expect("nothing");
    let later = now() + std::time::Duration::from_secs(24 * 60 * 60);
    let over = dev.authorise(&bearer(&token), &none, later).expect_err("over");
    assert!(over.to_string().contains("expired"), "{over}");
}

#[test]
fn what_is_no_text_is_malformed() {
    let bytes = |bytes: &[u8]| HeaderValue::from_bytes(bytes).expect("a value");
    let mut headers = HeaderMap::new();
    headers.insert("authorization", bytes(b"Bearer \xff\xfe"));
    assert_eq!(refused(&access(), &headers, "").status(), 401);
    let mut headers = HeaderMap::new();
    headers.insert("cookie", bytes(b"fanfare_token=\xff"));
    let error = authorise(&access(), &headers, "").expect_err("refused");
    assert!(matches!(error, AuthError::Token { from: Source::Cookie(_), .. }), "{error:?}");
}

proptest! {
    #[test]
    fn no_request_panics(header: Vec<u8>, cookie: Vec<u8>, raw in "[ -~]{0,60}", query_token: bool) {
        let access = access_with(|config| config.query_token = query_token);
        let mut headers = HeaderMap::new();
        let prefixed = |prefix: &[u8], bytes: &[u8]| HeaderValue::from_bytes(&[prefix, bytes].concat()).ok();
        for prefix in [&b""[..], b"Bearer", b"Bearer "] {
            headers.extend(prefixed(prefix, &header).map(|value| (http::header::AUTHORIZATION, value)));
            headers.extend(prefixed(b"fanfare_token", &cookie).map(|value| (http::header::COOKIE, value)));
            if let Ok(query) = fanfare_http::Query::parse(Some(&format!("token={raw}"))) {
                for access in [&access, &Access::Dev(None)] {
                    _ = access.authorise(&headers, &query, now()).map_err(Problem::from);
                }
            }
            headers.clear();
        }
    }
}
