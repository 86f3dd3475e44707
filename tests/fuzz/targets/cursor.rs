//! Cursors, as clients send them.

use everpoll_protocol::{Cursor, Timestamp};

/// A cursor is refused, or is the same again when it is sent in its plain form.
pub(crate) fn check(text: &[u8]) {
    match Cursor::parse(text) {
        Ok(cursor @ Cursor::After(id)) => {
            assert!(i64::try_from(id).is_ok(), "the log's ids are signed");
            assert_eq!(Cursor::parse(id.to_string().as_bytes()), Ok(cursor));
        }
        Ok(cursor @ Cursor::Since(since)) => {
            let slack = 2_000_000;
            let micros = since.micros();
            assert!(micros < 253_402_300_800_000_000);
            if micros > 0 {
                let asked = micros + slack;
                let again = format!("rt-{}.{:06}", asked / 1_000_000, asked % 1_000_000);
                assert_eq!(Cursor::parse(again.as_bytes()), Ok(cursor));
            }
            let _ = Timestamp::from_micros(micros).to_string();
        }
        Ok(Cursor::Now) => assert!(text.len() <= 64),
        Err(error) => super::replies::check_error(&error),
    }
}
