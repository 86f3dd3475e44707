//! Redis as what wakes the daemon up, and each way in which it fails.
//!
//! In most of these tests the daemon hears nothing from PostgreSQL (its listening connection is black-holed), so that it
//! is Redis indeed that wakes it. Events come from applications that commit, then tell Redis as old publishers do.

use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::redis::{Cluster, Sentinels, say};
use everpoll_tests::{Daemon, Database, Link, Redis, Sqlite, TestDir, wait};

use crate::lateness::Traffic;
use crate::wakeups::{LISTENER, path, told, wait_for};

const AGAIN: &str = "wake-ups over redis come again";

/// Fields are dropped from top to bottom.
struct Scene {
    daemon: Daemon,
    link: Link,
    database: Database,
}

impl Scene {
    /// A daemon that hears nothing from its database.
    fn deaf(redis_url: &str, settings: &[(&str, &str)]) -> Self {
        let database = Database::shared();
        database.migrate();
        let link = Link::to(&Address::local(database.postgres().port()));
        link.black_hole_only(LISTENER);
        let daemon = deaf_daemon(&link, &database, redis_url, settings);
        Self { daemon, link, database }
    }

    /// Publishes as an application does whose events old publishers told to Redis on this port.
    fn insert_and_tell(&self, port: u16) {
        self.database
            .psql("INSERT INTO everpoll.events (channel, type, data) VALUES ('cheese', 'made', '0')");
        say(port, &["PUBLISH", "channels:cheese", "{}"]).expect("Redis is there");
    }
}

fn deaf_daemon(link: &Link, database: &Database, redis_url: &str, settings: &[(&str, &str)]) -> Daemon {
    let url = format!("postgres://postgres@127.0.0.1:{}/{}", link.port(), database.name());
    let start =
        Daemon::on(url).setting("EVERPOLL_CANARY_INTERVAL", "1s").setting("EVERPOLL_REDIS_URL", redis_url);
    settings.iter().fold(start, |start, (name, value)| start.setting(name, value)).start()
}

/// Waits until the daemon has told of a loss `losses` times, each once, and the path works again after `mend`.
fn assert_lost_and_mended(daemon: &Daemon, what: &str, losses: usize, mend: impl FnOnce()) {
    wait::until(&format!("{what}: it is told"), wait::PATIENCE, || {
        told(daemon, "no wake-ups over redis") == losses
    });
    assert!(daemon.is_ready(), "{what}: a silent path makes nobody unready");
    mend();
    let start = Instant::now();
    wait::until(&format!("{what}: it works again"), wait::PATIENCE, || {
        let shown = path(daemon, "redis");
        // The line is written a moment later than the state is shown.
        shown["state"] == "works" && shown["losses"] == losses && told(daemon, AGAIN) >= losses
    });
    println!("{what}: Redis wakes again {:?} after it was mended", start.elapsed());
    assert_eq!(told(daemon, AGAIN), losses, "{what}: {}", daemon.log());
}

