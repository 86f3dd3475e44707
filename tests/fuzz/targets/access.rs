//! Who may read and who may publish: patterns, proxies' headers, peers, publishing keys, and the network of a client.
//!
//! The input is lines, of which those that are missing are empty: flags; the peer's address; the trusted peers; what a header
//! says about channels, and until when; the channels of the path; the patterns of a publishing key; then header fields. All of it
//! is decided a second time here, as simply as it can be said.
//!
//! Flags: `l` the peer is this machine, `u` the program listens where only this machine reaches it, `k` there is a publishing
//! key, `c` a web server says the headers under a name that is its own (CGI), `n` it says nothing.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use everpoll_protocol::{
    Access, Channel, Failure, Flavor, Fronts, Headers, Limits, Pattern, Patterns, Proxies, PublishKey,
    Publisher, RawRequest, Request, RequestError, ServeError, Subnet, Timestamp,
};

use super::request::Fields;
use super::token::is_pattern;

const NOW: u64 = 1_700_000_000_000_000;
const RECHECK: Duration = Duration::from_secs(30);
const SECRET: &str = "secret-0123456789";

/// What the web server in front says.
struct Says<'a> {
    channels: Option<&'a [u8]>,
    until: Option<&'a [u8]>,
}

impl Headers for Says<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match name {
            "x-everpoll-channels" => self.channels.map(Into::into),
            "x-everpoll-until" => self.until.map(Into::into),
            _ => None,
        }
    }
}

/// All that is asked.
struct Asked<'a> {
    flags: &'a [u8],
    peer: Option<IpAddr>,
    peers: Vec<Subnet>,
    trusted: &'a str,
    says: Says<'a>,
    path: &'a [u8],
    patterns: Vec<&'a str>,
    headers: Fields<'a>,
}

impl Asked<'_> {
    fn has(&self, flag: u8) -> bool {
        self.flags.contains(&flag)
    }

    fn raw<'a>(&'a self, method: &'a str, target: &'a [u8], body: &'a [u8]) -> RawRequest<'a> {
        RawRequest {
            peer: self.peer,
            peer_is_local: self.has(b'l'),
            now: Timestamp::from_micros(NOW),
            ..super::raw(method, target, &self.headers, body)
        }
    }
}

