//! The table of all settings: what people read about them.
//!
//! `everpoll help settings` prints it, and a test compares `docs/reference/configuration.md` with it, so the two
//! cannot say different things. What the program *does* with a value is in [`Settings`](crate::Settings); a test takes each
//! default through the parser to see that table and program agree.

use std::fmt::Write as _;

/// One setting, as people read about it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key in the TOML file.
    pub name: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The default as one would write it; `none` where there is none.
    pub default: &'static str,
    /// Unit or form, and range.
    pub form: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What too low and too high a value do, or what to watch.
    pub advice: &'static str,
    /// Whether its value must not appear in diagnostics.
    pub secret: bool,
}

/// All settings, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key {
        name: "listen",
        variable: "EVERPOLL_LISTEN",
        default: "127.0.0.1:8377",
        form: "host:port, or unix:/path",
        meaning: "Where the daemon listens.",
        advice: "An address that other machines can reach needs access to be written down. \
                 The fallback is told its address by --listen.",
        secret: false,
    },
    Key {
        name: "reuse_port",
        variable: "EVERPOLL_REUSE_PORT",
        default: "false",
        form: "true or false",
        meaning: "Whether a daemon may take the place of one that listens at the same address, once its window is filled. The \
                  old one goes on until it is told to stop, and then hands its clients over.",
        advice: "For restarts that nobody notices. On a TCP port all of them must set it and run as one user. Without it, a \
                 second daemon at the address is a mistake, and ends with an error.",
        secret: false,
    },
    Key {
        name: "socket_mode",
        variable: "EVERPOLL_SOCKET_MODE",
        default: "0660",
        form: "octal file mode in quotes, \"0000\" to \"0777\"",
        meaning: "Permissions of a unix socket that the daemon or the fallback makes.",
        advice: "Too strict: the web server cannot connect and answers 502; run both in one group, or give 0666. \
                 Too wide: every user of the machine may connect.",
        secret: false,
    },
    Key {
        name: "tls_certificate",
        variable: "EVERPOLL_TLS_CERTIFICATE",
        default: "none",
        form: "path of a PEM file",
        meaning: "The certificate with which the daemon's TCP ports speak TLS, and those between it and the root, the server's own \
                  first; tls_key beside it. Unix sockets do not speak TLS.",
        advice: "Read again within seconds when it has changed, and on SIGHUP; a new pair that does not fit is told in the \
                 diagnostics, and the old one goes on. Without TLS a web server in front has to have it.",
        secret: false,
    },
    Key {
        name: "tls_key",
        variable: "EVERPOLL_TLS_KEY",
        default: "none",
        form: "path of a PEM file",
        meaning: "The private key of tls_certificate, without a passphrase.",
        advice: "The daemon's user must be able to read it, and nobody else should.",
        secret: false,
    },
    Key {
        name: "database_url",
        variable: "EVERPOLL_DATABASE_URL",
        default: "sqlite:./everpoll.db",
        form: "postgres://user:password@host/database (several hosts allowed), or sqlite:/path",
        meaning: "Where the log is. A SQLite file is made when it is missing; PostgreSQL needs everpoll migrate first.",
        advice: "The daemon and the fallback must name the same database. A relative path begins where the program was \
                 started. With PostgreSQL, access must be written down.",
        secret: true,
    },
    Key {
        name: "redis_url",
        variable: "EVERPOLL_REDIS_URL",
        default: "none",
        form: "none, redis://user:password@host:port, unix:/path, redis-sentinel://host,host/master-name, or \
               redis-cluster://host,host; rediss for TLS",
        meaning: "Redis, when it is to wake the daemon up beside the database: for publishers that tell their events \
                  there, and where LISTEN does not work.",
        advice: "Events are never read from Redis, and it may be away: then they come when the database wakes the daemon \
                 up, or with the sweep.",
        secret: true,
    },
    Key {
        name: "database_connections",
        variable: "EVERPOLL_DATABASE_CONNECTIONS",
        default: "4",
        form: "connections, 1 to 64",
        meaning: "Connections that the daemon opens for clients that ask for what is not in memory, each on a thread of its own. \
                  Five more follow the log, publish, trim, listen for wake-ups, and send canaries.",
        advice: "Too low: clients that come back after hours wait for each other. Too high: they take the database's \
                 connections from the application.",
        secret: false,
    },
    Key {
        name: "fallback_workers",
        variable: "EVERPOLL_FALLBACK_WORKERS",
        default: "8",
        form: "workers, 1 to 16",
        meaning: "Workers of the fallback under FastCGI, each with one database connection.",
        advice: "Too low: after the daemon's death the polls of thousands wait in line. Too high: more connections than \
                 the database has processors to serve only slow each other down.",
        secret: false,
    },
    Key {
        name: "hold_max",
        variable: "EVERPOLL_HOLD_MAX",
        default: "25",
        form: "seconds, 0 to 3600",
        meaning: "The longest hold of a poll. A client may ask for less.",
        advice: "Too low: more requests for nothing; 0 turns long-polling off. Too high: proxies on the way cut \
                 the request, many at 30 or 60 seconds; the web server in front must wait longer than this.",
        secret: false,
    },
    Key {
        name: "padded_hold_max",
        variable: "EVERPOLL_PADDED_HOLD_MAX",
        default: "120",
        form: "seconds, 0 to 3600",
        meaning: "The longest padded hold: one that sends a space every few seconds, so that proxies do not cut it. \
                  Clients ask for it once a proxy has cut them.",
        advice: "Too low: more requests for nothing; 0 turns padded holds off. Too high: some proxies cut what lasts longer \
                 than a minute or two, however much is sent.",
        secret: false,
    },
    Key {
        name: "heartbeat",
        variable: "EVERPOLL_HEARTBEAT",
        default: "15",
        form: "seconds, 1 to 300",
        meaning: "How often a quiet EventSource gets a comment, and a WebSocket a ping. A WebSocket that answers none of two \
                  is closed.",
        advice: "Too low: work for nothing. Too high: proxies cut streams that are quiet, many after 30 or 60 seconds, \
                 and clients that are gone are noticed late.",
        secret: false,
    },
    Key {
        name: "access",
        variable: "EVERPOLL_ACCESS",
        default: "open",
        form: "open, token or proxy",
        meaning: "Who may read. open: whoever reaches the program reads any channel. token: each request brings a token (JWT) \
                  that says which channels, and until when. proxy: the web server in front asks the application, and hands its \
                  answer over in a header.",
        advice: "The default holds only with a SQLite file and an address of this machine; otherwise it must be written \
                 down, since a web server in front makes any address public.",
        secret: false,
    },
    Key {
        name: "access_header",
        variable: "EVERPOLL_ACCESS_HEADER",
        default: "X-Everpoll-Channels",
        form: "a header that begins with X-",
        meaning: "With access = proxy: the header in which the web server in front says which channels may be read, separated by \
                  commas, percent-encoded; beginnings have a * behind. The fallback takes it from the variable of the same \
                  name without HTTP_, X_EVERPOLL_CHANNELS.",
        advice: "The web server must put its own in place of what clients send, also when it has nothing to say.",
        secret: false,
    },
    Key {
        name: "access_until_header",
        variable: "EVERPOLL_ACCESS_UNTIL_HEADER",
        default: "X-Everpoll-Until",
        form: "a header that begins with X-",
        meaning: "With access = proxy: the header in which it says until when, in seconds since 1970. It may be left out.",
        advice: "",
        secret: false,
    },
    Key {
        name: "access_peers",
        variable: "EVERPOLL_ACCESS_PEERS",
        default: "none",
        form: "addresses and networks such as 192.0.2.7 or 10.0.0.0/8, separated by spaces or commas; in the file also a list",
        meaning: "With access = proxy: from whom the daemon takes those headers. What comes over a unix socket always counts.",
        advice: "List web servers only: whoever connects from there reads what it likes. 127.0.0.1 is every user of the machine; a \
                 unix socket is better.",
        secret: false,
    },
    Key {
        name: "access_recheck",
        variable: "EVERPOLL_ACCESS_RECHECK",
        default: "30",
        form: "seconds, 1 to 300",
        meaning: "With access = proxy: how long a hold or a stream lasts at most before the web server is asked again.",
        advice: "Too high: who has lost the right reads on for so long, and as long as the web server keeps the application's answer \
                 besides. Too low: more questions to the application.",
        secret: false,
    },
    Key {
        name: "token_keys",
        variable: "EVERPOLL_TOKEN_KEYS",
        default: "none",
        form: "tables [token_keys.KID], each with algorithm (HS256, RS256 or EdDSA) and secret, public_key or \
               public_key_file; in the variable the same as TOML",
        meaning: "The keys that sign tokens. The name is what a token's kid says; a token without kid may be signed with any \
                  key of its algorithm. secret is for HS256, at least 32 bytes; public_key is PEM, public_key_file the \
                  whole path of such a file.",
        advice: "A token cannot choose another algorithm than its key's. To exchange a key, add the new one, sign with it, and \
                 take the old one out once its last token is over; in keys_file that takes no restart.",
        secret: true,
    },
    Key {
        name: "token_cookie",
        variable: "EVERPOLL_TOKEN_COOKIE",
        default: "everpoll_token",
        form: "letters, digits, _, - and ., or none",
        meaning: "The cookie in which a token may come. It counts where there is neither Authorization: Bearer nor token= in \
                  the query.",
        advice: "Set the cookie with HttpOnly, Secure and SameSite=Lax. It is never looked at for replies that are scripts (cb=).",
        secret: false,
    },
    Key {
        name: "token_audience",
        variable: "EVERPOLL_TOKEN_AUDIENCE",
        default: "none",
        form: "text, or none",
        meaning: "What a token's aud must be, or have in its list.",
        advice: "Without it, a token that was made for another site with the same key is good here.",
        secret: false,
    },
    Key {
        name: "token_issuer",
        variable: "EVERPOLL_TOKEN_ISSUER",
        default: "none",
        form: "text, or none",
        meaning: "What a token's iss must be.",
        advice: "",
        secret: false,
    },
    Key {
        name: "token_leeway",
        variable: "EVERPOLL_TOKEN_LEEWAY",
        default: "5",
        form: "seconds, 0 to 30",
        meaning: "How far the clock of the machine that makes tokens may be wrong. Holds and streams end at exp and this.",
        advice: "Too low: tokens are refused as not valid yet. Too high: they are good for so much longer.",
        secret: false,
    },
    Key {
        name: "token_valid_max",
        variable: "EVERPOLL_TOKEN_VALID_MAX",
        default: "1d",
        form: "seconds, or a number with s, m, h or d, 1m to 366d",
        meaning: "How far in the future a token's exp may be. Others are refused.",
        advice: "A token cannot be taken back before its exp, only its key can: make them short, minutes rather than days, and \
                 let the page get a new one.",
        secret: false,
    },
    Key {
        name: "allow_origins",
        variable: "EVERPOLL_ALLOW_ORIGINS",
        default: "none",
        form: "none, *, or origins such as https://shop.example, separated by spaces or commas; in the file also a list",
        meaning: "The sites whose pages may read here although they come from another host (CORS), and may open a \
                  WebSocket. Pages of the same host always may.",
        advice: "* lets every page of the web read whatever the visitor's browser reaches, though without cookies.",
        secret: false,
    },
    Key {
        name: "jsonp",
        variable: "EVERPOLL_JSONP",
        default: "false",
        form: "true or false",
        meaning: "Whether polls are answered as a script when they name a callback (cb=), for old browsers that cannot \
                  read across hosts in any other way.",
        advice: "With it, every page of the web can read what the visitor's browser reaches, cookies included.",
        secret: false,
    },
    Key {
        name: "probe",
        variable: "EVERPOLL_PROBE",
        default: "true",
        form: "true or false",
        meaning: "Whether the daemon serves the self-test page, /e/_probe, on which visitors see what their network does \
                  to each transport.",
        advice: "",
        secret: false,
    },
    Key {
        name: "demo",
        variable: "EVERPOLL_DEMO",
        default: "false",
        form: "true or false",
        meaning: "Whether the daemon serves the demo page, /demo. everpoll up switches it on.",
        advice: "Whoever may publish can start its job, which publishes events on the channel cheese.",
        secret: false,
    },
    Key {
        name: "publish_key",
        variable: "EVERPOLL_PUBLISH_KEY",
        default: "none",
        form: "text, at least 16 characters, ASCII without spaces",
        meaning: "What POST /publish must present as Authorization: Bearer. Without it only this machine may publish over \
                  HTTP, and only while the program listens on an address of this machine.",
        advice: "Too short is refused, since it could be guessed. It may publish to every channel; publish_keys are for some.",
        secret: true,
    },
    Key {
        name: "publish_keys",
        variable: "EVERPOLL_PUBLISH_KEYS",
        default: "none",
        form: "tables [publish_keys.NAME], each with key and channels; in the variable the same as TOML",
        meaning: "Publishing keys with names, each for some channels: whole names, or beginnings and a *, such as \
                  channels = [\"shop-*\"]; [\"*\"] is for all. They are presented as publish_key is, beside which they hold.",
        advice: "Give each application its own: one that leaks can be taken out alone, and publishes to its own channels only. \
                 The name stands in errors.",
        secret: true,
    },
    Key {
        name: "keys_file",
        variable: "EVERPOLL_KEYS_FILE",
        default: "none",
        form: "a whole path",
        meaning: "A TOML file with further keys, in the same tables: [publish_keys.NAME] and [token_keys.KID]. It is read again each second, so keys \
                  are exchanged without a restart.",
        advice: "Put a new file in place of the old one (mv), readable for the programs' user alone. One that is wrong is \
                 reported and changes nothing; at the start it is a problem. Without its last key, nobody may publish over HTTP.",
        secret: false,
    },
    Key {
        name: "retain_for",
        variable: "EVERPOLL_RETAIN_FOR",
        default: "7d",
        form: "seconds, or a number with s, m, h or d, up to 36500d; none or 0 for ever",
        meaning: "How long events stay in the log.",
        advice: "Too low: clients that were away get a gap instead of events. Too high, or none: the log grows on \
                 the disk.",
        secret: false,
    },
    Key {
        name: "retain_count",
        variable: "EVERPOLL_RETAIN_COUNT",
        default: "none",
        form: "events; none or 0 for all",
        meaning: "How many of the newest events stay in the log; retain_for holds as well.",
        advice: "Too low: a burst pushes out events that clients have not read yet, and they get a gap.",
        secret: false,
    },
    Key {
        name: "trim_interval",
        variable: "EVERPOLL_TRIM_INTERVAL",
        default: "30",
        form: "seconds, 1 to 86400",
        meaning: "How often the daemon looks for events that retention does not keep, and removes them.",
        advice: "Too low: looks for nothing. Too high: the log grows meanwhile, and what goes goes all at once, though still \
                 in small batches.",
        secret: false,
    },
    Key {
        name: "trim_batch",
        variable: "EVERPOLL_TRIM_BATCH",
        default: "5000",
        form: "events, 1 to 100000",
        meaning: "Most events that one transaction of retention removes. The daemon begins with 500 and comes nearer to this \
                  while a transaction takes less than 10 ms; after each it leaves the log alone for three times as long.",
        advice: "Too low: a large backlog goes away slowly. Too high: does no harm, since it is adapted to the machine.",
        secret: false,
    },
    Key {
        name: "window_bytes",
        variable: "EVERPOLL_WINDOW_BYTES",
        default: "64MiB",
        form: "bytes, plain or with KiB, MiB or GiB, 64KiB to 64GiB",
        meaning: "Memory for the newest events in the daemon. Clients that are behind by no more than this do not touch \
                  the database.",
        advice: "Too low: after a restart the returning clients load the database. Too high: a slower start, and memory \
                 that nobody needs.",
        secret: false,
    },
    Key {
        name: "sweep_interval",
        variable: "EVERPOLL_SWEEP_INTERVAL",
        default: "1s",
        form: "seconds, or a number with ms, s, m or h, 100ms to 1h",
        meaning: "How often the daemon reads the log although nothing woke it up: the latest that an event comes when wake-ups \
                  are lost.",
        advice: "Too low: statements for nothing. Too high: while wake-ups are lost, events come as late as this; longer \
                 than a few seconds is only good for seeing whether wake-ups come.",
        secret: false,
    },
    Key {
        name: "canary_interval",
        variable: "EVERPOLL_CANARY_INTERVAL",
        default: "5s",
        form: "seconds, or a number with ms, s, m or h, 1s to 1h",
        meaning: "How often the daemon sends a canary over each path of wake-ups. A path on which none arrives within half of \
                  that (at least 1s, at most 10s) is silent: it is logged, shown in /readyz, and connected anew.",
        advice: "Too low: a path is called silent because the database was busy for a moment. Too high: a path that \
                 delivers nothing is noticed late, and events come with the sweep until then.",
        secret: false,
    },
    Key {
        name: "catch_up_max",
        variable: "EVERPOLL_CATCH_UP_MAX",
        default: "20000",
        form: "questions, 1 to 1000000",
        meaning: "Most different questions of clients that wait for the daemon's database at once: channels, and a cursor that is \
                  older than what the daemon has in memory. Further ones are answered with 503 and come back later.",
        advice: "Too low: after a restart clients are sent away. Too high: clients wait instead of being told to come back.",
        secret: false,
    },
    Key {
        name: "connections_max",
        variable: "EVERPOLL_CONNECTIONS_MAX",
        default: "20000",
        form: "connections, 1 to 1000000",
        meaning: "Most connections of a program at once; further ones are sent away with 503 and come back later.",
        advice: "Lowered to what the limit of open files (ulimit -n) allows. Too low: clients are sent away. Too high: \
                 memory, about 2 KB for a held poll.",
        secret: false,
    },
    Key {
        name: "holds_max",
        variable: "EVERPOLL_HOLDS_MAX",
        default: "19000",
        form: "requests, 0 to 1000000",
        meaning: "Most polls and streams that the daemon holds at once. Further ones are answered at once with what there is, and \
                  come back later.",
        advice: "Never more than 19 of 20 of connections_max, so that there is room for those who are not held. Too low: \
                 clients short-poll although there is room. 0: nobody is held.",
        secret: false,
    },
    Key {
        name: "unsent_max",
        variable: "EVERPOLL_UNSENT_MAX",
        default: "256MiB",
        form: "bytes, plain or with KiB, MiB or GiB, 1MiB to 64GiB",
        meaning: "Most bytes of replies that wait in the daemon until slow clients take them, all together. Beyond it, clients \
                  that do not take a reply at once are cut off, and come back with their cursor.",
        advice: "Too low: clients on bad lines are cut off when many of them are behind. Too high: memory.",
        secret: false,
    },
    Key {
        name: "head_timeout",
        variable: "EVERPOLL_HEAD_TIMEOUT",
        default: "10",
        form: "seconds, 1 to 300",
        meaning: "How long a request may take to arrive.",
        advice: "Too low: clients on bad lines get 408. Too high: slow senders hold connections.",
        secret: false,
    },
    Key {
        name: "idle_timeout",
        variable: "EVERPOLL_IDLE_TIMEOUT",
        default: "125",
        form: "seconds, 1 to 3600",
        meaning: "How long a connection without a request is kept.",
        advice: "Below 120 some old browsers send into a connection that was just closed. Too high: idle \
                 connections use up connections_max.",
        secret: false,
    },
    Key {
        name: "write_timeout",
        variable: "EVERPOLL_WRITE_TIMEOUT",
        default: "30",
        form: "seconds, 1 to 3600",
        meaning: "How long a client may take nothing of its reply.",
        advice: "Too low: clients on bad lines are cut off. Too high: clients that stopped reading hold memory.",
        secret: false,
    },
    Key {
        name: "ghost_timeout",
        variable: "EVERPOLL_GHOST_TIMEOUT",
        default: "30",
        form: "seconds, 5 to 3600",
        meaning: "How long a TCP client may not acknowledge what it was sent, and after how much silence it is probed. \
                  Clients that vanished without a word are noticed after twice this at most.",
        advice: "Too low: clients whose network is away for a moment are cut off. Too high: ghosts hold connections and the \
                 place of their browser. Behind a web server it is that server's affair.",
        secret: false,
    },
    Key {
        name: "drain_timeout",
        variable: "EVERPOLL_DRAIN_TIMEOUT",
        default: "10",
        form: "seconds, 0 to 3600",
        meaning: "How long a program that was told to stop waits for the requests in hand. Held polls are answered at once.",
        advice: "Too low: replies are cut off. Too high: a restart takes as long as the slowest client.",
        secret: false,
    },
    Key {
        name: "body_max",
        variable: "EVERPOLL_BODY_MAX",
        default: "8MiB",
        form: "bytes, plain or with KiB, MiB or GiB, 1088KiB to 256MiB",
        meaning: "Largest body of POST /publish.",
        advice: "Too low: large arrays of events are refused with 413. Too high: each publisher may take that \
                 much memory.",
        secret: false,
    },
    Key {
        name: "log",
        variable: "EVERPOLL_LOG",
        default: "info",
        form: "error, warn, info, debug or trace, also for parts: info,everpoll=debug",
        meaning: "Which diagnostics are written to standard error.",
        advice: "Too low: nobody learns of a lost database. Too high: a line for each request.",
        secret: false,
    },
    Key {
        name: "log_format",
        variable: "EVERPOLL_LOG_FORMAT",
        default: "text",
        form: "text or json",
        meaning: "How diagnostics look: lines for people, or one JSON object a line.",
        advice: "",
        secret: false,
    },
];

/// All settings as text for a terminal.
#[must_use]
pub fn describe() -> String {
    let mut text = String::from(
        "Settings come from a TOML file (--config FILE or EVERPOLL_CONFIG) and from the environment;\n\
         a variable wins over the file, an empty one counts as not set.\n",
    );
    for key in KEYS {
        let Key { name, variable, default, form, meaning, advice, .. } = key;
        let _ = write!(text, "\n{name}  ({variable})\n");
        let _ = writeln!(text, "    {form}; default: {default}");
        for line in [meaning, advice].into_iter().filter(|line| !line.is_empty()) {
            wrap(&mut text, line);
        }
    }
    text
}

/// Appends `line` in lines of at most 100 columns, indented by four.
fn wrap(text: &mut String, line: &str) {
    let mut column = 0;
    for word in line.split(' ') {
        if column == 0 || column + 1 + word.len() > 100 {
            text.push_str(if column == 0 { "    " } else { "\n    " });
            column = 4;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
