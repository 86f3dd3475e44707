//! `everpoll publish`: appends one event, straight to the log or over HTTP.

use std::io::Read as _;
use std::path::Path;

use clap::Args;
use everpoll_protocol::{NewEvent, RequestError};
use everpoll_settings::Settings;
use serde_json::value::RawValue;

use super::{Failure, http};

/// Most of standard input that is read. The limit of an event is lower; an error shall name the size nevertheless.
const MAX_INPUT: u64 = 64 * 1024 * 1024;

/// Publish an event and print its id
///
/// The event is in the log, for good, when the exit code is 0. 1: it is not, or (when the connection broke during the
/// commit) may not be; publish it again, with the same --key so that it cannot be there twice. 2: no log would
/// take it: the text says why.
///
/// It goes straight into the database of the settings and needs no daemon, or with --url over HTTP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  everpoll publish cheese cheese_created '{\"name\":\"Gouda\"}'
  everpoll publish cheese cheese_created --key order-17 - < event.json
  everpoll publish cheese ripened null --url http://127.0.0.1:8377")]
pub(super) struct Arguments {
    /// Channel: 1 to 200 bytes, without '/', ',' and control characters
    channel: String,
    /// Type of the event, such as cheese_created
    #[arg(value_name = "TYPE")]
    kind: String,
    /// Data: JSON of at most 1 MiB; - reads it from standard input
    #[arg(value_name = "JSON", allow_hyphen_values = true)]
    data: String,
    /// Publishing the same key on the same channel again is no second event
    #[arg(long)]
    key: Option<String>,
    /// The wait_id of a browser that shall not get the event: everyone but me
    #[arg(long, value_name = "WAIT_ID")]
    exclude: Option<String>,
    /// Publish over HTTP at this address (http://host:port or unix:/path) and not straight into the database. The
    /// setting publish_key, or the one of publish_keys that fits, is presented
    #[arg(long)]
    url: Option<String>,
}

pub(super) fn run(arguments: &Arguments, config: Option<&Path>) -> Result<(), Failure> {
    let settings = super::settings(config)?;
    let Arguments { channel, kind, key, exclude, .. } = arguments;
    let data = data(&arguments.data)?;
    let event =
        NewEvent::parse(channel, kind, &data, key.as_deref(), exclude.as_deref()).map_err(Failure::input)?;
    let (bytes, limit) =
        (data.len(), usize::try_from(settings.event_max_on(&event.channel)).unwrap_or(usize::MAX));
    if bytes > limit {
        return Err(Failure::input(RequestError::DataTooLarge { bytes, limit }));
    }
    let ids = match &arguments.url {
        Some(url) => over_http(url, &settings, &event)?,
        None => super::log(&settings, "publish")?.publish(&[event])?,
    };
    ids.iter().try_for_each(|id| super::print(&id.to_string()))
}

/// The argument, or standard input for `-`.
fn data(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = String::new();
    match std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Failure::input("standard input is not UTF-8; JSON is"))
        }
        Err(error) => Err(Failure::failed(format!("standard input cannot be read: {error}"))),
    }
}

#[derive(serde::Serialize)]
struct Body<'a> {
    channel: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exclude: Option<&'a str>,
}

#[derive(serde::Deserialize)]
struct Published {
    ids: Vec<u64>,
}

#[derive(serde::Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

fn over_http(url: &str, settings: &Settings, event: &NewEvent) -> Result<Vec<u64>, Failure> {
    let server = http::Server::parse(url).map_err(Failure::input)?;
    let body = Body {
        channel: event.channel.as_str(),
        kind: event.kind.as_str(),
        data: serde_json::from_str(event.data.as_str()).map_err(Failure::input)?,
        key: event.key.as_deref(),
        exclude: event.exclude.as_ref().map(everpoll_protocol::WaitId::as_str),
    };
    let body = serde_json::to_vec(&body).map_err(Failure::failed)?;
    let key = settings.key_for(&event.channel);
    let key = key.map(|key| format!("Authorization: Bearer {}\r\n", key.expose()));
    let head = format!("Content-Type: application/json\r\n{}", key.unwrap_or_default());
    let reply = server.request("POST", "/publish", &head, &body).map_err(|error| {
        Failure::failed(format!("{url} does not answer: {error}; the event may or may not be in the log"))
    })?;
    if reply.status == 201
        && let Ok(published) = serde_json::from_slice::<Published>(&reply.body)
    {
        return Ok(published.ids);
    }
    let text = match serde_json::from_slice::<Problem>(&reply.body) {
        Ok(problem) => format!("{} [{}]", problem.detail, problem.code),
        Err(_) => format!("{url} answered {} and nothing that Everpoll says; is it Everpoll?", reply.status),
    };
    // What is refused for what it is stays refused. A key or an address can be mended without touching the event.
    Err(match reply.status {
        400 | 413 | 415 => Failure::Input(text),
        _ => Failure::Failed(text),
    })
}
