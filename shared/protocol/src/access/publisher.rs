//! Who may publish over HTTP, and to which channels.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::Patterns;
use crate::rate::Bucket;
use crate::{Headers, NewEvent, Rate, RequestError, Timestamp};

/// One publishing key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishKey {
    /// What it is called in errors. Not secret.
    pub name: Box<str>,
    /// Its SHA-256: the key itself is not needed to compare.
    digest: [u8; 32],
    /// Where it may publish.
    pub channels: Patterns,
    /// How many events it may publish; `None` is as many as all keys may, and `Some(None)` is without end.
    pub rate: Option<Option<Rate>>,
}

impl PublishKey {
    /// The key with this secret text.
    #[must_use]
    pub fn new(name: &str, secret: &str, channels: Patterns) -> Self {
        Self { name: name.into(), digest: sha256(secret.as_bytes()), channels, rate: None }
    }

    /// The key with a rate of its own.
    #[must_use]
    pub fn with_rate(self, rate: Option<Option<Rate>>) -> Self {
        Self { rate, ..self }
    }

    /// Whether it may publish all of these.
    ///
    /// # Errors
    ///
    /// [`RequestError::PublishChannel`] with the first channel that is not its own, and where it stands.
    pub(crate) fn check(&self, events: &[NewEvent]) -> Result<(), RequestError> {
        let Some(index) = events.iter().position(|event| !self.channels.matches(&event.channel)) else {
            return Ok(());
        };
        let error =
            RequestError::PublishChannel { key: self.name.clone(), channel: events[index].channel.clone() };
        Err(match events.len() {
            1 => error,
            _ => RequestError::InEvent { index, source: Box::new(error) },
        })
    }
}

impl fmt::Debug for PublishKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublishKey({}: {})", self.name, self.channels)
    }
}

/// Who may publish over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    keys: Arc<[PublishKey]>,
    /// Whether there were keys at the start: when the last one is taken away, publishing does not become free.
    had_keys: bool,
    /// Whether the program listens only where this machine alone can reach it.
    listens_locally: bool,
    /// How many events each key may publish that has no rate of its own.
    rate: Option<Rate>,
    spent: Spent,
}

/// What each key has published, by its name; so that it stays when keys are exchanged. Only keys with a rate are in it. Clones share
/// it.
#[derive(Clone, Debug, Default)]
struct Spent(Arc<Mutex<HashMap<Box<str>, Bucket>>>);

impl PartialEq for Spent {
    /// It is no part of who may.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Spent {}

impl Publisher {
    /// With these keys; without any, only this machine may publish, and only where it `listens_locally`.
    #[must_use]
    pub fn new(keys: Vec<PublishKey>, listens_locally: bool) -> Self {
        Self {
            had_keys: !keys.is_empty(),
            keys: keys.into(),
            listens_locally,
            rate: None,
            spent: Spent::default(),
        }
    }

    /// With a rate for each key that has none of its own, and for this machine where no key is set; `None` is without end.
    #[must_use]
    pub fn with_rate(self, rate: Option<Rate>) -> Self {
        Self { rate, ..self }
    }

    /// Counts events that are about to be published, with this key or without one.
    ///
    /// # Errors
    ///
    /// [`RequestError::PublishRate`].
    pub(crate) fn count(
        &self,
        key: Option<&PublishKey>,
        events: usize,
        now: Timestamp,
    ) -> Result<(), RequestError> {
        let own = key.and_then(|key| key.rate);
        let Some(rate) = own.unwrap_or(self.rate) else { return Ok(()) };
        // A name is not empty.
        let name = key.map_or("", |key| &*key.name);
        let mut spent = self.spent.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match spent.get_mut(name) {
            Some(bucket) => bucket,
            None => spent.entry(name.into()).or_default(),
        };
        bucket.take(rate, events as u64, now).map_err(|wait| RequestError::PublishRate {
            who: match key {
                Some(key) => format!("publishing key {:?}", key.name).into(),
                None => "this machine".into(),
            },
            per_second: rate.per_second,
            seconds: u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
        })
    }

    /// The same, in place of another: where that one had keys, publishing does not become free.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let had_keys = self.had_keys || before.had_keys;
        // What each key has published stays counted.
        Self { had_keys, spent: before.spent.clone(), ..self }
    }

    /// Whether the program listens only where this machine alone can reach it.
    #[must_use]
    pub fn listens_locally(&self) -> bool {
        self.listens_locally
    }

