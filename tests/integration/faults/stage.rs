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
    links: Vec<(&'static str, Arc<Link>)>,
    nginx: Shared<WebServer>,
    daemons: [Shared<Daemon>; 2],
    fallback: Shared<Fallback>,
    redis: Shared<Redis>,
    postgres: Postgres,
}

impl Stage {
    /// Starts everything on a migrated database of `postgres`.
    pub(super) fn start(postgres: Postgres, database: &Database) -> Self {
        let redis = Redis::start();
        let mut links = Vec::new();
        let mut link = |name: &'static str, to: &Address| {
            let link = Arc::new(Link::to(to));
            links.push((name, link.clone()));
            link
        };
        let server = Address::local(postgres.port());
        let redis_link = link("daemons and Redis", &redis.address());
        let daemons = ["daemon 1 and PostgreSQL", "daemon 2 and PostgreSQL"].map(|name| {
            let url = through(&link(name, &server), database);
            let redis = format!("redis://127.0.0.1:{}", redis_link.port());
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
        let both = format!(
            "server {} max_fails=0;\n    server {} max_fails=0;",
            doors[0].address(),
            doors[1].address()
        );
        let one = format!("server {} max_fails=0;", doors[0].address());
        let nginx = WebServer::nginx_with(&doors[0].address(), &to_fallback.address(), |text| {
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
            postgres,
        }
    }

    fn link(&self, name: &str) -> &Arc<Link> {
        &self.links.iter().find(|(known, _)| *known == name).expect("it was laid").1
    }

    /// Where pages ask.
    pub(super) fn pages(&self) -> String {
        format!("http://{}", self.link("pages and nginx").address())
    }

    /// Where publishers write.
    pub(super) fn database_url(&self, database: &Database) -> String {
        through(self.link("publishers and PostgreSQL"), database)
    }

    /// What publishers tell of each event.
    pub(super) fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.link("publishers and Redis").port())
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
            let (kill, again) = (daemon.clone(), daemon.clone());
            faults.push(fault(
                "kill -9 a daemon",
                KILLED,
                move || lock(&kill).kill_9(),
                move || lock(&again).start_again_unready(),
            ));
            let restart = daemon.clone();
            faults.push(fault("restart a daemon", Duration::ZERO, move || restart_daemon(&restart), || {}));
            faults.push(frozen(&format!("freeze {name}"), daemon, Daemon::process));
        }
        let (kill, again) = (self.fallback.clone(), self.fallback.clone());
        faults.push(fault(
            "kill -9 the fallback",
            KILLED,
            move || lock(&kill).kill_9(),
            move || lock(&again).start_again(),
        ));
        let restart = self.fallback.clone();
        faults.push(fault("restart the fallback", Duration::ZERO, move || restart_fallback(&restart), || {}));
        faults.push(frozen("freeze the fallback", &self.fallback, Fallback::process));
        let (kill, again) = (self.redis.clone(), self.redis.clone());
        faults.push(fault(
            "kill -9 Redis",
            KILLED,
            move || lock(&kill).kill_9(),
            move || lock(&again).start_again(),
        ));
        let (freeze, thaw) = (self.redis.clone(), self.redis.clone());
        faults.push(fault(
            "freeze Redis",
            FROZEN,
            move || lock(&freeze).freeze(),
            move || lock(&thaw).thaw(),
        ));
        let (stop, again) = (self.postgres.clone(), self.postgres.clone());
        faults.push(fault(
            "stop PostgreSQL (immediate)",
            KILLED,
            move || stop.stop_immediate(),
            move || again.start_again(),
        ));
        let (freeze, thaw) = (self.postgres.clone(), self.postgres.clone());
        faults.push(fault("freeze PostgreSQL", FROZEN, move || freeze.freeze(), move || thaw.thaw()));
        let nginx = self.nginx.clone();
        // Its master starts another.
        faults.push(fault(
            "kill -9 an nginx worker",
            Duration::ZERO,
            move || signal_workers(&nginx, "KILL", 1),
            || {},
        ));
        let (freeze, thaw) = (self.nginx.clone(), self.nginx.clone());
        faults.push(fault(
            "freeze nginx",
            FROZEN,
            move || signal_workers(&freeze, "STOP", 99),
            move || signal_workers(&thaw, "CONT", 99),
        ));
        for (name, link) in &self.links {
            let (cut, mend) = (link.clone(), link.clone());
            faults.push(fault(&format!("cut {name}"), CUT, move || cut.cut(), move || mend.mend()));
            let (hole, mend) = (link.clone(), link.clone());
            faults.push(fault(
                &format!("black hole: {name}"),
                FROZEN,
                move || hole.black_hole(),
                move || mend.mend(),
            ));
        }
        faults
    }
}

fn fault(
    name: &str,
    lasts: Duration,
    mut strike: impl FnMut() + Send + 'static,
    mut mend: impl FnMut() + Send + 'static,
) -> Fault {
    Fault {
        name: name.to_owned(),
        strike: Box::new(move || {
            strike();
            Ok(())
        }),
        mend: Some(Box::new(move || {
            mend();
            Ok(())
        })),
        lasts,
    }
}

/// SIGSTOP, and SIGCONT.
fn frozen<T: Send + 'static>(name: &str, program: &Shared<T>, process: fn(&mut T) -> &mut Process) -> Fault {
    let (freeze, thaw) = (program.clone(), program.clone());
    fault(
        name,
        FROZEN,
        move || process(&mut lock(&freeze)).signal(Signal::STOP),
        move || process(&mut lock(&thaw)).signal(Signal::CONT),
    )
}

fn restart_daemon(daemon: &Shared<Daemon>) {
    let mut daemon = lock(daemon);
    daemon.stop();
    // Where the disk stands still for a while, it is not ready for as long; clients and publishers have to bear that.
    daemon.start_again_unready();
}

fn restart_fallback(fallback: &Shared<Fallback>) {
    let mut fallback = lock(fallback);
    fallback.stop();
    fallback.start_again();
}

/// Sends a signal to so many workers of nginx.
fn signal_workers(nginx: &Shared<WebServer>, signal: &str, most: usize) {
    let master = lock(nginx).process().id().to_string();
    let mut list = Command::new("ps");
    list.args(["-o", "pid=", "--ppid", &master]);
    let (_, workers, _) = process::run(list, b"");
    let mut kill = Command::new("kill");
    kill.arg(format!("-{signal}")).args(workers.split_whitespace().take(most));
    // One may just have ended.
    process::run(kill, b"");
}

/// The database, asked through a cable.
fn through(link: &Link, database: &Database) -> String {
    format!("postgres://postgres@127.0.0.1:{}/{}", link.port(), database.name())
}

fn shared<T>(value: T) -> Shared<T> {
    Arc::new(Mutex::new(value))
}

fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
