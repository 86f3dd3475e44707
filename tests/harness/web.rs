//! Web servers in front of Everpoll, with the configuration that Everpoll ships or documents.
//!
//! What is tested is what people copy: nginx runs `nginx/example.conf` itself, the others the snippet of their page in
//! `docs/how-to/`. Only addresses, paths and the database are put in, in place of those written there; a page whose
//! text no longer fits fails its test by name.
//!
//! All run in the foreground, in directories of their own. nginx and lighttpd run as whoever runs the tests; Apache,
//! which refuses to serve as root, then runs as PostgreSQL's user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::http::Address;
use crate::process::Process;
use crate::{TestDir, database, everpoll, ports, wait};

/// A running web server, stopped on drop.
#[derive(Debug)]
pub struct WebServer {
    address: Address,
    process: Process,
    // Last, so that they go after the server that uses them.
    directory: TestDir,
    places: Option<Places>,
}

impl WebServer {
    /// nginx with `nginx/example.conf`, passing to these two.
    ///
    /// # Panics
    /// When it is not installed, does not start, or the shipped configuration has changed.
    #[track_caller]
    pub fn nginx(daemon: &Address, fallback: &Address) -> Self {
        Self::nginx_with(daemon, fallback, str::to_owned)
    }

    /// Like [`nginx`](Self::nginx), with both parts of the shipped configuration changed by `edit`, as its comments tell
    /// people to.
    ///
    /// # Panics
    /// See [`nginx`](Self::nginx).
    #[track_caller]
    pub fn nginx_with(daemon: &Address, fallback: &Address, edit: impl Fn(&str) -> String) -> Self {
        Self::nginx_edited(daemon, fallback, edit, str::to_owned)
    }

    /// Like [`nginx_with`](Self::nginx_with), with `edit_main` for what is not Everpoll's: processes, their limits.
    ///
    /// # Panics
    /// See [`nginx`](Self::nginx).
    #[track_caller]
    pub fn nginx_edited(
        daemon: &Address,
        fallback: &Address,
        edit: impl Fn(&str) -> String,
        edit_main: impl Fn(&str) -> String,
    ) -> Self {
        let socket = |address: &Address| match address {
            Address::Tcp(address) | Address::Tls(address, _) => format!("server {address} "),
            Address::Unix(path) => format!("server unix:{} ", path.display()),
        };
        let main = read("nginx/everpoll.conf");
        let main = put(&main, "server unix:/run/everpoll/daemon.sock ", &socket(daemon));
        let main = put(&main, "server unix:/run/everpoll/fallback.sock ", &socket(fallback));
        Self::start("nginx", |directory, port| {
            let example = put(&read("nginx/example.conf"), "127.0.0.1:8378", &format!("127.0.0.1:{port}"));
            directory.file("everpoll.conf", edit(&main));
            directory.file("everpoll-locations.conf", edit(&read("nginx/everpoll-locations.conf")));
            let config = directory.file("example.conf", edit_main(&example));
            let mut command = Command::new(server_path("nginx"));
            // The compiled-in log file is opened before the configuration is read.
            command
                .args(["-e", "stderr", "-g", "daemon off;", "-p"])
                .arg(directory.path())
                .arg("-c")
                .arg(config);
            command
        })
    }

    /// Apache with the snippet `docs/how-to/apache.md` has under `title`, on this database.
    ///
    /// # Panics
    /// When it is not installed, does not start, or the page has changed.
    #[track_caller]
    pub fn apache(title: &str, places: Places) -> Self {
        let snippet = places.put_into(&recipe("docs/how-to/apache.md", title));
        let modules = Path::new("/usr/lib/apache2/modules");
        assert!(modules.exists(), "Debian's apache2 is needed: there is no {}", modules.display());
        Self::start("apache", |directory, port| {
            let path = directory.path().display();
            let mut config = format!(
                "ServerRoot {path}\nPidFile {path}/apache.pid\nDefaultRuntimeDir {path}\nServerName localhost\n\
                 Listen 127.0.0.1:{port}\nErrorLog {path}/error.log\nDocumentRoot {path}\n"
            );
            // What Debian enables by itself, and what the page enables by a2enmod.
            for module in
                ["mpm_event", "authz_core", "authz_host", "alias", "cgid", "env", "headers", "proxy", "proxy_http", "proxy_fcgi", "proxy_balancer", "slotmem_shm", "lbmethod_byrequests"]
            {
                let file = modules.join(format!("mod_{module}.so"));
                config.push_str(&format!("LoadModule {module}_module {}\n", file.display()));
            }
            let config = directory.file("apache.conf", config + &snippet);
            let mut command = database::hand_over(directory.path(), server_path("apache2"));
            command.arg("-DFOREGROUND").arg("-f").arg(config);
            command
        })
        .with(places)
    }

