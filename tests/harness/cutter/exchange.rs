//! One request from each connection, and an answer of some sort.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::message::Head;
use super::{Io, Mode, Shared, lock};

/// How long an answer is remembered, from when it was asked for.
const MEMORY: Duration = Duration::from_secs(60);

/// When it gives up on a server that does not come to an end.
const GIVES_UP: Duration = Duration::from_secs(150);

/// Answers by URL; an empty cell is being filled by whoever asked first.
pub(super) type Cache = Mutex<HashMap<String, (Instant, Arc<OnceCell<Vec<u8>>>)>>;

/// A request, and all bytes of its body.
struct Request {
    head: Head,
    body: Vec<u8>,
}

/// Takes one request, answers it and closes.
pub(super) async fn run(mut client: TcpStream, shared: &Arc<Shared>, mode: Mode) -> io::Result<()> {
    let request = Request::read(&mut client).await?;
    shared.note_request(request.head.line.as_bytes());
    let answer = match mode {
        Mode::Http10 => return stream(client, shared, request, Head::http10).await,
        Mode::Strip => return stream(client, shared, request, |head| head.stripped().alone()).await,
        Mode::Cache if request.head.method() == "GET" => cached(&client, shared, request).await,
        Mode::Duplicate if request.head.method() == "GET" => twice(&client, shared, request).await,
        Mode::GatewayTimeout(limit) => within(limit, "504 Gateway Timeout", &client, shared, &request).await,
        Mode::Html200(limit) => within(limit, "200 OK", &client, shared, &request).await,
        _ => unless_gone(&client, fetch(shared, &request)).await,
    };
    let answer = match answer {
        Ok(answer) => answer,
        // The client has gone away.
        Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
        Err(_) => page("502 Bad Gateway"),
    };
    client.write_all(&shape(answer, mode, shared)).await?;
    client.shutdown().await
}

impl Request {
    async fn read(client: &mut TcpStream) -> io::Result<Self> {
        let (head, mut body) = Head::read(client).await?;
        let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let begun = body.len();
        body.resize(length.max(begun), 0);
        client.read_exact(&mut body[begun..]).await?;
        Ok(Self { head, body })
    }

    async fn send(&self, head: &Head, shared: &Shared) -> io::Result<Box<dyn Io>> {
        let mut server = shared.connect().await?;
        server.write_all(&[head.bytes(), self.body.clone()].concat()).await?;
        Ok(server)
    }
}

/// Passes both heads on, changed, and all bodies as they come.
async fn stream(
    mut client: TcpStream,
    shared: &Shared,
    request: Request,
    change: impl Fn(Head) -> Head,
) -> io::Result<()> {
    let Ok(mut server) = request.send(&change(request.head.clone()), shared).await else {
        return client.write_all(&page("502 Bad Gateway")).await;
    };
    let (head, begun) = unless_gone(&client, Head::read(&mut server)).await?;
    let mut server = server.take(missing(&head, &begun));
    client.write_all(&[change(head).bytes(), begun].concat()).await?;
    let mut bytes = vec![0; 16 * 1024];
    loop {
        match unless_gone(&client, server.read(&mut bytes)).await? {
            0 => return client.shutdown().await,
            length => client.write_all(&bytes[..length]).await?,
        }
    }
}

/// The whole answer: as much as it says it has, or to the end of the connection.
async fn fetch(shared: &Shared, request: &Request) -> io::Result<Vec<u8>> {
    let whole = async {
        let mut server = request.send(&request.head.clone().alone(), shared).await?;
        let (head, mut body) = Head::read(&mut server).await?;
        // An answer that ends before is passed on as it is.
        server.take(missing(&head, &body)).read_to_end(&mut body).await?;
        Ok([head.bytes(), body].concat())
    };
    timeout(GIVES_UP, whole).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// How many bytes of a body are still to come, or more than ever will when the end of the connection is its end.
fn missing(head: &Head, begun: &[u8]) -> u64 {
    let length = head.header("content-length").and_then(|length| length.parse().ok());
    length.unwrap_or(u64::MAX).saturating_sub(begun.len() as u64)
}

/// Ends with `NotConnected` when the client leaves before `work` is done.
async fn unless_gone<T>(client: &TcpStream, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let gone = async {
        // One request is all that is taken, so there is nothing to read but the end.
        let mut byte = [0; 1];
        while matches!(client.peek(&mut byte).await, Ok(1)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        done = work => done,
        () = gone => Err(ErrorKind::NotConnected.into()),
    }
}

async fn within(
    limit: Duration,
    status: &str,
    client: &TcpStream,
    shared: &Shared,
    request: &Request,
) -> io::Result<Vec<u8>> {
    match timeout(limit, unless_gone(client, fetch(shared, request))).await {
        Ok(answer) => answer,
        Err(_) => {
            shared.count(|counters| counters.cut += 1);
            Ok(page(status))
        }
    }
}

/// Both at once, as a proxy does that has lost patience with the first.
async fn twice(client: &TcpStream, shared: &Shared, request: Request) -> io::Result<Vec<u8>> {
    shared.count(|counters| counters.duplicated += 1);
    let both = async { tokio::join!(fetch(shared, &request), fetch(shared, &request)).1 };
    unless_gone(client, both).await
}

async fn cached(client: &TcpStream, shared: &Arc<Shared>, request: Request) -> io::Result<Vec<u8>> {
    let target = request.head.target().to_owned();
    let (cell, known) = {
        let mut cache = lock(&shared.cache);
        cache.retain(|_, (asked, _)| asked.elapsed() < MEMORY);
        let known = cache.contains_key(&target);
        let entry = cache.entry(target).or_insert_with(|| (Instant::now(), Arc::default()));
        (entry.1.clone(), known)
    };
    if known {
        shared.count(|counters| counters.shared += 1);
    }
    // In a task of its own: others may wait for the answer when this client has gone.
    let for_task = shared.clone();
    let answer = tokio::spawn(async move {
        let answer = cell.get_or_try_init(|| fetch(&for_task, &request)).await.cloned();
        if !matches!(&answer, Ok(answer) if is_ok(answer)) {
            // What has waited gets it, but nobody else.
            lock(&for_task.cache).remove(request.head.target());
        }
        answer
    });
    unless_gone(client, async { answer.await.unwrap_or_else(|_| Err(ErrorKind::Other.into())) }).await
}

fn is_ok(answer: &[u8]) -> bool {
    answer.get(8..12) == Some(b" 200")
}

/// Makes of a whole answer what the mode passes on.
fn shape(answer: Vec<u8>, mode: Mode, shared: &Shared) -> Vec<u8> {
    let Some((head, body)) = Head::split(&answer) else { return page("502 Bad Gateway") };
    match mode {
        Mode::Truncate(every) => {
            let mut answers = 0;
            shared.count(|counters| {
                counters.answers += 1;
                answers = counters.answers;
            });
            if !u32::is_multiple_of(answers, every.max(1)) {
                return answer;
            }
            shared.count(|counters| counters.truncated += 1);
            [head.alone().bytes(), body[..body.len() / 2].to_vec()].concat()
        }
        Mode::Buffer => [head.alone().with_length(body.len()).bytes(), body.to_vec()].concat(),
        _ => [head.alone().bytes(), body.to_vec()].concat(),
    }
}

/// A page such as proxies make.
fn page(status: &str) -> Vec<u8> {
    let body =
        format!("<html><body><h1>{status}</h1><p>The proxy could not reach the server.</p></body></html>");
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}
