//! Pages, nginx, two daemons, the fallback, PostgreSQL and Redis, and a cable between each two.

use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use everpoll_tests::database::Postgres;
use everpoll_tests::http::Address;
use everpoll_tests::link::Link;
use everpoll_tests::redis::Redis;
use everpoll_tests::{Daemon, Database, Fallback, Process, WebServer, process};
use everpoll_verify::Fault;
use rustix::process::Signal;

/// How long something stays broken.
const KILLED: Duration = Duration::from_secs(3);
const CUT: Duration = Duration::from_secs(2);
const FROZEN: Duration = Duration::from_secs(5);

type Shared<T> = Arc<Mutex<T>>;

/// All that runs. Fields are dropped from top to bottom.
pub(super) struct Stage {
    links: Vec<(&'static str, Shared<Link>)>,
    nginx: Shared<WebServer>,
    daemons: [Shared<Daemon>; 2],
    fallback: Shared<Fallback>,
    redis: Shared<Redis>,
    postgres: Shared<Postgres>,
}

impl Stage {
    /// Starts everything on a migrated database of `postgres`.
    pub(super) fn start(postgres: Postgres, database: &Database) -> Self {
        let redis = Redis::start();
        let mut links = Vec::new();
        // Returns where it begins.
        let mut link = |name: &'static str, to: &Address| {
            let link = Link::to(to);
            let address = link.address();
            links.push((name, shared(link)));
            address
        };
        let server = Address::local(postgres.port());
        let redis_link = link("daemons and Redis", &redis.address());
        let daemons = ["daemon 1 and PostgreSQL", "daemon 2 and PostgreSQL"].map(|name| {
            let url = through(&link(name, &server), database);
            let redis = format!("redis://{redis_link}");
            // After a start the window is filled with what is there; these builds are slow, and the log grows all the time.
            let window = 4 * 1024 * 1024;
            Daemon::on(url)
                .setting("EVERPOLL_REDIS_URL", redis)
                .setting("EVERPOLL_WINDOW_BYTES", window)
                .start()
        });
        let url = through(&link("fallback and PostgreSQL", &server), database);
        let fallback = Fallback::on(url).start();
        link("publishers and PostgreSQL", &server);
        link("publishers and Redis", &redis.address());
        let doors = [
            link("nginx and daemon 1", daemons[0].address()),
            link("nginx and daemon 2", daemons[1].address()),
        ];
        let to_fallback = link("nginx and fallback", fallback.address());
        let both = format!("server {} max_fails=0;\n    server {} max_fails=0;", doors[0], doors[1]);
        let one = format!("server {} max_fails=0;", doors[0]);
        let nginx = WebServer::nginx_with(&doors[0], &to_fallback, |text| {
            // One browser's requests meet at one daemon, so that it sees when a place is taken.
            let polls = "upstream everpoll_polls {\n    hash $uri consistent;";
            text.replace("upstream everpoll_polls {", polls).replace(&one, &both)
        });
        link("pages and nginx", nginx.address());
        Self {
            links,
            nginx: shared(nginx),
            daemons: daemons.map(shared),
            fallback: shared(fallback),
            redis: shared(redis),
            postgres: shared(postgres),
        }
    }

    /// Where this cable begins.
    fn link(&self, name: &str) -> Address {
        let (_, link) = self.links.iter().find(|(known, _)| *known == name).expect("it was laid");
        lock(link).address()
    }

    /// Where pages ask.
    pub(super) fn pages(&self) -> String {
        format!("http://{}", self.link("pages and nginx"))
    }

    /// Where publishers write.
    pub(super) fn database_url(&self, database: &Database) -> String {
        through(&self.link("publishers and PostgreSQL"), database)
    }

    /// What publishers tell of each event.
    pub(super) fn redis_url(&self) -> String {
        format!("redis://{}", self.link("publishers and Redis"))
    }

    /// What all have logged.
    pub(super) fn logs(&self) -> String {
        let daemons = self.daemons.each_ref().map(|daemon| lock(daemon).log());
        format!("{}\n{}\n{}", daemons[0], daemons[1], lock(&self.fallback).log())
    }

