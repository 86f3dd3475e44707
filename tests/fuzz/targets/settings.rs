//! Settings: a file and an environment, as somebody writes them.
//!
//! The input is the text of a TOML file, a line with `---`, and lines with variables. Nothing here is a stranger's, but what is
//! wrong must be said, all of it at once, and a password that stands beside a mistake must not be said with it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use everpoll_settings::{KEYS, Problems, Settings};
use toml::{Table, Value};

/// What is put where secrets stand.
const HIDDEN: &str = "geheim";

/// Most variables that are looked at.
const VARIABLES_MAX: usize = 20;

type Variables = Vec<(String, OsString)>;

/// Settings are taken, or all that is wrong with them is said, without what is secret.
pub(crate) fn check(input: &[u8]) {
    let split = input.windows(5).position(|five| five == b"\n---\n");
    let (file, rest) = split.map_or((input, &b""[..]), |at| (&input[..at], &input[at + 5..]));
    let file = String::from_utf8_lossy(file).into_owned();
    let variables = rest.split(|b| *b == b'\n').filter_map(|line| {
        let equals = line.iter().position(|b| *b == b'=')?;
        let name = String::from_utf8(line[..equals].to_vec()).ok()?;
        (!line.contains(&0)).then(|| (name, OsString::from_vec(line[equals + 1..].to_vec())))
    });
    let variables: Variables = variables.take(VARIABLES_MAX).collect();
    // Key files are read from the disk, and who knows what a path leads to.
    if input.contains(&b'/') && reads_files(&file, &variables) {
        return;
    }
    let loaded = load(&file, &variables);
    assert_eq!(loaded, load(&file, &variables));
    check_problems(&loaded);
    check_each(&file, &variables, &loaded);
    check_places(&variables);
    check_secrets(&file, &variables);
}

fn load(file: &str, variables: &Variables) -> Result<Settings, Problems> {
    Settings::load(Some((Path::new("everpoll.toml"), file)), variables.iter().cloned())
}

/// Whether a path is named from which a key would be read.
fn reads_files(file: &str, variables: &Variables) -> bool {
    fn within(value: &Value) -> bool {
        match value {
            Value::Table(table) => table.iter().any(|(name, value)| name.ends_with("_file") || within(value)),
            Value::String(text) => text.contains("_file"),
            _ => false,
        }
    }
    file.parse::<Table>().is_ok_and(|table| within(&Value::Table(table)))
        || variables.iter().any(|(name, value)| {
            let value = value.to_string_lossy();
            // As a table, in which a name can be written in other ways.
            name.ends_with("_FILE") || (name.ends_with("_KEYS") && value.contains('/'))
        })
}

fn check_problems(loaded: &Result<Settings, Problems>) {
    let Err(problems) = loaded else { return };
    assert!(!problems.texts().is_empty());
    for text in problems.texts() {
        assert!(!text.is_empty() && !text.ends_with('.') && !text.contains('\n'), "{text:?}");
    }
    let shown = problems.to_string();
    assert!(problems.texts().iter().all(|text| shown.contains(text.as_str())));
}

/// What is wrong with one variable is said whatever is wrong beside it.
fn check_each(file: &str, variables: &Variables, loaded: &Result<Settings, Problems>) {
    let file_alone = load(file, &Vec::new());
    let said = match loaded {
        Ok(_) => &[],
        Err(problems) => problems.texts(),
    };
    for variable in variables {
        // Of one that is there twice, the last counts, as in an environment.
        if variables.iter().filter(|other| other.0 == variable.0).count() > 1 {
            continue;
        }
        let Err(alone) = load("", &vec![variable.clone()]) else { continue };
        for text in alone.texts().iter().filter(|text| text.starts_with(&variable.0)) {
            // Both halves of a pair may be there.
            let is_pair = text.contains(" beside it, ");
            assert!(is_pair || said.contains(text), "{text:?} is not among {said:?}");
        }
    }
    // A name that nobody knows is told, however many there are.
    if let Err(problems) = file_alone {
        for text in problems.texts().iter().filter(|text| text.contains("is not a setting")) {
            assert!(said.contains(text), "{text:?} is not among {said:?}");
        }
    }
}

