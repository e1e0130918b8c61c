//! Publish keys: who is found, what they may, and what is said of a setting that is wrong.

mod common;

use common::*;
use fanfare_auth::{KeyError, PublishAccess, PublishKey, PublishKeys, Right};
use fanfare_http::Problem;
use fanfare_protocol::{Pattern, UserId};
use http::HeaderMap;
use proptest::prelude::*;
use serde_json::json;

/// A digest of something.
const DIGEST: &str = "b1f23be5fd55d9f4b1e1a1ee8ea7eaf4b0f3c1b6e6b2a1c7ce2d1d54ad2eae9a";

fn keys(text: &str) -> PublishKeys {
    PublishKeys::parse(text).expect("a good setting")
}

fn key(text: &str) -> std::sync::Arc<PublishKey> {
    keys(text).find("KEY").expect("the key")
}

fn mistakes(text: &str) -> Vec<String> {
    PublishKeys::parse(text).expect_err("a wrong setting").mistakes().to_vec()
}

fn user(id: &str) -> UserId {
    UserId::parse(id).expect(id)
}

#[test]
fn a_key_is_found_by_its_text_whichever_it_is() {
    let keys = keys("first=KEY-1, second=a=b== ,third=KEY-3");
    for (text, name) in [("KEY-1", "first"), ("a=b==", "second"), ("KEY-3", "third")] {
        assert_eq!(keys.find(text).expect("found").name(), name);
    }
    for text in ["", "KEY", "KEY-11", "key-1", "first", "first=KEY-1"] {
        assert_eq!(keys.find(text), None, "{text}");
    }
    assert_eq!(PublishKeys::default().find(""), None);
}

#[test]
fn a_key_is_given_as_its_sha_256_too() {
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest("hunter2").iter().map(|byte| format!("{byte:02x}")).collect();
    for text in [format!("web=sha256:{hex}"), format!("web=SHA256:{}", hex.to_uppercase())] {
        assert_eq!(keys(&text).find("hunter2").expect("found").name(), "web");
        assert_eq!(keys(&text).find(&hex), None, "the digest opens nothing");
        assert_eq!(keys(&text).find(&format!("sha256:{hex}")), None);
    }
}

#[test]
fn an_unscoped_key_publishes_everywhere_calls_included() {
    let key = key("web=KEY");
    for name in ["server:7", "user:42", "broadcast", "$call:0a"] {
        assert!(key.may_publish(&channel(name)), "{name}");
    }
    for name in ["$call", "$call:", "$log", "$fanfare:x"] {
        assert!(!key.may_publish(&channel(name)), "{name}");
    }
    assert!(Right::ALL.into_iter().all(|right| key.may(right)), "all rights are the default");
    assert!(key.covers(&Pattern::parse("$call:*").expect("a pattern")) && key.channels().is_none());
}

#[test]
fn a_scoped_key_publishes_only_where_its_patterns_are() {
    let scoped = key("web=KEY;channels=server:*|broadcast");
    for (name, may) in
        [("server:7", true), ("broadcast", true), ("servers", false), ("user:42", false), ("$call:0a", false)]
    {
        assert_eq!(scoped.may_publish(&channel(name)), may, "{name}");
        assert_eq!(scoped.may_read(&channel(name)), may, "{name}");
    }
    let everything = key("web=KEY;channels=*");
    for name in ["user:42", "broadcast", "$call:0a"] {
        assert!(!everything.may_publish(&channel(name)), "{name} must be spelled out");
    }
    assert!(key("web=KEY;channels=$call:*|user:*").may_publish(&channel("$call:0a")));
    assert!(!key("web=KEY;channels=$*").may_publish(&channel("$call:0a")));
    assert!(!key("web=KEY;channels=$log").may_publish(&channel("$log")), "nobody does");
    let covers = |text| scoped.covers(&Pattern::parse(text).expect(text));
    assert!(covers("server:7") && covers("server:7*") && covers("broadcast") && !covers("*") && !covers("user:*"));
}

#[test]
fn a_key_has_the_rights_that_it_is_given() {
    let reader = key("web=KEY;rights=read|disconnect");
    assert!(reader.may(Right::Read) && reader.may(Right::Disconnect));
    assert!(!reader.may(Right::Publish) && !reader.may(Right::Mint));
    assert!(reader.may_read(&channel("server:7")) && !reader.may_publish(&channel("server:7")));
    assert!(!reader.may_read(&channel("$call:0a")), "nobody reads those");
    let problem = Problem::from(reader.check_publish(&channel("server:7")).expect_err("no right"));
    assert_eq!((problem.status().as_u16(), problem.detail()), (403, "the key web has no right to publish"));
}

#[test]
fn a_scoped_key_disconnects_only_users_whose_inbox_it_reaches() {
    assert!(key("web=KEY").check_disconnect(&user("42")).is_ok());
    assert!(key("web=KEY;channels=user:4*").check_disconnect(&user("42")).is_ok());
    let problem =
        Problem::from(key("web=KEY;channels=server:*").check_disconnect(&user("42")).expect_err("out of reach"));
    assert_eq!(problem.status(), 403);
    assert!(problem.detail().contains("user:42"), "{problem:?}");
    assert!(key("web=KEY;rights=publish").check_disconnect(&user("42")).is_err());
}

