//! `/metrics`: the counts, and what is so now, as Prometheus and OpenMetrics read it.
//!
//! Each name stands in `docs/reference/metrics.md`, and a test compares the two.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{COUNTS, Count, Way};
use crate::hub::lock;
use crate::server::Server;
use crate::wakeup::Path;

/// The media type of [`write()`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the page.
pub(crate) fn write(server: &Arc<Server>) -> String {
    let mut registry = Registry::with_prefix("everpoll");
    registry.register_collector(Box::new(Now(server.clone())));
    let mut page = String::new();
    // A string takes all that is written.
    let _ = text::encode(&mut page, &registry);
    page
}

/// What is so when it is asked.
struct Now(Arc<Server>);

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

/// A label with its values.
type Labelled<'a> = (&'static str, &'a [(&'a str, u64)]);

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauges(&mut self, name: &str, help: &str, (label, values): Labelled<'_>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (name, value) in values {
            metric.encode_family(&[(label, *name)])?.encode_gauge(value)?;
        }
        Ok(())
    }

    fn counters(&mut self, name: &str, help: &str, (label, values): Labelled<'_>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (name, value) in values {
            metric.encode_family(&[(label, *name)])?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
        }
        Ok(())
    }
}

impl Collector for Now {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (server, mut page) = (&self.0, Page(encoder));
        connections(server, &mut page)?;
        window(server, &mut page)?;
        database(server, &mut page)?;
        wakeups(server, &mut page)?;
        troubles(server, &mut page)
    }
}

fn connections(server: &Server, page: &mut Page<'_>) -> fmt::Result {
    let now = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed) as u64;
    page.gauge("connections", "Open connections", now(&server.connections))?;
    page.gauge(
        "connections_max",
        "Most connections at once",
        server.rules().patience.connections_max as u64,
    )?;
    page.counter("connections_accepted", "Connections that were accepted", COUNTS.accepted.get())?;
    let handshakes = [("done", COUNTS.handshakes.get()), ("failed", COUNTS.handshakes_failed.get())];
    page.counters("tls_handshakes", "Handshakes of TLS", ("result", &handshakes))?;
    if let Some(ends_at) = server.tls.as_ref().and_then(|tls| tls.ends_at()) {
        let help = "When the certificate in use ends, seconds since 1970";
        page.gauge("tls_certificate_expiry_timestamp_seconds", help, ends_at)?;
    }
    page.counter("ghosts", "Connections whose client had vanished without a word", COUNTS.ghosts.get())?;
    page.gauge("requests_in_hand", "Requests that are read and not answered yet", now(&server.busy))?;
    let held: Vec<_> = Way::ALL.iter().map(|(way, name)| (*name, now(&server.held[*way as usize]))).collect();
    page.gauges("held", "Requests that are held, and open streams", ("transport", &held))?;
    page.counters("requests", "Polls and streams that came", ("transport", &by_way(&COUNTS.requests)))?;
    let deliveries = by_way(&COUNTS.deliveries);
    page.counters("deliveries", "Events that were written to clients", ("transport", &deliveries))?;
    page.gauge("channels", "Channels that somebody waits for", server.hub.channels() as u64)?;
    page.gauge(
        "unsent_bytes",
        "Bytes of replies that clients have not taken yet",
        crate::stream::unsent() as u64,
    )
}

fn window(server: &Server, page: &mut Page<'_>) -> fmt::Result {
    let ((events, bytes), newest, read) = {
        let window = lock(&server.window);
        (window.size(), window.newest(), window.appended())
    };
    page.counter("events_read", "Events that were read from the log as they came", read)?;
    page.gauge("newest_event_id", "Up to which event the log is followed", newest)?;
    page.gauge("window_events", "Events in memory", events as u64)?;
    page.gauge("window_bytes", "Memory that they take", bytes as u64)
}

fn database(server: &Server, page: &mut Page<'_>) -> fmt::Result {
    page.counter("catch_up_questions", "Questions that memory could not answer", COUNTS.questions.get())?;
    let queries = [("look", COUNTS.looks.get()), ("read", COUNTS.reads.get())];
    page.counters("catch_up_queries", "Statements for these questions", ("kind", &queries))?;
    page.gauge(
        "catch_up_waiting",
        "Such questions that wait for the database",
        server.catch_up.waiting() as u64,
    )?;
    page.counter("published_events", "Events that were published over HTTP here", COUNTS.published.get())
}

fn wakeups(server: &Server, page: &mut Page<'_>) -> fmt::Result {
    let each = |value: fn(&Path) -> u64| {
        server.health.paths().iter().map(|path| (path.name(), value(path))).collect::<Vec<_>>()
    };
    let works = each(|path| u64::from(path.is_working()));
    page.gauges("wakeup_path_works", "Whether a path of wake-ups is known to deliver", ("path", &works))?;
    let messages = each(|path| path.messages.load(Ordering::Relaxed));
    page.counters("wakeups", "Wake-ups that came", ("path", &messages))?;
    let canaries = each(|path| path.canaries.load(Ordering::Relaxed));
    page.counters("canaries", "Canaries that came", ("path", &canaries))?;
    let losses = each(|path| path.losses.load(Ordering::Relaxed));
    page.counters("wakeup_path_losses", "How often a path of wake-ups became silent", ("path", &losses))
}

fn troubles(server: &Server, page: &mut Page<'_>) -> fmt::Result {
    page.counters("errors", "Errors that were answered", ("code", &COUNTS.errors()))?;
    let limits: Vec<_> = COUNTS.limits().collect();
    page.counters("limit_hits", "How often a limit was hit", ("limit", &limits))?;
    page.gauge("draining", "Whether the daemon is about to stop", u64::from(server.draining()))?;
    page.counter("drained", "Requests that were answered because the daemon stops", COUNTS.drained.get())?;
    page.gauge("uptime_seconds", "How long the daemon has run", server.uptime().as_secs())
}

fn by_way(counts: &[Count]) -> Vec<(&'static str, u64)> {
    Way::ALL.iter().map(|(way, name)| (*name, counts[*way as usize].get())).collect()
}
