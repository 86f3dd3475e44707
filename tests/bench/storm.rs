//! What happens when 15,000 clients lose their daemon at once, second by second: it comes back, or it does not.
//!
//! The clients are processes of their own, since a process may have 20,000 files here, and behave as the browser client: they
//! back off, obey what they are told, and go on from their cursor. Each must get each event once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use std::{env, thread};

use everpoll_tests::crowd::channel;
use everpoll_tests::pollers::{Reading, clock};
use everpoll_tests::process::{processor_time, resident_kilobytes};
use everpoll_tests::{Address, Crowd, Daemon, Database, Fallback, Postgres, TestDir, WebServer, everpoll};

use crate::Scale;
use crate::table::{Cell, Table, spread};

/// A request that is out for so long is held; an answer takes far less.
const HELD: Duration = Duration::from_millis(500);

/// How long the daemon is away.
const AWAY: Duration = Duration::from_secs(2);

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A row is so long.
const STEP: Duration = Duration::from_secs(1);

/// What was seen at the end of one step.
struct Moment {
    at: Duration,
    statements: f64,
    time: Duration,
    kilobytes: u64,
    count: usize,
}

/// One run: rows of a table, and what all of it came to.
struct Run {
    rows: Vec<Vec<Cell>>,
    seconds: f64,
    statements: f64,
    lost: usize,
    doubled: usize,
}

/// Runs the one in which a daemon comes back.
pub(crate) fn reconnect(scale: &Scale) -> Table {
    let clients = scale.storm;
    let columns = [
        "seconds since the kill",
        "attempts to connect",
        "SQL statements",
        "held",
        "daemon: % of a core",
        "daemon: memory, MB",
    ];
    let title = format!("Reconnect of {clients} clients on {} channels", channels(clients));
    let mut table = Table::new(&title, &columns);
    let runs: Vec<_> = (0..scale.runs).map(|_| reconnect_once(clients)).collect();
    finish(&mut table, &runs, "all were held again after the daemon was ready", "for all of it");
    table.note(format!(
        "The daemon is killed (`kill -9`) and started again {} s later, with a window that reaches nobody's cursor; a tenth of \
         the clients have missed two events.",
        AWAY.as_secs()
    ));
    table
}

/// Runs the one in which no daemon comes back.
pub(crate) fn flood(scale: &Scale) -> Table {
    let clients = scale.storm;
    let columns = [
        "seconds since the kill",
        "answers",
        "SQL statements",
        "answered, of all",
        "fallback: % of a core",
        "fallback: memory, MB",
    ];
    let title = format!("Daemon gone under {clients} held polls behind nginx: the fallback answers");
    let mut table = Table::new(&title, &columns);
    let (mut runs, mut delays) = (Vec::new(), String::new());
    for _ in 0..scale.runs {
        let (run, told) = flood_once(clients);
        runs.push(run);
        delays = told;
    }
    finish(&mut table, &runs, "all had an answer after the kill", "until then");
    table.note(format!("Answers by the seconds after which the clients are to come back: {delays}."));
    table
}

/// Shows the last run's rows and what all runs came to.
fn finish(table: &mut Table, runs: &[Run], what: &str, until: &str) {
    for row in &runs.last().expect("there is one").rows {
        let mut cells = row.iter().map(|cell| Cell::from(cell.to_string()));
        let name = cells.next().expect("the first one").to_string();
        table.row(name, cells);
    }
    let all = |figure: fn(&Run) -> f64| runs.iter().map(figure).collect::<Vec<_>>();
    let sum = |figure: fn(&Run) -> usize| runs.iter().map(figure).sum::<usize>();
    table.note(format!(
        "Rows: the last of {} runs. {} s until {what}; {} SQL statements {until}; {} events lost, {} doubled.",
        runs.len(),
        spread(&all(|run| run.seconds), 1),
        spread(&all(|run| run.statements), 0),
        sum(|run| run.lost),
        sum(|run| run.doubled),
    ));
}

fn channels(clients: usize) -> usize {
    (clients / 15).max(10)
}