    /// Whether a request from this peer may publish, and with which key.
    ///
    /// Without a key, a request that a proxy passed on for somebody else is not from this machine, and neither is one
    /// that a browser sends for a page of another site.
    pub(crate) fn admit(
        &self,
        headers: &dyn Headers,
        peer_is_local: bool,
    ) -> Result<Option<PublishKey>, RequestError> {
        if self.had_keys || !self.keys.is_empty() {
            return presented(headers, &self.keys).map(Some);
        }
        // What is empty says nothing: CGI hosts leave it out.
        let header = |name| headers.header(name).filter(|value| !value.trim_ascii().is_empty());
        let local = peer_is_local
            && self.listens_locally
            && header("forwarded").is_none()
            && ["x-forwarded-for", "x-real-ip"].iter().all(|name| {
                header(name).is_none_or(|all| {
                    let mut parts = all.split(|b| *b == b',').map(<[u8]>::trim_ascii).peekable();
                    let first = parts.next_if(|first| first.is_empty());
                    // What was empty before a web server appended to it begins with nothing; nothing else may be empty.
                    let appended = first.is_none() || parts.peek().is_some();
                    appended && parts.all(is_local_address)
                })
            })
            && header("origin").is_none_or(|origin| is_local_origin(&origin));
        if local { Ok(None) } else { Err(RequestError::PublishNotLocal) }
    }
}

/// The key that a request presents.
fn presented(headers: &dyn Headers, keys: &[PublishKey]) -> Result<PublishKey, RequestError> {
    let header = headers.header("authorization").unwrap_or_default();
    let text = super::bearer(&header).ok_or(RequestError::PublishKeyWrong)?;
    // Digests are compared, so that not even the length of a key shows in the time; and all of them, so that it does not show
    // which one is right.
    let digest = sha256(text);
    let mut found = None;
    for key in keys {
        if bool::from(key.digest.ct_eq(&digest)) {
            found = Some(key);
        }
    }
    found.cloned().ok_or(RequestError::PublishKeyWrong)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn is_local_address(text: &[u8]) -> bool {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<std::net::IpAddr>().ok());
    parsed.is_some_and(|address| address.to_canonical().is_loopback())
}

