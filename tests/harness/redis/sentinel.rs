//! A master, a replica, and three Sentinels that watch them.

use super::{Redis, say};
use crate::wait;

/// The name of the master among the Sentinels.
const NAME: &str = "main";

/// A master, a replica, and three Sentinels, with the shortest patience that Redis allows.
#[derive(Debug)]
pub struct Sentinels {
    sentinels: Vec<Redis>,
    servers: Vec<Redis>,
}

impl Sentinels {
    /// Starts all five, and waits until they know each other.
    ///
    /// # Panics
    /// When they do not start.
    #[track_caller]
    pub fn start() -> Self {
        let master = Redis::start();
        let port = master.port().to_string();
        let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]);
        let sentinels: Vec<_> = (1..=3).map(|n| sentinel(n, &port)).collect();
        let known = |sentinel: &Redis| {
            let text = sentinel.say(&["SENTINEL", "MASTER", NAME]);
            let lines: Vec<_> = text.lines().collect();
            let field = |name: &str| lines.iter().position(|line| *line == name).map(|at| lines[at + 1]);
            field("num-slaves") == Some("1")
                && field("num-other-sentinels") == Some("2")
                && field("flags") == Some("master")
        };
        wait::until("the Sentinels know all", wait::PATIENCE, || sentinels.iter().all(known));
        wait::until("the replica follows", wait::PATIENCE, || replica.say(&["ROLE"]).contains("connected"));
        Self { sentinels, servers: vec![master, replica] }
    }

    /// Their address for `EVERPOLL_REDIS_URL`.
    pub fn url(&self) -> String {
        let places: Vec<_> =
            self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("redis-sentinel://{}/{NAME}", places.join(","))
    }

    /// The port of the master, as most Sentinels say.
    ///
    /// # Panics
    /// When no Sentinel answers.
    #[track_caller]
    pub fn master_port(&self) -> u16 {
        let ask = |sentinel: &Redis| {
            let answer = say(sentinel.port(), &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
            answer.lines().nth(1)?.parse::<u16>().ok()
        };
        let said: Vec<_> = self.sentinels.iter().filter_map(ask).collect();
        *said
            .iter()
            .max_by_key(|port| said.iter().filter(|other| other == port).count())
            .expect("a Sentinel answers")
    }

    /// The ports of master and replica, whichever is which.
    pub fn ports(&self) -> [u16; 2] {
        [self.servers[0].port(), self.servers[1].port()]
    }

    /// Kills all Sentinels.
    pub fn kill_sentinels(&mut self) {
        self.sentinels.iter_mut().for_each(Redis::kill_9);
    }

    /// The master.
    ///
    /// # Panics
    /// When no Sentinel answers.
    #[track_caller]
    pub fn master(&mut self) -> &mut Redis {
        let port = self.master_port();
        self.server(port)
    }

    /// The server on this port.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn server(&mut self, port: u16) -> &mut Redis {
        self.servers.iter_mut().find(|server| server.port() == port).expect("it is one of ours")
    }
}

fn sentinel(number: usize, master: &str) -> Redis {
    Redis::launch_somewhere(&format!("sentinel-{number}"), |directory| {
        // Sentinels write into their file what they learn.
        let file = directory.file(
            "sentinel.conf",
            format!(
                "sentinel monitor {NAME} 127.0.0.1 {master} 2\n\
                 sentinel down-after-milliseconds {NAME} 1000\n\
                 sentinel failover-timeout {NAME} 4000\n"
            ),
        );
        vec![file.display().to_string(), "--sentinel".to_owned()]
    })
}
