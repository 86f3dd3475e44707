//! The daemon and the command line.

mod catch_up;
mod front;
mod head;
mod health;
mod hub;
mod listen;
mod long_poll;
mod publish;
mod replies;
mod retention;
mod seats;
mod serve;
mod server;
mod service;
mod stream;
mod tailer;
mod wakeup;
mod window;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let settings = everpoll_settings::Settings::from_process(None).map_err(|e| anyhow::anyhow!("{e}"))?;
    serve::run(&settings)
}
