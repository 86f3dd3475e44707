//! The applications of `docs/how-to/access.md`, run as it shows them: who logs in reads, and who logs out reads no more.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use everpoll_tests::http::{self, Address};
use everpoll_tests::{Daemon, Fallback, Process, Reply, TestDir, WebServer, ports, wait};

use crate::nginx::asking;
use crate::site::Store;

/// How long nginx keeps an answer, and how long what it allows lasts, in seconds: the page's 29 and 30, made shorter.
const TIMES: (u64, u64) = (2, 3);

/// How much later than that it may be on a loaded machine.
const LATE: Duration = Duration::from_secs(4);

/// The application that the page shows in this language, on another port and with shorter times.
fn application(language: &str, port: u16) -> String {
    let page = include_str!("../../../docs/how-to/access.md");
    let (_, page) = page.split_once("### An application that keeps sessions").expect("the page has it");
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("the page has it");
    let (code, _) = rest.split_once("```\n").expect("it ends");
    assert!(code.contains("30"), "it says how long a right lasts");
    code.replace("8000", &port.to_string()).replace("+ 30", &format!("+ {}", TIMES.1))
}

/// Runs it as its first line says.
fn run(language: &str, code: &str, port: u16, directory: &TestDir) -> Process {
    let file = directory.file(&format!("app.{language}"), code);
    let mut command = match language {
        "php" => Command::new("php"),
        "python" => Command::new("python3"),
        _ => Command::new("node"),
    };
    match language {
        // Its sessions are files.
        "php" => {
            command.args(["-d", "session.save_path=."]).args(["-S", &format!("127.0.0.1:{port}")]).arg(file)
        }
        _ => command.arg(file),
    };
    command.current_dir(directory.path());
    let process = Process::start(language, command, directory.path());
    let address = Address::local(port);
    wait::until("the application listens", wait::PATIENCE, || address.connect().is_ok());
    process
}

/// nginx as shipped, with all its comments about `auth_request` done, and what the page says of the application's own paths.
fn nginx(daemon: &Address, fallback: &Address, port: u16) -> WebServer {
    let page = include_str!("../../../docs/how-to/access.md");
    let (_, rest) = page.split_once("```nginx\n").expect("the page has it");
    let (own, _) = rest.split_once("```\n").expect("it ends");
    WebServer::nginx_with(daemon, fallback, |config| {
        let config = asking(config, "http://127.0.0.1:8000/may-poll");
        let config = config
            .replace("#proxy_cache", "proxy_cache")
            .replace("#proxy_ignore_headers", "proxy_ignore_headers")
            .replace("/var/cache/nginx/everpoll", "cache")
            .replace("29s", &format!("{}s", TIMES.0));
        let config = if config.contains("location = /publish") { format!("{own}{config}") } else { config };
        config.replace("127.0.0.1:8000", &format!("127.0.0.1:{port}"))
    })
}

fn poll(address: &Address, channel: &str, cookie: &str) -> Reply {
    let poll = http::get(&format!("/e/{channel}?last_event_id=0&flavor=short-poll"));
    poll.header("Cookie", cookie).send(address)
}

fn try_language(language: &str, daemon: &Daemon, fallback: &Fallback, nobody: &Address) {
    let (directory, port) = (TestDir::new(), ports::free());
    let process = run(language, &application(language, port), port, &directory);
    let to_daemon = nginx(daemon.address(), fallback.address(), port);
    let to_fallback = nginx(nobody, fallback.address(), port);
    let doors = [("daemon", to_daemon.address()), ("fallback", to_fallback.address())];
    for (name, address) in doors {
        let what = format!("{language}, {name}");
        assert_eq!(poll(address, "shop-1", "nothing=here").status, 403, "{what}: nobody is logged in");
        assert_eq!(http::get("/login").send(address).status, 404, "{what}: a link must not log in");
        let login = http::request("POST", "/login").body("name=x").send(address);
        assert_eq!(login.status, 200, "{what}: {login:?} {}", process.log());
        let cookie = login.header("set-cookie").unwrap_or_else(|| panic!("{what}: {login:?}"));
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{what}: {cookie}");
        let cookie = cookie.split(';').next().expect("a name and a value");
        let in_time = |channel: &str| {
            wait::until_some("the answer is in time", wait::PATIENCE, || {
                Some(poll(address, channel, cookie)).filter(|reply| reply.status != 429)
            })
        };
        let read = in_time("shop-1");
        assert_eq!(read.status, 200, "{what}: {read:?} {} {}", read.text(), process.log());
        assert_eq!(read.events().len(), 1, "{what}");
        assert_eq!(in_time("user-17").status, 200, "{what}");
        let other = poll(address, "wine", cookie);
        assert_eq!(other.json()["code"], "channel_forbidden", "{what}");
        // It asks for another's session, or for none that there ever was.
        assert_eq!(poll(address, "shop-1", &format!("{cookie}x")).status, 403, "{what}");
        let logout = http::request("POST", "/logout").header("Cookie", cookie).body("").send(address);
        assert_eq!(logout.status, 200, "{what}");
        let left = Instant::now();
        wait::until("nothing more is read", wait::PATIENCE, || {
            let reply = poll(address, "shop-1", cookie);
            // On a loaded machine the answer may come too late for all of the time for which it is kept.
            let stale = reply.status == 429 && reply.json()["code"] == "access_stale";
            assert!(stale || [200, 403].contains(&reply.status), "{what}: {reply:?}");
            reply.status == 403
        });
        let took = left.elapsed();
        println!("{what}: read for {took:.1?} after the logout");
        assert!(took < Duration::from_secs(TIMES.1) + LATE, "{what}: {took:?}");
    }
}

#[test]
fn applications_of_the_how_to_log_visitors_in_and_out() {
    let (store, directory) = (Store::sqlite(), TestDir::new());
    let socket = |name: &str| Address::Unix(directory.join(name));
    let daemon =
        Daemon::on(store.url()).at(&socket("daemon.sock")).setting("EVERPOLL_ACCESS", "proxy").start();
    let fallback = Fallback::on(store.url()).setting("EVERPOLL_ACCESS", "proxy").start();
    for channel in ["shop-1", "user-17", "wine"] {
        daemon.publish(&format!(r#"{{"channel":"{channel}","type":"made","data":"gouda"}}"#));
    }
    let nobody = socket("nobody.sock");
    thread::scope(|scope| {
        for language in ["php", "python", "js"] {
            let (daemon, fallback, nobody) = (&daemon, &fallback, &nobody);
            scope.spawn(move || try_language(language, daemon, fallback, nobody));
        }
    });
}
