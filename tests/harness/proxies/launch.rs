//! How each proxy is started: in the foreground, on loopback, with all its files in one directory.
//!
//! None runs as root: those that would refuse, or change to a user who cannot write there, run as PostgreSQL's user, like
//! the tests' Apache.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Kind;
use crate::http::Address;
use crate::{TestDir, database, process, web};

/// What is put into a configuration.
pub(super) struct Places<'a> {
    pub(super) directory: &'a TestDir,
    pub(super) port: u16,
    pub(super) origin: &'a Address,
    pub(super) limit: u32,
}

/// The command that runs it.
#[track_caller]
pub(super) fn command(kind: Kind, places: &Places<'_>) -> Command {
    let directory = places.directory;
    match kind {
        Kind::Squid | Kind::SquidHostile => {
            let config = places.config(if kind == Kind::Squid { "squid.conf" } else { "squid-hostile.conf" });
            // Two with one name would share their memory.
            let mut command = places.program("squid");
            command.args(["-N", "-n", &squid_service(places.port), "-f"]).arg(config);
            command
        }
        Kind::Tinyproxy | Kind::TinyproxyAnonymous => {
            let stock = kind == Kind::Tinyproxy;
            let config = places.config(if stock { "tinyproxy.conf" } else { "tinyproxy-anonymous.conf" });
            let mut command = places.program("tinyproxy");
            command.args(["-d", "-c"]).arg(config);
            command
        }
        Kind::Privoxy => {
            let config = places.config("privoxy.conf");
            let mut command = places.program("privoxy");
            command.arg("--no-daemon").arg(config);
            command
        }
        Kind::E2guardian => e2guardian(places),
        Kind::ApacheForward => apache(places, "apache-forward.conf"),
        Kind::ApacheReverse => apache(places, "apache-reverse.conf"),
        Kind::Haproxy => {
            let config = places.config("haproxy.cfg");
            let mut command = places.program("haproxy");
            command.args(["-db", "-f"]).arg(config);
            command
        }
        Kind::Varnish | Kind::VarnishCache => {
            let config =
                places.config(if kind == Kind::Varnish { "varnish.vcl" } else { "varnish-cache.vcl" });
            let mut command = places.program("varnishd");
            command.args(["-F", "-j", "none", "-s", "malloc,16m", "-p", "thread_pools=1"]);
            command.arg("-n").arg(directory.join("work")).arg("-f").arg(config);
            command.args(["-a", &format!("127.0.0.1:{}", places.port)]);
            command
        }
        Kind::Nginx | Kind::NginxCache => {
            let config = places.config(if kind == Kind::Nginx { "nginx.conf" } else { "nginx-cache.conf" });
            let mut command = places.program("nginx");
            // The compiled-in log file is opened before the configuration is read.
            command.args(["-e", "stderr", "-p"]).arg(directory.path()).arg("-c").arg(config);
            command
        }
        Kind::Trafficserver => trafficserver(places),
    }
}

/// The name under which a Squid keeps its shared memory.
pub(super) fn squid_service(port: u16) -> String {
    format!("everpoll{port}")
}

impl Places<'_> {
    /// Writes a configuration of `tests/proxies/`, filled in.
    #[track_caller]
    fn config(&self, name: &str) -> PathBuf {
        self.directory.file(name, self.fill(&web::read(&format!("tests/proxies/{name}"))))
    }

    #[track_caller]
    fn fill(&self, text: &str) -> String {
        let Address::Tcp(origin) = self.origin else {
            panic!("proxies need a daemon on TCP, not {}", self.origin)
        };
        text.replace("@DIR@", &self.directory.path().display().to_string())
            .replace("@PORT@", &self.port.to_string())
            .replace("@LIMIT@", &self.limit.to_string())
            .replace("@ORIGIN@", &origin.to_string())
            .replace("@ORIGIN_HOST@", &origin.ip().to_string())
            .replace("@ORIGIN_PORT@", &origin.port().to_string())
    }

    fn program(&self, name: &str) -> Command {
        database::hand_over(self.directory.path(), web::server_path(name))
    }

    /// The name of the user (`-un`) or group (`-gn`) that it will run as.
    #[track_caller]
    fn who_runs_it(&self, flag: &str) -> String {
        let mut id = self.program("id");
        id.arg(flag);
        process::run(id, b"").1.trim().to_owned()
    }
}

fn apache(places: &Places<'_>, name: &str) -> Command {
    let modules = Path::new("/usr/lib/apache2/modules");
    assert!(modules.exists(), "Debian's apache2 is needed: there is no {}", modules.display());
    let mut config = places.fill(
        "ServerRoot @DIR@\nPidFile @DIR@/apache.pid\nDefaultRuntimeDir @DIR@\nServerName localhost\n\
         Listen 127.0.0.1:@PORT@\nErrorLog @DIR@/error.log\n",
    );
    for module in
        ["mpm_event", "authz_core", "authz_host", "proxy", "proxy_http", "proxy_connect", "deflate", "filter"]
    {
        config.push_str(&format!(
            "LoadModule {module}_module {}\n",
            modules.join(format!("mod_{module}.so")).display()
        ));
    }
    let snippet = places.fill(&web::read(&format!("tests/proxies/{name}")));
    let config = places.directory.file("apache.conf", config + &snippet);
    let mut command = places.program("apache2");
    command.arg("-DFOREGROUND").arg("-f").arg(config);
    command
}

