//! Tokens that we make: good at once, and never reaching further than the key that asked for them.

mod common;

use std::time::Duration;

use common::*;
use fanfare_auth::{Grants, MintError, Minted, PublishKey, PublishKeys, Secrets, Subscriber, TokenOrder};
use fanfare_http::Problem;
use fanfare_protocol::{Pattern, UserId};
use proptest::prelude::*;

fn secrets() -> Secrets {
    Secrets::parse(SECRET).expect("a secret")
}

fn order(user: Option<&str>, patterns: &[&str], follow: &[&str]) -> TokenOrder {
    TokenOrder {
        user: user.map(|id| UserId::parse(id).expect(id)),
        channels: patterns.iter().map(|text| Pattern::parse(text).expect(text)).collect(),
        follow: channels(follow),
        ttl: Duration::from_secs(60),
    }
}

fn key(options: &str) -> std::sync::Arc<PublishKey> {
    PublishKeys::parse(&format!("web=KEY{options}")).expect("a setting").find("KEY").expect("the key")
}

/// The bearer of a token minted with a key.
fn bearer_of(order: &TokenOrder, options: &str) -> Subscriber {
    let Minted { token, .. } = order.mint_for(&key(options), &secrets(), now()).expect("minted");
    subscriber(&access(), &token)
}

fn refused(order: &TokenOrder, options: &str) -> Problem {
    Problem::from(order.mint_for(&key(options), &secrets(), now()).expect_err("refused"))
}

#[test]
fn a_minted_token_opens_what_was_asked_for_and_ends_in_time() {
    let order = order(Some("alice@example.com"), &["server:*"], &["org:7"]);
    let minted = order.mint(&secrets(), now() + Duration::from_millis(111)).expect("minted");
    let Minted { token, expires_at } = &minted;
    assert!(!format!("{minted:?}").contains(token), "it is a secret");
    let subscriber = subscriber(&access(), token);
    assert_eq!(subscriber.user(), order.user.as_ref());
    assert!(may(&subscriber, "server:7") && !may(&subscriber, "servers"));
    assert_eq!(subscriber.unasked(), channels(&["user:alice%40example.com", "broadcast", "org:7"]));
    assert_eq!(subscriber.issued_at(), Some(now() + Duration::from_millis(111)), "to the millisecond");
    assert_eq!(*expires_at, now() + Duration::from_secs(61), "to the second, rounded up");
    assert_eq!(subscriber.expires_at(), Some(*expires_at));
    let later = access().renew(token, now() + Duration::from_secs(61)).expect_err("over");
    assert!(later.to_string().contains("expired"), "{later}");
}

#[test]
fn the_first_secret_signs() {
    let minted = order(Some("42"), &[], &[]).mint(&Secrets::parse("new,old").expect("secrets"), now());
    let token = minted.expect("minted").token;
    let verified_by = |secret: &str| {
        let mut config = config();
        config.secret = Some(Secrets::parse(secret).expect("a secret"));
        config.edge_access().expect("a secret").renew(&token, now()).is_ok()
    };
    assert!(verified_by("new") && verified_by("newer,new") && !verified_by("old"));
}

#[test]
fn a_key_without_scope_mints_anything_and_one_without_the_right_nothing() {
    let order = order(Some("42"), &["*", "user:*"], &["org:7"]);
    let subscriber = bearer_of(&order, "");
    assert!(may(&subscriber, "user:43") && may(&subscriber, "broadcast") && may(&subscriber, "org:7"));
    let problem = refused(&order, ";rights=publish|read|disconnect");
    assert_eq!((problem.status().as_u16(), problem.detail()), (403, "the key web has no right to mint"));
}

