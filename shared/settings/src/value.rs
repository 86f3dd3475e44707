//! From text to value. Each error is the rest of a sentence that begins with what was set:
//! `EVERPOLL_HOLD_MAX="25s"` … `is not a number; give seconds from 0 to 3600, such as 25`.

use std::time::Duration;

use everpoll_protocol::{Origins, Rate, Subnet};

use crate::{Access, Listen, LogFormat, RedisUrl};

/// A whole number of `unit` from `low` to `high`.
pub(crate) fn number(unit: &str, low: u32, high: u32, example: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let advice = format!("give {unit} from {low} to {high}, such as {example}");
        match digits(text) {
            None => Err(format!("is not a number; {advice}")),
            Some(number) => u32::try_from(number)
                .ok()
                .filter(|number| (low..=high).contains(number))
                .ok_or_else(|| format!("is out of range; {advice}")),
        }
    }
}

/// A whole number of seconds from `low` to `high`.
pub(crate) fn seconds(low: u32, high: u32, example: u32) -> impl Fn(&str) -> Result<Duration, String> {
    let number = number("seconds", low, high, example);
    move |text| number(text).map(|seconds| Duration::from_secs(seconds.into()))
}

/// A duration from `low` to `high`: seconds, or a number with `ms`, `s`, `m` or `h`. `range` names both ends.
pub(crate) fn duration(
    low: Duration,
    high: Duration,
    range: &str,
    example: &str,
) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let advice = format!("give seconds or a number with ms, s, m or h, {range}, such as {example}");
        let (number, unit) = split_unit(text);
        let factor = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            _ => return Err(format!("is not a duration; {advice}")),
        };
        let number = digits(number).ok_or_else(|| format!("is not a duration; {advice}"))?;
        let duration = number.checked_mul(factor).map(Duration::from_millis);
        duration
            .filter(|duration| (low..=high).contains(duration))
            .ok_or_else(|| format!("is out of range; {advice}"))
    }
}

/// An address, or none.
pub(crate) fn address(text: &str) -> Result<Option<Listen>, String> {
    match text {
        "none" => Ok(None),
        _ => Listen::parse(text).map(Some),
    }
}

/// How often the log is read without a wake-up.
pub(crate) fn sweep(text: &str) -> Result<Duration, String> {
    duration(Duration::from_millis(100), Duration::from_secs(3600), "100ms to 1h", "1s")(text)
}

/// How often a canary is sent.
pub(crate) fn canary(text: &str) -> Result<Duration, String> {
    duration(Duration::from_secs(1), Duration::from_secs(3600), "1s to 1h", "5s")(text)
}

/// Where Redis is, if it is to be used.
pub(crate) fn redis(text: &str) -> Result<Option<RedisUrl>, String> {
    if text == "none" { Ok(None) } else { RedisUrl::parse(text).map(Some) }
}

/// How long something stays: seconds, or a number with `s`, `m`, `h` or `d`; `none` or 0 is for ever.
pub(crate) fn age(text: &str) -> Result<Option<Duration>, String> {
    const ADVICE: &str = "give seconds or a number with s, m, h or d, such as 7d, or none for ever";
    if text == "none" {
        return Ok(None);
    }
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(format!("is not a duration; {ADVICE}")),
    };
    let number = digits(number).ok_or_else(|| format!("is not a duration; {ADVICE}"))?;
    // A hundred years: more is a slip, and would run over in the database's arithmetic.
    match number.checked_mul(factor).filter(|seconds| *seconds <= 36_500 * 24 * 3600) {
        Some(0) => Ok(None),
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => Err(format!("is longer than 36500 days; {ADVICE}")),
    }
}

/// How many stay; `none` or 0 is all.
pub(crate) fn count(text: &str) -> Result<Option<u64>, String> {
    const ADVICE: &str = "give a number of events, such as 1000000, or none for all";
    if text == "none" {
        return Ok(None);
    }
    match digits(text) {
        Some(0) => Ok(None),
        Some(number) if i64::try_from(number).is_ok() => Ok(Some(number)),
        Some(_) => Err(format!("is out of range; {ADVICE}")),
        None => Err(format!("is not a number; {ADVICE}")),
    }
}