#[test]
fn redis_alone_wakes_without_the_sweep() {
    let redis = Redis::start();
    let never = [("EVERPOLL_SWEEP_INTERVAL", "1h")];
    let scene = Scene::deaf(&redis.url(), &never);
    wait_for(&scene.daemon, "redis", "works");
    let port = redis.port();
    let tell = move || drop(say(port, &["PUBLISH", "channels:cheese", "{\"id\":1}"]));
    let traffic = Traffic::start(&scene.database, scene.daemon.address(), tell);
    traffic.wait_for_more(50);
    let figures = traffic.stop();
    // With a sweep of an hour, none would come for another reason.
    figures.assert_promise("Redis alone, sweep off");
    assert!(path(&scene.daemon, "redis")["messages"].as_u64() >= Some(50));
    assert_eq!(path(&scene.daemon, "postgres")["messages"], 0);

    // What is published over HTTP at one daemon is announced to the other.
    let other = deaf_daemon(&scene.link, &scene.database, &redis.url(), &never);
    wait_for(&other, "redis", "works");
    let heard = path(&scene.daemon, "redis")["messages"].clone();
    for _ in 0..3 {
        let newest = http::get("/e/wine?flavor=short-poll").send(other.address()).cursor();
        let held = http::get(&format!("/e/wine?last_event_id={newest}&hold=20")).begin(other.address());
        let id = scene.daemon.publish(r#"{"channel":"wine","type":"made","data":1}"#)[0];
        let reply = held.reply();
        assert_eq!(reply.events().first().map(|event| event.id), Some(id), "{reply:?}");
    }
    assert_eq!(path(&scene.daemon, "redis")["messages"], heard, "nobody needs to hear what he said himself");
}

#[test]
fn connection_killed_server_restarted_or_frozen_costs_at_most_the_sweep() {
    let mut redis = Redis::start();
    let scene = Scene::deaf(&redis.url(), &[]);
    let Scene { daemon, database, .. } = &scene;
    wait_for(daemon, "redis", "works");
    let port = redis.port();
    let tell = move || drop(say(port, &["PUBLISH", "channels:cheese", "{}"]));
    let traffic = Traffic::start(database, daemon.address(), tell);
    traffic.wait_for_more(10);

    redis.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_lost_and_mended(daemon, "CLIENT KILL", 1, || {});
    traffic.wait_for_more(10);

    redis.kill_9();
    assert_lost_and_mended(daemon, "restart", 2, || {
        traffic.wait_for_more(25);
        redis.start_again();
    });

    redis.freeze();
    let frozen = Instant::now();
    assert_lost_and_mended(daemon, "SIGSTOP for 10 s", 3, || {
        assert!(path(daemon, "redis")["cause"].as_str().is_some_and(|cause| cause.contains("frozen")));
        // Not to wait for something: this is how long the fault lasts.
        std::thread::sleep(Duration::from_secs(10).saturating_sub(frozen.elapsed()));
        redis.thaw();
    });
    traffic.wait_for_more(10);
    traffic.stop().assert_promise("Redis killed, restarted, frozen for 10 s");
}

#[test]
fn cut_frozen_and_black_holed_cables_to_redis_are_noticed() {
    let redis = Redis::start();
    let cable = Link::to(&redis.address());
    let scene = Scene::deaf(&format!("redis://127.0.0.1:{}", cable.port()), &[]);
    let Scene { daemon, database, .. } = &scene;
    wait_for(daemon, "redis", "works");
    let port = redis.port();
    let traffic =
        Traffic::start(database, daemon.address(), move || drop(say(port, &["PUBLISH", "channels:a", ""])));
    cable.cut();
    assert_lost_and_mended(daemon, "cut", 1, || cable.mend());
    cable.freeze();
    assert_lost_and_mended(daemon, "frozen cable", 2, || cable.mend());
    cable.black_hole();
    assert_lost_and_mended(daemon, "black hole", 3, || cable.mend());
    // Only the way that listens: the canary is taken, and does not arrive.
    cable.black_hole_only("everpoll-wake-up");
    assert_lost_and_mended(daemon, "black hole on the way back", 4, || {
        assert!(daemon.log().contains("took the canary and did not deliver it"), "{}", daemon.log());
        cable.mend();
    });
    traffic.wait_for_more(10);
    traffic.stop().assert_promise("cable to Redis cut, frozen, black-holed");
}

#[test]
fn sentinels_new_master_is_found_and_heard() {
    let mut sentinels = Sentinels::start();
    let scene = Scene::deaf(&sentinels.url(), &[]);
    let Scene { daemon, database, .. } = &scene;
    wait_for(daemon, "redis", "works");
    let first = sentinels.master_port();
    let ports = sentinels.ports();
    let tell = move || {
        for port in ports {
            let _ = say(port, &["PUBLISH", "channels:cheese", "{}"]);
        }
    };
    let traffic = Traffic::start(database, daemon.address(), tell);
    traffic.wait_for_more(10);
    sentinels.master().kill_9();
    assert_lost_and_mended(daemon, "Sentinel fail-over", 1, || {});
    let second = sentinels.master_port();
    assert_ne!(first, second);
    // A master that comes back is a replica.
    sentinels.server(first).start_again();
    traffic.wait_for_more(25);
    traffic.stop().assert_promise("Sentinel fail-over");
    assert!(say(second, &["PUBLISH", "channels:cheese", ""]).is_ok_and(|heard| heard != "0"));
    // Without Sentinels the master is there all the same.
    sentinels.kill_sentinels();
    let heard = path(daemon, "redis")["canaries"].as_u64().expect("a number");
    wait::until("canaries still come", wait::PATIENCE, || {
        path(daemon, "redis")["canaries"].as_u64() >= Some(heard + 2)
    });
    assert_eq!(told(daemon, "no wake-ups over redis"), 1, "{}", daemon.log());
}

#[test]
fn replica_that_takes_over_in_a_cluster_is_found_and_heard() {
    let mut cluster = Cluster::start();
    // What the how-to says that a user needs in a cluster.
    let rules = "on >secret resetchannels &channels:* &everpoll -@all +hello +psubscribe +publish +client|setname \
                 +ssubscribe +spublish +cluster|info +cluster|slots +cluster|keyslot";
    let rules: Vec<_> = ["ACL", "SETUSER", "everpoll"].into_iter().chain(rules.split(' ')).collect();
    for port in cluster.ports() {
        say(port, &rules).expect("an administrator may do that");
    }
    // One node is named, so the others must have been learned.
    let first = cluster.owner("everpoll");
    let scene = Scene::deaf(&format!("redis-cluster://everpoll:secret@127.0.0.1:{first}"), &[]);
    let Scene { daemon, database, .. } = &scene;
    wait_for(daemon, "redis", "works");
    assert_ne!(say(first, &["PUBSUB", "SHARDNUMSUB", "everpoll"]).expect("it answers"), "everpoll\n0");
    // An old publisher may be connected to any node.
    let ports = cluster.ports();
    let tell = move || {
        let _ = ports.iter().find_map(|port| say(*port, &["PUBLISH", "channels:cheese", "{}"]).ok());
    };
    let traffic = Traffic::start(database, daemon.address(), tell);
    traffic.wait_for_more(10);
    cluster.node(first).kill_9();
    assert_lost_and_mended(daemon, "cluster node killed", 1, || {});
    let second = cluster.owner("everpoll");
    assert_ne!(first, second);
    traffic.wait_for_more(25);
    traffic.stop().assert_promise("cluster node killed");

    // What another daemon announces goes over the shard's channel.
    let heard = path(daemon, "redis")["messages"].as_u64();
    say(second, &["SPUBLISH", "everpoll", "news:somebody"]).expect("it has the slot");
    wait::until("it is heard", wait::PATIENCE, || path(daemon, "redis")["messages"].as_u64() > heard);
    // And slots may move without any fault.
    cluster.node(first).start_again();
    say(first, &rules).expect("an administrator may do that");
    wait::until("it follows the other", wait::PATIENCE, || {
        say(first, &["ROLE"]).is_ok_and(|role| role.contains("connected"))
    });
    say(first, &["CLUSTER", "FAILOVER"]).expect("it is a replica");
    assert_lost_and_mended(daemon, "slot moved", 2, || {});
}

#[test]
fn redis_that_is_down_from_the_start_is_told_once_and_delivery_goes_on() {
    let mut redis = Redis::start();
    redis.kill_9();
    let scene = Scene::deaf(&redis.url(), &[]);
    let Scene { daemon, database, .. } = &scene;
    let traffic = Traffic::start(database, daemon.address(), || {});
    traffic.wait_for_more(60);
    traffic.stop().assert_promise("Redis down from the start");
    assert_eq!(told(daemon, "no wake-ups over redis"), 1, "{}", daemon.log());
    assert_eq!(path(daemon, "redis")["state"], "silent");
    redis.start_again();
    wait_for(daemon, "redis", "works");
    let held = http::get("/e/wine?hold=20").begin(daemon.address());
    scene.insert_and_tell(redis.port());
    drop(held);
}

#[test]
fn login_is_used_and_never_shown() {
    const PASSWORD: &str = "p@ss:word/with#all";
    let redis = Redis::start_with(&["--requirepass", "other"]);
    // What the how-to says that a user needs.
    redis.say_as(
        "other",
        &[
            "ACL",
            "SETUSER",
            "shop",
            "on",
            &format!(">{PASSWORD}"),
            "resetchannels",
            "&channels:*",
            "&everpoll",
            "-@all",
            "+hello",
            "+psubscribe",
            "+publish",
            "+client|setname",
        ],
    );
    let log = Sqlite::new();
    let encoded = "p%40ss%3Aword%2Fwith%23all";
    let places = [
        format!("redis://shop:{encoded}@127.0.0.1:{}", redis.port()),
        format!("unix:{}?user=shop&password={encoded}", redis.socket().display()),
    ];
    for url in &places {
        let daemon = Daemon::on(log.url()).setting("EVERPOLL_REDIS_URL", url).start();
        wait_for(&daemon, "redis", "works");
        assert_eq!(told(&daemon, "no wake-ups"), 0, "{}", daemon.log());
    }
    let wrong = places[0].replace("shop", "nobody");
    let daemon =
        Daemon::on(log.url()).setting("EVERPOLL_REDIS_URL", wrong).setting("EVERPOLL_LOG", "trace").start();
    let shown = wait_for(&daemon, "redis", "silent");
    assert!(shown["cause"].as_str().is_some_and(|cause| cause.contains("WRONGPASS")), "{shown}");
    for secret in [PASSWORD, encoded] {
        assert!(!daemon.log().contains(secret) && !shown.to_string().contains(secret));
    }
}

#[test]
fn encrypted_connection_is_made_only_to_a_server_that_an_authority_knows() {
    let directory = TestDir::new();
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt && \
        openssl req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr && \
        echo subjectAltName=IP:127.0.0.1 > server.ext && \
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext \
        -out server.crt";
    let mut openssl = std::process::Command::new("sh");
    openssl.args(["-c", script]).current_dir(directory.path());
    let (status, _, said) = everpoll_tests::process::run(openssl, b"");
    assert!(status.success(), "{said}");
    let port = everpoll_tests::ports::free();
    let file = |name: &str| directory.join(name).display().to_string();
    let _redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &file("server.crt"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-auth-clients",
        "no",
    ]);
    let log = Sqlite::new();
    let start = Daemon::on(log.url()).setting("EVERPOLL_REDIS_URL", format!("rediss://127.0.0.1:{port}"));
    let daemon = start.clone().setting("SSL_CERT_FILE", file("ca.crt")).start();
    wait_for(&daemon, "redis", "works");
    let stranger = start.start();
    let shown = wait_for(&stranger, "redis", "silent");
    assert!(shown["cause"].as_str().is_some_and(|cause| cause.contains("certificate")), "{shown}");
}