/// Whether a page's origin, such as `http://localhost:8377`, is this machine.
fn is_local_origin(origin: &[u8]) -> bool {
    let Some(rest) = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://")) else {
        return false;
    };
    let host = match rest.strip_prefix(b"[") {
        Some(rest) => rest.split(|b| *b == b']').next(),
        None => rest.split(|b| *b == b':').next(),
    };
    host.is_some_and(|host| host.eq_ignore_ascii_case(b"localhost") || is_local_address(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::TestHeaders;

    struct Authorization(&'static str);

    impl Headers for Authorization {
        fn header(&self, name: &str) -> Option<std::borrow::Cow<'_, [u8]>> {
            (name == "authorization").then(|| self.0.as_bytes().into())
        }
    }

    fn key(name: &str, secret: &str, channels: &[&str]) -> PublishKey {
        PublishKey::new(name, secret, Patterns::parse(channels.iter().copied()).unwrap())
    }

    fn event(channel: &str) -> NewEvent {
        NewEvent::parse(channel, "t", "1", None, None).unwrap()
    }

    #[test]
    fn key_admits_from_anywhere_and_nothing_else_does() {
        let keys = vec![key("a", "secret-0123456789", &["*"]), key("b", "another-0123456789", &["*"])];
        let publisher = Publisher::new(keys, true);
        let name = |value| publisher.admit(&Authorization(value), false).ok().flatten().map(|key| key.name);
        assert_eq!(name("Bearer secret-0123456789").as_deref(), Some("a"));
        assert_eq!(name("bearer  another-0123456789 ").as_deref(), Some("b"));
        for wrong in
            ["Bearer secret-012345678", "Bearer secret-0123456788", "Basic secret-0123456789", "Bearer", ""]
        {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert!(publisher.admit(&TestHeaders(&[]), true).is_err());
        assert!(!format!("{publisher:?}").contains("0123"));
    }

    #[test]
    fn last_key_that_is_taken_away_opens_nothing() {
        let old = Publisher::new(vec![key("old", "old-0123456789ab", &["*"])], true);
        let admits = |publisher: &Publisher, value| publisher.admit(&Authorization(value), true).is_ok();
        assert!(admits(&old, "Bearer old-0123456789ab"));
        let new = Publisher::new(vec![key("new", "new-0123456789ab", &["*"])], true).after(&old);
        assert!(!admits(&new, "Bearer old-0123456789ab") && admits(&new, "Bearer new-0123456789ab"));
        let none = Publisher::new(Vec::new(), true).after(&new);
        assert!(!admits(&none, "Bearer new-0123456789ab") && none.admit(&TestHeaders(&[]), true).is_err());
    }

    #[test]
    fn rate_is_each_keys_own_and_stays_when_keys_are_exchanged() {
        let rate = |per_second, burst| Some(Rate { per_second, burst });
        let keys = || {
            vec![
                key("a", "a-0123456789abcdef", &["*"]),
                key("b", "b-0123456789abcdef", &["*"]).with_rate(Some(rate(1, 10))),
                key("c", "c-0123456789abcdef", &["*"]).with_rate(Some(None)),
            ]
        };
        let publisher = Publisher::new(keys(), true).with_rate(rate(2, 4));
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let count_by = |publisher: &Publisher, name: &str, events| {
            let key = publisher.keys.iter().find(|key| &*key.name == name).cloned();
            publisher.count(key.as_ref(), events, now)
        };
        let count = |name: &str, events| count_by(&publisher, name, events);
        assert_eq!(count("a", 4), Ok(()));
        let error = count("a", 3).unwrap_err();
        assert_eq!((error.code(), error.status()), ("publish_rate", 429));
        assert!(error.to_string().starts_with("publishing key \"a\" may publish 2 events a second; nothing"));
        assert!(error.to_string().contains("again in 2 s"), "{error}");
        assert_eq!((count("b", 10), count("c", 100_000)), (Ok(()), Ok(())));
        let exchanged = Publisher::new(keys(), true).with_rate(rate(2, 4)).after(&publisher);
        assert!(["a", "b"].iter().all(|name| count_by(&exchanged, name, 1).is_err()));
        // Where no key is set, this machine is counted.
        assert_eq!(publisher.count(None, 4, now), Ok(()));
        assert!(publisher.count(None, 1, now).unwrap_err().to_string().starts_with("this machine may"));
        assert_eq!(Publisher::new(Vec::new(), true).count(None, 1_000_000, now), Ok(()));
    }

    #[test]
    fn channel_that_is_not_the_keys_is_named_with_its_place() {
        let shop = key("shop", "secret-0123456789", &["shop-*"]);
        assert_eq!(shop.check(&[event("shop-1"), event("shop-2")]), Ok(()));
        let error = shop.check(&[event("crm-1")]).unwrap_err();
        assert_eq!((error.code(), error.status()), ("publish_channel", 403));
        assert!(error.to_string().contains("\"shop\"") && error.to_string().contains("\"crm-1\""), "{error}");
        let error = shop.check(&[event("shop-1"), event("crm-1")]).unwrap_err();
        assert!(error.to_string().starts_with("event 1 "), "{error}");
        assert_eq!((error.code(), error.status()), ("publish_channel", 403));
    }

    #[test]
    fn without_a_key_only_this_machine_itself_is_admitted() {
        let publisher = Publisher::new(Vec::new(), true);
        let admit = |headers: &'static [(&'static str, &'static str)]| {
            publisher.admit(&TestHeaders(headers), true).is_ok()
        };
        assert!(admit(&[]));
        assert!(admit(&[("x-forwarded-for", "127.0.0.1, ::1")]));
        assert!(!admit(&[("x-forwarded-for", "127.0.0.1, 192.0.2.7")]));
        assert!(admit(&[("x-forwarded-for", ", 127.0.0.1")]));
        for far in [", 192.0.2.7", ",", "127.0.0.1,", ", ,127.0.0.1"] {
            assert!(!admit(Box::leak(Box::new([("x-forwarded-for", far)]))), "{far}");
        }
        assert!(!admit(&[("x-real-ip", "192.0.2.7")]));
        assert!(!admit(&[("forwarded", "for=127.0.0.1")]));
        assert!(admit(&[("forwarded", ""), ("x-real-ip", " "), ("origin", "")]));
        assert!(admit(&[("origin", "http://localhost:8377")]));
        assert!(admit(&[("origin", "http://[::1]:8377")]));
        assert!(!admit(&[("origin", "http://localhost.example")]));
        assert!(!admit(&[("origin", "https://shop.example")]));
        assert!(!admit(&[("origin", "null")]));
        assert!(publisher.admit(&TestHeaders(&[]), false).is_err());
        assert!(Publisher::new(Vec::new(), false).admit(&TestHeaders(&[]), true).is_err());
    }
}
