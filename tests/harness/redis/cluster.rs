//! A cluster: three nodes with a third of the slots each, and a replica of each.

use super::{Redis, say};
use crate::{ports, wait};

/// The slots of the three parts.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

/// Three nodes with three replicas.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts all six, and waits until each knows the others and has its part.
    ///
    /// # Panics
    /// When they do not start.
    #[track_caller]
    pub fn start() -> Self {
        let mut bus = Vec::new();
        let nodes: Vec<_> = (1..=6)
            .map(|number| {
                let node = Redis::launch_somewhere(&format!("node-{number}"), |_| bus_port(ports::free()));
                bus.push(node.arguments[1].clone());
                node
            })
            .collect();
        let first = nodes[0].port().to_string();
        for node in &nodes[1..] {
            node.say(&["CLUSTER", "MEET", "127.0.0.1", &first, &bus[0]]);
        }
        for (node, (from, to)) in nodes.iter().zip(SLOTS) {
            node.say(&["CLUSTER", "ADDSLOTSRANGE", from, to]);
        }
        let cluster = Self { nodes };
        wait::until("all nodes know each other", wait::PATIENCE, || {
            cluster.nodes.iter().all(|node| {
                let nodes = node.say(&["CLUSTER", "NODES"]);
                nodes.lines().count() == 6 && !nodes.contains("handshake")
            })
        });
        for (replica, node) in cluster.nodes[3..].iter().zip(&cluster.nodes) {
            let id = node.say(&["CLUSTER", "MYID"]);
            replica.say(&["CLUSTER", "REPLICATE", &id]);
        }
        wait::until("the cluster is whole", wait::PATIENCE, || {
            let whole = |node: &Redis| {
                node.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok") && replicas(node) == 3
            };
            let follows = |node: &Redis| node.say(&["ROLE"]).contains("connected");
            cluster.nodes.iter().all(whole) && cluster.nodes[3..].iter().all(follows)
        });
        cluster
    }

    /// Its address for `EVERPOLL_REDIS_URL`, naming all nodes.
    pub fn url(&self) -> String {
        let places: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis-cluster://{}", places.join(","))
    }

    /// The ports of all nodes.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(Redis::port).collect()
    }

    /// The node on this port.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn node(&mut self, port: u16) -> &mut Redis {
        self.nodes.iter_mut().find(|node| node.port() == port).expect("it is one of ours")
    }

    /// The port of the node that has the slot of `key`.
    ///
    /// # Panics
    /// When nobody has it.
    #[track_caller]
    pub fn owner(&self, key: &str) -> u16 {
        self.try_owner(key).expect("a node has the slot")
    }

    /// Like [`owner`](Self::owner), while nodes may be away: what the first node that answers, and is not alone, says.
    pub fn try_owner(&self, key: &str) -> Option<u16> {
        self.nodes.iter().find_map(|node| {
            let slot: u64 = say(node.port(), &["CLUSTER", "KEYSLOT", key]).ok()?.parse().ok()?;
            let nodes = say(node.port(), &["CLUSTER", "NODES"]).ok()?;
            nodes.lines().find_map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                let has = |range: &&str| {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    from.parse::<u64>().is_ok_and(|from| from <= slot)
                        && to.parse::<u64>().is_ok_and(|to| slot <= to)
                };
                let port = words.get(1)?.split('@').next()?.rsplit(':').next()?.parse().ok()?;
                let serves = words.get(2)?.contains("master") && !words.get(2)?.contains("fail");
                (serves && words.iter().skip(8).any(has)).then_some(port)
            })
        })
    }
}

fn replicas(node: &Redis) -> usize {
    node.say(&["CLUSTER", "NODES"]).lines().filter(|line| line.contains("slave")).count()
}

/// The usual bus port, 10000 above the other, may lie where outgoing connections are.
fn bus_port(port: u16) -> Vec<String> {
    ["--cluster-port", &port.to_string(), "--cluster-enabled", "yes", "--cluster-node-timeout", "1500"]
        .map(str::to_owned)
        .into()
}