    /// lighttpd with the snippet `docs/how-to/lighttpd.md` has under `title`.
    ///
    /// # Panics
    /// When it is not installed, does not start, or the page has changed.
    #[track_caller]
    pub fn lighttpd(title: &str, places: Places) -> Self {
        let snippet = places.put_into(&recipe("docs/how-to/lighttpd.md", title));
        Self::start("lighttpd", |directory, port| {
            let path = directory.path().display();
            let config = format!(
                "server.document-root = \"{path}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
                 server.upload-dirs = ( \"{path}\" )\nserver.errorlog = \"{path}/error.log\"\n{snippet}"
            );
            let config = directory.file("lighttpd.conf", config);
            let mut command = Command::new(server_path("lighttpd"));
            command.arg("-D").arg("-f").arg(config);
            command
        })
        .with(places)
    }

    /// Python's `http.server --cgi`, with the script that `docs/how-to/python-cgi.md` has under `title` as
    /// `cgi-bin/e.php` and as `cgi-bin/publish.php`.
    ///
    /// # Panics
    /// When it does not start, or the page has changed.
    #[track_caller]
    pub fn python(title: &str, places: Places) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let script = places.put_into(&recipe("docs/how-to/python-cgi.md", title));
        Self::start("python", |directory, port| {
            directory.directory("cgi-bin");
            for name in ["cgi-bin/e.php", "cgi-bin/publish.php"] {
                let file = directory.file(name, &script);
                fs::set_permissions(file, fs::Permissions::from_mode(0o755)).expect("it is ours");
            }
            let mut command = Command::new("python3");
            command.args(["-m", "http.server", "--cgi", "--bind", "127.0.0.1", &port.to_string()]);
            command.current_dir(directory.path());
            command
        })
        .with(places)
    }

    #[track_caller]
    fn start(name: &str, command: impl Fn(&TestDir, u16) -> Command) -> Self {
        let mut logs = String::new();
        for _ in 0..3 {
            let (directory, port) = (TestDir::new(), ports::free());
            let address = Address::local(port);
            let mut process = Process::start(name, command(&directory, port), directory.path());
            let started = wait::try_until_some(wait::PATIENCE, || {
                (!process.is_running() || address.connect().is_ok()).then(|| process.is_running())
            });
            if started == Some(true) {
                return Self { address, process, directory, places: None };
            }
            // Perhaps the port was taken in between.
            logs = format!("{}{}", process.log(), error_log(&directory));
        }
        panic!("{name} does not start:\n{logs}");
    }

    fn with(mut self, places: Places) -> Self {
        self.places = Some(places);
        self
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged about errors.
    pub fn log(&self) -> String {
        format!("{}{}", self.process.log(), error_log(&self.directory))
    }

    /// What nginx has logged about requests.
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.directory.join("access.log")).unwrap_or_default()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- error log of the web server ----\n{}", error_log(&self.directory));
        }
    }
}

/// What is put into a snippet, in place of the paths that it names.
#[derive(Debug)]
pub struct Places {
    database_url: String,
    daemon: Option<Address>,
    fallback: Option<Address>,
    // The program, where the web server's user can run it.
    programs: TestDir,
}

impl Places {
    /// The fallback's program, working on this database.
    ///
    /// # Panics
    /// When it cannot be built or copied.
    pub fn new(database_url: impl Into<String>) -> Self {
        // The folder with the sources may be closed to the web server's user, so it gets a copy.
        let program = fs::read(everpoll::binary("everpoll-fallback")).expect("it was just built");
        Self::with_program(program, database_url)
    }

    /// Another program in the fallback's place.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn with_program(content: impl AsRef<[u8]>, database_url: impl Into<String>) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let programs = TestDir::new();
        let program = programs.file("everpoll-fallback", content);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self { database_url: database_url.into(), daemon: None, fallback: None, programs }
    }

    /// Passes to this daemon.
    #[must_use]
    pub fn daemon(mut self, address: &Address) -> Self {
        self.daemon = Some(address.clone());
        self
    }

    /// Passes to this fallback.
    #[must_use]
    pub fn fallback(mut self, address: &Address) -> Self {
        self.fallback = Some(address.clone());
        self
    }

    fn put_into(&self, snippet: &str) -> String {
        let path = |address: &Option<Address>| match address {
            Some(Address::Unix(path)) => path.display().to_string(),
            Some(Address::Tcp(address) | Address::Tls(address, _)) => {
                panic!("the recipes use unix sockets, not {address}")
            }
            None => String::new(),
        };
        let program = self.programs.join("everpoll-fallback");
        snippet
            .replace("/usr/local/bin/everpoll-fallback", &program.display().to_string())
            .replace("/usr/local/bin", &self.programs.path().display().to_string())
            .replace("sqlite:/var/lib/everpoll/everpoll.db", &self.database_url)
            .replace("/run/everpoll/daemon.sock", &path(&self.daemon))
            .replace("/run/everpoll/fallback.sock", &path(&self.fallback))
    }
}

/// The first fenced block below the heading `title` of a page.
fn recipe(page: &str, title: &str) -> String {
    let text = read(page);
    let heading =
        text.lines().position(|line| line.trim_start_matches('#').trim() == title && line.starts_with('#'));
    let Some(heading) = heading else { panic!("{page} has no heading {title:?}") };
    let mut lines = text.lines().skip(heading).skip_while(|line| !line.starts_with("```"));
    assert!(lines.next().is_some(), "{page} has no snippet under {title:?}");
    lines.take_while(|line| !line.starts_with("```")).map(|line| format!("{line}\n")).collect()
}

/// Replaces what must be there.
#[track_caller]
fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the shipped configuration no longer says {from:?}");
    text.replace(from, to)
}

/// A file of the repository.
#[track_caller]
pub fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn error_log(directory: &TestDir) -> String {
    fs::read_to_string(directory.join("error.log")).unwrap_or_default()
}

/// Debian keeps servers out of the path of users.
pub(crate) fn server_path(name: &str) -> PathBuf {
    let known = ["/usr/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(name));
    known.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into())
}
