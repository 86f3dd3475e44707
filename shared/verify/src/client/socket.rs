//! A WebSocket.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Asked, BEAT, Client, Failure, GRACE, http, poll};
use crate::Transport;
use crate::record::{Inner, Record};

/// A frame's text.
#[derive(Debug, Deserialize)]
struct Frame {
    #[serde(default)]
    id: u64,
    #[serde(default)]
    channel_id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct End {
    reconnect_in: u64,
}

/// Reads until it is closed, dies, or the client has had enough of it.
pub(super) async fn follow(client: &mut Client) -> Asked {
    let path = client.path(&format!("flavor=websocket&beat={BEAT}"));
    let end = Instant::now().checked_add(client.stay());
    let target = client.target().clone();
    let stream = http::connect(&target).await?;
    let request = format!("ws://{}{path}", target.authority())
        .into_client_request()
        .map_err(|error| Failure::new(format!("no WebSocket request: {error}")))?;
    let mut socket = match timeout(GRACE, tokio_tungstenite::client_async(request, stream)).await {
        Ok(Ok((socket, _))) => socket,
        // The fallback, which holds nothing: a page polls then.
        Ok(Err(Error::Http(response))) if response.status() == 426 => {
            return poll::ask(client, Transport::ShortPoll).await;
        }
        Ok(Err(Error::Http(response))) => {
            let told = response.headers().get("x-ps-reconnect-in");
            let delay = told.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
            return Err(Failure::status(response.status().as_u16(), delay));
        }
        Ok(Err(error)) => return Err(Failure::new(format!("no WebSocket: {}", kind(&error)))),
        Err(_) => return Err(Failure::new("no answer in time")),
    };
    let mut told = None;
    loop {
        let silence = Duration::from_millis(BEAT * 2500);
        let left = end.map_or(silence, |end| end.saturating_duration_since(Instant::now()));
        let message = match timeout(left.min(silence), socket.next()).await {
            Err(_) if left <= silence => {
                // Whether the server still hears it does not matter.
                let _ = timeout(GRACE, socket.close(None)).await;
                return Ok(Duration::ZERO);
            }
            Err(_) => return Err(Failure::new("stream silent")),
            Ok(None | Some(Err(_))) => return told.ok_or_else(|| Failure::new("stream cut")),
            Ok(Some(Ok(message))) => message,
        };
        match message {
            Message::Text(text) => {
                let frame: Frame =
                    serde_json::from_str(&text).map_err(|_| Failure::new("frame is not Everpoll's"))?;
                if frame.kind == "everpoll:end" {
                    let end = frame.data.as_deref().and_then(|data| serde_json::from_str(data.get()).ok());
                    told = end.map(|End { reconnect_in }| Duration::from_secs(reconnect_in));
                }
                let id = frame.id.to_string();
                client.deliver(&frame.into());
                if id != "0" {
                    client.place(&id);
                }
            }
            Message::Ping(_) => {
                // The answer was made by the library, and goes out now.
                let _ = socket.flush().await;
            }
            Message::Close(close) => {
                let reason = close.map(|close| close.reason.to_string()).unwrap_or_default();
                let seconds = reason
                    .split("reconnect_in=")
                    .nth(1)
                    .and_then(|text| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
                told = told.or(seconds.map(Duration::from_secs));
            }
            _ => {}
        }
    }
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => "connection broken",
        Error::Protocol(_) => "against the protocol",
        _ => "refused",
    }
}

impl From<Frame> for Record {
    fn from(frame: Frame) -> Self {
        let Frame { id, channel_id, kind, data } = frame;
        Self { id, channel_id, data: Inner { kind, data } }
    }
}
