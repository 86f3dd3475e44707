//! The pages about the client, as a reader meets them: each of their snippets is run, in a real browser or a real shell.
//!
//! A snippet's name stands beside its language, ` ```js progress.js `. A script of the page's own
//! (`tests/js/snippets`) runs it and says what must come of it, and fails when it has left out one. So what is tested
//! is what is printed, and a snippet that nobody runs cannot be printed.

/// Pages, and the snippets in them.
mod page;
/// A shop: an application with pages, Everpoll, and nginx in front of both.
mod shop;
/// The tutorial, typed into three terminals.
mod tutorial;

use page::Page;
use shop::Shop;
use tutorial::Terminals;

use everpoll_tests::Script;

#[test]
fn tutorial_does_what_it_says() {
    let page = Page::read("docs/tutorial/first-live-page.md");
    let script = Script::browser("snippets/first-live-page.mjs").with("snippets", page.to_json());
    let mut terminals = Terminals::open(page);
    let script = script.with("shop", terminals.shop()).with("daemon", terminals.daemon());
    script.within(300).run(|command| terminals.answer(command));
}

/// Runs the snippets of a page with the script of the same name.
fn run(page: &str, settings: &[(&str, &str)]) {
    let name = page.rsplit('/').next().and_then(|file| file.strip_suffix(".md")).expect("a page");
    let script = Script::browser(&format!("snippets/{name}.mjs"));
    let page = Page::read(page);
    Shop::start(settings).run(script.with("snippets", page.to_json()).within(300), &page);
}

#[test]
fn snippets_in_plain_javascript_work() {
    run("docs/how-to/plain-javascript.md", &[]);
}

#[test]
fn snippets_for_jquery_work() {
    run("docs/how-to/jquery.md", &[]);
}

#[test]
fn snippets_for_other_origins_work() {
    run("docs/how-to/cross-origin.md", &[("EVERPOLL_JSONP", "true")]);
}

#[test]
fn snippets_for_old_browsers_work() {
    run("docs/how-to/old-internet-explorer.md", &[("EVERPOLL_JSONP", "true")]);
}

#[test]
fn snippets_of_streams_work() {
    run("docs/how-to/eventsource-and-websocket.md", &[]);
}

#[test]
fn snippets_of_the_client_reference_work() {
    run("docs/reference/client.md", &[]);
}
