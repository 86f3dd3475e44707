//! nginx in front of daemon and fallback, as `everpoll up` starts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use everpoll_settings::Listen;

/// Where nginx is when it is not in `PATH`: Debian's users have no `sbin` there.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin", "/opt/homebrew/bin"];

/// The installed nginx.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places.map(|place| place.join("nginx")).find(|program| program.is_file())
}

/// Writes the configuration and returns its path.
pub(super) fn configure(dir: &Path, port: u16, daemon: u16, fallback: &Listen) -> std::io::Result<PathBuf> {
    let path = dir.join("nginx.conf");
    // A worker of another user could not reach sockets in a home directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let config = include_str!("nginx.conf")
        .replace("{user}", user)
        .replace("{dir}", &dir.display().to_string())
        .replace("{port}", &port.to_string())
        .replace("{daemon}", &format!("127.0.0.1:{daemon}"))
        .replace("{fallback}", &fallback.to_string());
    std::fs::write(&path, config)?;
    Ok(path)
}

/// nginx in the foreground, with all its files in `dir`.
pub(super) fn command(program: &Path, dir: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    // It opens its error log before it reads the configuration, and where that is compiled in only root may write.
    command.args(["-e", "stderr", "-g", "daemon off;", "-p"]).arg(dir).arg("-c").arg(config);
    command
}
