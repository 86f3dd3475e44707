//! Everpoll as it runs in production: the real programs, over real sockets, on real databases.
