//! The table of all settings: what people read about them.
//!
//! `everpoll help settings` prints it, and a test compares `docs/reference/configuration.md` with it, so the two
//! cannot say different things. What the program *does* with a value is in [`Settings`](crate::Settings); a test takes each
//! default through the parser to see that table and program agree.

mod access;
mod clients;
mod databases;
mod diagnostics;
mod following;
mod holds;
mod limits;
mod listening;
mod namespaces;
mod pages;
mod publishing;
mod retention;
mod sizes;

use std::fmt::Write as _;

/// One setting, as people read about it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key in the TOML file.
    pub name: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The default as one would write it; `none` where there is none.
    pub default: &'static str,
    /// Unit or form, and range.
    pub form: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// What too low and too high a value do, or what to watch.
    pub advice: &'static str,
    /// Whether its value must not appear in diagnostics.
    pub secret: bool,
    /// Whether another value counts while a program runs, once it has read the settings again; otherwise it needs a restart.
    pub live: bool,
}

impl Key {
    /// When another value counts, in words.
    #[must_use]
    pub fn counts(&self) -> &'static str {
        if self.live { "changes while it runs" } else { "needs a restart" }
    }
}

/// All settings, in the order of the documentation.
pub const KEYS: &[Key] = &in_one::<{ count(PARTS) }>(PARTS);

/// The same, part by part.
const PARTS: &[&[Key]] = &[
    listening::KEYS,
    databases::KEYS,
    holds::KEYS,
    access::KEYS,
    namespaces::KEYS,
    pages::KEYS,
    publishing::KEYS,
    retention::KEYS,
    following::KEYS,
    limits::KEYS,
    clients::KEYS,
    sizes::KEYS,
    diagnostics::KEYS,
];

const fn count(parts: &[&[Key]]) -> usize {
    let (mut part, mut count) = (0, 0);
    while part < parts.len() {
        count += parts[part].len();
        part += 1;
    }
    count
}

const fn in_one<const COUNT: usize>(parts: &[&[Key]]) -> [Key; COUNT] {
    let mut all = [parts[0][0]; COUNT];
    let (mut part, mut done) = (0, 0);
    while part < parts.len() {
        let mut key = 0;
        while key < parts[part].len() {
            all[done] = parts[part][key];
            (key, done) = (key + 1, done + 1);
        }
        part += 1;
    }
    all
}

/// All settings as text for a terminal.
#[must_use]
pub fn describe() -> String {
    let mut text = String::from(
        "Settings come from a TOML file (--config FILE or EVERPOLL_CONFIG) and from the environment;\n\
         a variable wins over the file, an empty one counts as not set.\n",
    );
    for key in KEYS {
        let Key { name, variable, default, form, meaning, advice, .. } = key;
        let _ = write!(text, "\n{name}  ({variable})\n");
        let _ = writeln!(text, "    {form}; default: {default}; {}", key.counts());
        for line in [meaning, advice].into_iter().filter(|line| !line.is_empty()) {
            wrap(&mut text, line);
        }
    }
    text
}

/// Appends `line` in lines of at most 100 columns, indented by four.
fn wrap(text: &mut String, line: &str) {
    let mut column = 0;
    for word in line.split(' ') {
        if column == 0 || column + 1 + word.len() > 100 {
            text.push_str(if column == 0 { "    " } else { "\n    " });
            column = 4;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}
