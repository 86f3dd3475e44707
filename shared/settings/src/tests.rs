use everpoll_protocol::Channel;

use super::*;

fn load(file: &str, environment: &[(&str, &str)]) -> Result<Settings, Problems> {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
    Settings::load(Some((Path::new("everpoll.toml"), file)), environment)
}

/// The texts of the problems, joined.
fn wrong(file: &str, environment: &[(&str, &str)]) -> String {
    load(file, environment).unwrap_err().texts().join("\n")
}

#[test]
fn nothing_set_is_the_default() {
    assert_eq!(Settings::load(None, std::iter::empty()), Ok(Settings::default()));
    assert_eq!(load("", &[]), Ok(Settings::default()));
}

#[test]
fn environment_wins_over_the_file() {
    let settings = load("hold_max = 10\nlisten = 'localhost:1'", &[("EVERPOLL_HOLD_MAX", "20")]).unwrap();
    assert_eq!(settings.hold_max, Duration::from_secs(20));
    assert_eq!(settings.listen, Listen::Tcp { host: "localhost".into(), port: 1 });
}

#[test]
fn empty_variable_counts_as_not_set() {
    let settings = load("hold_max = 10", &[("EVERPOLL_HOLD_MAX", ""), ("EVERPOLL_PUBLISH_KEY", "")]).unwrap();
    assert_eq!(settings.hold_max, Duration::from_secs(10));
    assert_eq!(settings.publish_key, None);
}

#[test]
fn all_problems_are_reported_at_once() {
    let problems = load(
        "hold_mx = 3\nwindow_bytes = 'many'\ndatabase_url = 'postgres://db/app'",
        &[("EVERPOLL_HOLD_MAX", "25s"), ("EVERPOLL_LISTENN", "x")],
    )
    .unwrap_err();
    let texts = problems.texts();
    assert_eq!(texts.len(), 5, "{texts:#?}");
    let has = |text: &str| texts.iter().any(|t| t == text);
    assert!(has("hold_mx in everpoll.toml is not a setting; did you mean hold_max?"));
    assert!(has("EVERPOLL_LISTENN is not a setting; did you mean EVERPOLL_LISTEN?"));
    assert!(has("EVERPOLL_HOLD_MAX=\"25s\" is not a number; give seconds from 0 to 3600, such as 25"));
    assert!(
        texts
            .iter()
            .any(|t| t.starts_with("window_bytes = \"many\" in everpoll.toml is not a number of bytes;"))
    );
    assert!(texts.iter().any(|t| t.starts_with("access is not set, and the database is PostgreSQL")));
    assert!(problems.to_string().starts_with("the settings have 5 problems:\n- "));
}

#[test]
fn guess_is_made_only_when_it_is_near() {
    assert!(wrong("", &[("EVERPOLL_RETAIN_FRO", "1")]).contains("did you mean EVERPOLL_RETAIN_FOR?"));
    assert!(wrong("", &[("EVERPOLL_X", "1")]).ends_with("everpoll help settings lists them all"));
    assert!(wrong("Listen = 'x'", &[]).contains("did you mean listen?"));
}