/// Its configuration is too long to be written anew: it is Debian's, with a few lines changed.
fn e2guardian(places: &Places<'_>) -> Command {
    let etc = Path::new("/etc/e2guardian");
    let changes = [
        ("filterip", "127.0.0.1"),
        ("filterports", "@PORT@"),
        ("proxyexchange", "@LIMIT@"),
        ("httpworkers", "60"),
        ("nodaemon", "on"),
        ("nologger", "on"),
        ("filecachedir", "'@DIR@'"),
        ("loglocation", "'@DIR@/access.log'"),
        ("pidfilename", "'@DIR@/e2guardian.pid'"),
        // Whoever starts it; any other needs root.
        ("daemonuser", "'@USER@'"),
        ("daemongroup", "'@GROUP@'"),
    ];
    let (user, group) = (places.who_runs_it("-un"), places.who_runs_it("-gn"));
    let text = read_etc(&etc.join("e2guardian.conf"));
    // A port that is the same for all, and nobody's here.
    let text = text.replace("transparenthttpsport = ", "#transparenthttpsport = ");
    let text = changes.iter().fold(text, |text, (key, value)| set(&text, key, " = ", value));
    let text = places.fill(&text).replace("@USER@", &user).replace("@GROUP@", &group);
    places.directory.file("e2guardianf1.conf", read_etc(&etc.join("e2guardianf1.conf")));
    let config = places.directory.file("e2guardian.conf", text);
    let mut command = places.program("e2guardian");
    command.arg("-N").arg("-c").arg(config);
    command
}

/// Wants a tree of directories, with Debian's configuration in it.
fn trafficserver(places: &Places<'_>) -> Command {
    let directory = places.directory;
    let etc = directory.directory("etc");
    let from = fs::read_dir("/etc/trafficserver").expect("Debian's trafficserver is needed");
    for entry in from.flatten() {
        // The one folder in it has pages for errors, and there are others built in.
        if let Ok(content) = fs::read(entry.path()) {
            let name = entry.file_name();
            fs::write(etc.join(name), content).expect("the directory is ours");
        }
    }
    for (key, value) in [
        ("http.server_ports", "STRING @PORT@:ip-in=127.0.0.1"),
        ("http.transaction_no_activity_timeout_in", "INT @LIMIT@"),
        ("http.transaction_no_activity_timeout_out", "INT @LIMIT@"),
        // Else the host is that behind it, and pages of its own would be those of another host.
        ("url_remap.pristine_host_hdr", "INT 1"),
        // Whoever starts it.
        ("admin.user_id", "STRING #-1"),
    ] {
        let records = etc.join("records.config");
        let text = set(&read_etc(&records), &format!("CONFIG proxy.config.{key}"), " ", value);
        fs::write(records, places.fill(&text)).expect("the directory is ours");
    }
    directory.file("etc/remap.config", places.fill("map / http://@ORIGIN@/\n"));
    directory.file("etc/storage.config", places.fill("@DIR@/cache 32M\n"));
    let tree = places.fill(
        "prefix: /usr\nbindir: /usr/bin\nsbindir: /usr/sbin\nsysconfdir: @DIR@/etc\ndatadir: @DIR@/cache\n\
         localstatedir: @DIR@/run\nruntimedir: @DIR@/run\nlogdir: @DIR@/log\ncachedir: @DIR@/cache\n\
         libdir: /usr/lib/trafficserver\nlibexecdir: /usr/lib/trafficserver/modules\n",
    );
    let tree = directory.file("runroot.yaml", tree);
    for folder in ["cache", "run", "log"] {
        // It may run as another user than this test does.
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(directory.directory(folder), open).expect("it was just made by us");
    }
    let mut command = places.program("traffic_server");
    command.arg(format!("--run-root={}", tree.display()));
    command
}

/// Sets `key` in a text of lines, where it may stand behind a `#`.
#[track_caller]
fn set(text: &str, key: &str, between: &str, value: &str) -> String {
    let mut found = false;
    let lines = text.lines().map(|line| {
        let rest = line.trim_start_matches('#').strip_prefix(key);
        if found || !rest.is_some_and(|rest| rest.starts_with([' ', '='])) {
            return line.to_owned();
        }
        found = true;
        format!("{key}{between}{value}")
    });
    let text = lines.map(|line| line + "\n").collect();
    assert!(found, "the configuration no longer has {key:?}");
    text
}

#[track_caller]
fn read_etc(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}; is it installed?", path.display()))
}
