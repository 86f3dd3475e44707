//! Everpoll as it runs in production: the real programs, over real sockets, on real databases.

/// The fallback under all those web servers.
mod hosts;
/// nginx with the shipped configuration: who answers when, and what is handed over.
mod nginx;
/// Apache, lighttpd and Python's server with the snippets of their pages.
mod recipes;
/// The snippets of the pages about the client, run in browsers and shells.
mod snippets;
/// `everpoll up`: the lines it prints, pasted.
mod up;

/// Applications publish while all of Everpoll is away.
mod alone;
/// Cursors before, behind and beyond what the log has.
mod gap;
/// Any schedule of publishing, trimming and restoring, any cursor, any transport: all, or the exact gap.
mod gap_properties;
/// What may be published, and by whom.
mod limits;
/// Limits of what clients may do: who is above one, and all others.
mod limits_of_clients;
/// Readers and writers at once: everything once, in commit order, and a judge that is known to find losses.
mod order;
/// Pages that begin with data and follow the changes.
mod page_load;
/// Each way of publishing: what arrives, and what must not.
mod publish;
/// Publishing over HTTP: all or nothing, who may, and how many requests share a transaction.
mod publish_http;
/// Logs that were restored from an older copy.
mod restore;
/// Retention while pages read and applications publish.
mod retention;
/// Polls that the fallback answers together: none is answered from before it came.
mod together;

/// Who may read, and until when.
mod access;
/// Settings that are read again while clients are held.
mod reload;

/// What hostile clients can do: nothing.
mod attacks;

/// Threads that work beside a test.
mod background;
/// Readers, held against the ledger of `everpoll verify`.
mod judge;

/// Holds that fit what the proxies on the way let live.
mod adaptive;
/// One question, put in each way that there is.
mod asked;
/// Pages with our own client, in real browsers.
mod browsers;
/// The browser client's own tests.
mod client;
/// Pages of other hosts, and scripts: who may read.
mod concurrent_commits;
mod cors;
/// Stopping without an error that anybody sees.
mod drain;
/// What an EventSource gets, from its first byte to its end.
mod eventsource;
/// Programs that die in front of a thousand pages.
mod failover;
/// What the fallback counts and tells, and to whom.
mod fallback_status;
/// Everything breaks, in random order.
mod faults;
/// Thousands who lose their daemon at once.
mod flood;
/// Clients that others wrote, while all that can break breaks.
mod foreign;
/// HTTP itself: methods, sizes, versions, kept connections, slow clients.
mod front;
/// Garbage, half and slow requests.
mod garbage;
/// The client behind every proxy: real ones, hostile ones, and one that cuts on command.
mod gauntlet;
/// Of one browser one request is held.
mod hold;
/// Internet Explorer's engine: three languages, and requests that behave as nobody would think.
mod ie;
/// How late events come, and whether all come.
mod lateness;
/// Full disks, damaged files, wrong clocks, a second daemon.
mod odd_machines;
/// Pages that were written without Everpoll's client, in real browsers.
mod old_clients;
/// Another transport for each step, and each event once.
mod one_cursor;
/// The database goes away and comes back.
mod outage;
/// Limits that are hit: what clients are told, and what is counted.
mod overload;
/// Padded holds: spaces while there is nothing to say.
mod padded;
/// The self-test, the demo, and the client: pages for people, and what they ask for.
mod pages;
/// A site with pages for browsers, and an application that publishes.
mod pages_site;
/// The same request to daemon and fallback: the same bytes back.
mod parity;
/// What a poll asks for and gets: cursors, channels, batches, forms.
mod poll;
/// Redis as what wakes the daemon up, and each way in which it fails.
mod redis;
/// Daemons that take each other's place.
mod rolling;
/// One log with both programs on it.
mod site;
/// Thousands who come back at once.
mod storm;
/// The daemon faces clients itself, with TLS.
mod tls;
/// The checker: what it finds, and what it does not.
mod verify;
/// Wake-ups from the database that stop coming.
mod wakeups;
/// All ways of publishing, behind one function.
mod ways;
/// What a WebSocket gets, and every frame that a client may or may not send.
mod websocket;
/// Applications that write, with pauses and roll-backs.
mod writers;
