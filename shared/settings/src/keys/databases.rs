//! Where the log is, and who wakes the daemon up.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "database_url",
        variable: "EVERPOLL_DATABASE_URL",
        default: "sqlite:./everpoll.db",
        form: "postgres://user:password@host/database (several hosts allowed), or sqlite:/path",
        meaning: "Where the log is. A SQLite file is made when it is missing; PostgreSQL needs everpoll migrate first.",
        advice: "The daemon and the fallback must name the same database. A relative path begins where the program was \
                 started. With PostgreSQL, access must be written down.",
        secret: true,
        live: false,
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
        live: false,
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
        live: false,
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
        live: false,
    },
];
