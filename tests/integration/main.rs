//! Everpoll as it runs in production: the real programs, over real sockets, on real databases.

/// nginx with the shipped configuration: who answers when, and what is handed over.
mod nginx;
/// Apache, lighttpd and Python's server with the snippets of their pages.
mod recipes;