/// Rights are given to those who have them, in each of the ways.
pub(crate) fn check(input: &[u8]) {
    let mut lines = input.split(|b| *b == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let flags = next();
    let peer = std::str::from_utf8(next()).ok().and_then(|text| text.parse().ok());
    let trusted = std::str::from_utf8(next()).unwrap_or_default();
    let (channels, until, path) = (next(), next(), next());
    let patterns = std::str::from_utf8(next()).unwrap_or_default().split(' ').collect::<Vec<_>>();
    let silent = flags.contains(&b'n');
    let asked = Asked {
        flags,
        peer,
        peers: trusted.split(' ').filter_map(Subnet::parse).collect(),
        trusted,
        says: Says {
            channels: Some(channels).filter(|_| !silent),
            until: Some(until).filter(|until| !until.is_empty()),
        },
        path,
        patterns,
        headers: Fields::of(lines),
    };
    check_patterns(&asked);
    check_proxy(&asked);
    check_publisher(&asked);
    check_network(&asked);
}

/// A pattern is one or none, and means what begins as it does.
fn check_patterns(asked: &Asked<'_>) {
    for text in &asked.patterns {
        let Ok(pattern) = Pattern::parse(text) else {
            assert!(!is_pattern(text), "{text:?} is refused");
            continue;
        };
        assert!(is_pattern(text), "{text:?} is taken");
        assert_eq!(pattern.to_string(), *text);
        for name in ["cheese", "shop-1", text.trim_end_matches('*'), &asked.patterns.join(" ")] {
            let Ok(channel) = Channel::parse(name) else { continue };
            assert_eq!(pattern.matches(&channel), means(text, name), "{text:?} and {name:?}");
        }
    }
}

fn means(pattern: &str, name: &str) -> bool {
    let start = pattern.strip_suffix('*').unwrap_or(pattern);
    name.bytes().take(start.len()).eq(start.bytes()) && (pattern.ends_with('*') || name.len() == start.len())
}

fn check_proxy(asked: &Asked<'_>) {
    let proxies = Proxies {
        channels_header: "x-everpoll-channels".into(),
        until_header: "x-everpoll-until".into(),
        peers: asked.peers.clone(),
        recheck: RECHECK,
    };
    let limits = Limits { access: Access::Proxy(proxies), ..super::limits() };
    let target = [b"/e/", asked.path].concat();
    // Where a `?` or more than one `/` comes, it is about other things.
    if asked.path.iter().any(|b| matches!(b, b'/' | b'?')) {
        return;
    }
    let raw = match asked.has(b'c') {
        // What clients say under the same name does not count.
        true => RawRequest { web_server: Some(&asked.says), ..asked.raw("GET", &target, b"") },
        false => RawRequest { headers: &asked.says, ..asked.raw("GET", &target, b"") },
    };
    let parsed = Request::parse(&raw, &limits);
    let code = match &parsed {
        Ok(Request::Poll(poll)) => {
            assert!(poll.valid_for.is_some_and(|left| left <= RECHECK));
            let checked = Request::parse_of(&raw, &limits, limits.fronts.sender_of(&raw));
            let stale = checked == Err(Failure::Serve(ServeError::AccessStale));
            assert_eq!(stale, poll.came_too_early() && poll.flavor != Flavor::WebSocket);
            if poll.came_too_early() { "access_stale" } else { "ok" }
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            super::replies::check_error(error);
            error.code()
        }
    };
    let expected = expected_of_proxy(asked, &limits, &raw);
    // Where something else is wrong as well, that may be said, or who may read; but it is refused.
    assert!(code == expected || (expected == "another" && code != "ok"), "{code} and not {expected}");
}

/// What a poll under `access = "proxy"` is answered with.
fn expected_of_proxy(asked: &Asked<'_>, limits: &Limits, raw: &RawRequest<'_>) -> &'static str {
    // Anything else that is wrong with it is the affair of other targets.
    let open = Request::parse(raw, &Limits { access: Access::Open, ..limits.clone() });
    let Ok(Request::Poll(poll)) = open else { return "another" };
    let trusted = asked.has(b'c')
        || match asked.peer {
            None => asked.has(b'l'),
            Some(peer) => asked.trusted.split(' ').any(|network| is_within(peer, network)),
        };
    if !trusted {
        return "access_untrusted";
    }
    let Some(says) = asked.says.channels else { return "access_missing" };
    let mut patterns = Vec::new();
    for part in says.split(|b| *b == b',') {
        let Some(pattern) = decoded(part.trim_ascii()) else { return "access_malformed" };
        match pattern.as_str() {
            "" => {}
            pattern if is_pattern(pattern) => patterns.push(pattern.to_owned()),
            _ => return "access_malformed",
        }
    }
    let mut over = false;
    if let Some(until) = asked.says.until {
        let seconds = std::str::from_utf8(until).ok().and_then(|text| text.trim().parse::<f64>().ok());
        match seconds {
            Some(seconds) if (0.0..=253_402_300_799.0).contains(&seconds) => {
                let until = (seconds * 1e6) as u64;
                let recheck = u64::try_from(RECHECK.as_micros()).unwrap_or(u64::MAX);
                if until.saturating_add(recheck) <= NOW {
                    return "access_expired";
                }
                over = until <= NOW;
            }
            _ => return "access_malformed",
        }
    }
    let named = poll.channels.as_slice();
    match named.iter().all(|channel| patterns.iter().any(|pattern| means(pattern, channel.as_str()))) {
        true if over => "access_stale",
        true => "ok",
        false => "channel_forbidden",
    }
}

