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

/// One step of a page may wait for a watchdog, a pause that it was told, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One page in each engine.
pub(crate) struct Pages {
    pages: Vec<(Engine, Host)>,
}

/// Publishes numbered events, and remembers them.
pub(crate) struct Publisher {
    address: Address,
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
        Self { address: address.clone(), published: Vec::new() }
    }

    /// How many events there are.
    pub(crate) fn count(&self) -> usize {
        self.published.len()
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
        let text = format!("{} {}", self.count(), TEXTS[self.count() % TEXTS.len()]);
        let event = json!({"channel": "cheese", "type": kind, "data": {"text": text}, "key": format!("{}", self.count())});
        // A publish that the daemon may have had in hand when it died is sent again, as nginx says; the key makes it one.
        let id = wait::until_some("the publish is answered with 201", wait::PATIENCE, || {
            let reply = http::post_json("/publish", event.to_string()).try_send(&self.address).ok()?;
            (reply.status == 201).then(|| reply.json()["ids"][0].as_u64().expect("an id"))
        });
        self.published.push(format!("event {id} {kind} {text}"));
    }
}

impl Pages {
    /// Pages of the long-standing interface, which know nothing of the client.
    #[track_caller]
    pub(crate) fn old(address: &Address) -> Self {
        Self::start(&["tests/ie/scripts/old-page.js"], address, &[])
    }

    #[track_caller]
    fn start(scripts: &[&str], address: &Address, arguments: &[(&str, &str)]) -> Self {
        let pages = Engine::ALL.map(|engine| (engine, page(engine, scripts, address, arguments)));
        Self { pages: pages.into() }
    }

    /// Waits until each page has printed this.
    #[track_caller]
    pub(crate) fn wait_until_all_say(&self, text: &str) {
        wait::until(&format!("all pages have printed {text:?}"), PATIENCE, || {
            self.pages.iter().all(|(_, page)| page.log().contains(text))
        });
    }

    /// Waits until each page has got all that was published.
    #[track_caller]
    pub(crate) fn wait_until_read(&self, publisher: &Publisher) {
        let read = || self.pages.iter().all(|(_, page)| events(&page.log()).len() >= publisher.count());
        if wait::try_until_some(PATIENCE, || read().then_some(())).is_none() {
            for (engine, page) in &self.pages {
                eprintln!("{engine:?} has {} of {} events", events(&page.log()).len(), publisher.count());
            }
            panic!("not all pages have all events after {PATIENCE:?}");
        }
    }

    /// Waits until all have ended, and judges.
    #[track_caller]
    pub(crate) fn finish(self, publisher: &Publisher) {
        for (engine, page) in self.pages {
            let log = page.finish();
            assert_eq!(events(&log), publisher.published, "{engine:?}:\n{log}");
        }
    }
}

#[track_caller]
fn page(engine: Engine, scripts: &[&str], address: &Address, arguments: &[(&str, &str)]) -> Host {
    let (url, name) = (format!("http://{address}/e"), format!("{engine:?}"));
    let mut all = vec![("url", url.as_str()), ("channel", "cheese"), ("name", name.as_str())];
    all.extend(arguments);
    Host::start(engine, scripts, &all)
}

/// The lines about events.
fn events(log: &str) -> Vec<&str> {
    // Not `lines`: that takes a carriage return away as well, which may be part of a text.
    log.split('\n').filter(|line| line.starts_with("event ")).collect()
}
