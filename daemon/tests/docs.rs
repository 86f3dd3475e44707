//! Documents and programs say the same.
//!
//! Settings are compared where their table is, in `shared/settings`.

const ERRORS: &str = include_str!("../../docs/reference/errors.md");
const PROTOCOL: &str = include_str!("../../shared/protocol/src/error.rs");
const NGINX: &str = include_str!("../../nginx/everpoll-locations.conf");

/// The codes that `code()` returns, as they stand in its source.
fn codes() -> Vec<&'static str> {
    PROTOCOL.lines().filter_map(|line| line.trim().split_once("=> \"")?.1.strip_suffix("\",")).collect()
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
