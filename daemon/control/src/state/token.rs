//! The outstanding token: what the durable state keeps of it, and until when it is good.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zeroize::Zeroize;
use zone_protocol::token::Token;

use super::clock::{TOLERANCE, Time};

/// A token with all that is needed to tell when it has expired, whatever becomes of the wall clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuedToken {
    /// The token.
    pub token: Token,
    /// By a wall clock that never goes back.
    #[serde(with = "zone_protocol::timestamp")]
    issued_at: OffsetDateTime,
    /// During which boot.
    boot_id: String,
    /// Seconds after that boot.
    issued_since_boot: f64,
    /// For how many seconds it is good.
    good_for: f64,
}

impl IssuedToken {
    /// A fresh token for the proxy with this pin. `None` where the system has no randomness to give.
    pub fn issue(pin: [u8; 32], good_for: Duration, time: &Time) -> Option<Self> {
        let mut secret = [0; 20];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        let token = Token::new(pin, secret);
        secret.zeroize();
        Some(Self {
            token,
            issued_at: time.never_back(),
            boot_id: time.clock().boot_id().to_owned(),
            issued_since_boot: time.clock().since_boot().as_secs_f64(),
            good_for: good_for.as_secs_f64(),
        })
    }

    /// How much longer it is good; `None` once it has expired.
    pub fn remaining(&self, time: &Time) -> Option<Duration> {
        let by_wall = (time.never_back() - self.issued_at).as_seconds_f64();
        let same_boot = self.boot_id == time.clock().boot_id();
        let by_boot = if same_boot {
            time.clock().since_boot().as_secs_f64() - self.issued_since_boot
        } else if time.set_back_by().is_some() {
            // Another boot, and a wall clock that stands still at its highest: its age can't be known.
            return None;
        } else {
            0.0
        };
        let left = self.good_for - by_wall.max(by_boot);
        (left > 0.0).then(|| Duration::try_from_secs_f64(left).unwrap_or(TOLERANCE))
    }

    /// When it expires, by the wall clock as it stands now, to the second.
    pub fn expires_at(&self, time: &Time) -> OffsetDateTime {
        (time.wall() + self.remaining(time).unwrap_or_default()).truncate_to_second()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::state::clock::tests::SetClock;

    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    const DAY: Duration = Duration::from_secs(86_400);

    fn issued(clock: &Rc<SetClock>) -> (IssuedToken, Time) {
        let time = Time::new(Rc::<SetClock>::clone(clock), None);
        time.advance();
        (IssuedToken::issue([1; 32], DAY, &time).unwrap(), time)
    }

    #[test]
    fn a_token_is_good_until_its_time_is_over() {
        let clock = SetClock::at(1_700_000_000);
        let (token, time) = issued(&clock);
        clock.pass(DAY / 2);
        assert_eq!(token.remaining(&time), Some(DAY / 2));
        clock.pass(DAY / 2);
        assert_eq!(token.remaining(&time), None);
    }

    #[test]
    fn a_clock_set_back_a_year_does_not_revive_a_token() {
        let clock = SetClock::at(1_700_000_000);
        let (token, time) = issued(&clock);
        clock.pass(DAY * 2);
        clock.wall.set(clock.wall.get() - YEAR);
        assert_eq!(token.remaining(&time), None);
    }

    #[test]
    fn a_clock_set_back_and_a_reboot_do_not_revive_a_token() {
        let clock = SetClock::at(1_700_000_000);
        let (token, time) = issued(&clock);
        clock.pass(DAY * 2);
        let stored = time.advance();
        let rebooted = Rc::new(SetClock {
            wall: (clock.wall.get() - YEAR).into(),
            since_boot: Duration::from_secs(5).into(),
            boot_id: "two".into(),
        });
        assert_eq!(token.remaining(&Time::new(rebooted, Some(stored))), None);
    }

    #[test]
    fn a_token_issued_while_the_clock_is_behind_is_good_for_its_time() {
        let clock = SetClock::at(1_700_000_000);
        let time = Time::new(Rc::<SetClock>::clone(&clock), None);
        time.advance();
        clock.wall.set(clock.wall.get() - YEAR);
        let token = IssuedToken::issue([1; 32], DAY, &time).unwrap();
        assert_eq!(token.remaining(&time), Some(DAY));
        assert_eq!(token.expires_at(&time), clock.wall.get() + DAY);
        clock.pass(DAY);
        assert_eq!(token.remaining(&time), None);
    }
}
