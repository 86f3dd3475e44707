//! Pages of all three engines on one channel, and the judge: each event once, in order, with its text unharmed.

use std::time::Duration;

use everpoll_tests::http::{self, Address};
use everpoll_tests::{Daemon, Fallback, TestDir, WebServer, wait};
use serde_json::json;

use super::wine::{Engine, Host};
use crate::site::Store;

/// What must arrive as it was sent: umlauts, the line separators that JavaScript breaks at, beyond 16 bits, markup.
const TEXTS: [&str; 6] = [
    "plain",
    "Käse, groß, Ärger: äöüß€",
    "a\u{2028}b\u{2029}c\u{85}d\u{feff}e",
    "😀 👩‍👩‍👧 𐍈",
    "</script><!-- & \"quoted\" 'too' \\u0041 \\",
    "\t\u{1} \u{7f} \u{ffff} %u00e4",
];

/// The client as it is shipped.
pub(crate) const CLIENT: &str = "shared/client/dist/everpoll.min.js";

/// What pages read, where nothing else is said.
const CHANNEL: &str = "cheese";

/// How long a publisher waits before it sends again what failed.
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

/// One step of a page may wait for a watchdog, a pause that it was told, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One page in each engine.
pub(crate) struct Pages {
    /// With what each is called when it fails.
    pages: Vec<(String, Host)>,
}

/// Publishes numbered events, and remembers them.
pub(crate) struct Publisher {
    address: Address,
    channel: String,
    /// What a page prints about each event.
    published: Vec<String>,
}

/// nginx with daemon and fallback behind it. Fields are dropped from top to bottom.
pub(crate) struct Served {
    nginx: WebServer,
    _fallback: Fallback,
    pub(crate) daemon: Daemon,
    _store: Store,
    _sockets: TestDir,
}

impl Served {
    /// As the shipped configuration has it.
    pub(crate) fn by_nginx(store: Store) -> Self {
        let sockets = TestDir::new();
        let daemon = Daemon::on(store.url()).at(&Address::Unix(sockets.join("daemon.sock"))).start();
        let fallback = Fallback::on(store.url()).start();
        let nginx = WebServer::nginx(daemon.address(), fallback.address());
        Self { nginx, _fallback: fallback, daemon, _store: store, _sockets: sockets }
    }

    /// Where pages and publishers ask.
    pub(crate) fn address(&self) -> &Address {
        self.nginx.address()
    }
}

impl Publisher {
    /// Over HTTP to the daemon, or to nginx.
    pub(crate) fn to(address: &Address) -> Self {
        Self::on(CHANNEL, address)
    }

    /// On another channel than the usual one.
    pub(crate) fn on(channel: &str, address: &Address) -> Self {
        Self { address: address.clone(), channel: channel.to_owned(), published: Vec::new() }
    }

    /// How many events there are.
    pub(crate) fn count(&self) -> usize {
        self.published.len()
    }

    /// Publishes events, one by one, until there are so many.
    #[track_caller]
    pub(crate) fn publish_up_to(&mut self, count: usize) {
        while self.count() < count {
            self.publish();
        }
    }

    /// Publishes the next event.
    #[track_caller]
    pub(crate) fn publish(&mut self) {
        self.publish_as("made");
    }

    /// Publishes the event after which pages end.
    #[track_caller]
    pub(crate) fn publish_last(&mut self) {
        self.publish_as("last");
    }

    #[track_caller]
    fn publish_as(&mut self, kind: &str) {
        let number = self.count();
        let text = format!("{number} {}", TEXTS[number % TEXTS.len()]);
        let data = json!({"text": text});
        let event = json!({"channel": self.channel, "type": kind, "data": data, "key": number.to_string()});
        let request = http::post_json("/publish", event.to_string());
        let mut last = String::new();
        // A publish that the daemon may have had in hand when it died is sent again, as nginx says; the key makes it one.
        let id = wait::try_until_some(wait::PATIENCE, || match request.try_send(&self.address) {
            Ok(reply) if reply.status == 201 => reply.json()["ids"][0].as_u64(),
            other => {
                last = format!("{other:?}");
                std::thread::sleep(BETWEEN_TRIES);
                None
            }
        });
        let Some(id) = id else { panic!("event {number} is not published: {last}") };
        self.published.push(format!("event {id} {kind} {text}"));
    }
}

impl Pages {
    /// Pages with the client as it is shipped.
    #[track_caller]
    pub(crate) fn with_client(address: &Address) -> Self {
        Self::behind([address; 3], CHANNEL)
    }

    /// Pages with the client on a channel, each at an address of its own.
    #[track_caller]
    pub(crate) fn behind(addresses: [&Address; 3], channel: &str) -> Self {
        Self::start(&[CLIENT, "tests/ie/scripts/page.js"], addresses, channel)
    }

    /// Pages of the long-standing interface, which know nothing of the client.
    #[track_caller]
    pub(crate) fn old(address: &Address) -> Self {
        Self::start(&["tests/ie/scripts/old-page.js"], [address; 3], CHANNEL)
    }

    #[track_caller]
    fn start(scripts: &[&str], addresses: [&Address; 3], channel: &str) -> Self {
        let pages = Engine::ALL.into_iter().zip(addresses).map(|(engine, address)| {
            let (url, name) = (format!("http://{address}/e"), format!("{engine:?}"));
            let arguments = [("url", url.as_str()), ("channel", channel), ("name", &name)];
            (format!("{name} on {channel} by {}", scripts[0]), Host::start(engine, scripts, &arguments))
        });
        Self { pages: pages.collect() }
    }

    /// These and those.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.pages.extend(others.pages);
        self
    }

    /// Waits until each page has a cursor, so that it gets what is published from now on.
    #[track_caller]
    pub(crate) fn wait_until_asking(&self) {
        wait::until("all pages ask", PATIENCE, || {
            self.pages.iter().all(|(_, page)| page.log().contains("asking\n"))
        });
    }

    /// Waits until each page has got all that was published.
    #[track_caller]
    pub(crate) fn wait_until_read(&self, publisher: &Publisher) {
        let behind = |page: &Host| events(&page.log()).len() < publisher.count();
        let read = || !self.pages.iter().any(|(_, page)| behind(page));
        if wait::try_until_some(PATIENCE, || read().then_some(())).is_none() {
            let late = self.pages.iter().filter(|(_, page)| behind(page));
            let late: Vec<_> = late.map(|(name, page)| format!("{name}:\n{}", page.log())).collect();
            panic!(
                "after {PATIENCE:?} not all {} events were read by {}",
                publisher.count(),
                late.join("\n")
            );
        }
    }

    /// Waits until all have ended, and judges. Returns how many requests of each have failed.
    #[track_caller]
    pub(crate) fn finish(self, publisher: &Publisher) -> Vec<usize> {
        let finish = |(name, page): (String, Host)| {
            let log = page.finish();
            assert_eq!(events(&log), publisher.published, "{name}:\n{log}");
            log.lines().filter(|line| line.contains(" s: failed ")).count()
        };
        self.pages.into_iter().map(finish).collect()
    }
}

/// The lines about events.
fn events(log: &str) -> Vec<&str> {
    // Not `lines`: that takes a carriage return away as well, which may be part of a text.
    log.split('\n').filter(|line| line.starts_with("event ")).collect()
}
