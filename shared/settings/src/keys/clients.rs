//! How much each client may take, and whose word it is who that is.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "connections_per_address",
        variable: "EVERPOLL_CONNECTIONS_PER_ADDRESS",
        default: "5000",
        form: "connections, 1 to 1000000",
        meaning: "Most connections of one address to the daemon; further ones are sent away with 429 and come back later. Of those in \
                  forwarded_peers, the polls and streams that are held for each of their clients count instead: further ones are \
                  answered at once. An address is one of IPv4, or a /64 of IPv6.",
        advice: "Never more than half of connections_max. Too low: a large office behind one address is locked out in part, or \
                 short-polls. Too high: a few machines can take all connections.",
        secret: false,
        live: true,
    },
    Key {
        name: "requests_per_address",
        variable: "EVERPOLL_REQUESTS_PER_ADDRESS",
        default: "1000",
        form: "requests a second, 1 to 1000000, and how many at once where that is not ten times as many: \"1000 burst 5000\"; or none",
        meaning: "How many requests may come from one address; further ones are answered with 429 and come back later. Publishing with \
                  a right key is not counted. The fallback counts what comes to it, under FastCGI; plain CGI has no memory.",
        advice: "After each event, all clients behind an address ask again at once. Too low: large offices get events late. Too \
                 high, or none: one machine can keep the daemon busy.",
        secret: false,
        live: true,
    },
    Key {
        name: "websockets_per_wait_id",
        variable: "EVERPOLL_WEBSOCKETS_PER_WAIT_ID",
        default: "64",
        form: "WebSockets, 1 to 100000",
        meaning: "Most WebSockets of one browser, that is, with one wait_id. Further ones are closed with 1013. Of all other requests one \
                  is held.",
        advice: "Too low: a visitor with many tabs gets nothing in some of them. Too high: bounded by connections_per_address.",
        secret: false,
        live: true,
    },
    Key {
        name: "forwarded_peers",
        variable: "EVERPOLL_FORWARDED_PEERS",
        default: "127.0.0.0/8 ::1",
        form: "addresses and networks such as 192.0.2.7 or 10.0.0.0/8, separated by spaces or commas, or none; in the file also a list",
        meaning: "The web servers in front: from where X-Forwarded-For is believed, which says whom a request comes from. What comes over \
                  a unix socket, or from access_peers, always is. Several in a row are all to be listed.",
        advice: "A web server on another machine that is not listed is one address to all limits. A client that is listed is not limited.",
        secret: false,
        live: true,
    },
    Key {
        name: "status_peers",
        variable: "EVERPOLL_STATUS_PEERS",
        default: "127.0.0.0/8 ::1",
        form: "addresses and networks such as 192.0.2.7 or 10.0.0.0/8, separated by spaces or commas, or none; in the file also a list",
        meaning: "Who may ask /metrics and /readyz, besides whoever connects to a unix socket; others get 403. What a web server passes on \
                  is asked by its client.",
        advice: "List your monitoring, and load balancers that ask for readiness. /healthz is for everybody.",
        secret: false,
        live: true,
    },
];