/// A number of bytes from `low` to `high`, plain or with `KiB`, `MiB` or `GiB`.
pub(crate) fn bytes(low: u64, high: u64, example: &str) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let (low_text, high_text) = (show_bytes(low), show_bytes(high));
        let advice = format!(
            "give bytes from {low_text} to {high_text}, plain or with KiB, MiB or GiB, such as {example}"
        );
        let (number, unit) = split_unit(text);
        let shift = match unit {
            "" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return Err(format!("is not a number of bytes; {advice}")),
        };
        let number = digits(number).ok_or_else(|| format!("is not a number of bytes; {advice}"))?;
        number
            .checked_mul(1 << shift)
            .filter(|bytes| (low..=high).contains(bytes))
            .ok_or_else(|| format!("is out of range; {advice}"))
    }
}

/// File permissions, octal.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(
            "is not a file mode; give three or four octal digits in quotes up to \"0777\", such as \"0660\""
                .into(),
        ),
    }
}

/// Who may read.
pub(crate) fn access(text: &str) -> Result<Access, String> {
    match text {
        "open" => Ok(Access::Open),
        "token" => Ok(Access::Token),
        "proxy" => Ok(Access::Proxy),
        _ => Err("is not known; give token: each reader brings one, proxy: the web server in front decides, or open: \
                  whoever reaches the program reads any channel"
            .into()),
    }
}

/// The name of a header of our own. Others have meanings already, also as variables of CGI.
pub(crate) fn own_header(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let rest = text.strip_prefix("X-").or_else(|| text.strip_prefix("x-")).unwrap_or_default();
    match !rest.is_empty() && rest.bytes().all(plain) {
        true => Ok(text.to_owned()),
        false => {
            Err("is no name of a header that begins with X-; give one such as X-Everpoll-Channels".into())
        }
    }
}

/// Addresses and networks, separated by spaces or commas; `none` is nobody.
pub(crate) fn subnets(text: &str) -> Result<Vec<Subnet>, String> {
    let parts = text.split([' ', ',']).filter(|part| !part.is_empty() && *part != "none");
    let subnet = |part: &str| {
        Subnet::parse(part).ok_or_else(|| {
            format!("names {part:?}, which is no address; give such as 192.0.2.7, 10.0.0.0/8 or ::1, or none")
        })
    };
    parts.map(subnet).collect()
}

/// The name of a cookie, or none.
pub(crate) fn cookie(text: &str) -> Result<Option<String>, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match text {
        "none" => Ok(None),
        _ if !text.is_empty() && text.bytes().all(plain) => Ok(Some(text.into())),
        _ => Err("is no name of a cookie; give letters, digits, _, - and ., or none".into()),
    }
}

/// A text, or none.
pub(crate) fn optional(text: &str) -> Result<Option<String>, String> {
    Ok(Some(text.to_owned()).filter(|text| text != "none"))
}

/// How long a token may be valid.
pub(crate) fn token_age(text: &str) -> Result<Duration, String> {
    const ADVICE: &str = "give seconds or a number with s, m, h or d, 1m to 366d, such as 1d";
    let range = Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 3600);
    match age(text) {
        Ok(Some(age)) if range.contains(&age) => Ok(age),
        Ok(_) => Err(format!("is out of range; {ADVICE}")),
        Err(_) => Err(format!("is not a duration; {ADVICE}")),
    }
}

/// How often something may be done: `1000`, or `1000 burst 5000`; without it, the burst is ten seconds' worth. `none` is without end.
pub(crate) fn rate(text: &str) -> Result<Option<Rate>, String> {
    const ADVICE: &str = "give a number a second from 1 to 1000000, and how many may come at once where that is not ten times as \
                          many, such as 1000 or \"1000 burst 5000\", or none";
    if text == "none" {
        return Ok(None);
    }
    let (per_second, burst) = match text.split_once(" burst ") {
        Some((per_second, burst)) => (per_second, Some(burst)),
        None => (text, None),
    };
    let number = |text: &str| digits(text.trim()).ok_or_else(|| format!("is not a rate; {ADVICE}"));
    let per_second = number(per_second)?;
    let burst = burst.map_or(Ok(per_second.saturating_mul(10)), number)?;
    if !(1..=1_000_000).contains(&per_second) || !(1..=100_000_000).contains(&burst) {
        return Err(format!("is out of range; {ADVICE}"));
    }
    let within = |number| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Some(Rate { per_second: within(per_second), burst: within(burst) }))
}

/// Yes or no.
pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("is neither true nor false; give one of them".into()),
    }
}

/// The sites whose pages may read from another host: `none`, `*`, or origins.
pub(crate) fn origins(text: &str) -> Result<Origins, String> {
    Origins::parse(text).map_err(|wrong| {
        format!("names {wrong:?}, which is no origin; give scheme, host and port as in https://shop.example, without a path, or * or none")
    })
}

