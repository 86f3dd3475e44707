//! What clients cost that merely wait: the daemon's processor time while thousands are held and nothing happens, and while
//! something happens that is not theirs.

use std::thread;
use std::time::Duration;

use everpoll_tests::{Daemon, Sqlite};

use crate::Scale;
use crate::load;
use crate::streams::{EVENTSOURCE, WEBSOCKET};
use crate::table::{Table, median, spread};
use crate::watch::Watched;

/// The most that idle clients may take of a processor, in percent.
const TARGET: f64 = 1.0;

/// The channels that others wait for.
const CHANNELS: [usize; 3] = [10, 1_000, 100_000];

/// Most channels that one request may name.
const NAMED_MAX: usize = 64;

/// Those who wait for the events.
const LISTENERS: usize = 10;

/// The events of one measurement.
const EVENTS: usize = 300;

/// Runs it with the most clients and returns the table.
pub(crate) fn run(scale: &Scale) -> Table {
    let clients = scale.waiting[2];
    let ways = [
        ("long-poll", "", ""),
        (EVENTSOURCE.name, EVENTSOURCE.query, EVENTSOURCE.headers),
        (WEBSOCKET.name, WEBSOCKET.query, WEBSOCKET.headers),
    ];
    let time = scale.time * 20 / 3;
    let mut table = Table::new(&format!("{clients} idle clients"), &["", "% of a processor"]);
    let mut worst = 0.0_f64;
    let alone: Vec<_> = (0..scale.runs).map(|_| share(0, "", "", time)).collect();
    table.row("nobody", [spread(&alone, 2)]);
    for (name, query, headers) in ways {
        let shares: Vec<_> = (0..scale.runs).map(|_| share(clients, query, headers, time)).collect();
        worst = worst.max(median(&shares) - median(&alone));
        table.row(name, [spread(&shares, 2)]);
    }
    let verdict = if worst < TARGET { "reached" } else { "missed" };
    table.note(format!(
        "Over {} s, with the heartbeats that streams have by themselves: one for each in 15 s. The daemon looks for events in any \
         case, whoever waits; the aim, that all clients cost less than {TARGET} % more, is {verdict}.",
        time.as_secs(),
    ));
    table
}

fn share(clients: usize, query: &str, headers: &str, time: Duration) -> f64 {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600).start();
    let runtime = load::runtime();
    let watched = Watched(daemon.process().id());
    let connections = load::connect(&runtime, daemon.address(), clients);
    let asked = load::send(&runtime, connections, |client| {
        let query = format!("last_event_id=now{query}&_={client}");
        load::stream(&format!("cheese-{client}"), &format!("browser-{client}"), &query, headers)
    });
    watched.wait_until_quiet();
    let before = watched.processor_time();
    thread::sleep(time);
    let spent = watched.processor_time().saturating_sub(before);
    drop(asked);
    spent.as_secs_f64() / time.as_secs_f64() * 100.0
}

/// Measures what an event costs beside others who wait for other channels, and returns the table.
pub(crate) fn growth(scale: &Scale) -> Table {
    let columns = CHANNELS.map(|channels| format!("\u{b5}s an event, {channels} channels"));
    let columns: Vec<_> = ["idle clients"].into_iter().chain(columns.iter().map(String::as_str)).collect();
    let title = format!("Processor time of an event for {LISTENERS} clients, beside idle ones");
    let mut table = Table::new(&title, &columns);
    let mut points = Vec::new();
    for clients in scale.waiting {
        let mut cells = Vec::new();
        for channels in CHANNELS {
            let costs: Vec<_> = (0..scale.runs).map(|_| event_beside(clients, channels)).collect();
            points.push((clients as f64, channels as f64, median(&costs)));
            cells.push(spread(&costs, 0));
        }
        table.row(clients.to_string(), cells);
    }
    table.note(format!(
        "Slope: {:+.2} \u{b5}s for each 1,000 further clients, {:+.3} \u{b5}s for each 1,000 further channels. The event's own way \
         (POST /publish, its commit on SQLite, {LISTENERS} deliveries) is in each figure. A request names {NAMED_MAX} channels at \
         most, so few clients wait for fewer channels than the column says.",
        slope(points.iter().map(|(clients, _, cost)| (*clients, *cost))) * 1000.0,
        slope(points.iter().map(|(_, channels, cost)| (*channels, *cost))) * 1000.0,
    ));
    table
}

/// Microseconds of the daemon's processor time for each event.
fn event_beside(clients: usize, channels: usize) -> f64 {
    let log = Sqlite::new();
    let mut daemon = Daemon::on(log.url()).setting("EVERPOLL_HOLD_MAX", 3600).start();
    let runtime = load::runtime();
    let watched = Watched(daemon.process().id());
    let each = channels.div_ceil(clients).min(NAMED_MAX);
    let connections = load::connect(&runtime, daemon.address(), clients);
    let idle = load::send(&runtime, connections, |client| {
        let names: Vec<_> = (0..each).map(|n| format!("c{}", (client * each + n) % channels)).collect();
        let query = format!("last_event_id=now&_={client}");
        load::poll(&names.join(","), &format!("browser-{client}"), &query)
    });
    let connections = load::connect(&runtime, daemon.address(), LISTENERS);
    let listening = load::send(&runtime, connections, |client| {
        let query = format!("last_event_id=now&_={client}");
        load::stream("cheese", &format!("listener-{client}"), &query, EVENTSOURCE.headers)
    });
    watched.wait_until_quiet();
    let before = watched.processor_time();
    for _ in 0..EVENTS {
        daemon.publish(r#"{"channel":"cheese","type":"cheese_made","data":{"name":"Sbrinz"}}"#);
    }
    watched.wait_until_quiet();
    let spent = watched.processor_time().saturating_sub(before);
    drop((idle, listening));
    spent.as_secs_f64() * 1e6 / EVENTS as f64
}

/// Of the straight line that fits best.
fn slope(points: impl Iterator<Item = (f64, f64)> + Clone) -> f64 {
    let count = points.clone().count() as f64;
    let (x, y) =
        points.clone().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let (above, below) = points.fold((0.0, 0.0), |sum, point| {
        (sum.0 + (point.0 - x) * (point.1 - y), sum.1 + (point.0 - x).powi(2))
    });
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_is_that_of_the_line() {
        let points = [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)];
        assert!((slope(points.into_iter()) - 2.0).abs() < 1e-9);
    }
}
