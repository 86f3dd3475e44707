//! Where the programs listen.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "listen",
        variable: "EVERPOLL_LISTEN",
        default: "127.0.0.1:8377",
        form: "host:port, or unix:/path",
        meaning: "Where the daemon listens.",
        advice: "An address that other machines can reach needs access to be written down. \
                 The fallback is told its address by --listen.",
        secret: false,
        live: false,
    },
    Key {
        name: "fallback_status",
        variable: "EVERPOLL_FALLBACK_STATUS",
        default: "none",
        form: "none, host:port, or unix:/path",
        meaning: "Where the fallback tells its metrics under FastCGI: GET /metrics, by HTTP, for status_peers. Clients cannot ask \
                  there, since they come by FastCGI.",
        advice: "An address that no web server passes on. Of several processes with the same settings the first one gets it. \
                 Plain CGI has none.",
        secret: false,
        live: false,
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
        live: false,
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
        live: false,
    },
    Key {
        name: "tls_certificate",
        variable: "EVERPOLL_TLS_CERTIFICATE",
        default: "none",
        form: "path of a PEM file",
        meaning: "The certificate with which the daemon's TCP ports speak TLS, and those between it and the root, the server's own \
                  first; tls_key beside it. Unix sockets do not speak TLS.",
        advice: "Read again within seconds when it has changed, and on SIGHUP; a new pair that does not fit is told in the \
                 diagnostics, and the old one goes on. So is one that ends within 14 days, or is in the last fifth of its life. Without TLS a web server in front has to have it.",
        secret: false,
        live: false,
    },
    Key {
        name: "tls_key",
        variable: "EVERPOLL_TLS_KEY",
        default: "none",
        form: "path of a PEM file",
        meaning: "The private key of tls_certificate, without a passphrase.",
        advice: "The daemon's user must be able to read it, and nobody else should.",
        secret: false,
        live: false,
    },
];
