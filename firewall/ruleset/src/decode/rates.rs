//! The rates of iptables in its words. They are kept as the time from one packet to the next.

use super::fields::Fields;

/// `struct xt_rateinfo` of `limit`.
pub(crate) fn limit(revision: u32, info: &[u8]) -> Option<String> {
    const SCALE: u64 = 10_000;
    if revision != 0 {
        return None;
    }
    let info = Fields::of(info, 40)?;
    Some(format!("limit: avg {} burst {}", rate(info.u32(0)?.into(), SCALE)?, info.u32(4)?))
}

/// `recent`, where it holds from so many packets of a source on (xt_recent.h).
pub(crate) fn recent(revision: u32, info: &[u8]) -> Option<String> {
    const CHECK: u8 = 1 << 0;
    const UPDATE: u8 = 1 << 2;
    let info = Fields::of(info, if revision == 0 { 212 } else { 228 })?;
    let (seconds, hits, asked, negated) = (info.u32(0)?, info.u32(4)?, info.u8(8)?, info.u8(9)?);
    let counts = asked & (CHECK | UPDATE) != 0 && hits > 1 && negated == 0;
    counts.then(|| format!("recent: {hits} or above in {seconds} s"))
}

/// `struct xt_hashlimit_mtinfo1` to `3`.
pub(crate) fn hashlimit(revision: u32, info: &[u8]) -> Option<String> {
    const INVERT: u32 = 1 << 4;
    /// Bytes are counted and not packets, or the rate that was is compared.
    const OTHER_UNIT: u32 = 1 << 5 | 1 << 6;
    const MODES: [(u32, &str); 4] =
        [(1 << 2, "srcip"), (1 << 3, "srcport"), (1 << 0, "dstip"), (1 << 1, "dstport")];
    let (average, scale, burst, mode) = match revision {
        1 => {
            let info = Fields::of(info, 56)?;
            (info.u32(20)?.into(), 10_000, info.u32(24)?.into(), info.u32(16)?)
        }
        2 | 3 => {
            let info = Fields::of(info, if revision == 2 { 304 } else { 312 })?;
            (info.u64(256)?, 1_000_000, info.u64(264)?, info.u32(272)?)
        }
        _ => return None,
    };
    if mode & OTHER_UNIT != 0 {
        return None;
    }
    let what = if mode & INVERT == 0 { "up to" } else { "above" };
    let mut text = format!("limit: {what} {} burst {burst}", rate(average, scale)?);
    let modes: Vec<&str> = MODES.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, name)| *name).collect();
    if !modes.is_empty() {
        text.push_str(" mode ");
        text.push_str(&modes.join("-"));
    }
    Some(text)
}

/// In the largest unit in which it is a whole number, more or less, as iptables chooses it.
fn rate(period: u64, scale: u64) -> Option<String> {
    let units =
        [(scale, "sec"), (60 * scale, "min"), (60 * 60 * scale, "hour"), (24 * 60 * 60 * scale, "day")];
    if period == 0 {
        return None;
    }
    let fits = |unit: u64| period <= unit && unit / period >= unit % period;
    let (unit, name) = units.iter().find(|(unit, _)| fits(*unit)).unwrap_or(&units[3]);
    Some(format!("{}/{name}", unit / period))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_in_the_unit_that_iptables_chooses() {
        const SCALE: u64 = 10_000;
        let said = |period: u64| rate(period, SCALE);
        assert_eq!(said(20 * SCALE).as_deref(), Some("3/min"));
        assert_eq!(said(SCALE / 10).as_deref(), Some("10/sec"));
        assert_eq!(said(60 * 60 * SCALE).as_deref(), Some("1/hour"));
        assert_eq!(said(24 * 60 * 60 * SCALE).as_deref(), Some("1/day"));
        assert_eq!(said(u64::from(u32::MAX)).as_deref(), Some("0/day"), "less than one");
        assert_eq!(said(0), None);
    }
}
