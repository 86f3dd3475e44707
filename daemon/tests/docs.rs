//! Documents and programs say the same.
//!
//! Settings are compared where their table is, in `shared/settings`.

use std::path::{Path, PathBuf};

const ERRORS: &str = include_str!("../../docs/reference/errors.md");
const PROTOCOL: &str = include_str!("../../shared/protocol/src/error.rs");
const PAGES: &str = include_str!("../src/pages/problem.rs");
const NGINX: &str = include_str!("../../nginx/everpoll-locations.conf");

/// The codes that `code()` returns, as they stand in its source.
fn codes() -> Vec<&'static str> {
    let lines = PROTOCOL.lines().chain(PAGES.lines());
    lines.filter_map(|line| line.trim().split_once("=> \"")?.1.strip_suffix("\",")).collect()
}

#[test]
fn reference_has_every_error_code() {
    let codes = codes();
    assert!(codes.len() > 40, "the codes were not found: {codes:?}");
    for code in codes {
        assert!(ERRORS.contains(&format!("`{code}`")), "docs/reference/errors.md lacks {code}");
    }
}

#[test]
fn reference_has_no_error_code_that_does_not_exist() {
    let codes = codes();
    let rows = ERRORS.lines().filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
    let named = rows.filter_map(|row| row.split('|').nth(2)).flat_map(|cell| cell.split(',').map(str::trim));
    for code in named.map(|code| code.trim_matches('`')) {
        assert!(codes.contains(&code) || NGINX.contains(&format!("\"{code}\"")), "nothing gives {code}");
    }
}

/// All documents below a folder that are the project's own.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir()
            && name != "target"
            && name != "node_modules"
            && !name.to_string_lossy().starts_with('.')
        {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The headings' anchors, as they are made where the documents are shown.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|heading| heading.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| heading.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect())
        .collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    documents(&root, &mut found);
    assert!(found.len() > 10, "the documents were not found");
    let mut dead = Vec::new();
    for document in found {
        let text = std::fs::read_to_string(&document).expect("a document is text");
        let targets =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in
            targets.filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
        {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there =
                if path.is_empty() { document.clone() } else { document.with_file_name("").join(path) };
            let known = match anchor {
                "" => there.exists(),
                _ => std::fs::read_to_string(&there)
                    .is_ok_and(|text| anchors(&text).iter().any(|a| a == anchor)),
            };
            if !known {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}
