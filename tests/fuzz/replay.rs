//! Goes through the fuzz targets' corpora, which need no special compiler for that.
//!
//! The files of `corpus/` are seeds for the fuzzer, and what it once found. Each is also cut short, and has some of its
//! bytes changed, so that a build without the fuzzer sees more than what is known to be right.

use std::fs;
use std::path::Path;

use everpoll_tests::numbers::Numbers;

mod targets;

#[test]
fn corpora_keep_all_promises() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut numbers = Numbers(2014);
    for (name, check) in targets::ALL {
        let folder = corpora.join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.expect("it can be listed").path())
            .collect();
        files.sort();
        assert!(files.len() >= 5, "{} has few files", folder.display());
        for file in files {
            let bytes = fs::read(&file).expect("it can be read");
            // Shown when the test fails.
            println!("{}", file.display());
            check(&bytes);
            for _ in 0..200 {
                let mut changed = bytes[..numbers.below(bytes.len() + 1)].to_vec();
                for _ in 0..numbers.below(4) {
                    if let Some(last) = changed.len().checked_sub(1) {
                        changed[numbers.below(last + 1)] = numbers.next() as u8;
                    }
                }
                if numbers.below(3) == 0 {
                    changed.extend_from_slice(&bytes[numbers.below(bytes.len() + 1)..]);
                }
                check(&changed);
            }
        }
    }
}
