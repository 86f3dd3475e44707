//! Who may read.

use super::Key;

pub(super) const KEYS: &[Key] = &[
    Key {
        name: "access",
        variable: "EVERPOLL_ACCESS",
        default: "open",
        form: "open, token or proxy",
        meaning: "Who may read. open: whoever reaches the program reads any channel. token: each request brings a token (JWT) \
                  that says which channels, and until when. proxy: the web server in front asks the application, and hands its \
                  answer over in a header.",
        advice: "The default holds only with a SQLite file and an address of this machine, and for who asks for localhost or an \
                 address; otherwise it must be written down, since a web server in front makes any address public.",
        secret: false,
        live: true,
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
        live: true,
    },
    Key {
        name: "access_until_header",
        variable: "EVERPOLL_ACCESS_UNTIL_HEADER",
        default: "X-Everpoll-Until",
        form: "a header that begins with X-",
        meaning: "With access = proxy: the header in which it says until when, in seconds since 1970. It may be left out.",
        advice: "",
        secret: false,
        live: true,
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
        live: true,
    },
    Key {
        name: "access_recheck",
        variable: "EVERPOLL_ACCESS_RECHECK",
        default: "30",
        form: "seconds, 1 to 300",
        meaning: "With access = proxy: how long a hold or a stream lasts at most before the web server is asked again; and for \
                  how long after the end of what it says clients are told to come again (access_stale), and not to stop.",
        advice: "Too high: who has lost the right reads on for so long, and as long as the web server keeps the application's answer \
                 besides. Too low: more questions to the application.",
        secret: false,
        live: true,
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
        live: true,
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
        live: true,
    },
    Key {
        name: "token_audience",
        variable: "EVERPOLL_TOKEN_AUDIENCE",
        default: "none",
        form: "text, or none",
        meaning: "What a token's aud must be, or have in its list.",
        advice: "Without it, a token that was made for another site with the same key is good here.",
        secret: false,
        live: true,
    },
    Key {
        name: "token_issuer",
        variable: "EVERPOLL_TOKEN_ISSUER",
        default: "none",
        form: "text, or none",
        meaning: "What a token's iss must be.",
        advice: "",
        secret: false,
        live: true,
    },
    Key {
        name: "token_leeway",
        variable: "EVERPOLL_TOKEN_LEEWAY",
        default: "5",
        form: "seconds, 0 to 30",
        meaning: "How far the clock of the machine that makes tokens may be wrong. Holds and streams end at exp and this.",
        advice: "Too low: tokens are refused as not valid yet. Too high: they are good for so much longer.",
        secret: false,
        live: true,
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
        live: true,
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
        live: true,
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
        live: true,
    },
];
