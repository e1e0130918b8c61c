//! Which tokens are taken, what they open, and what is said of the others.

mod common;

use std::time::Duration;

use common::*;
use fanfare_auth::{Access, Grants, Reach, Secrets};
use fanfare_protocol::Channel;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn a_token_names_a_user_and_opens_their_inbox_and_the_broadcast() {
    let subscriber = subscriber(&access(), &token_with(json!({"sub": "alice@example.com"})));
    assert_eq!(subscriber.user().expect("named").as_str(), "alice@example.com");
    assert!(may(&subscriber, "user:alice%40example.com") && may(&subscriber, "broadcast"));
    assert!(!may(&subscriber, "user:bob") && !may(&subscriber, "server:7"), "without channels, nothing else");
    assert_eq!(subscriber.unasked(), channels(&["user:alice%40example.com", "broadcast"]));
}

#[test]
fn a_tokens_channels_open_others_and_reserved_ones_only_when_spelled_out() {
    let opens = |patterns: Value| subscriber(&access(), &token_with(json!({"sub": "42", "channels": patterns})));
    let servers = opens(json!(["server:*", "news"]));
    assert!(may(&servers, "server:7") && may(&servers, "news") && !may(&servers, "newsroom"));
    let all = opens(json!(["*"]));
    assert!(may(&all, "server:7") && !may(&all, "user:43"));
    assert!(may(&opens(json!(["user:*"])), "user:43"));
    assert!(!may(&opens(json!(["$call:*", "$call:0a"])), "$call:0a"), "nobody subscribes to $…");
}

#[test]
fn a_token_without_a_user_has_no_inbox_and_the_broadcast_only_if_it_says_so() {
    let nobody = subscriber(&access(), &token_with(json!({"channels": ["*"]})));
    assert_eq!(nobody.user(), None);
    assert!(may(&nobody, "server:7") && !may(&nobody, "broadcast"));
    assert!(nobody.unasked().is_empty());
    let told = subscriber(&access(), &token_with(json!({"channels": ["broadcast"]})));
    assert_eq!(told.unasked(), channels(&["broadcast"]));
}

#[test]
fn what_follow_names_is_open_and_comes_without_asking() {
    let claims = json!({"sub": "42", "follow": ["org:7", "user:42", "$call:0a"]});
    let subscriber = subscriber(&access(), &token_with(claims));
    assert_eq!(subscriber.unasked(), channels(&["user:42", "broadcast", "org:7"]));
    assert!(may(&subscriber, "org:7") && !may(&subscriber, "org:8") && !may(&subscriber, "$call:0a"));
}

#[test]
fn what_a_token_opens_is_written_down_and_opens_the_same_elsewhere() {
    let claims = json!({"sub": "42", "channels": ["server:*", "news"], "fanfare_limit": ["server:7*", "user:42"]});
    let subscriber = subscriber(&access(), &token_with(claims));
    let written = serde_json::to_string(subscriber.reach()).expect("patterns are text");
    let read: Reach = serde_json::from_str(&written).expect("as it was written");
    for (channel, open) in [("server:71", true), ("server:8", false), ("user:42", true), ("broadcast", false)] {
        let channel = Channel::parse(channel).expect("valid");
        assert_eq!((subscriber.may_follow(&channel), read.opens(&channel)), (open, open), "{channel}");
    }
    assert!(serde_json::from_str::<Reach>(&written.replace("news", "ne*ws")).is_err());
}

#[test]
fn a_token_says_when_it_ends_and_when_it_was_issued() {
    let with = subscriber(&access(), &token(&json!({"exp": NOW as f64 + 0.25, "iat": NOW as f64 - 1.5})));
    assert_eq!(with.expires_at(), Some(now() + Duration::from_millis(250)));
    assert_eq!(with.issued_at(), Some(now() - Duration::from_millis(1500)));
    assert_eq!(subscriber(&access(), &token_with(json!({"iat": null}))).issued_at(), None);
}

#[test]
fn a_refusal_names_the_first_channel_that_is_not_allowed() {
    let subscriber = subscriber(&access(), &token_with(json!({"sub": "42", "channels": ["server:*"]})));
    assert_eq!(subscriber.check(&channels(&["server:7", "user:42", "broadcast"])), Ok(()));
    for (asked, named) in [
        (["server:7", "org:1", "org:2"], "org:1"),
        (["server:7", "user:43", "x"], "user:43"),
        (["$call:0a", "x", "y"], "$call:0a"),
    ] {
        let problem = fanfare_http::Problem::from(subscriber.check(&channels(&asked)).expect_err("refused"));
        assert_eq!((problem.status().as_u16(), problem.code().as_str()), (403, "FORBIDDEN"));
        assert!(problem.detail().contains(named), "{problem:?}");
    }
}

