//! The proxies that stand between a page and its server: real ones, with the settings that are met in the field.
//!
//! A [`Kind`] is a program with a configuration from `tests/proxies/`. Some are as their packages make them; the hostile
//! ones forget holds early, keep what must not be stored, answer two with one answer, or drop headers. Each has a *limit*,
//! the seconds of silence after which it gives up; a test that has little time lowers it.
//!
//! What a newcomer gets wrong: a *forward* proxy is asked for a whole URL (`GET http://host:port/path`) and goes anywhere;
//! a *reverse* proxy is asked like a server and knows the one behind it. [`Proxy::get`] asks as is right.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::http::{self, Address, Request};
use crate::process::Process;
use crate::{TestDir, ports, wait};

mod launch;

/// Varnish has its configuration compiled by a C compiler, all proxies start at once, and other tests run.
const STARTS_WITHIN: Duration = Duration::from_secs(120);

/// A proxy, with its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Squid, forward.
    Squid,
    /// Squid that stores everything, answers all who ask alike with one answer, and gives up early.
    SquidHostile,
    /// Tinyproxy, forward.
    Tinyproxy,
    /// Tinyproxy that drops most headers and gives up early.
    TinyproxyAnonymous,
    /// Privoxy, forward.
    Privoxy,
    /// E2guardian, forward: reads all content before it passes it on.
    E2guardian,
    /// Apache's mod_proxy, forward.
    ApacheForward,
    /// Apache's mod_proxy in front of a site: compresses and gives up early.
    ApacheReverse,
    /// HAProxy in front of a site.
    Haproxy,
    /// Varnish in front of a site.
    Varnish,
    /// Varnish that stores everything for five seconds.
    VarnishCache,
    /// nginx in front of a site with a bare `proxy_pass`.
    Nginx,
    /// nginx that compresses, stores everything for five seconds, and asks once for all who ask alike.
    NginxCache,
    /// Traffic Server in front of a site.
    Trafficserver,
}

/// A proxy to be started.
#[derive(Clone, Debug)]
pub struct ProxyStart {
    kind: Kind,
    origin: Address,
    limit: u32,
}

/// A running proxy, stopped on drop.
#[derive(Debug)]
pub struct Proxy {
    kind: Kind,
    origin: Address,
    address: Address,
    process: Process,
    // Behind the process, so that they go after it.
    directory: TestDir,
    _shared_memory: Option<SharedMemory>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Squid,
        Self::SquidHostile,
        Self::Tinyproxy,
        Self::TinyproxyAnonymous,
        Self::Privoxy,
        Self::E2guardian,
        Self::ApacheForward,
        Self::ApacheReverse,
        Self::Haproxy,
        Self::Varnish,
        Self::VarnishCache,
        Self::Nginx,
        Self::NginxCache,
        Self::Trafficserver,
    ];

    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Squid => "squid",
            Self::SquidHostile => "squid-hostile",
            Self::Tinyproxy => "tinyproxy",
            Self::TinyproxyAnonymous => "tinyproxy-anonymous",
            Self::Privoxy => "privoxy",
            Self::E2guardian => "e2guardian",
            Self::ApacheForward => "apache-forward",
            Self::ApacheReverse => "apache-reverse",
            Self::Haproxy => "haproxy",
            Self::Varnish => "varnish",
            Self::VarnishCache => "varnish-cache",
            Self::Nginx => "nginx",
            Self::NginxCache => "nginx-cache",
            Self::Trafficserver => "trafficserver",
        }
    }

    /// Whether it is asked for whole URLs.
    pub fn is_forward(self) -> bool {
        matches!(
            self,
            Self::Squid
                | Self::SquidHostile
                | Self::Tinyproxy
                | Self::TinyproxyAnonymous
                | Self::Privoxy
                | Self::E2guardian
                | Self::ApacheForward
        )
    }

    /// After how many seconds of silence it gives up unless the test says otherwise: its own default, or for the hostile
    /// ones 20, or 30 where that is what people write.
    pub fn usual_limit(self) -> u32 {
        match self {
            Self::Squid => 900,
            Self::SquidHostile | Self::TinyproxyAnonymous | Self::ApacheReverse => 20,
            Self::Tinyproxy => 600,
            Self::Privoxy => 300,
            Self::E2guardian => 61,
            Self::ApacheForward | Self::Varnish | Self::VarnishCache | Self::Nginx | Self::NginxCache => 60,
            Self::Haproxy | Self::Trafficserver => 30,
        }
    }
}

