//! Reads the settings again while the program serves FastCGI: on SIGHUP all of them, and `keys_file` each second. A plain CGI
//! program reads them for each request anyway.

use std::io;
use std::sync::Arc;

use everpoll_protocol::{Limits, Live};
use everpoll_settings::{Problems, Running, Settings};
use signal_hook::iterator::Signals;

use crate::arguments::Arguments;
use crate::fastcgi::responder::Responder;
use crate::fastcgi::server;
use crate::start;

/// What takes new settings.
pub(crate) struct Served {
    pub(crate) responder: Arc<Responder>,
    pub(crate) limits: Live<server::Limits>,
    /// Shows from now on what this filter says.
    pub(crate) show: Box<dyn Fn(&str) + Send>,
}

/// Follows the settings for as long as the program runs. It goes on listening where it does, whatever the new ones say.
pub(crate) fn follow(
    settings: Settings,
    arguments: &Arguments,
    listens_locally: bool,
    Served { responder, limits: live, show }: Served,
    mut hangups: Signals,
) -> io::Result<()> {
    let (limits, workers) = (responder.answers().limits(), arguments.workers);
    let arguments = Arguments::clone(arguments);
    let read = move || {
        let public = start::public();
        let listen = if listens_locally { arguments.listen.as_ref() } else { Some(&public) };
        start::settings(&arguments, listen).map_err(Problems::new)
    };
    let apply = move |settings: &Settings, limits: Limits| {
        show(&settings.log);
        live.set(start::limits(settings, workers));
        responder.say_params_seconds(settings.head_timeout.as_secs());
        responder.answers().exchange(limits);
    };
    let reload = Running { settings, limits, read, apply }.follow()?;
    let wait = move || hangups.forever().for_each(|_| reload.begin());
    std::thread::Builder::new().name("hangup".into()).spawn(wait)?;
    Ok(())
}
