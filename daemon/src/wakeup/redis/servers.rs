//! Which Redis servers to talk to now, and how.
//!
//! That changes: Sentinels name another master, a cluster's slot moves to another node. So it is asked anew for each
//! session, of whoever answers.

use std::time::Duration;

use everpoll_settings::{RedisLogin, RedisPlace, RedisServers, RedisUrl};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value, cmd, from_redis_value,
};

use super::super::CHANNEL;

/// The servers that the settings name, and what was learned of others.
pub(super) struct Servers {
    url: RedisUrl,
    /// How long anything may take.
    patience: Duration,
    /// Nodes of the cluster beside those in the settings, as it named them last.
    learned: Vec<RedisPlace>,
    /// Which Sentinel is asked next.
    turn: usize,
}

/// Where a session takes place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where to subscribe; in a cluster the node that has our channel's slot.
    pub(super) listener: RedisPlace,
    /// Where canaries to all nodes are sent; in a cluster another node, so that they cross from one to the other.
    pub(super) sender: RedisPlace,
    /// Whether our own channel is a sharded one.
    pub(super) is_cluster: bool,
}

impl Servers {
    pub(super) fn new(url: RedisUrl, patience: Duration) -> Self {
        Self { url, patience, learned: Vec::new(), turn: 0 }
    }

    /// How long anything may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Finds the servers of a new session.
    pub(super) async fn find(&mut self) -> Result<Found, String> {
        match &self.url.servers {
            RedisServers::One(place) => Ok(Found::one(place.clone())),
            RedisServers::Sentinel { .. } => self.master().await.map(Found::one),
            RedisServers::Cluster(_) => self.nodes().await,
        }
    }

    /// Sees that a session is still where it should be. A master that lost its Sentinels goes on answering, to us alone.
    pub(super) async fn confirm(&mut self, found: &Found) -> Result<(), String> {
        let RedisServers::Sentinel { sentinels, master, login } = &self.url.servers else { return Ok(()) };
        self.turn = (self.turn + 1) % sentinels.len();
        match self.ask_sentinel(&sentinels[self.turn], login, master).await {
            Ok(place) if place != found.listener => {}
            // One that is away says nothing about the master; a canary does.
            Ok(_) | Err(_) => return Ok(()),
        }
        // It may itself be the one that is cut off from the others.
        match self.master().await? {
            place if place == found.listener => Ok(()),
            place => Err(format!("the Sentinels name another master, {place} instead of {}", found.listener)),
        }
    }

    /// Connects to one of them and gives the connection a name that its operator sees (`CLIENT LIST`).
    pub(super) async fn connect(
        &self,
        place: &RedisPlace,
        name: &str,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let mut connection = self.connect_as(place, &self.url.login, config).await?;
        // An access list may forbid it, and nothing depends on it.
        let _ = cmd("CLIENT").arg("SETNAME").arg(name).exec_async(&mut connection).await;
        Ok(connection)
    }

    /// What went wrong with a server, for people.
    pub(super) fn explain(&self, place: &RedisPlace, error: &RedisError) -> String {
        if error.is_timeout() {
            let patience = self.patience;
            return format!(
                "{place} did not answer within {patience:?}: it is frozen, or the network swallows what is sent"
            );
        }
        match error.code() {
            Some(code @ ("WRONGPASS" | "NOAUTH")) => {
                format!("{place} refuses user and password of redis_url ({code})")
            }
            Some(code @ "NOPERM") => {
                let detail = error.detail().unwrap_or_default();
                format!("{place} does not let the user of redis_url do what it must ({code}: {detail})")
            }
            _ => format!("{place}: {error}"),
        }
    }