#[test]
fn a_token_that_nobody_signed_is_refused() {
    let claims = json!({"sub": "42", "channels": ["*"], "exp": NOW + 60});
    for alg in ["none", "None", "NONE"] {
        for signature in ["", "x", "AAAA"] {
            let unsigned = format!("{}.{}.{signature}", encode(&json!({"alg": alg})), encode(&claims));
            assert!(refusal(&access(), &unsigned).detail().contains("not signed with HS256"));
        }
    }
    let unsigned = format!("{}.{}.", encode(&json!({"alg": "HS256"})), encode(&claims));
    assert!(refusal(&access(), &unsigned).detail().contains("wrongly signed"));
}

#[test]
fn a_token_does_not_choose_its_algorithm() {
    let claims = json!({"sub": "42", "exp": NOW + 60});
    for alg in ["RS256", "HS384", "HS512", "ES256", "EdDSA", "hs256", "HS256 "] {
        let forged = forge(&json!({"alg": alg}), &claims, SECRET);
        assert!(refusal(&access(), &forged).detail().contains("not signed with HS256"), "{alg}");
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": ["HS256"]}), json!([]), json!("HS256")] {
        assert!(refusal(&access(), &forge(&header, &claims, SECRET)).detail().contains("header"), "{header}");
    }
    let critical = forge(&json!({"alg": "HS256", "crit": ["b64"], "b64": false}), &claims, SECRET);
    assert!(refusal(&access(), &critical).detail().contains("crit"));
}

#[test]
fn a_token_signed_with_another_secret_or_changed_is_refused() {
    let claims = json!({"sub": "42", "exp": NOW + 60});
    let foreign = forge(&json!({"alg": "HS256"}), &claims, "another secret");
    assert!(refusal(&access(), &foreign).detail().contains("wrongly signed"));
    let good = token(&claims);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");
    let changed = format!("{header}.{}.{signature}", encode(&json!({"sub": "43", "exp": NOW + 60})));
    assert!(refusal(&access(), &changed).detail().contains("wrongly signed"));
    let cut = &good[..good.len() - 4];
    assert!(refusal(&access(), cut).detail().contains("wrongly signed"));
}

#[test]
fn while_secrets_rotate_any_of_them_verifies() {
    let mut config = config();
    config.secret = Some(Secrets::parse(&format!(" the new one ,{SECRET}\n")).expect("two secrets"));
    let access = config.edge_access().expect("secrets");
    let claims = json!({"sub": "42", "exp": NOW + 60});
    assert!(authorise(&access, &bearer(&token(&claims)), "").is_ok());
    assert!(authorise(&access, &bearer(&forge(&json!({"alg": "HS256"}), &claims, "the new one")), "").is_ok());
    assert!(authorise(&access, &bearer(&forge(&json!({"alg": "HS256"}), &claims, "gone")), "").is_err());
}

#[test]
fn an_expired_token_says_how_long_ago() {
    let expired = refusal(&access(), &token(&json!({"sub": "42", "exp": NOW - 192})));
    assert!(expired.detail().contains("expired 3m 12s ago"), "{expired:?}");
    assert!(refusal(&access(), &token(&json!({"exp": NOW}))).detail().contains("expired 0s ago"), "no leeway");
    assert!(refusal(&access(), &token(&json!({"exp": -1}))).detail().contains("expired"));
    assert!(authorise(&access(), &bearer(&token(&json!({"exp": NOW + 1}))), "").is_ok());
}

#[test]
fn a_token_without_an_end_is_refused() {
    for claims in [json!({"sub": "42"}), json!({"sub": "42", "exp": null})] {
        assert!(refusal(&access(), &token(&claims)).detail().contains("has no exp"));
    }
    let in_ms = refusal(&access(), &token(&json!({"exp": (NOW + 60) * 1000})));
    assert!(in_ms.detail().contains("milliseconds"), "{in_ms:?}");
    assert!(refusal(&access(), &token(&json!({"exp": u64::MAX}))).detail().contains("exp"));
    assert!(refusal(&access(), &token(&json!({"exp": 1e300}))).detail().contains("exp"));
}

#[test]
fn a_token_that_is_not_good_yet_says_so() {
    let early = refusal(&access(), &token_with(json!({"nbf": NOW + 120})));
    assert!(early.detail().contains("not good yet, but in 2m"), "{early:?}");
    assert!(authorise(&access(), &bearer(&token_with(json!({"nbf": NOW + 60}))), "").is_ok(), "clocks disagree");
    assert!(authorise(&access(), &bearer(&token_with(json!({"iat": NOW + 120}))), "").is_ok(), "iat is no beginning");
}

