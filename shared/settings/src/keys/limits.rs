//! How much at once, and how long it may take.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "catch_up_max",
        variable: "EVERPOLL_CATCH_UP_MAX",
        default: "20000",
        form: "questions, 1 to 1000000",
        meaning: "Most different questions of clients that wait for the daemon's database at once: channels, and a cursor that is \
                  older than what the daemon has in memory. Further ones are answered with 503 and come back later.",
        advice: "Too low: after a restart clients are sent away. Too high: clients wait instead of being told to come back.",
        secret: false,
        live: true,
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
        live: true,
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
        live: true,
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
        live: true,
    },
    Key {
        name: "head_timeout",
        variable: "EVERPOLL_HEAD_TIMEOUT",
        default: "10",
        form: "seconds, 1 to 300",
        meaning: "How long a request may take to arrive.",
        advice: "Too low: clients on bad lines get 408. Too high: slow senders hold connections.",
        secret: false,
        live: true,
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
        live: true,
    },
    Key {
        name: "write_timeout",
        variable: "EVERPOLL_WRITE_TIMEOUT",
        default: "30",
        form: "seconds, 1 to 3600",
        meaning: "How long a client may take nothing of its reply.",
        advice: "Too low: clients on bad lines are cut off. Too high: clients that stopped reading hold memory.",
        secret: false,
        live: true,
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
        live: false,
    },
    Key {
        name: "drain_timeout",
        variable: "EVERPOLL_DRAIN_TIMEOUT",
        default: "10",
        form: "seconds, 0 to 3600",
        meaning: "How long a program that was told to stop waits for the requests in hand. Held polls are answered at once.",
        advice: "Too low: replies are cut off. Too high: a restart takes as long as the slowest client.",
        secret: false,
        live: true,
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
        live: true,
    },
];