    /// All that is broken.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (daemon, name) in self.daemons.iter().zip(["daemon 1", "daemon 2"]) {
            let (kill, again) = (Daemon::kill_9, Daemon::start_again_unready);
            faults.push(broken("kill -9 a daemon", KILLED, daemon, kill, again));
            faults.push(broken("restart a daemon", Duration::ZERO, daemon, restart_daemon, nothing));
            faults.push(frozen(&format!("freeze {name}"), daemon, Daemon::process));
        }
        let Self { fallback, redis, postgres, nginx, .. } = self;
        let (kill, again) = (Fallback::kill_9, Fallback::start_again);
        faults.push(broken("kill -9 the fallback", KILLED, fallback, kill, again));
        faults.push(broken("restart the fallback", Duration::ZERO, fallback, restart_fallback, nothing));
        faults.push(frozen("freeze the fallback", fallback, Fallback::process));
        faults.push(broken("kill -9 Redis", KILLED, redis, Redis::kill_9, Redis::start_again));
        faults.push(broken("freeze Redis", FROZEN, redis, |redis| redis.freeze(), |redis| redis.thaw()));
        let (stop, again) =
            (|server: &mut Postgres| server.stop_immediate(), |server: &mut Postgres| server.start_again());
        faults.push(broken("stop PostgreSQL (immediate)", KILLED, postgres, stop, again));
        faults.push(broken(
            "freeze PostgreSQL",
            FROZEN,
            postgres,
            |server| server.freeze(),
            |server| server.thaw(),
        ));
        // Its master starts another.
        let kill = |nginx: &mut WebServer| signal_workers(nginx, "KILL", 1);
        faults.push(broken("kill -9 an nginx worker", Duration::ZERO, nginx, kill, nothing));
        let stop = |nginx: &mut WebServer| signal_workers(nginx, "STOP", 99);
        let go_on = |nginx: &mut WebServer| signal_workers(nginx, "CONT", 99);
        faults.push(broken("freeze nginx", FROZEN, nginx, stop, go_on));
        for (name, link) in &self.links {
            let hole = format!("black hole: {name}");
            faults.push(broken(&format!("cut {name}"), CUT, link, |link| link.cut(), |link| link.mend()));
            faults.push(broken(&hole, FROZEN, link, |link| link.black_hole(), |link| link.mend()));
        }
        faults
    }
}

/// Something that is done to a program or a cable, and mended.
fn broken<T: Send + 'static>(
    name: &str,
    lasts: Duration,
    what: &Shared<T>,
    strike: impl Fn(&mut T) + Send + 'static,
    mend: impl Fn(&mut T) + Send + 'static,
) -> Fault {
    let (struck, mended) = (what.clone(), what.clone());
    Fault {
        name: name.to_owned(),
        strike: Box::new(move || {
            strike(&mut lock(&struck));
            Ok(())
        }),
        mend: Some(Box::new(move || {
            mend(&mut lock(&mended));
            Ok(())
        })),
        lasts,
    }
}

/// What mends itself.
fn nothing<T>(_: &mut T) {}

/// SIGSTOP, and SIGCONT.
fn frozen<T: Send + 'static>(name: &str, program: &Shared<T>, process: fn(&mut T) -> &mut Process) -> Fault {
    let signal = move |signal| move |program: &mut T| process(program).signal(signal);
    broken(name, FROZEN, program, signal(Signal::STOP), signal(Signal::CONT))
}

fn restart_daemon(daemon: &mut Daemon) {
    daemon.stop();
    // Where the disk stands still for a while, it is not ready for as long; clients and publishers have to bear that.
    daemon.start_again_unready();
}

fn restart_fallback(fallback: &mut Fallback) {
    fallback.stop();
    fallback.start_again();
}

/// Sends a signal to so many workers of nginx.
fn signal_workers(nginx: &mut WebServer, signal: &str, most: usize) {
    let master = nginx.process().id().to_string();
    let mut list = Command::new("ps");
    list.args(["-o", "pid=", "--ppid", &master]);
    let (_, workers, _) = process::run(list, b"");
    let mut kill = Command::new("kill");
    kill.arg(format!("-{signal}")).args(workers.split_whitespace().take(most));
    // One may just have ended.
    process::run(kill, b"");
}

/// The database, asked through a cable.
fn through(link: &Address, database: &Database) -> String {
    format!("postgres://postgres@{link}/{}", database.name())
}

fn shared<T>(value: T) -> Shared<T> {
    Arc::new(Mutex::new(value))
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
