//! PHP-FPM with a short script that does the fallback's query over a connection that is kept: what the fallback replaces.
//!
//! What a newcomer gets wrong: a connection that nginx keeps open occupies one of PHP-FPM's processes, so there is none of that
//! here. And a request occupies a process until it is answered, so a pool has as many as requests are to be served at once.

use std::path::{Path, PathBuf};
use std::process::Command;

use everpoll_tests::{Process, TestDir, wait};

use crate::watch::{self, Memory};

/// A running PHP-FPM.
pub(crate) struct Php {
    process: Process,
    // Last, so that it goes after the process.
    directory: TestDir,
}

impl Php {
    /// Starts it with so many processes, each of which has a connection to the database; `None` when it is not installed.
    pub(crate) fn start(processes: usize) -> Option<Self> {
        let program = installed()?;
        let directory = TestDir::new();
        let script = include_str!("peers/php/poll.php");
        directory.file("poll.php", script);
        let path = directory.path().display();
        let config = directory.file(
            "php-fpm.conf",
            format!(
                "[global]\nerror_log = {path}/error.log\ndaemonize = no\n[poll]\nlisten = {path}/php.sock\nlisten.mode = 0666\n\
                 listen.backlog = 4096\nuser = root\npm = static\npm.max_children = {processes}\n"
            ),
        );
        let mut command = Command::new(program);
        command.args(["--nodaemonize", "--allow-to-run-as-root", "--fpm-config"]).arg(config);
        let process = Process::start("php-fpm", command, directory.path());
        let php = Self { process, directory };
        wait::until("PHP-FPM listens", wait::PATIENCE, || php.directory.join("php.sock").exists());
        Some(php)
    }

    /// The location of nginx that passes polls to it, with the parameters that the fallback gets.
    pub(crate) fn location(&self, prefix: &str, database: &str) -> String {
        let path = self.directory.path().display();
        format!(
            "location ^~ /{prefix}/ {{\nfastcgi_pass unix:{path}/php.sock;\nfastcgi_connect_timeout 3s;\nfastcgi_read_timeout 30s;\n\
             gzip off;\nfastcgi_param SCRIPT_FILENAME {path}/poll.php;\nfastcgi_param DATABASE \"{database}\";\n\
             fastcgi_param REQUEST_METHOD $request_method;\nfastcgi_param REQUEST_URI $request_uri;\n\
             fastcgi_param QUERY_STRING $query_string;\nfastcgi_param SERVER_PROTOCOL $server_protocol;\n\
             fastcgi_param CONTENT_TYPE $content_type;\nfastcgi_param CONTENT_LENGTH $content_length;\n\
             fastcgi_param REMOTE_ADDR $remote_addr;\nfastcgi_param SERVER_NAME $server_name;\n\
             fastcgi_param SERVER_PORT $server_port;\nfastcgi_param GATEWAY_INTERFACE CGI/1.1;\n}}\n"
        )
    }

    /// What all its processes have.
    pub(crate) fn memory(&self) -> Memory {
        watch::group_memory(self.process.id())
    }
}

/// Debian names the program by its version.
fn installed() -> Option<PathBuf> {
    let programs = Path::new("/usr/sbin").read_dir().ok()?.flatten();
    let mut programs: Vec<_> = programs
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"php-fpm")))
        .collect();
    programs.sort();
    programs.pop()
}
