//! What a daemon says about itself: whether it serves, and how it is woken up.

use std::time::Duration;

use crate::{Reply, json};

/// How one path of wake-ups does, for whoever runs the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeupPath {
    /// `postgres`, `sqlite` or `redis`.
    pub name: &'static str,
    /// `starting`, `works` or `silent`.
    pub state: &'static str,
    /// How long it has been silent.
    pub silent_for: Option<Duration>,
    /// Why it is silent, as far as known.
    pub cause: Option<String>,
    /// How often it became silent.
    pub losses: u64,
    /// Wake-ups that came over it.
    pub messages: u64,
    /// Canaries that came over it.
    pub canaries: u64,
}

impl Reply {
    /// The reply of `/readyz`: `status` is 200 or 503, `state` a word for it, `detail` more in words.
    #[must_use]
    pub fn readiness(status: u16, state: &str, detail: &str, paths: &[WakeupPath], head_only: bool) -> Self {
        let mut body = b"{\"status\":".to_vec();
        json::write_string(state, &mut body);
        body.extend_from_slice(b",\"detail\":");
        json::write_string(detail, &mut body);
        body.extend_from_slice(b",\"wakeups\":{");
        for (n, path) in paths.iter().enumerate() {
            if n > 0 {
                body.push(b',');
            }
            path.write(&mut body);
        }
        body.extend_from_slice(b"}}");
        Self::json(status, body, head_only)
    }
}

impl WakeupPath {
    /// As a member of an object.
    fn write(&self, body: &mut Vec<u8>) {
        json::write_string(self.name, body);
        body.extend_from_slice(b":{\"state\":");
        json::write_string(self.state, body);
        let Self { losses, messages, canaries, .. } = self;
        body.extend_from_slice(
            format!(",\"losses\":{losses},\"messages\":{messages},\"canaries\":{canaries}").as_bytes(),
        );
        if let Some(silent_for) = self.silent_for {
            body.extend_from_slice(format!(",\"silent_for_ms\":{}", silent_for.as_millis()).as_bytes());
        }
        if let Some(cause) = &self.cause {
            body.extend_from_slice(b",\"cause\":");
            json::write_string(cause, body);
        }
        body.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_names_each_path_and_why_it_is_silent() {
        let works = WakeupPath {
            name: "postgres",
            state: "works",
            silent_for: None,
            cause: None,
            losses: 0,
            messages: 7,
            canaries: 2,
        };
        let silent = WakeupPath {
            name: "redis",
            state: "silent",
            silent_for: Some(Duration::from_millis(1500)),
            cause: Some("a \"cause\"".to_owned()),
            losses: 3,
            messages: 0,
            canaries: 0,
        };
        let reply = Reply::readiness(200, "ready", "all is well", &[works, silent], false);
        assert_eq!(
            String::from_utf8_lossy(&reply.body()),
            r#"{"status":"ready","detail":"all is well","wakeups":{"postgres":{"state":"works","losses":0,"messages":7,"canaries":2},"redis":{"state":"silent","losses":3,"messages":0,"canaries":0,"silent_for_ms":1500,"cause":"a \"cause\""}}}"#
        );
        assert!(Reply::readiness(503, "starting", "", &[], false).body().ends_with(b"\"wakeups\":{}}"));
    }
}