    async fn connect_as(
        &self,
        place: &RedisPlace,
        login: &RedisLogin,
        config: AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, String> {
        let config =
            config.set_connection_timeout(Some(self.patience)).set_response_timeout(Some(self.patience));
        let connect = async {
            Client::open(self.address(place).into_connection_info()?.set_redis_settings(how(login)))?
                .get_multiplexed_async_connection_with_config(&config)
                .await
        };
        connect.await.map_err(|error| self.explain(place, &error))
    }

    fn address(&self, place: &RedisPlace) -> ConnectionAddr {
        match place {
            RedisPlace::Unix(path) => ConnectionAddr::Unix(path.clone()),
            RedisPlace::Tcp(host, port) if self.url.tls => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            RedisPlace::Tcp(host, port) => ConnectionAddr::Tcp(host.clone(), *port),
        }
    }

    /// The master, as most Sentinels say: one that is cut off may still name an old one.
    async fn master(&self) -> Result<RedisPlace, String> {
        let RedisServers::Sentinel { sentinels, master, login } = &self.url.servers else {
            return Err("there are no Sentinels".to_owned());
        };
        let mut votes: Vec<(RedisPlace, usize)> = Vec::new();
        let mut whys = Vec::new();
        for sentinel in sentinels {
            match self.ask_sentinel(sentinel, login, master).await {
                Ok(place) => match votes.iter_mut().find(|(voted, _)| *voted == place) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((place, 1)),
                },
                Err(why) => whys.push(why),
            }
            if votes.iter().any(|(_, count)| count * 2 > sentinels.len()) {
                break;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(place, _)| place).ok_or_else(|| format!("no Sentinel names a master: {}", whys.join("; ")))
    }

    async fn ask_sentinel(
        &self,
        sentinel: &RedisPlace,
        login: &RedisLogin,
        master: &str,
    ) -> Result<RedisPlace, String> {
        let mut connection = self.connect_as(sentinel, login, AsyncConnectionConfig::new()).await?;
        let mut question = cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
        let answer: Option<(String, u16)> =
            question.query_async(&mut connection).await.map_err(|error| self.explain(sentinel, &error))?;
        let Some((host, port)) = answer else {
            return Err(format!(
                "{sentinel} knows no master named {master:?}; give its name as in sentinel.conf"
            ));
        };
        Ok(RedisPlace::Tcp(host, port))
    }

    /// The nodes of the cluster, as the first one that is not cut off from the others says.
    async fn nodes(&mut self) -> Result<Found, String> {
        let RedisServers::Cluster(seeds) = &self.url.servers else {
            return Err("there is no cluster".to_owned());
        };
        let mut asked: Vec<_> = self.learned.clone();
        asked.extend(seeds.iter().filter(|seed| !self.learned.contains(seed)).cloned());
        let mut whys = Vec::new();
        for node in &asked {
            match self.ask_node(node).await {
                Ok((found, learned)) => {
                    self.learned = learned;
                    return Ok(found);
                }
                Err(why) => whys.push(why),
            }
        }
        Err(format!("no node of the cluster serves: {}", whys.join("; ")))
    }

    async fn ask_node(&self, node: &RedisPlace) -> Result<(Found, Vec<RedisPlace>), String> {
        let mut connection = self.connect_as(node, &self.url.login, AsyncConnectionConfig::new()).await?;
        let explain = |error: RedisError| self.explain(node, &error);
        let info: String = ask(&mut connection, &["INFO"]).await.map_err(explain)?;
        if !info.contains("cluster_state:ok") {
            return Err(format!("{node} says that the cluster is not whole"));
        }
        let slot: u16 = ask(&mut connection, &["KEYSLOT", CHANNEL]).await.map_err(explain)?;
        let ranges: Vec<Vec<Value>> = ask(&mut connection, &["SLOTS"]).await.map_err(explain)?;
        let mut owner = None;
        let (mut masters, mut all) = (Vec::new(), Vec::new());
        for range in ranges {
            let [from, to, nodes @ ..] = range.as_slice() else { continue };
            let nodes: Vec<_> = nodes.iter().filter_map(|value| place_of(value, node)).collect();
            let Some(master) = nodes.first() else { continue };
            if (number(from)..=number(to)).contains(&Some(slot)) {
                owner = Some(master.clone());
            }
            masters.push(master.clone());
            all.extend(nodes);
        }
        let Some(listener) = owner else { return Err(format!("{node} knows no node for slot {slot}")) };
        let sender =
            masters.into_iter().find(|master| *master != listener).unwrap_or_else(|| listener.clone());
        Ok((Found { listener, sender, is_cluster: true }, all))
    }
}

impl Found {
    fn one(place: RedisPlace) -> Self {
        Self { listener: place.clone(), sender: place, is_cluster: false }
    }
}

/// How to log in, and that messages may come beside answers.
fn how(login: &RedisLogin) -> RedisConnectionInfo {
    let mut how = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("everpoll", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &login.user {
        how = how.set_username(user);
    }
    if let Some(password) = &login.password {
        how = how.set_password(password.expose());
    }
    how
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    question: &[&str],
) -> Result<T, RedisError> {
    cmd("CLUSTER").arg(question).query_async(connection).await
}

/// A node as `CLUSTER SLOTS` names it: host, port, and more. No host means the one that was asked.
fn place_of(value: &Value, asked: &RedisPlace) -> Option<RedisPlace> {
    let Value::Array(parts) = value else { return None };
    let port = number(parts.get(1)?)?;
    let host = from_redis_value::<Option<String>>(parts.first()?.clone()).ok()?;
    match (host.filter(|host| !host.is_empty()), asked) {
        (Some(host), _) => Some(RedisPlace::Tcp(host, port)),
        (None, RedisPlace::Tcp(host, _)) => Some(RedisPlace::Tcp(host.clone(), port)),
        (None, RedisPlace::Unix(_)) => None,
    }
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_without_a_host_is_on_the_host_that_was_asked() {
        let node = |host: Value| Value::Array(vec![host, Value::Int(7001), Value::Nil]);
        let asked = RedisPlace::Tcp("cache".to_owned(), 7000);
        let named = node(Value::BulkString(b"10.0.0.1".to_vec()));
        assert_eq!(place_of(&named, &asked), Some(RedisPlace::Tcp("10.0.0.1".to_owned(), 7001)));
        for nobody in [Value::Nil, Value::BulkString(Vec::new())] {
            let place = place_of(&node(nobody), &asked);
            assert_eq!(place, Some(RedisPlace::Tcp("cache".to_owned(), 7001)));
        }
        assert_eq!(place_of(&Value::Nil, &asked), None);
    }
}
