//! How long the fallback takes as plain CGI, beside a program of the same size that does nothing but answer.
//!
//! Once each is started as a web server would, without one; and once lighttpd starts it. What the fallback does with the log is
//! told apart from its start: `OPTIONS` is answered without a look at it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use everpoll_tests::web::Places;
use everpoll_tests::{TestDir, WebServer, everpoll};

use crate::load;
use crate::table::{Better, Cell, Table, median, spread};
use crate::{Log, Scale};

/// How often each program is started in one run, in turn with the others.
const STARTS: usize = 200;

/// Answers at once. It is linked so that nothing is loaded besides it.
const EMPTY: &str = r#"#include <unistd.h>
int main(void) {
    static const char reply[] = "Status: 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";
    return write(1, reply, sizeof reply - 1) < 0;
}
"#;

/// A program and what it is asked.
struct Start {
    name: &'static str,
    program: PathBuf,
    method: &'static str,
    database: String,
    server: Option<WebServer>,
    bare_p50: Vec<f64>,
    bare_p90: Vec<f64>,
    behind: Vec<f64>,
}

/// Runs it and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let columns = [
        "program",
        "start to end, p50 ms",
        "p90 ms",
        "more than the empty one, ms",
        "behind lighttpd, p50 ms",
        "more than the empty one, ms",
    ];
    let mut table = Table::new("The fallback as plain CGI", &columns);
    let directory = TestDir::new();
    let fallback = everpoll::binary("everpoll-fallback");
    let empty = empty(&directory, &fallback);
    let logs = [Log::sqlite(), Log::postgres()];
    let [sqlite, postgres] = [logs[0].url(), logs[1].url()];
    let ours = |name, method, database: &str| Start::new(name, &fallback, method, database);
    let mut starts = [
        Start::new("floor: an empty program of the same size", &empty, "GET", ""),
        ours("fallback, without the log (`OPTIONS`)", "OPTIONS", &sqlite),
        ours("fallback, a poll on SQLite", "GET", &sqlite),
        ours("fallback, a poll on PostgreSQL", "GET", &postgres),
    ];
    let runtime = load::runtime();
    for _ in 0..scale.runs {
        let count = STARTS.min(scale.held / 20);
        let mut took = starts.each_ref().map(|_| Vec::new());
        // In turn, so that what else the machine does meets all of them.
        for _ in 0..count {
            for (start, took) in starts.iter().zip(&mut took) {
                took.push(start.once());
            }
        }
        for (start, took) in starts.iter_mut().zip(&mut took) {
            took.sort_by(f64::total_cmp);
            start.bare_p50.push(median(took));
            start.bare_p90.push(took[took.len() * 9 / 10]);
            let server = start.server.as_ref().expect("each has one");
            let pace =
                load::closed_loop(&runtime, server.address(), 1, &start.request(), 200, scale.time / 2);
            assert_eq!(pace.refused, 0, "requests were refused");
            start.behind.push(pace.p50.as_secs_f64() * 1000.0);
        }
    }
    let [floor, ..] = &starts;
    let more = |ours: &[f64], floor: &[f64]| {
        let more: Vec<_> = ours.iter().zip(floor).map(|(ours, floor)| ours - floor).collect();
        spread(&more, 2)
    };
    for (number, start) in starts.iter().enumerate() {
        let mut cells: Vec<Cell> = vec![spread(&start.bare_p50, 2), spread(&start.bare_p90, 2)];
        cells.push(if number == 0 { "".into() } else { more(&start.bare_p50, &floor.bare_p50) });
        cells.push(spread(&start.behind, 2));
        cells.push(if number == 0 { "".into() } else { more(&start.behind, &floor.behind) });
        table.row(start.name, cells);
    }
    table.compare(Better::Less, [1, 4]);
    let bytes = std::fs::metadata(&fallback).map_or(0, |file| file.len());
    table.note(format!(
        "Both programs are files of {:.1} MB. To connect to PostgreSQL and ask for nothing takes {:.1} ms by itself.",
        bytes as f64 / 1e6,
        connecting(&logs[1])
    ));
    table
}

/// Milliseconds for a connection to the database and one empty statement.
fn connecting(log: &Log) -> f64 {
    let Log::Postgres(database) = log else { return 0.0 };
    let connect = || {
        let began = Instant::now();
        database.connect().batch_execute("select 1").expect("the database runs");
        began.elapsed().as_secs_f64() * 1000.0
    };
    median(&(0..50).map(|_| connect()).collect::<Vec<_>>())
}

impl Start {
    fn new(name: &'static str, program: &Path, method: &'static str, database: &str) -> Self {
        let content = std::fs::read(program).expect("it was just made");
        let server = WebServer::lighttpd("As CGI", Places::with_program(content, database));
        let (bare_p50, bare_p90, behind) = (Vec::new(), Vec::new(), Vec::new());
        let (program, database) = (program.to_owned(), database.to_owned());
        Self { name, program, method, database, server: Some(server), bare_p50, bare_p90, behind }
    }

    /// Milliseconds from before its start to its end.
    fn once(&self) -> f64 {
        let mut command = Command::new(&self.program);
        command.env_clear();
        command.envs([
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", self.method),
            ("REQUEST_URI", "/e/cheese/browser?last_event_id=now"),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("EVERPOLL_ACCESS", "open"),
            ("EVERPOLL_DATABASE_URL", &self.database),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let began = Instant::now();
        let output = command.output().expect("it starts");
        let took = began.elapsed();
        assert!(output.stdout.starts_with(b"Status: 200"), "{}", String::from_utf8_lossy(&output.stdout));
        took.as_secs_f64() * 1000.0
    }

    fn request(&self) -> Vec<u8> {
        let request = load::poll("cheese", "browser", "last_event_id=now");
        [self.method.as_bytes(), &request[3..]].concat()
    }
}

/// Builds the empty program, as large as the other.
///
/// # Panics
///
/// Where there is no C compiler, or no C library to link into a program.
fn empty(directory: &TestDir, like: &Path) -> PathBuf {
    let (source, program) = (directory.file("empty.c", EMPTY), directory.join("empty"));
    let status = Command::new("cc").args(["-O2", "-static", "-o"]).arg(&program).arg(&source).status();
    assert!(status.is_ok_and(|status| status.success()), "`cc -static` is needed (Debian: gcc, libc6-dev)");
    let bytes = std::fs::metadata(like).map_or(0, |file| file.len());
    let file = std::fs::File::options().append(true).open(&program).expect("it was just built");
    file.set_len(bytes).expect("there is room for a few megabytes");
    program
}