impl ProxyStart {
    /// Lets it give up after so many seconds of silence.
    #[must_use]
    pub fn limit(self, seconds: u32) -> Self {
        Self { limit: seconds, ..self }
    }

    /// Starts it and waits until the daemon answers through it.
    ///
    /// # Panics
    /// When it is not installed or that does not happen; with its log.
    #[track_caller]
    pub fn start(self) -> Proxy {
        let Self { kind, origin, limit } = self;
        let mut logs = String::new();
        for _ in 0..3 {
            let (directory, port) = (TestDir::new(), ports::free());
            let address = Address::local(port);
            let command = launch::command(
                kind,
                &launch::Places { directory: &directory, port, origin: &origin, limit },
            );
            let process = Process::start(kind.name(), command, directory.path());
            let _shared_memory = SharedMemory::of(kind, port);
            let mut proxy =
                Proxy { kind, origin: origin.clone(), address, process, directory, _shared_memory };
            let started = wait::try_until_some(STARTS_WITHIN, || {
                (!proxy.process.is_running() || proxy.answers()).then(|| proxy.process.is_running())
            });
            if started == Some(true) {
                return proxy;
            }
            // Perhaps the port was taken in between.
            logs = proxy.log();
        }
        panic!("{} does not start:\n{logs}", kind.name());
    }
}

impl Proxy {
    /// A proxy in front of a daemon that listens on TCP.
    pub fn before(origin: &Address, kind: Kind) -> ProxyStart {
        ProxyStart { kind, origin: origin.clone(), limit: kind.usual_limit() }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A GET that reaches the daemon when it is sent to [`address`](Self::address).
    pub fn get(&self, target: &str) -> Request {
        if !self.kind.is_forward() {
            return http::get(target);
        }
        http::get(&format!("http://{}{target}", self.origin)).header("Host", &self.origin.to_string())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.log(), error_log(&self.directory))
    }

    fn answers(&self) -> bool {
        self.get("/healthz").try_send(&self.address).is_ok_and(|reply| reply.status == 200)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- error log of {} ----\n{}", self.kind.name(), error_log(&self.directory));
        }
    }
}

fn error_log(directory: &TestDir) -> String {
    fs::read_to_string(directory.join("error.log")).unwrap_or_default()
}

/// What Squid leaves in the memory of the machine, however it ends.
#[derive(Debug)]
struct SharedMemory {
    service: String,
}

impl SharedMemory {
    fn of(kind: Kind, port: u16) -> Option<Self> {
        let is_squid = matches!(kind, Kind::Squid | Kind::SquidHostile);
        is_squid.then(|| Self { service: launch::squid_service(port) })
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        for part in ["metadata", "queues", "readers"] {
            let name = format!("{}-cf__{part}.shm", self.service);
            // It may have ended before it made them.
            let _ = fs::remove_file(Path::new("/dev/shm").join(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Daemon, Sqlite};

    #[test]
    fn daemon_is_reached_through_each_proxy() {
        let sqlite = Sqlite::new();
        let daemon = Daemon::on(sqlite.url()).start();
        let ids = daemon.publish(r#"{"channel":"cheese","type":"made","data":{}}"#);
        std::thread::scope(|scope| {
            for kind in Kind::ALL {
                let (daemon, ids) = (&daemon, &ids);
                scope.spawn(move || {
                    let proxy = Proxy::before(daemon.address(), kind).start();
                    let reply = proxy.get("/e/cheese?last_event_id=0").send(proxy.address());
                    let got: Vec<_> = reply.events().iter().map(|event| event.id).collect();
                    assert_eq!(&got, ids, "through {}", kind.name());
                });
            }
        });
    }

    #[test]
    fn limit_is_when_it_gives_up() {
        let sqlite = Sqlite::new();
        let daemon = Daemon::on(sqlite.url()).start();
        let proxy = Proxy::before(daemon.address(), Kind::Haproxy).limit(1).start();
        assert_eq!(proxy.get("/e/cheese").send(proxy.address()).status, 504);
    }
}
