//! A shell that outlives the test process and takes down what it left.
//!
//! Destructors do not run when the test process is killed or its test run is interrupted, and never for what a
//! `static` holds (the shared PostgreSQL server). So a small shell script reads from a pipe which process groups and
//! directories there are. The kernel closes the pipe when the test process ends, however it ends; the shell then kills
//! the groups and removes the directories. No signal handler, nothing that only one system has.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// `quit` is for PostgreSQL: SIGQUIT lets it free its shared memory, SIGKILL does not.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups= quits= directories=
without() { rest=; for one in $2; do [ "$one" = "$1" ] || rest="$rest $one"; done; }
while read -r verb what; do
    case $verb in
    group) groups="$groups $what" ;;
    quit) quits="$quits $what" ;;
    directory) directories="$directories $what" ;;
    no-group) without "$what" "$groups"; groups=$rest; without "$what" "$quits"; quits=$rest ;;
    no-directory) without "$what" "$directories"; directories=$rest ;;
    esac
done
for one in $quits; do kill -s QUIT "$one"; done
for step in 1 2 3 4 5 6 7 8 9 10; do
    alive=
    for one in $quits; do kill -0 "$one" && alive=1; done
    [ -z "$alive" ] && break
    sleep 0.2
done
for one in $groups; do kill -s KILL -- "-$one"; done
[ -n "$KEEP_TEST_DIRECTORIES" ] || for one in $directories; do rm -rf "$one"; done
"#;

static GUARDIAN: OnceLock<Mutex<Child>> = OnceLock::new();

/// Kills this process group if the test process ends before it is forgotten.
pub fn watch_group(leader: u32) {
    tell(&format!("group {leader}"));
}

/// Lets this process, a group leader that is watched, first stop by SIGQUIT.
pub fn quit_first(leader: u32) {
    tell(&format!("quit {leader}"));
}

/// The process group is gone.
pub fn forget_group(leader: u32) {
    tell(&format!("no-group {leader}"));
}

/// Removes this directory if the test process ends before it is forgotten.
pub fn watch_directory(path: &Path) {
    tell(&format!("directory {}", path.display()));
}

/// The directory is gone.
pub fn forget_directory(path: &Path) {
    tell(&format!("no-directory {}", path.display()));
}

fn tell(line: &str) {
    let guardian = GUARDIAN.get_or_init(|| Mutex::new(start()));
    let mut guardian = guardian.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let pipe = guardian.stdin.as_mut().expect("it was asked for");
    // One write per line, so that a test process that is killed in the middle leaves no half line. If the shell has
    // died there is nobody to take care, and the tests are as good as without it.
    let _ = pipe.write_all(format!("{line}\n").as_bytes());
}

fn start() -> Child {
    use std::os::unix::process::CommandExt;
    Command::new("sh")
        .args(["-c", SCRIPT, "everpoll-tests-guardian"])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C in the terminal must not end it before the test process.
        .process_group(0)
        .spawn()
        .expect("every system has sh")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;
    use rustix::process::{Pid, test_kill_process};

    #[test]
    fn end_of_the_pipe_kills_groups_and_removes_directories() {
        use std::os::unix::process::CommandExt;
        let directory = crate::TestDir::new();
        let inner = directory.directory("inner");
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().expect("sleep exists");
        let mut kept = Command::new("sleep").arg("600").process_group(0).spawn().expect("sleep exists");

        let mut shell = start();
        let mut pipe = shell.stdin.take().expect("it was asked for");
        writeln!(pipe, "group {}\ngroup {}\nno-group {}", child.id(), kept.id(), kept.id())
            .expect("it listens");
        writeln!(pipe, "directory {}", inner.display()).expect("it listens");
        drop(pipe);

        assert!(!child.wait().expect("it is our child").success());
        wait::until("the directory is gone", wait::PATIENCE, || !inner.exists());
        shell.wait().expect("it is our child");
        let id = Pid::from_raw(i32::try_from(kept.id()).expect("small")).expect("not zero");
        assert!(test_kill_process(id).is_ok(), "what was forgotten lives on");
        kept.kill().expect("it is our child");
        kept.wait().expect("it is our child");
    }
}
