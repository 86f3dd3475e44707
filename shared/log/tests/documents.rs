//! What docs/reference/sql.md and docs/how-to/page-load.md show is what happens.

use everpoll_log::{Log, Options};
use everpoll_tests::{Database, Sqlite};

const REFERENCE: &str = include_str!("../../../docs/reference/sql.md");
const PAGE_LOAD: &str = include_str!("../../../docs/how-to/page-load.md");

/// A code block: its language and text, and the text block right behind it.
struct Block<'a> {
    language: &'a str,
    code: &'a str,
    answer: Option<&'a str>,
}

fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    // Every other part is inside a fence, and begins with the rest of the opening line.
    let parts: Vec<_> = page.split("```").collect();
    for pair in parts.chunks(2) {
        let [before, inside] = pair else { break };
        let (language, code) = inside.split_once('\n').unwrap();
        match blocks.last_mut() {
            Some(last) if language == "text" && before.trim().is_empty() => last.answer = Some(code),
            _ => blocks.push(Block { language, code, answer: None }),
        }
    }
    blocks
}

#[test]
fn statements_of_the_reference_answer_as_it_says() {
    run(REFERENCE, 10);
}

#[test]
fn statements_about_page_loads_answer_as_the_page_says() {
    run(PAGE_LOAD, 6);
}

/// Runs all blocks of a page, of which there are more than `least`.
fn run(page: &str, least: usize) {
    let database = Database::shared();
    let mut log = Log::new(&database.url(), Options::default()).unwrap();
    log.migrate().unwrap();
    let file = Sqlite::new();
    Log::new(&file.url(), Options::default()).unwrap().migrate().unwrap();
    let name = database.name().to_owned();
    // Roles belong to the whole server.
    let own = |code: &str| {
        code.replace("shop", &format!("shop_{name}")).replace("everpoll_program", &format!("program_{name}"))
    };

    let blocks = blocks(page);
    assert!(blocks.len() > least);
    for Block { language, code, answer } in blocks {
        match language {
            "sql" => {
                let got = database.psql(&own(code));
                if let Some(answer) = answer {
                    assert_eq!(got.trim(), answer.trim(), "{code}");
                }
            }
            "sql-error" => {
                let error = database.try_psql(&own(code)).unwrap_err();
                let answer = answer.unwrap().trim();
                assert!(error.contains(answer), "{code} fails with {error}");
            }
            "sql-sqlite" => rusqlite::Connection::open(file.path()).unwrap().execute_batch(code).unwrap(),
            // In a file of the application's own.
            "sql-sqlite-own" => {
                let code = code.replace("everpoll.db", file.path().to_str().unwrap());
                let own = file.path().with_extension("own");
                rusqlite::Connection::open(own).unwrap().execute_batch(&code).unwrap();
            }
            other => panic!("nobody runs a block of {other:?}"),
        }
    }
    if page.contains("CREATE ROLE") {
        database.psql(&own("drop owned by shop, everpoll_program; drop role shop, everpoll_program"));
    }
}
