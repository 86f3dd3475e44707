//! A small disk, which a test may fill, and make read-only.
//!
//! It is a file system in memory, in a mount namespace of its own: nobody else sees it, and it is gone with the shell that
//! keeps it, whatever becomes of the test. So programs have to be started [inside](Disk::inside). The test itself reaches
//! the files from [outside](Disk::outside).
//!
//! Mounting needs root, or user namespaces, which Debian lets everybody have.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::TestDir;
use crate::database::server_user;
use crate::process::guardian;

/// A small disk; gone on drop.
#[derive(Debug)]
pub struct Disk {
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Whether the namespace has a user namespace of its own around it.
    mapped: bool,
    directory: TestDir,
}

/// The file that takes all room.
const BALLAST: &str = "ballast";

impl Disk {
    /// A disk of so many kilobytes, for programs that are started [inside](Self::inside).
    ///
    /// # Panics
    /// When this user may not mount anything, not even in a namespace of its own.
    #[track_caller]
    pub fn new(kilobytes: u32) -> Self {
        Self::start(kilobytes, !rustix::process::geteuid().is_root(), None)
    }

    /// A disk for a PostgreSQL server of the tests, which reaches it from [outside](Self::outside).
    ///
    /// # Panics
    /// When the server's user may not mount anything in a namespace of its own.
    #[track_caller]
    pub fn for_postgres(kilobytes: u32) -> Self {
        Self::start(kilobytes, true, server_user())
    }

    #[track_caller]
    fn start(kilobytes: u32, mapped: bool, user: Option<(u32, u32)>) -> Self {
        let directory = TestDir::new();
        let mount_point = directory.directory("disk");
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if mapped {
            command.arg("--map-root-user");
        }
        command.arg("sh").current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        if let Some((uid, gid)) = user {
            command.uid(uid).gid(gid);
        }
        let mut shell = command.spawn().expect("Debian's util-linux has unshare");
        guardian::watch_group(shell.id());
        let input = shell.stdin.take().expect("it was asked for");
        let output = BufReader::new(shell.stdout.take().expect("it was asked for"));
        let mut disk = Self { shell, input, output, mapped, directory };
        let mount = format!("mount -t tmpfs -o size={kilobytes}k,mode=0777 small {}", mount_point.display());
        assert!(
            disk.run(&mount),
            "cannot mount a small disk: run the tests as root, or allow user namespaces (kernel.unprivileged_userns_clone = 1)"
        );
        disk
    }

    /// Runs a command in the namespace; `false` when it failed.
    fn run(&mut self, command: &str) -> bool {
        let script = format!("{{ {command}; }} >&2 </dev/null && echo done || echo failed\n");
        let mut line = String::new();
        self.input.write_all(script.as_bytes()).is_ok()
            && self.output.read_line(&mut line).is_ok()
            && line == "done\n"
    }

    /// Where it is, for programs inside.
    pub fn path(&self) -> PathBuf {
        self.directory.join("disk")
    }

    /// The path of a file on it, for everybody else of the same user. SQLite cannot use it, since it follows the symbolic
    /// link in it by its text.
    pub fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.shell.id()));
        let path = self.path();
        root.join(path.strip_prefix("/").unwrap_or(&path)).join(name)
    }

    /// What is to stand before a command so that it runs inside. The program replaces it, so its process id stays.
    pub fn inside(&self) -> Vec<String> {
        let mut words =
            vec!["nsenter".to_owned(), format!("--target={}", self.shell.id()), "--mount".to_owned()];
        if self.mapped {
            words.extend(["--user", "--preserve-credentials"].map(str::to_owned));
        }
        words.push("--".to_owned());
        words
    }

    /// Makes a directory on it that belongs to whoever the disk is for; its path from [outside](Self::outside).
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn directory(&mut self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        assert!(self.run(&format!("mkdir -m 0700 {}", path.display())), "cannot make {}", path.display());
        self.outside(name)
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// When something else than room is missing.
    #[track_caller]
    pub fn fill(&mut self) {
        let path = self.path().join(BALLAST);
        // It fails by nature: when the last page is taken.
        let filled = self.run(&format!("cat /dev/zero >{} 2>/dev/null || :", path.display()));
        assert!(filled, "the disk cannot be filled");
    }

    /// Gives the room back.
    ///
    /// # Panics
    /// When it was not filled.
    #[track_caller]
    pub fn make_room(&mut self) {
        let path = self.path().join(BALLAST);
        assert!(self.run(&format!("rm {}", path.display())), "it was filled");
    }

    /// Lets nobody write any more, as the kernel does when a disk fails. Nothing on it may be open for writing.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn make_read_only(&mut self) {
        let path = self.path();
        assert!(self.run(&format!("mount -o remount,ro {}", path.display())), "the disk is in use");
    }

    /// Lets everybody write again.
    ///
    /// # Panics
    /// When that is refused.
    #[track_caller]
    pub fn make_writable(&mut self) {
        let path = self.path();
        assert!(self.run(&format!("mount -o remount,rw {}", path.display())), "it was so before");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
        guardian::forget_group(self.shell.id());
    }
}

/// A command that runs `program` behind `words`, such as those of [`Disk::inside`]; `program` itself when there are none.
pub(crate) fn behind(words: &[String], program: &Path) -> Command {
    let Some((first, rest)) = words.split_first() else { return Command::new(program) };
    let mut command = Command::new(first);
    command.args(rest.iter().map(OsStr::new)).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn disk_is_small_and_may_be_filled_and_made_read_only() {
        let mut disk = Disk::new(256);
        let write = |disk: &Disk, name: &str| fs::write(disk.outside(name), "x");
        write(&disk, "one").unwrap();
        disk.fill();
        assert_eq!(write(&disk, "two").unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        disk.make_room();
        write(&disk, "two").unwrap();
        disk.make_read_only();
        assert_eq!(write(&disk, "two").unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        disk.make_writable();
        write(&disk, "two").unwrap();
        // From inside it is where it says.
        let mut cat = behind(&disk.inside(), Path::new("cat"));
        cat.arg(disk.path().join("one"));
        assert_eq!(crate::process::run(cat, b"").1, "x");
        assert!(!disk.path().join("one").exists(), "nobody else sees it");
    }
}