#[test]
fn a_request_shows_its_key_in_the_header_alone() {
    let access = PublishAccess::Keys(keys("web=KEY"));
    assert_eq!(access.authorise(&bearer("KEY")).expect("found").name(), "web");
    let missing =
        [HeaderMap::new(), headers(&[("authorization", "Basic KEY")]), headers(&[("authorization", "Bearer")])];
    for headers in missing {
        assert_eq!(access.authorise(&headers), Err(KeyError::Missing));
    }
    assert_eq!(access.authorise(&bearer("WRONG-KEY")), Err(KeyError::Unknown));
    let twice = headers(&[("authorization", "Bearer KEY"), ("authorization", "Bearer KEY")]);
    assert_eq!(access.authorise(&twice), Err(KeyError::Repeated));
    assert_eq!(access.authorise(&bearer(&"x".repeat(10_000))), Err(KeyError::Unknown));
    for error in [KeyError::Missing, KeyError::Unknown, KeyError::Token] {
        assert_eq!(Problem::from(error).status(), 401);
        assert!(Problem::from(error).into_response().headers().contains_key("www-authenticate"));
    }
}

#[test]
fn a_subscriber_token_can_not_publish() {
    let access = PublishAccess::Keys(keys("web=KEY"));
    let token = token_with(json!({"sub": "42", "channels": ["*"]}));
    let error = access.authorise(&bearer(&token)).expect_err("no key");
    assert_eq!(error, KeyError::Token);
    assert_never_echoed(&Problem::from(error), &token);
}

#[test]
fn in_dev_everyone_publishes_everywhere_without_a_key() {
    let anyone = PublishAccess::Dev.authorise(&HeaderMap::new()).expect("let in");
    assert_eq!(anyone.name(), "");
    assert!(anyone.may_publish(&channel("$call:0a")) && anyone.may_read(&channel("user:42")));
    assert!(!anyone.may_publish(&channel("$log")));
}

#[test]
fn every_mistake_is_told_at_once_with_its_name() {
    let all = mistakes("ok=KEY, web=K1;channels=a*b|server:*|x y;rights=publsh|read ,, app=sha256:12;rigths=read");
    let expected = [
        ("entry 2 (web)", "\"a*b\" is no pattern"),
        ("entry 2 (web)", "\"x y\" is no pattern"),
        ("entry 2 (web)", "\"publsh\" is no right, expected publish, read, mint, disconnect"),
        ("entry 3", "is empty"),
        ("entry 4 (app)", "expected the 64 hex digits of a SHA-256"),
        ("entry 4 (app)", "only ;channels= and ;rights="),
    ];
    assert_eq!(all.len(), expected.len(), "{all:#?}");
    for (mistake, (place, what)) in all.iter().zip(expected) {
        assert!(mistake.starts_with(place) && mistake.contains(what), "{mistake}");
    }
}

#[test]
fn what_is_wrong_in_an_entry_is_told() {
    for (text, what) in [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a=K,", "entry 2 is empty"),
        ("a=K;channels=", "no pattern"),
        ("a=K;channels=x|", "no pattern"),
        ("a=K;rights=", "no right"),
        ("a=K;rights=Publish", "no right"),
        ("a=K;rights=read;rights=read", "more than once"),
        ("a=K;channels=x;channels=y", "more than once"),
        ("a=K;", "only ;channels= and ;rights="),
        ("a=two words", "visible ASCII"),
        ("a=schl\u{fc}ssel", "visible ASCII"),
        ("a=sha256:", "64 hex digits"),
        ("a=K1,a=K2", "entry 2 (a) has the name of another entry"),
        ("a=K1,b=K1", "entry 2 (b) has the same key as a"),
    ] {
        let all = mistakes(text);
        assert!(all.len() == 1 && all[0].contains(what), "{text:?}: {all:?}");
    }
    for not_hex in ["g".repeat(64), "a".repeat(63), "a".repeat(65), "+f".repeat(32), "\u{e9}".repeat(32)] {
        assert!(mistakes(&format!("a=sha256:{not_hex}"))[0].contains("64 hex digits"), "{not_hex}");
    }
}

#[test]
fn a_mistake_never_shows_the_key() {
    for text in [
        "hunter2",
        "hunter2==",
        "hunter2=",
        "=hunter2",
        "a b=hunter2",
        "a=hunter2 hunter2",
        "a=x;hunter2",
        "a=x;hunter2=hunter2",
        "ok=K,hunter2",
        "a=sha256:hunter2",
        "a=hunter2,a=hunter2",
        "a=hunter2;rights=x",
        "hunter2;channels=server:*",
    ] {
        let said = mistakes(text).join("; ");
        assert!(!said.contains("hunter2"), "{text:?}: {said}");
    }
}

#[test]
fn what_is_printed_of_a_key_is_all_but_the_key() {
    let text = "web=hunter2;channels=server:*|broadcast;rights=read|publish,app=sha256:";
    let keys = keys(&format!("{text}{DIGEST}"));
    for printed in [format!("{keys}"), format!("{keys:?}")] {
        assert_eq!(printed, "web=***;channels=server:*|broadcast;rights=publish|read,app=***");
    }
    assert!(!format!("{:?}", PublishAccess::Keys(keys)).contains("hunter2"));
}

proptest! {
    #[test]
    fn no_setting_panics(text in "[a-c=;,|*:$ ]{0,40}|.{0,40}", presented in ".{0,40}") {
        if let Ok(keys) = PublishKeys::parse(&text) {
            _ = keys.find(&presented);
            _ = keys.to_string();
        }
        for list in ["channels", "rights"] {
            _ = PublishKeys::parse(&format!("a=K;{list}={text}"));
        }
    }
}
