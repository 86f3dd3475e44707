//! A directory for each test, gone afterwards.
//!
//! Paths are short on purpose: a unix socket's path may be about 100 bytes long, and macOS' temporary directory
//! takes half of that. Set `KEEP_TEST_DIRECTORIES=1` to look at what a test left.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::guardian;

/// A fresh directory, removed with all that is in it on drop.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes a directory that others may enter: servers under test run as other users when the tests run as root.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    #[expect(clippy::new_without_default, reason = "a default value should not write to the disk")]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!("ep-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => {
                    guardian::watch_directory(&path);
                    open_to_all(&path);
                    return Self { path };
                }
                // Left by an earlier process of the same id.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot make {}: {error}", path.display()),
            }
        }
    }

    /// Where it is; absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it; makes nothing.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory in it, and those above.
    ///
    /// # Panics
    /// When that fails.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        open_to_all(&path);
        path
    }

    /// Writes a file in it.
    ///
    /// # Panics
    /// When that fails.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::env::var_os("KEEP_TEST_DIRECTORIES").is_some() {
            eprintln!("kept {}", self.path.display());
            return;
        }
        // A server that was just killed may still make a file; what remains is the guardian's.
        if fs::remove_dir_all(&self.path).is_ok() || fs::remove_dir_all(&self.path).is_ok() {
            guardian::forget_directory(&self.path);
        }
    }
}

fn open_to_all(path: &Path) {
    // The umask may be 077; a worker of nginx, which is not root, has to get through.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it was just made by us");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_gone_after_drop() {
        let directory = TestDir::new();
        directory.directory("a/b");
        let file = directory.file("a/b/c", "d");
        assert!(file.exists());
        let path = directory.path().to_owned();
        drop(directory);
        assert!(!path.exists());
    }
}