/// A value means the same in the file and in a variable.
fn check_places(variables: &Variables) {
    for (name, value) in variables {
        let Some(key) = KEYS.iter().find(|key| key.variable == *name) else { continue };
        let Some(text) = value.to_str().filter(|text| !text.is_empty()) else { continue };
        let table = Table::from_iter([(key.name.to_owned(), Value::String(text.to_owned()))]);
        let in_file = load(&table.to_string(), &Vec::new());
        let in_variable = load("", &vec![(name.clone(), value.clone())]);
        match (in_file, in_variable) {
            (Ok(in_file), Ok(in_variable)) => assert_eq!(in_file, in_variable),
            (Err(in_file), Err(in_variable)) => {
                assert_eq!(in_file.texts().len(), in_variable.texts().len(), "{in_file} and {in_variable}");
            }
            (in_file, in_variable) => panic!("{in_file:?} and {in_variable:?}"),
        }
    }
}

/// Nothing that is secret is shown, neither when it is taken nor when it or something beside it is refused.
fn check_secrets(file: &str, variables: &Variables) {
    let lower = |text: &str| text.to_ascii_lowercase();
    let has = variables.iter().any(|(name, value)| {
        lower(name).contains(HIDDEN) || lower(&value.to_string_lossy()).contains(HIDDEN)
    });
    if has || lower(file).contains(HIDDEN) {
        return;
    }
    let variables: Variables = variables
        .iter()
        .map(|(name, value)| match KEYS.iter().find(|key| key.variable == *name && key.secret) {
            Some(key) => (name.clone(), hide_in(key.name, &value.to_string_lossy()).into()),
            None => (name.clone(), value.clone()),
        })
        .collect();
    // Whatever is not TOML any more was perhaps a key, or the line below one.
    let broken = file.replace("key = \"", "key = \"geheim").replace("secret = \"", "secret = \"geheim");
    for file in [hide_in_file(file).unwrap_or_default(), broken + "\nx = = 'geheim'"] {
        let shown = match load(&file, &variables) {
            Ok(settings) => format!("{settings:?} {}", settings.database_url),
            Err(problems) => format!("{problems} {problems:?}"),
        };
        assert!(!lower(&shown).contains(HIDDEN), "{file}\n{variables:?}\n{shown}");
    }
}

fn hide_in_file(file: &str) -> Option<String> {
    let mut table: Table = file.parse().ok()?;
    for (name, value) in &mut table {
        if KEYS.iter().any(|key| key.name == name && key.secret) {
            hide_in_value(name, value);
        }
    }
    Some(table.to_string())
}

fn hide_in_value(name: &str, value: &mut Value) {
    match value {
        Value::String(text) => *text = hide_in(name, text),
        Value::Table(table) => {
            for (name, value) in table {
                // The others say which key it is, where it is, and for which channels.
                if matches!(name.as_str(), "key" | "secret" | "public_key") {
                    hide_in_value(name, value);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| hide_in_value(name, value)),
        _ => {}
    }
}

/// The value of a secret setting with something in it that nobody may see.
fn hide_in(name: &str, text: &str) -> String {
    let is_server = text.starts_with("postgres") || text.starts_with("redis");
    let put = |at: usize, what: &str| format!("{}{what}{}", &text[..at], &text[at..]);
    let parameters = text.find('?').unwrap_or(text.len());
    let password = text[parameters..].find("password=").map(|at| parameters + at);
    match (name, text.rfind('@'), password) {
        ("database_url" | "redis_url", _, Some(at)) if is_server => put(at + 9, "geheim@geheim"),
        ("database_url" | "redis_url", Some(at), None) if is_server => put(at, ":geheim"),
        // A file has no password.
        ("database_url" | "redis_url", ..) => text.to_owned(),
        // Keys of both kinds, as TOML.
        ("publish_keys" | "token_keys", ..) => {
            let begin = |text: &str, quote: char| {
                text.replace(&format!("key = {quote}"), &format!("key = {quote}{HIDDEN}"))
                    .replace(&format!("secret = {quote}"), &format!("secret = {quote}{HIDDEN}"))
            };
            begin(&begin(text, '\''), '"')
        }
        _ => format!("{HIDDEN}{text}"),
    }
}