/// Which diagnostics are written. The filter itself is read by the program that writes them.
pub(crate) fn log(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(|c: char| c.is_control()) {
        return Err(
            "is not a filter; give error, warn, info, debug or trace, or one such as info,everpoll=debug"
                .into(),
        );
    }
    Ok(text.to_owned())
}

/// How diagnostics look.
pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("is not known; give text or json".into()),
    }
}

/// Digits only: `parse` alone would take a leading `+`.
fn digits(text: &str) -> Option<u64> {
    let only_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // More digits than fit are a number, too: out of range, not unreadable.
    only_digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// `64 MiB` to `64` and `MiB`.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start_matches(' '))
}

fn show_bytes(bytes: u64) -> String {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >= 1 << shift && bytes.is_multiple_of(1 << shift))
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_is_read_with_and_without_unit() {
        let days = |n: u64| Ok(Some(Duration::from_secs(n * 24 * 3600)));
        assert_eq!(age("7d"), days(7));
        assert_eq!(age("168h"), days(7));
        assert_eq!(age("604800"), days(7));
        assert_eq!(age("10080 m"), days(7));
        assert_eq!(age("none"), Ok(None));
        assert_eq!(age("0"), Ok(None));
        for wrong in ["", "-1", "+7", "7w", "d", "1.5h", "7 d d", "99999999999999999999d", "36501d"] {
            assert!(age(wrong).unwrap_err().contains("such as 7d"), "{wrong}");
        }
    }

    #[test]
    fn duration_may_be_shorter_than_a_second() {
        assert_eq!(sweep("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(sweep("1"), Ok(Duration::from_secs(1)));
        assert_eq!(sweep("1500 ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(sweep("60m"), Ok(Duration::from_secs(3600)));
        for wrong in ["0", "99ms", "61m", "2h", "99999999999999999999s"] {
            assert!(sweep(wrong).unwrap_err().starts_with("is out of range; give seconds or"), "{wrong}");
        }
        for wrong in ["", "s", "0.5", "0.5s", "-1", "1d", "1 s s"] {
            assert!(sweep(wrong).unwrap_err().ends_with("100ms to 1h, such as 1s"), "{wrong}");
        }
    }

    #[test]
    fn bytes_are_binary_and_bounded() {
        let parse = bytes(64 << 10, 1 << 30, "64MiB");
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("64 KiB"), Ok(65536));
        assert_eq!(parse("1GiB"), Ok(1 << 30));
        for wrong in ["64MB", "64M", "1.5MiB", "65535", "2GiB", "99999999999999999999GiB", "MiB"] {
            assert!(parse(wrong).unwrap_err().contains("from 64KiB to 1GiB"), "{wrong}");
        }
    }

    #[test]
    fn number_out_of_range_is_told_from_no_number() {
        let parse = number("workers", 1, 16, 8);
        assert_eq!(parse("16"), Ok(16));
        assert_eq!(parse("17").unwrap_err(), "is out of range; give workers from 1 to 16, such as 8");
        assert_eq!(parse("x").unwrap_err(), "is not a number; give workers from 1 to 16, such as 8");
        assert!(parse("99999999999999999999999").unwrap_err().contains("out of range"));
        assert!(parse("+3").is_err());
    }

    #[test]
    fn rate_is_a_number_a_second_and_a_burst() {
        let is = |per_second, burst| Ok(Some(Rate { per_second, burst }));
        assert_eq!((rate("1000"), rate("none")), (is(1000, 10_000), Ok(None)));
        assert_eq!((rate("5 burst 7"), rate("1000000")), (is(5, 7), is(1_000_000, 10_000_000)));
        for wrong in ["0", "1000001", "5 burst 0", "1 burst 100000001", "99999999999999999999"] {
            assert!(
                rate(wrong).unwrap_err().starts_with("is out of range; give a number a second"),
                "{wrong}"
            );
        }
        for wrong in ["", "x", "5/7", "5 burst", "burst 5", "-1", "5 burst x", "0.5"] {
            assert!(rate(wrong).unwrap_err().starts_with("is not a rate; give a number a second"), "{wrong}");
        }
    }

    #[test]
    fn mode_is_octal() {
        assert_eq!(mode("0660"), Ok(0o660));
        assert_eq!(mode("666"), Ok(0o666));
        for wrong in ["0o660", "+660", "1777", "432x", "9", "08", "", "00660"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
    }
}