#[test]
fn what_is_asked_for_beyond_the_key_is_refused_by_name() {
    for (patterns, follow, named) in [
        (&["server:*", "org:*"][..], &[][..], "org:*"),
        (&["*"], &[], "*"),
        (&["user:42"], &[], "user:42"),
        (&["broadcast"], &[], "broadcast"),
        (&[], &["org:7"], "org:7"),
    ] {
        let problem = refused(&order(Some("42"), patterns, follow), ";channels=server:*");
        assert_eq!(problem.status(), 403);
        assert!(problem.detail().contains(&format!("does not reach {named},")), "{problem:?}");
    }
}

#[test]
fn a_scoped_keys_token_opens_nothing_beyond_the_key_neither_inbox_nor_grants() {
    let order = order(Some("42"), &["server:7*"], &[]);
    let Minted { token, .. } = order.mint_for(&key(";channels=server:*"), &secrets(), now()).expect("minted");
    let mut config = config();
    config.grants = Grants::parse("org:{sub}:*,server:9").expect("grants");
    let subscriber = subscriber(&config.edge_access().expect("a secret"), &token);
    assert_eq!(subscriber.user(), order.user.as_ref());
    assert!(may(&subscriber, "server:71") && may(&subscriber, "server:9"), "what both allow");
    for name in ["server:8", "user:42", "broadcast", "org:42:1"] {
        assert!(!may(&subscriber, name), "{name}");
    }
    assert!(subscriber.unasked().is_empty());
    let with_inbox = bearer_of(&order, ";channels=server:*|user:*");
    assert_eq!(with_inbox.unasked(), channels(&["user:42"]));
}

#[test]
fn a_token_that_would_open_nothing_is_refused() {
    let problem = refused(&order(Some("42"), &[], &[]), ";channels=server:*");
    assert_eq!(problem.status(), 403);
    assert!(problem.detail().contains("user:42"), "{problem:?}");
    assert!(order(Some("42"), &[], &[]).mint_for(&key(";channels=user:42"), &secrets(), now()).is_ok());
}

#[test]
fn a_token_that_no_edge_would_take_is_not_made() {
    for ttl in [Duration::ZERO, Duration::MAX, Duration::from_secs(1_000_000_000_000)] {
        let order = TokenOrder { ttl, ..order(Some("42"), &[], &[]) };
        assert!(matches!(order.mint(&secrets(), now()), Err(MintError::Ttl)), "{ttl:?}");
    }
    assert!(matches!(order(None, &[], &[]).mint(&secrets(), now()), Err(MintError::Nothing)));
    for order in [order(None, &["$call:*"], &[]), order(None, &[], &["$call:0a"]), order(None, &["$*"], &[])] {
        let problem = Problem::from(order.mint(&secrets(), now()).expect_err("internal"));
        assert_eq!(problem.status(), 400);
    }
    let names: Vec<_> = (0..500).map(|index| format!("server:{index:010}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let error = order(None, &names, &[]).mint(&secrets(), now()).expect_err("too long");
    assert!(matches!(error, MintError::TooLong(_)), "{error}");
}

proptest! {
    #[test]
    fn what_is_minted_with_a_key_reaches_no_further_than_the_key(
        scope in "(user:|broadcast|server:|us|)[a:]{0,2}\\*?",
        asked in prop::collection::vec("(user:|broadcast|server:|us|)[a:]{0,2}\\*?", 0..3),
        names in prop::collection::vec("(user:|users:|broadcast|server:|us)[a:]{0,3}", 1..8),
    ) {
        let Ok(keys) = PublishKeys::parse(&format!("web=KEY;channels={scope}")) else { return Ok(()) };
        let key = keys.find("KEY").expect("the key");
        let order = TokenOrder {
            channels: asked.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
            ..order(Some("a"), &[], &[])
        };
        if let Ok(Minted { token, .. }) = order.mint_for(&key, &secrets(), now()) {
            let subscriber = subscriber(&access(), &token);
            let names = names.iter().filter_map(|name| fanfare_protocol::Channel::parse(name).ok());
            for channel in names.chain(subscriber.unasked()) {
                prop_assert!(!subscriber.may_follow(&channel) || key.may_publish(&channel), "{channel}");
            }
        }
    }
}
