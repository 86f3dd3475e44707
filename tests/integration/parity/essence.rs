//! Replies as they must be the same everywhere, without what may differ.

use everpoll_tests::Reply;

/// What HTTP says about this connection and not about this reply.
const HOP_BY_HOP: [&str; 6] = ["date", "server", "connection", "keep-alive", "transfer-encoding", "upgrade"];

/// A reply as it must be the same everywhere.
#[derive(Debug, PartialEq)]
pub(super) struct Essence {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Essence {
    pub(super) fn of(reply: &Reply) -> Self {
        let mut body = String::from_utf8_lossy(&reply.body).into_owned();
        if let Some(gap) = body.find(r#""data":{"type":"everpoll:gap""#) {
            // "ts":"2014-07-23T14:25:22.123Z", before it.
            body.replace_range(gap - 26..gap - 1, "(ts)");
        }
        let mut headers = headers(reply);
        let delay = headers.iter_mut().find(|(name, _)| name == "x-ps-reconnect-in");
        // Spread by chance from 5 to 30 s. At once, and after an error of the sender's, is the same everywhere.
        if let Some((_, seconds)) = delay
            && seconds.parse().is_ok_and(|seconds| (5..=30).contains(&seconds))
        {
            for end in [',', '}'] {
                let soon = format!(r#""reconnect_in":soon{end}"#);
                body = body.replace(&format!(r#""reconnect_in":{seconds}{end}"#), &soon);
            }
            let digits = seconds.len();
            *seconds = "soon".to_owned();
            // To a HEAD nobody sees whether it is one that has the digits in it.
            if reply.body.is_empty() {
                headers.retain(|(name, _)| name != "content-length");
            }
            // An envelope is longer by a digit then.
            if body.contains("soon") && digits == 2 {
                let length = headers.iter_mut().find(|(name, _)| name == "content-length");
                if let Some((_, length)) = length {
                    *length = length.parse().map_or(length.clone(), |bytes: usize| (bytes - 1).to_string());
                }
            }
        }
        headers.sort();
        Self { status: reply.status, headers, body }
    }

    /// A stream of which `text` has come: no length, no end, and no word on how often there will be a heartbeat.
    pub(super) fn of_stream(head: &Reply, text: &str) -> Self {
        let mut headers = headers(head);
        headers.retain(|(name, _)| name != "content-length");
        headers.sort();
        let mut body = String::with_capacity(text.len());
        for block in text.split_inclusive("\n\n") {
            let ours = block.contains("everpoll:");
            if ours
                && (block.contains("event: everpoll:end\n") || block.contains(r#"{"type":"everpoll:end""#))
            {
                continue;
            }
            let mut block = block.to_owned();
            if ours {
                hide(&mut block, "\nretry: ", "\n");
                hide(&mut block, r#""ts":"#, ",");
                hide(&mut block, r#""beat":"#, "}");
            }
            body.push_str(&block);
        }
        Self { status: head.status, headers, body }
    }

    /// Leaves out what only a program that holds polls can say: where the `daemon` lets its client come back at once, and when it
    /// has held it. What it padded is shorter by its spaces.
    pub(super) fn level(daemon: &mut Self, fallback: &mut Self) {
        let comes_back_now = |it: &Self| it.header("x-ps-reconnect-in") == Some("0");
        if daemon.status != 200 || !comes_back_now(daemon) || comes_back_now(fallback) {
            return;
        }
        // An answer at once is one with news in it.
        let was_held = daemon.header("x-shortpoll-info") == Some("false");
        let is_empty = fallback.body == "[]" || fallback.body.contains(r#"{"events":[],"#);
        if was_held && !is_empty {
            return;
        }
        // The head of a padded reply is gone before anybody knows the cursor.
        let was_padded = was_held && daemon.header("x-ps-cursor").is_none();
        let has_envelope = fallback.body.contains(r#","end":1}"#);
        for it in [daemon, fallback] {
            it.headers.retain(|(name, _)| match name.as_str() {
                "x-ps-reconnect-in" => false,
                "x-shortpoll-info" => !was_held,
                "content-length" => !has_envelope,
                "x-ps-cursor" => !was_padded,
                _ => true,
            });
            let until = if was_held { r#","end":1}"# } else { r#","short_poll""# };
            hide(&mut it.body, r#""reconnect_in":"#, until);
            it.body.truncate(it.body.trim_end_matches(' ').len());
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Short enough to read.
    pub(super) fn shown(&self) -> String {
        let Self { status, headers, body } = self;
        let body: String = body.chars().take(400).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{status} {body:?} {}", headers.join("; "))
    }
}

fn headers(reply: &Reply) -> Vec<(String, String)> {
    let headers = reply.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone()));
    headers.filter(|(name, _)| !HOP_BY_HOP.contains(&name.as_str())).collect()
}

/// Replaces what stands between these two, the first time.
fn hide(text: &mut String, from: &str, to: &str) {
    if let Some(start) = text.find(from).map(|start| start + from.len())
        && let Some(length) = text[start..].find(to)
    {
        text.replace_range(start..start + length, "(hidden)");
    }
}
