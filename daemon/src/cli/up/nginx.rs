//! nginx in front of daemon and fallback, as `everpoll up` starts it.
//!
//! The configuration is the one that the project recommends (`nginx/`), with other addresses: what people try out is
//! what they will run.

use std::path::{Path, PathBuf};
use std::process::Command;

use everpoll_settings::Listen;

/// Where nginx is when it is not in `PATH`: Debian's users have no `sbin` there.
const PLACES: [&str; 4] = ["/usr/sbin", "/usr/local/sbin", "/usr/local/nginx/sbin", "/opt/homebrew/bin"];

const EXAMPLE: &str = include_str!("../../../../nginx/example.conf");
const HTTP: &str = include_str!("../../../../nginx/everpoll.conf");
const LOCATIONS: &str = include_str!("../../../../nginx/everpoll-locations.conf");

/// What the files say, to be replaced.
const ADDRESS: &str = "listen 127.0.0.1:8378 ";
const DAEMON: &str = "server unix:/run/everpoll/daemon.sock ";
const FALLBACK: &str = "server unix:/run/everpoll/fallback.sock ";

/// The installed nginx.
pub(super) fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places.map(|place| place.join("nginx")).find(|program| program.is_file())
}

/// Writes the configuration below `dir` and returns the path of its first file.
pub(super) fn configure(dir: &Path, port: u16, daemon: u16, fallback: &Listen) -> std::io::Result<PathBuf> {
    let place = dir.join("nginx");
    std::fs::create_dir_all(&place)?;
    let mut example = EXAMPLE.replace(ADDRESS, &format!("listen 127.0.0.1:{port} "));
    // Workers of another user could not reach sockets in a home directory.
    if cfg!(target_os = "linux") && rustix::process::geteuid().is_root() {
        example.insert_str(0, "user root;\n");
    }
    let http = HTTP
        .replace(DAEMON, &format!("server 127.0.0.1:{daemon} "))
        .replace(FALLBACK, &format!("server \"{fallback}\" "));
    std::fs::write(place.join("everpoll.conf"), http)?;
    std::fs::write(place.join("everpoll-locations.conf"), LOCATIONS)?;
    let path = place.join("nginx.conf");
    std::fs::write(&path, example)?;
    Ok(path)
}

/// nginx in the foreground, with all its files below `dir`.
pub(super) fn command(program: &Path, dir: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["-g", "daemon off;", "-p"]).arg(dir.join("nginx/")).arg("-c").arg(config);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recommended_configuration_has_the_addresses_that_are_replaced() {
        assert_eq!(EXAMPLE.matches(ADDRESS).count(), 1);
        assert_eq!(HTTP.matches(DAEMON).count(), 2);
        assert_eq!(HTTP.matches(FALLBACK).count(), 1);
        assert!(!LOCATIONS.contains("/run/"));
    }
}