#[test]
fn file_that_is_not_toml_is_named_with_its_line_and_not_quoted() {
    let text = wrong("hold_max = 3\npublish_key = 'hunter2-hunter2-hunter2", &[]);
    assert!(text.starts_with("everpoll.toml is not TOML: line 2: "), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn value_of_another_kind_is_refused() {
    assert!(wrong("hold_max = 2.5", &[]).contains("neither text nor a whole number"));
    assert!(wrong("hold_max = [25]", &[]).contains("neither text nor a whole number"));
    assert!(wrong("socket_mode = 0o660", &[]).contains("give one such as \"0660\""));
    assert!(wrong("[daemon]\nhold_max = 3", &[]).contains("daemon in everpoll.toml is not a setting"));
    assert!(wrong("hold_max = -1", &[]).contains("is not a number"));
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf_8_is_a_problem() {
    use std::os::unix::ffi::OsStringExt;
    let environment = [("EVERPOLL_LOG".to_owned(), OsString::from_vec(vec![0xff]))];
    let problems = Settings::load(None, environment.into_iter()).unwrap_err();
    assert_eq!(problems.texts(), ["EVERPOLL_LOG is not UTF-8; give text"]);
}

#[test]
fn variables_of_a_request_and_of_others_are_left_alone() {
    let settings =
        load("", &[("HTTP_EVERPOLL_LISTEN", "x"), ("EVERPOLLX", "x"), ("EVERPOLL_CONFIG", "/etc/x.toml")]);
    assert_eq!(settings, Ok(Settings::default()));
}

#[test]
fn postgres_and_public_addresses_need_access_to_be_written() {
    let open = ("EVERPOLL_ACCESS", "open");
    let postgres = ("EVERPOLL_DATABASE_URL", "postgres://db/app");
    assert!(wrong("", &[postgres]).contains("EVERPOLL_ACCESS=open"));
    assert!(load("", &[postgres, open]).is_ok());
    assert!(
        wrong("listen = '0.0.0.0:8377'", &[]).contains("0.0.0.0:8377 can be reached from other machines")
    );
    assert!(load("listen = '0.0.0.0:8377'\naccess = 'open'", &[]).is_ok());
    assert!(load("listen = 'unix:/run/everpoll.sock'", &[]).is_ok());
    // A unix socket does not help: the web server in front of it is public.
    assert!(wrong("listen = 'unix:/run/everpoll.sock'", &[postgres]).contains("PostgreSQL"));
    let settings = load("", &[]).unwrap();
    assert!(settings.unprotected(&Listen::parse("[::]:1").unwrap()).is_some());
    assert!(settings.unprotected(&settings.listen).is_none());
}

#[test]
fn access_of_a_proxy_has_peers_and_no_scripts() {
    let settings = load("access = 'proxy'\naccess_peers = ['10.0.0.0/8', '::1']", &[]).unwrap();
    assert_eq!((settings.access, settings.access_peers.len()), (Access::Proxy, 2));
    assert!(wrong("access = 'proxy'\njsonp = true", &[]).contains("any page of the web could load"));
    for (text, says) in [
        ("access = 'closed'", "give token"),
        ("access_peers = 'localhost'", "\"localhost\", which is no address"),
        ("access_header = 'Query-String'", "begins with X-"),
        ("access_recheck = 0", "seconds from 1 to 300"),
    ] {
        assert!(wrong(text, &[]).contains(says), "{text}");
    }
}

#[test]
fn tokens_need_a_key() {
    assert!(wrong("access = 'token'", &[]).contains("there is no key that could sign one"));
    let key = "[token_keys.k]\nalgorithm = 'HS256'\nsecret = 'geheim-geheim-geheim-geheim-geheim'";
    let settings = load(&format!("access = 'token'\ntoken_cookie = 'none'\n{key}"), &[]).unwrap();
    assert_eq!((settings.token_keys.len(), settings.token_cookie.is_none()), (1, true));
    assert!(!format!("{settings:?}{:?}", settings.limits(true)).contains("geheim"));
    for (text, says) in [
        ("token_cookie = 'a b'", "is no name of a cookie"),
        ("token_leeway = 31", "seconds from 0 to 30"),
        ("token_valid_max = 'none'", "1m to 366d"),
        ("token_valid_max = '367d'", "1m to 366d"),
    ] {
        assert!(wrong(text, &[]).contains(says), "{text}");
    }
}

#[test]
fn secrets_are_neither_in_debug_output_nor_in_problems() {
    let key = ("EVERPOLL_PUBLISH_KEY", "correct-horse-battery");
    let url = ("EVERPOLL_DATABASE_URL", "postgres://u:p@ss@db1,db2/app?sslpassword=ss2");
    let settings = load("", &[key, url, ("EVERPOLL_ACCESS", "open")]).unwrap();
    let shown = format!("{settings:?}");
    assert!(shown.contains("postgres://db1,db2/app"), "{shown}");
    assert!(!shown.contains("correct") && !shown.contains("ss@") && !shown.contains("ss2"), "{shown}");
    assert_eq!(settings.publish_key.unwrap().expose(), "correct-horse-battery");

    let redis = load("", &[("EVERPOLL_REDIS_URL", "redis://u:geheim@cache")]).unwrap();
    assert!(format!("{redis:?}").contains("redis://cache:6379") && !format!("{redis:?}").contains("geheim"));
    assert!(!wrong("redis_url = 'redis//u:geheim@cache'", &[]).contains("geheim"));

    let text =
        wrong("", &[("EVERPOLL_PUBLISH_KEY", "short"), ("EVERPOLL_DATABASE_URL", "mysql://u:geheim@db/app")]);
    assert!(text.contains("EVERPOLL_PUBLISH_KEY is 5 characters long; give at least 16"), "{text}");
    assert!(text.contains("EVERPOLL_DATABASE_URL begins neither with postgres://"), "{text}");
    assert!(!text.contains("short") && !text.contains("geheim"), "{text}");
}

#[test]
fn defaults_of_the_table_are_those_of_the_program() {
    for key in KEYS.iter().filter(|key| key.default != "none") {
        let mut settings = load(&format!("{} = '{}'", key.name, key.default), &[]).unwrap();
        settings.access_is_written = false;
        assert_eq!(settings, Settings::default(), "{}", key.name);
    }
    let none: Vec<_> = KEYS.iter().filter(|key| key.default == "none").map(|key| key.name).collect();
    assert_eq!(
        none,
        [
            "fallback_status",
            "tls_certificate",
            "tls_key",
            "redis_url",
            "access_peers",
            "token_keys",
            "token_audience",
            "token_issuer",
            "allow_origins",
            "namespaces",
            "publish_key",
            "publish_keys",
            "publish_rate",
            "keys_file",
            "retain_count"
        ]
    );
}

#[test]
fn publishing_keys_are_tables_of_the_file_or_a_variable() {
    let file = "[publish_keys.shop]\nkey = 'geheim-geheim-geheim'\nchannels = ['shop-*']";
    let settings = load(file, &[]).unwrap();
    assert_eq!(settings.publish_keys[0].channels.to_string(), "shop-*");
    assert!(!format!("{settings:?}").contains("geheim"));
    let variable =
        ("EVERPOLL_PUBLISH_KEYS", "shop = { key = 'geheim-geheim-geheim', channels = ['shop-*'] }");
    assert_eq!(load("", &[variable]).unwrap(), settings);
    let text = wrong("[publish_keys.shop]\nkey = 'geheim'", &[("EVERPOLL_KEYS_FILE", "keys.toml")]);
    assert!(text.contains("publish_keys in everpoll.toml has \"shop\", which has a key that is 6"), "{text}");
    assert!(text.contains("EVERPOLL_KEYS_FILE=\"keys.toml\" is no whole path"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    let channel = |name| Channel::parse(name).unwrap();
    assert!(settings.key_for(&channel("shop-1")).is_some() && settings.key_for(&channel("crm")).is_none());
}

#[test]
fn namespaces_have_what_is_around_them() {
    let text = "access = 'token'\n[token_keys.r]\nalgorithm = 'HS256'\nsecret = 'geheim-geheim-geheim-geheim-geheim'\n\
                [namespaces.'shop:']\nevent_max = '1KiB'\n[namespaces.'shop:'.token_keys.s]\nalgorithm = 'HS256'\n\
                secret = 'geheim-geheim-geheim-geheim-anders'\n[namespaces.'shop:eu:']\nevent_max = 100\n\
                [namespaces.'news:']\naccess = 'open'\n";
    let settings = load(text, &[]).unwrap();
    assert!(!format!("{settings:?}").contains("geheim"));
    let max = |name| settings.event_max_on(&Channel::parse(name).unwrap());
    assert_eq!([max("shop:1"), max("shop:eu:1"), max("news:1"), max("shop")], [1024, 100, 1 << 20, 1 << 20]);
    let said = settings.describe_namespaces();
    assert_eq!(said[0], "namespace news:  access: open; event_max: 1048576 bytes");
    assert_eq!(said[2], "namespace shop:eu:  access: token, with keys of its own: s; event_max: 100 bytes");
    for (text, says) in [
        ("[namespaces.shop]\naccess = 'open'", "does not end with \":\""),
        ("[namespaces.'a,b:']\naccess = 'open'", "begins no channel"),
        ("[namespaces.'shop:']\naccess = 'closed'", "has an access that"),
        ("[namespaces.'shop:']\nevent_max = 1", "has an event_max that"),
        ("[namespaces.'shop:']\nretain_for = 'soon'", "has a retain_for that"),
        (
            "[namespaces.'shop:']\nretain_count = []",
            "has a retain_count that is neither text nor a whole number",
        ),
        ("[namespaces.'shop:']\nchanel = 'geheim'", "\"chanel\", which is not known"),
        ("[namespaces.'shop:']\naccess = 'token'", "there is no key that could sign one"),
        ("jsonp = true\n[namespaces.'shop:']\naccess = 'proxy'", "any page of the web could load"),
        (
            "[namespaces.'shop:'.token_keys.k]\nalgorithm = 'HS256'\nsecret = 'geheim-geheim-geheim-geheim-geheim'",
            "its access is not token",
        ),
    ] {
        let problem = wrong(text, &[]);
        assert!(problem.contains(says) && !problem.contains("geheim"), "{text}: {problem}");
    }
}

#[test]
fn namespace_that_sets_one_half_of_retention_has_the_other_from_around_it() {
    let text = "retain_for = '2d'\n[namespaces.'shop:']\nretain_count = 9\n[namespaces.'shop:eu:']\nretain_for = '1h'\n\
                [namespaces.'shop:us:']\nretain_count = 'none'\nretain_for = 0\n[namespaces.'crm:']\nevent_max = 100\n";
    let settings = load(text, &[]).unwrap();
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let apart: Vec<_> = settings.retained_apart().collect();
    assert_eq!(
        apart,
        [
            ("shop:", seconds(172_800), Some(9)),
            ("shop:eu:", seconds(3600), Some(9)),
            ("shop:us:", None, None)
        ]
    );
    let said = settings.describe_namespaces().join("\n");
    for ending in ["100 bytes\n", "; retain_for: 3600 s; retain_count: 9\n", "; keeps all events"] {
        assert!(said.contains(ending), "{said}");
    }
}

#[test]
fn certificate_and_key_go_together() {
    let both = load("tls_certificate = '/etc/cert.pem'\ntls_key = '/etc/key.pem'", &[]).unwrap();
    assert_eq!(both.tls, Some(("/etc/cert.pem".into(), "/etc/key.pem".into())));
    let one = wrong("tls_certificate = '/etc/cert.pem'", &[]);
    assert!(one.contains("wants tls_key beside it"), "{one}");
    let other = wrong("", &[("EVERPOLL_TLS_KEY", "/etc/key.pem")]);
    assert!(other.contains("EVERPOLL_TLS_KEY=\"/etc/key.pem\" wants tls_certificate beside it"), "{other}");
}

#[test]
fn origins_are_a_text_or_a_list() {
    let list = load(r#"allow_origins = ["https://shop.example", "http://localhost:3000"]"#, &[]).unwrap();
    let text = [("EVERPOLL_ALLOW_ORIGINS", "https://shop.example,http://localhost:3000")];
    assert_eq!(list.allow_origins, load("", &text).unwrap().allow_origins);
    let wrong = wrong("allow_origins = 'shop.example'\njsonp = 'yes'\ndemo = true", &[]);
    assert!(wrong.contains(r#"names "shop.example", which is no origin"#), "{wrong}");
    assert!(wrong.contains("is neither true nor false"), "{wrong}");
}

#[test]
fn variables_are_named_like_their_keys() {
    for key in KEYS {
        assert_eq!(key.variable, format!("EVERPOLL_{}", key.name.to_uppercase()));
    }
}

/// What the reference says about one key.
fn section(key: &Key) -> String {
    let Key { name, variable, default, form, meaning, advice, .. } = key;
    let advice = if advice.is_empty() { String::new() } else { format!("\n\n{advice}") };
    let counts = key.counts();
    format!("### `{name}`\n\n`{variable}` · {form} · default: `{default}` · {counts}\n\n{meaning}{advice}\n")
}

#[test]
fn reference_and_table_say_the_same() {
    let reference = include_str!("../../../docs/reference/configuration.md");
    let wanted: String = KEYS.iter().map(|key| section(key) + "\n").collect();
    let begin = reference.find("### `").expect("the reference has sections");
    let there = &reference[begin..];
    let there = &there[..there.find("\n## ").expect("a chapter follows the keys") + 1];
    assert_eq!(
        there, wanted,
        "docs/reference/configuration.md must have, from the first key on:\n\n{wanted}"
    );
}
