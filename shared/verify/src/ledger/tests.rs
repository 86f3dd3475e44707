use super::*;

const LONG: Duration = Duration::from_secs(3600);

/// Events 1 to 6 of a log: odd ids on one channel, even ones on the other.
fn ledger() -> Ledger {
    let ledger = Ledger::new(LONG);
    assert_eq!(["odd", "even", "odd"].map(|name| ledger.channel(name)), [0, 1, 0]);
    for id in 1..=6 {
        ledger.found_new(u32::from(id % 2 == 0), id);
    }
    ledger
}

fn parity(id: u64) -> &'static str {
    if id.is_multiple_of(2) { "even" } else { "odd" }
}

/// One that began after this id and got these.
fn reader(ledger: &Ledger, channels: &[u32], after: u64, ids: &[u64]) -> Reader {
    let mut reader = Reader::new(7, channels.to_vec());
    reader.place(&after.to_string());
    for id in ids {
        ledger.deliver(&mut reader, ledger.number_of(*id), *id, parity(*id));
    }
    reader
}

/// Lost, doubled, reordered, altered, foreign.
fn counts(report: &Report) -> [u64; 5] {
    let total = &report.total;
    [total.lost, total.doubled, total.reordered, total.altered, total.foreign]
}

#[test]
fn complete_readings_are_kept_promises() {
    let ledger = ledger();
    let all = reader(&ledger, &[0, 1], 0, &[1, 2, 3, 4, 5, 6]);
    let late = reader(&ledger, &[1], 2, &[4, 6]);
    let report = ledger.judge([all, late]);
    assert!(report.kept && report.findings.is_empty(), "{report}");
    assert_eq!((report.total.acknowledged, report.total.delivered), (6, 8));
}

#[test]
fn lost_doubled_reordered_and_foreign_events_are_found() {
    let ledger = ledger();
    // Of the other channel, and of none that is known.
    let bad = reader(&ledger, &[1], 0, &[4, 2, 4, 3, 8]);
    let report = ledger.judge([bad]);
    assert_eq!(counts(&report), [1, 1, 1, 0, 2], "{report}");
    assert!(!report.kept && report.findings.iter().any(|text| text.contains("never got 6")), "{report}");
}

#[test]
fn reader_without_a_place_has_lost_all_and_what_lies_before_its_beginning_is_foreign() {
    assert_eq!(counts(&ledger().judge([Reader::new(1, vec![0, 1])])), [6, 0, 0, 0, 0]);
    let ledger = ledger();
    let early = reader(&ledger, &[1], 4, &[4, 6]);
    assert_eq!(counts(&ledger.judge([early])), [0, 0, 0, 0, 1]);
}

#[test]
fn unknown_event_comes_to_all_or_to_none() {
    let ledger = ledger();
    let (to_none, to_one) = (ledger.announce(1), ledger.announce(1));
    assert_ne!(to_none, to_one);
    let without = reader(&ledger, &[1], 0, &[2, 4, 6]);
    let mut with = reader(&ledger, &[1], 0, &[2, 4, 6]);
    assert!(ledger.clone().judge([reader(&ledger, &[1], 0, &[2, 4, 6])]).kept);
    ledger.deliver(&mut with, Some(to_one), 8, "even");
    let report = ledger.judge([without, with]);
    assert_eq!((counts(&report), report.total.unknown), ([1, 0, 0, 0, 0], 2), "{report}");
}

#[test]
fn event_that_was_acknowledged_without_an_id_and_that_nobody_got_is_lost() {
    let ledger = ledger();
    let n = ledger.announce(0);
    ledger.acknowledge(n, None);
    let readers = || [reader(&ledger, &[0], 0, &[1, 3, 5]), reader(&ledger, &[1], 6, &[])];
    assert_eq!(counts(&ledger.clone().judge(readers())), [1, 0, 0, 0, 0]);
    // The log says where it is: behind that begins a reader that need not have it.
    ledger.found(n, 7);
    assert!(ledger.judge([reader(&ledger, &[0], 7, &[])]).kept);
}

#[test]
fn event_that_was_rolled_back_comes_to_nobody() {
    let ledger = ledger();
    let (unseen, delivered, in_the_log) = (ledger.announce(0), ledger.announce(0), ledger.announce(0));
    for n in [unseen, delivered, in_the_log] {
        ledger.roll_back(n);
    }
    assert_eq!(ledger.clone().judge([]).total.unknown, 0);
    ledger.found(in_the_log, 9);
    let mut reader = reader(&ledger, &[0], 8, &[]);
    ledger.deliver(&mut reader, Some(delivered), 11, "odd");
    // Besides, a reader has not got what is in the log.
    assert_eq!(counts(&ledger.judge([reader])), [1, 0, 0, 0, 2]);
}

#[test]
fn event_with_two_ids_and_id_of_two_events_are_found() {
    let ledger = ledger();
    let (n, other) = (ledger.announce(0), ledger.announce(0));
    ledger.acknowledge(n, 7);
    ledger.acknowledge(other, 7);
    let mut reader = reader(&ledger, &[0], 6, &[]);
    ledger.deliver(&mut reader, Some(n), 9, "odd");
    assert_eq!(ledger.judge([reader]).total.altered, 2);
}

#[test]
fn gap_record_excuses_what_it_names_and_nothing_else() {
    let ledger = ledger();
    let mut told = reader(&ledger, &[0, 1], 0, &[]);
    ledger.gap(&mut told, 0, 4);
    for id in [4, 5, 6] {
        ledger.deliver(&mut told, ledger.number_of(id), id, parity(id));
    }
    let report = ledger.clone().judge([told]);
    assert!(report.kept && (report.total.announced, report.gap_records) == (3, 1), "{report}");
    let mut wrong = reader(&ledger, &[0, 1], 0, &[3]);
    ledger.gap(&mut wrong, 0, 4);
    // 3 came all the same, and 4 to 6 did not.
    assert_eq!(counts(&ledger.judge([wrong])), [3, 0, 0, 1, 0]);
}
