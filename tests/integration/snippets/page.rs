//! Snippets: the fenced blocks of a Markdown page.

use everpoll_tests::web;
use serde_json::{Map, Value, json};

/// What may stand on a page without being run: what a program prints, or an outline.
const SHOWN: &str = "text";

/// A page and what it shows.
pub(super) struct Page {
    path: String,
    snippets: Vec<Snippet>,
}

/// Something that a reader would copy.
pub(super) struct Snippet {
    pub(super) name: String,
    pub(super) text: String,
    language: String,
    /// What the page says it prints: the block behind it, where `…` stands for anything.
    output: Option<String>,
}

impl Page {
    /// Reads a page of the repository.
    ///
    /// # Panics
    /// When a snippet has no name, or one that is taken: nobody could run it.
    #[track_caller]
    pub(super) fn read(path: &str) -> Self {
        let text = web::read(path);
        let mut snippets: Vec<Snippet> = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text: String = body.flat_map(|line| [line, "\n"]).collect();
            let place = format!("{path}:{}", number + 1);
            if info == SHOWN {
                let last = snippets.last_mut().filter(|last| last.language == "sh");
                if let Some(last) = last.filter(|last| last.output.is_none()) {
                    last.output = Some(text);
                }
                continue;
            }
            let (language, name) = info.split_once(' ').unwrap_or_else(|| {
                panic!(
                    "{place}: the snippet has no name; write ```{info} NAME, and run it in the page's script"
                )
            });
            assert!(snippets.iter().all(|other| other.name != name), "{place}: there is another {name}");
            let (language, name) = (language.to_owned(), name.to_owned());
            snippets.push(Snippet { name, text, language, output: None });
        }
        assert!(!snippets.is_empty(), "{path} has no snippets");
        Self { path: path.to_owned(), snippets }
    }

    /// The text of a snippet, with changes made in it: an object of strings.
    #[track_caller]
    pub(super) fn changed(&self, name: &str, changes: &str) -> String {
        let changes: Map<String, Value> = serde_json::from_str(changes).expect("an object");
        changes.iter().fold(self.snippet(name).text.clone(), |text, (from, to)| {
            text.replace(from, to.as_str().expect("a text"))
        })
    }

    /// The snippet with this name.
    #[track_caller]
    pub(super) fn snippet(&self, name: &str) -> &Snippet {
        let found = self.snippets.iter().find(|snippet| snippet.name == name);
        found.unwrap_or_else(|| panic!("{} has no snippet {name}", self.path))
    }

    /// All of it, for a script.
    pub(super) fn to_json(&self) -> Value {
        let entry = |snippet: &Snippet| {
            let Snippet { name, text, language, output } = snippet;
            (name.clone(), json!({ "text": text, "language": language, "output": output }))
        };
        Value::Object(self.snippets.iter().map(entry).collect::<Map<_, _>>())
    }
}