#[test]
fn claims_of_the_wrong_kind_make_a_token_malformed() {
    for (claim, value) in [
        ("sub", json!(42)),
        ("sub", json!(["42"])),
        ("sub", json!({})),
        ("sub", json!("")),
        ("sub", json!("a\nb")),
        ("sub", json!("x".repeat(196))),
        ("sub", json!("@".repeat(66))),
        ("channels", json!("server:*")),
        ("channels", json!({"a": 1})),
        ("channels", json!([1])),
        ("channels", json!(["a", "b c"])),
        ("channels", json!(["*a"])),
        ("channels", json!([""])),
        ("channels", json!([null])),
        ("follow", json!("org:7")),
        ("follow", json!(["org:*"])),
        ("follow", json!([["a"]])),
        ("iat", json!("now")),
        ("iat", json!(NOW * 1000)),
        ("nbf", json!(true)),
        ("fanfare_limit", json!(null)),
        ("fanfare_limit", json!(7)),
        ("fanfare_limit", json!(["**"])),
    ] {
        let problem = refusal(&access(), &token_with(json!({claim: value})));
        assert!(problem.detail().contains("malformed") && problem.detail().contains(claim), "{claim}: {problem:?}");
    }
    for exp in [json!("1795229298"), json!([NOW + 60]), json!(true)] {
        assert!(refusal(&access(), &token(&json!({"exp": exp}))).detail().contains("its exp is not a number"));
    }
    assert!(refusal(&access(), &token(&json!([1, 2]))).detail().contains("its claims are not a JSON object"));
    let second = refusal(&access(), &token_with(json!({"channels": ["a", "b c"]})));
    assert!(second.detail().contains("channels[1]"), "{second:?}");
}

#[test]
fn audience_issuer_and_unknown_claims_do_not_matter() {
    let claims = json!({"sub": "42", "aud": ["elsewhere"], "iss": {"odd": 1}, "jti": 7, "roles": ["x"]});
    assert!(authorise(&access(), &bearer(&token_with(claims)), "").is_ok());
}

#[test]
fn what_is_no_token_is_malformed() {
    for text in ["x", "a.b", "a.b.c.d", "..", ".", "....", "!!.!!.!!", "eyJ.e30.x", "\u{fc}.\u{fc}.\u{fc}"] {
        let mut headers = bearer("x");
        headers.insert(
            "authorization",
            http::HeaderValue::from_bytes(format!("Bearer {text}").as_bytes()).expect("a value"),
        );
        let problem = fanfare_http::Problem::from(authorise(&access(), &headers, "").expect_err(text));
        assert_eq!(problem.status(), 401);
        assert!(problem.detail().contains("malformed") || problem.detail().contains("header"), "{text}: {problem:?}");
    }
    assert!(refusal(&access(), "").detail().contains("is empty"));
}

#[test]
fn an_absurdly_long_token_is_not_even_read() {
    let padded = |bytes: usize| token_with(json!({"sub": "42", "padding": "x".repeat(bytes)}));
    assert!(authorise(&access(), &bearer(&padded(5_900)), "").is_ok());
    let long = refusal(&access(), &padded(7_000));
    assert!(long.detail().contains("at most 8192"), "{long:?}");
    assert!(refusal(&access(), &"x".repeat(8_193)).detail().contains("8193 bytes"));
}

#[test]
fn grants_are_what_every_token_gets_from_its_claims() {
    let mut config = config();
    config.grants = Grants::parse("org:{org}:*,news").expect("grants");
    let access = config.edge_access().expect("a secret");
    let member = subscriber(&access, &token_with(json!({"sub": "42", "org": "acme"})));
    assert!(may(&member, "org:acme:1") && may(&member, "news") && !may(&member, "org:other:1"));
    for org in [json!("a:*"), json!("*"), json!(""), json!(["acme"]), json!(null)] {
        let injected = subscriber(&access, &token_with(json!({"sub": "42", "org": org})));
        for name in ["org:a:1", "org:acme:1", "org:a:", "org::1"] {
            assert!(!may(&injected, name), "{org} opens {name}");
        }
        assert!(may(&injected, "news"), "{org}");
    }
}

#[test]
fn a_connection_is_renewed_with_a_token_in_a_body() {
    let renewed = access().renew(&token_with(json!({"sub": "42"})), now()).expect("good").expect("a token");
    assert_eq!(renewed.user().expect("named").as_str(), "42");
    let error = access().renew("x", now()).expect_err("no token");
    assert!(error.to_string().contains("the token in the body is malformed"));
    assert!(Access::Dev(None).renew("x", now()).expect("not looked at").is_none());
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "(user:|org:|\\$|broadcast|[a-z]{1,3})[*:]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn no_token_panics(text in ".{0,200}", parts in prop::collection::vec("[A-Za-z0-9_=-]{0,40}", 0..5)) {
        _ = access().renew(&text, now());
        _ = access().renew(&parts.join("."), now());
    }

    #[test]
    fn no_claims_panic(
        names in prop::collection::vec("sub|channels|follow|exp|iat|nbf|org|fanfare_limit", 0..6),
        values in prop::collection::vec(json_value(), 6),
    ) {
        let mut config = config();
        config.grants = Grants::parse("org:{org}:*,{sub}").expect("grants");
        let mut claims = json!({"exp": NOW + 60});
        for (name, value) in names.iter().zip(values) {
            claims[name] = value;
        }
        if let Ok(Some(subscriber)) = config.edge_access().expect("a secret").renew(&token(&claims), now()) {
            for channel in subscriber.unasked() {
                prop_assert!(subscriber.may_follow(&channel) && !channel.is_internal());
            }
            prop_assert!(!may(&subscriber, "$call:0a"));
        }
    }
}