/// The text of which this is the percent-encoding; what is none stands for itself.
fn decoded(text: &[u8]) -> Option<String> {
    let hex = |b: &u8| char::from(*b).to_digit(16);
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((first, behind)) = rest.split_first() {
        match (first, behind) {
            (b'%', [a, b, after @ ..]) if hex(a).is_some() && hex(b).is_some() => {
                bytes.push((hex(a)? * 16 + hex(b)?) as u8);
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Whether an address is one of these, by its digits in base two.
fn is_within(address: IpAddr, network: &str) -> bool {
    let digits = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("{:032b}", u32::from(address)),
        IpAddr::V6(address) => format!("{:0128b}", u128::from(address)),
    };
    let (own, length) = network.split_once('/').map_or((network, None), |(own, bits)| (own, Some(bits)));
    let Ok(own) = own.parse::<IpAddr>().map(digits) else { return false };
    let address = digits(address.to_canonical());
    let length = match length {
        None => own.len(),
        Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().unwrap_or(usize::MAX),
        Some(_) => return false,
    };
    length <= own.len() && own.len() == address.len() && own[..length] == address[..length]
}

fn check_publisher(asked: &Asked<'_>) {
    let patterns = Patterns::parse(asked.patterns.iter().copied()).unwrap_or_default();
    let keys = match asked.has(b'k') {
        true => vec![
            PublishKey::new("other", "other-secret-0123456789", Patterns::all()),
            PublishKey::new("shop", SECRET, patterns),
        ],
        false => Vec::new(),
    };
    let publisher = Publisher::new(keys, asked.has(b'u'));
    let limits = Limits { publisher, ..super::limits() };
    let channel = String::from_utf8_lossy(asked.path);
    let body = serde_json::json!([
        {"channel": "cheese", "type": "t", "data": 0}, {"channel": channel, "type": "t", "data": 1}
    ]);
    let body = body.to_string();
    if body.len() > limits.publish_body_max {
        return;
    }
    let code = match Request::parse(&asked.raw("POST", b"/publish", body.as_bytes()), &limits) {
        Ok(Request::Publish(request)) => {
            assert_eq!(request.events[1].channel.as_str(), channel);
            "ok"
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            super::replies::check_error(&error);
            assert!(!error.to_string().contains(SECRET) || asked.path.windows(6).any(|six| six == b"secret"));
            if matches!(error, RequestError::InEvent { index: 0, .. }) { "first" } else { error.code() }
        }
    };
    let expected = expected_of_publisher(asked, &channel);
    assert!(code == expected || expected == "another", "{code} and not {expected}");
    let wrong = matches!(code, "publish_key_wrong" | "publish_not_local" | "first" | "publish_channel");
    assert!(expected != "another" || !wrong, "{code}");
}

/// What publishing to `cheese` and to this channel is answered with.
fn expected_of_publisher(asked: &Asked<'_>, channel: &str) -> &'static str {
    let text = |name: &str| {
        asked
            .headers
            .header(name)
            .filter(|v| !v.is_empty())
            .map(|value| String::from_utf8_lossy(&value).into_owned())
    };
    let presented = text("authorization").unwrap_or_default();
    let is = |secret: &str| {
        let mut words = presented.split_ascii_whitespace();
        let (scheme, key) = (words.next().unwrap_or_default(), words.next());
        let plain = presented.as_bytes().get(6) == Some(&b' ') && presented.starts_with(scheme);
        plain && scheme.eq_ignore_ascii_case("bearer") && key == Some(secret) && words.next().is_none()
    };
    let is_shop = asked.has(b'k') && is(SECRET);
    let loopback =
        |address: &str| address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    let all_loopback = |name: &str| {
        text(name).is_none_or(|all| {
            let mut parts: Vec<_> =
                all.split(',').map(|one| one.trim_matches(|c: char| c.is_ascii_whitespace())).collect();
            // A web server appends, also to nothing.
            if parts.len() > 1 && parts[0].is_empty() {
                parts.remove(0);
            }
            parts.into_iter().all(loopback)
        })
    };
    let local_page = || {
        let Some(origin) = text("origin") else { return true };
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        rest.is_some_and(|rest| {
            let host = match rest.strip_prefix('[') {
                Some(rest) => rest.split(']').next(),
                None => rest.split(':').next(),
            };
            host.is_some_and(|host| host.eq_ignore_ascii_case("localhost") || loopback(host))
        })
    };
    let is_local = asked.has(b'l')
        && asked.has(b'u')
        && text("forwarded").is_none()
        && all_loopback("x-forwarded-for")
        && all_loopback("x-real-ip")
        && local_page();
    if asked.has(b'k') {
        if !is_shop && !is("other-secret-0123456789") {
            return "publish_key_wrong";
        }
    } else if !is_local {
        return "publish_not_local";
    }
    let json = text("content-type").unwrap_or_default();
    if !json
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_matches(|c: char| c.is_ascii_whitespace())
        .eq_ignore_ascii_case("application/json")
    {
        return "not_json_content";
    }
    // One pattern that is none, and the settings would be refused; here the key has none then.
    let key_is_whole = asked.patterns.iter().all(|pattern| is_pattern(pattern));
    let may =
        |name: &str| !is_shop || (key_is_whole && asked.patterns.iter().any(|pattern| means(pattern, name)));
    if Channel::parse(channel).is_err() {
        return "another";
    }
    match (may("cheese"), may(channel)) {
        (false, _) => "first",
        (true, false) => "publish_channel",
        (true, true) => "ok",
    }
}

/// What is learned of a network counts for those in it, and who is in it cannot be made up from outside.
fn check_network(asked: &Asked<'_>) {
    let of = |raw: &RawRequest<'_>| match Request::parse(raw, &super::limits()) {
        Ok(Request::Poll(poll)) => Some(poll.network),
        _ => None,
    };
    let raw = asked.raw("GET", b"/e/cheese", b"");
    let Some(network) = of(&raw) else { return };
    // The same client by the same proxies, who note this address last.
    let noted = |address: &str| {
        let via = asked.headers.header("via").map(|via| [b"via:", &*via, b"\n"].concat());
        [via.unwrap_or_default(), format!("x-forwarded-for: 203.0.113.9 ,{address}").into_bytes()].concat()
    };
    let through = |address: &str, raw: &RawRequest<'_>| {
        let lines = noted(address);
        let headers = Fields::of(lines.split(|b| *b == b'\n'));
        of(&RawRequest { headers: &headers, ..*raw })
    };
    let Some(peer) = asked.peer else { return };
    // No web server is known: whatever the client says of whence it comes is a client's word.
    assert_eq!(through("198.51.100.1", &raw), Some(network));
    // With one at this address, the client is where that says, and so are the client's neighbours.
    let own = Subnet::parse(&peer.to_canonical().to_string()).expect("it is an address");
    let limits = Limits { fronts: Fronts::new(vec![own]), ..super::limits() };
    let behind = |address: IpAddr| {
        let lines = noted(&address.to_string());
        let headers = Fields::of(lines.split(|b| *b == b'\n'));
        match Request::parse(&RawRequest { headers: &headers, ..raw }, &limits) {
            Ok(Request::Poll(poll)) => Some(poll.network),
            _ => None,
        }
    };
    let neighbour = |address: IpAddr| match address {
        IpAddr::V4(address) => IpAddr::from((u32::from(address) ^ 0x80).to_be_bytes()),
        IpAddr::V6(address) => IpAddr::from((u128::from(address) ^ 0x80).to_be_bytes()),
    };
    for client in ["198.51.100.7", "2001:db8:9::7"].map(|text| text.parse::<IpAddr>().expect("it is one")) {
        // It would be the web server itself.
        if peer == client || peer == neighbour(client) {
            continue;
        }
        assert_eq!(behind(client), behind(neighbour(client)));
        let itself = RawRequest { peer: Some(client), ..raw };
        assert_eq!(behind(client), through("203.0.113.1", &itself));
    }
}
