//! What can be set, and what is said when it is wrong.

mod common;

use common::*;
use fanfare_auth::{Access, AuthConfig, CookieName, Grants, Missing, Patterns, PublishKeys, Secrets};
use proptest::prelude::*;
use serde_json::json;

#[test]
fn without_settings_no_edge_and_no_publisher_starts() {
    let config = AuthConfig::default();
    assert_eq!(config.edge_access().expect_err("no secret"), Missing::Secret);
    assert_eq!(config.publish_access().expect_err("no key"), Missing::PublishKeys);
    assert!(Missing::Secret.to_string().contains("FANFARE_AUTH_SECRET"));
    assert!(Missing::PublishKeys.to_string().contains("FANFARE_PUBLISH_KEYS"));
}

#[test]
fn the_defaults_are_the_contracts() {
    let config = AuthConfig::default();
    assert_eq!(config.cookie.as_str(), "fanfare_token");
    assert!(!config.query_token && config.anonymous_channels.is_empty() && config.publish_keys.is_empty());
}

#[test]
fn a_configuration_is_read_by_serde_as_well() {
    let config: AuthConfig = serde_json::from_value(json!({
        "secret": "new,old", "grants": "org:{org}:*", "cookie": "session", "query_token": true,
        "anonymous_channels": "news,prices:*", "publish_keys": "web=KEY;rights=publish",
    }))
    .expect("a configuration");
    assert!(matches!(config.edge_access(), Ok(Access::Tokens(_))) && config.publish_access().is_ok());
    assert_eq!(config.anonymous_channels.to_string(), "news,prices:*");
    let unknown = serde_json::from_value::<AuthConfig>(json!({"secrets": "x"})).expect_err("unknown");
    assert!(unknown.to_string().contains("secrets"));
    let wrong = serde_json::from_value::<AuthConfig>(json!({"publish_keys": "hunter2"})).expect_err("no name");
    assert!(!wrong.to_string().contains("hunter2"), "{wrong}");
}

#[test]
fn secrets_are_never_printed() {
    let config = AuthConfig {
        secret: Some(Secrets::parse("hunter2,hunter3").expect("secrets")),
        publish_keys: PublishKeys::parse("web=hunter4").expect("keys"),
        ..AuthConfig::default()
    };
    let access = config.edge_access().expect("a secret");
    for printed in [format!("{config:?}"), format!("{access:?}"), format!("{:?}", config.publish_access())] {
        assert!(!printed.contains("hunter"), "{printed}");
    }
    assert_eq!(config.secret.expect("secrets").to_string(), "***");
}

#[test]
fn an_empty_secret_is_a_mistake() {
    for (text, mistakes) in [("", 1), (" \n", 1), ("a,", 1), (",", 2), ("a,,b,", 2)] {
        assert_eq!(Secrets::parse(text).expect_err("empty").mistakes().len(), mistakes, "{text:?}");
    }
}

#[test]
fn patterns_and_cookies_that_are_wrong_are_all_told() {
    let error = Patterns::parse("news,a*b,prices:*,\u{fc}").expect_err("mistakes");
    assert_eq!(error.mistakes().len(), 2, "{error}");
    assert!(error.mistakes()[0].contains("a*b") && error.mistakes()[1].contains('\u{fc}'), "{error}");
    for name in ["", "a b", "a=b", "a;b", "\u{fc}", "a\"b", "a,b"] {
        assert!(CookieName::parse(name).is_err(), "{name:?}");
    }
    assert!(CookieName::parse("__Host-fanfare.token").is_ok());
}

#[test]
fn what_is_allowed_but_unwise_is_told() {
    let mut config = config();
    assert!(config.warnings().is_empty());
    config.secret = Some(Secrets::parse(&format!("{SECRET},short")).expect("secrets"));
    config.publish_keys = PublishKeys::parse("web=short,app=a-key-of-sixteen-bytes").expect("keys");
    config.grants = Grants::parse("org:{org}*,org:{org}:*").expect("grants");
    let warnings = config.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    assert!(warnings[0].contains("secret 2") && warnings[1].contains("web") && warnings[2].contains("org:{org}*"));
    assert!(!warnings.join(" ").contains("short"), "{warnings:#?}");
}

proptest! {
    #[test]
    fn no_setting_panics(text in "[a-c{},*:$ ]{0,40}|.{0,40}") {
        _ = Secrets::parse(&text);
        _ = Patterns::parse(&text);
        _ = CookieName::parse(&text);
        if let Ok(grants) = Grants::parse(&text) {
            prop_assert_eq!(Grants::parse(&grants.to_string()), Ok(grants));
        }
    }
}