fn reconnect_once(clients: usize) -> Run {
    let channels = channels(clients);
    let (_postgres, database) = counting_postgres();
    publish(&database, 0..channels, 3);
    push_out(&database);
    let mut daemon = Daemon::on(database.url()).setting("EVERPOLL_WINDOW_BYTES", "64KiB").start();
    let mut crowd = Crowd::start(&crowd_program(), daemon.address(), clients, channels, 0);
    crowd.wait_until_held(0, HELD, PATIENCE);
    push_out(&database);
    crowd.wait_until_held(clock(), HELD, PATIENCE);

    let (killed, began) = (clock(), Instant::now());
    daemon.kill_9();
    publish(&database, (0..channels).filter(|number| number % 10 == 0), 2);
    push_out(&database);
    thread::sleep(AWAY.saturating_sub(began.elapsed()));
    database.psql("SELECT pg_stat_statements_reset()");
    daemon.start_again();
    let (ready, ready_at) = (clock(), began.elapsed());
    let id = daemon.process().id();
    let mut held_at = None;
    let moments = watch(began, id, &database, || {
        let held = crowd.held_since(ready, HELD);
        if held == clients && held_at.is_none() {
            held_at = Some(began.elapsed());
        }
        (held, held_at.is_some())
    });
    let attempts = crowd.attempts(killed, STEP);
    let statements = moments.last().map_or(0.0, |moment| moment.statements);
    let newest = publish(&database, 0..channels, 1);
    crowd.wait_until_reached(newest + 1 - channels as u64, PATIENCE);
    let (lost, doubled) = settle(&mut crowd, &database);
    // Held is who waits for half a second.
    let seconds = held_at.expect("it was waited for").saturating_sub(ready_at + HELD).as_secs_f64();
    Run { rows: rows(&moments, &attempts), seconds, statements, lost, doubled }
}

fn flood_once(clients: usize) -> (Run, String) {
    let channels = channels(clients);
    let (_postgres, database) = counting_postgres();
    publish(&database, 0..channels, 3);
    let sockets = TestDir::new();
    let mut daemon = Daemon::on(database.url()).at(&Address::Unix(sockets.join("daemon.sock"))).start();
    let mut fallback = Fallback::on(database.url()).start();
    let nginx = nginx(daemon.address(), fallback.address(), clients);
    let mut crowd = Crowd::start(&crowd_program(), nginx.address(), clients, channels, 0);
    crowd.wait_until_held(0, HELD, PATIENCE);
    let before = crowd.tally().delays;
    let id = fallback.process().id();
    database.psql("SELECT pg_stat_statements_reset()");
    let (killed, began) = (clock(), Instant::now());
    daemon.kill_9();
    let mut answered_at = None;
    let moments = watch(began, id, &database, || {
        let answered = crowd.answered_since(killed);
        if answered == clients && answered_at.is_none() {
            answered_at = Some(began.elapsed());
        }
        (answered, answered_at.is_some())
    });
    let answers = crowd.answers(killed, STEP);
    let statements = moments.last().map_or(0.0, |moment| moment.statements);
    let mut delays: BTreeMap<u64, u64> = crowd.tally().delays;
    for (seconds, count) in before {
        *delays.entry(seconds).or_default() -= count;
    }
    delays.retain(|seconds, count| *seconds > 0 && *count > 0);
    let told: Vec<_> = delays.iter().map(|(seconds, count)| format!("{seconds} s: {count}")).collect();
    let newest = publish(&database, 0..channels, 1);
    crowd.wait_until_reached(newest + 1 - channels as u64, PATIENCE);
    let (lost, doubled) = settle(&mut crowd, &database);
    let tally = crowd.tally();
    assert_eq!(tally.statuses.keys().collect::<Vec<_>>(), ["200"], "{tally:?}\n{}", nginx.log());
    let seconds = answered_at.expect("it was waited for").as_secs_f64();
    (Run { rows: rows(&moments, &answers), seconds, statements, lost, doubled }, told.join(", "))
}

/// Looks each second, until `ready` says so, and then twice more.
fn watch(
    began: Instant,
    id: u32,
    database: &Database,
    mut ready: impl FnMut() -> (usize, bool),
) -> Vec<Moment> {
    let mut client = database.connect();
    let count = "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements
         WHERE toplevel AND query NOT LIKE '%pg_stat_statements%'";
    let (mut moments, mut after) = (Vec::new(), 0);
    let mut next = began + STEP;
    while next < Instant::now() {
        next += STEP;
    }
    while after < 2 {
        let (mut number, mut done) = ready();
        while Instant::now() < next {
            thread::sleep(Duration::from_millis(20));
            if !done {
                (number, done) = ready();
            }
        }
        let statements = client.query_one(count, &[]).map_or(0.0, |row| row.get(0));
        moments.push(Moment {
            at: next - began,
            statements,
            time: processor_time(id),
            kilobytes: resident_kilobytes(id),
            count: number,
        });
        assert!(began.elapsed() < PATIENCE, "after {PATIENCE:?} only {number} clients are served");
        after += usize::from(done);
        next += STEP;
    }
    moments
}

