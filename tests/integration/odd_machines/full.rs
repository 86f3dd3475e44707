//! The disk of an SQLite log is full, or read-only.

use super::*;

/// Both programs on a log on a small disk. Fields are dropped from top to bottom.
struct Scene {
    nginx: WebServer,
    fallback: Fallback,
    daemon: Daemon,
    disk: Disk,
    _nobody: TestDir,
}

impl Scene {
    fn new() -> Self {
        let disk = Disk::new(6 * 1024);
        let url = url(&disk);
        let daemon = Daemon::on(&url).behind(disk.inside()).start();
        let fallback = Fallback::on(&url).behind(disk.inside()).start();
        let nobody = TestDir::new();
        let nginx = WebServer::nginx(&Address::Unix(nobody.join("nobody.sock")), fallback.address());
        Self { nginx, fallback, daemon, disk, _nobody: nobody }
    }

    fn doors(&self) -> [(&'static str, &Address); 2] {
        [("daemon", self.daemon.address()), ("fallback", self.nginx.address())]
    }

    fn command_line(&self, arguments: &[&str]) -> Output {
        everpoll::command_line_behind(&self.disk.inside(), &url(&self.disk), arguments, b"")
    }

    /// Exactly what was acknowledged is in the log, as both programs tell it.
    #[track_caller]
    fn assert_has(&self, acknowledged: &[u64]) {
        let newest = *acknowledged.last().expect("some");
        for (name, address) in self.doors() {
            wait::until(&format!("the {name} has it all"), wait::PATIENCE, || {
                let reply = poll("cheese", "now", "flavor=short-poll").send(address);
                reply.status == 200 && reply.cursor() >= newest
            });
            assert_eq!(ids(&read_all(address, 0)), acknowledged, "{name}");
        }
    }
}

fn url(disk: &Disk) -> String {
    format!("sqlite:{}", disk.path().join("everpoll.db").display())
}

#[test]
fn full_disk_is_said_and_loses_nothing_and_goes_on_when_there_is_room() {
    let mut scene = Scene::new();
    let data = json!("x".repeat(20_000));
    let mut all = Vec::new();
    for round in 0..2 {
        let cursor = poll("quiet", "now", "flavor=short-poll").send(scene.daemon.address()).cursor();
        let held = http::get(&format!("/e/quiet?last_event_id={cursor}")).begin(scene.daemon.address());
        all.push(publish(scene.daemon.address(), &data, &format!("{round} before")).expect("there is room"));
        scene.disk.fill();
        // There may be some room in SQLite's own files.
        let mut full = [false; 2];
        for number in 0.. {
            let door = number % 2;
            let (name, address) = scene.doors()[door];
            match publish(address, &data, &format!("{round} full {number}")) {
                Ok(id) => all.push(id),
                Err(problem) => {
                    assert_eq!(problem["code"], "log_full", "{name}: {problem}");
                    full[door] = true;
                }
            }
            assert!(number < 2000, "it is never full");
            if full == [true; 2] {
                break;
            }
        }
        let output = scene.command_line(&["publish", "cheese", "made", "\"small\""]);
        if output.status.success() {
            all.push(output.stdout.trim().parse().expect("an id"));
        } else {
            assert_refused(&output, 1, &["everpoll.db", "full", "make room"]);
        }
        // What there is, is served, and who is held stays held.
        scene.assert_has(&all);
        let mut held = held;
        assert!(held.is_waiting());
        if round == 1 {
            // A start on a full disk does not damage anything either.
            scene.daemon.stop();
            scene.fallback.stop();
            scene.fallback.start_again();
            scene.daemon = Daemon::on(url(&scene.disk)).behind(scene.disk.inside()).start_unready();
        }
        scene.disk.make_room();
        scene.daemon.wait_until_ready();
        for (name, address) in scene.doors() {
            all.push(publish(address, &data, &format!("{round} {name}")).expect("there is room again"));
        }
        scene.assert_has(&all);
        if round == 0 {
            let id = publish_quiet(scene.daemon.address());
            assert_eq!(ids(&held.reply_within(site::SOON).events()), [id]);
        }
    }
    // Room is also made by keeping less.
    let output = scene.command_line(&["trim", "--count", "3"]);
    assert!(output.status.success(), "{output:?}");
}

fn publish_quiet(address: &Address) -> u64 {
    let reply = http::post_json("/publish", r#"{"channel":"quiet","type":"made","data":1}"#).send(address);
    reply.json()["ids"][0].as_u64().expect("an id")
}

#[test]
fn read_only_disk_is_said_and_when_it_may_be_written_again_all_goes_on() {
    let mut scene = Scene::new();
    let mut all = vec![publish(scene.daemon.address(), &json!(1), "1").expect("all is well")];
    for tidy in [false, true] {
        scene.daemon.stop();
        scene.fallback.stop();
        if tidy {
            // Whoever is the last to close the log removes the files beside it, and then it cannot even be read.
            let output = scene.command_line(&["publish", "cheese", "made", "1"]);
            all.push(output.stdout.trim().parse().expect("an id"));
        }
        scene.disk.make_read_only();
        scene.fallback.start_again();
        scene.daemon = Daemon::on(url(&scene.disk)).behind(scene.disk.inside()).start_unready();
        if tidy {
            let said = complaint(&scene.daemon, "read-only");
            assert!(said.contains("everpoll.db"), "{said}");
        }
        for (name, address) in scene.doors() {
            // All that there is, or an error, and never "nothing".
            let reply = poll("cheese", 0, "flavor=short-poll").send(address);
            match reply.status {
                200 if !tidy => assert_eq!(ids(&reply.events()), all, "{name}"),
                503 => assert_eq!(reply.json()["code"], "log_unavailable", "{name}"),
                _ => panic!("{name}: {} {}", reply.status, reply.text()),
            }
            let problem = publish(address, &json!(1), "refused").expect_err("nothing can be written");
            assert_eq!(problem["code"], "log_unavailable", "{name}");
        }
        let output = scene.command_line(&["publish", "cheese", "made", "1"]);
        assert_refused(&output, 1, &["everpoll.db", "read-only"]);
        scene.disk.make_writable();
        scene.daemon.wait_until_ready();
        for (name, address) in scene.doors() {
            let key = format!("{tidy} {name}");
            let published = wait::try_until_some(wait::PATIENCE, || publish(address, &json!(2), &key).ok());
            all.push(published.unwrap_or_else(|| panic!("the {name} does not publish again")));
        }
        scene.assert_has(&all);
    }
}