/// A row for each step since the beginning; nothing is known of those before the first moment but the events in it.
fn rows(moments: &[Moment], events: &[usize]) -> Vec<Vec<Cell>> {
    let first = moments.first().map_or(1, |moment| moment.at.as_secs() as usize);
    let mut rows: Vec<Vec<Cell>> = (1..first)
        .map(|second| {
            let count = events.get(second - 1).copied().unwrap_or(0);
            vec![second.into(), count.into(), "".into(), "".into(), "".into(), "".into()]
        })
        .collect();
    let (mut statements, mut time) = (0.0, None);
    for moment in moments {
        let second = moment.at.as_secs() as usize;
        let count = events.get(second - 1).copied().unwrap_or(0);
        let busy = moment.time.saturating_sub(time.unwrap_or_default()).as_secs_f64() * 100.0;
        rows.push(vec![
            second.into(),
            count.into(),
            ((moment.statements - statements).max(0.0) as usize).into(),
            moment.count.into(),
            // The first one has what came before it, too.
            format!("{busy:.0}").into(),
            format!("{:.1}", moment.kilobytes as f64 / 1024.0).into(),
        ]);
        (statements, time) = (moment.statements, Some(moment.time));
    }
    rows
}

/// Waits until all have all; returns how many events are lost and how many came twice.
fn settle(crowd: &mut Crowd, database: &Database) -> (usize, usize) {
    let end = Instant::now() + PATIENCE;
    loop {
        let (lost, doubled) = losses(database, &crowd.readings());
        if lost == 0 || Instant::now() > end {
            return (lost, doubled);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// How many events in the log did not come to clients of their channel, and how many came to one twice.
pub(crate) fn losses(database: &Database, readings: &[Reading]) -> (usize, usize) {
    let mut log: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    let rows = database.connect().query("SELECT id, channel FROM everpoll.positions", &[]);
    for row in rows.expect("the log is there") {
        let id = u64::try_from(row.get::<_, i64>(0)).expect("ids are positive");
        log.entry(row.get(1)).or_default().insert(id);
    }
    let (mut lost, mut doubled) = (0, 0);
    for reading in readings {
        let got: BTreeSet<_> = reading.events.iter().map(|(id, _)| *id).collect();
        doubled += reading.events.len() - got.len();
        let due = reading.channels.iter().filter_map(|channel| log.get(channel)).flatten();
        lost += due
            .filter(|id| reading.began_after.is_none_or(|began| **id > began) && !got.contains(id))
            .count();
    }
    (lost, doubled)
}

/// A server that counts statements, and a database with Everpoll's layout on it.
fn counting_postgres() -> (Postgres, Database) {
    let postgres = Postgres::start_with("shared_preload_libraries = 'pg_stat_statements'\n");
    let database = postgres.create_database();
    database.migrate();
    database.psql("CREATE EXTENSION pg_stat_statements");
    (postgres, database)
}

/// The shipped configuration, with as many processes as so many clients need: each has two files for a client.
pub(crate) fn nginx(daemon: &Address, fallback: &Address, clients: usize) -> WebServer {
    WebServer::nginx_edited(daemon, fallback, str::to_owned, |example| many_files(example, clients))
}

/// As many processes of nginx as are needed with 20,000 files for each; `reuseport` gives each as many clients.
pub(crate) fn many_files(example: &str, clients: usize) -> String {
    let workers = clients.div_ceil(8_500).max(2);
    let example = example.replace("worker_processes auto;", &format!("worker_processes {workers};"));
    let example = example.replace("worker_rlimit_nofile 65536;", "worker_rlimit_nofile 20000;");
    let example = example.replace("worker_connections 20000;", "worker_connections 19500;");
    example.replace("backlog=4096;", "backlog=4096 reuseport;")
}

/// The program `crowd`, which lies where this one does.
pub(crate) fn crowd_program() -> std::path::PathBuf {
    let program = env::current_exe().expect("a running program has a path").with_file_name("crowd");
    assert!(
        program.exists(),
        "there is no {}; build it with `cargo build --release -p everpoll-tests --bins`",
        program.display()
    );
    // Built as well, before anything is measured.
    everpoll::binary("everpoll");
    program
}

/// Publishes `each` events on each of these channels, and returns the newest id.
pub(crate) fn publish(database: &Database, channels: impl IntoIterator<Item = usize>, each: usize) -> u64 {
    let names: Vec<_> = channels.into_iter().map(channel).collect();
    let mut client = database.connect();
    let sql = "INSERT INTO everpoll.events (channel, type, data)
        SELECT name, 'made', '{}' FROM unnest($1::text[]) name, generate_series(1, $2::int)";
    client.execute(sql, &[&names, &i32::try_from(each).expect("a few")]).expect("the database runs");
    database.psql("SELECT everpoll.cursor()").trim().parse().expect("an id")
}

/// Publishes so much on a channel that nobody reads that nothing else is left in the daemon's memory.
fn push_out(database: &Database) {
    database.psql(
        "INSERT INTO everpoll.events (channel, type, data)
         SELECT 'noise', 'made', to_json(repeat('x', 1000)) FROM generate_series(1, 100)",
    );
}
