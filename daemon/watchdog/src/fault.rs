//! Panics on demand, for tests of what becomes of a process then. Programs that are built without debug assertions, as those
//! of the packages are, have none.

/// The variable of the environment that tells where: `PLACE:N`, the N-th time that the place is reached.
pub const VARIABLE: &str = "ZONE_PANIC";

/// Panics where this is the time and the place.
#[cfg(debug_assertions)]
pub fn reached(place: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let wanted = std::env::var(VARIABLE).ok()?;
        let (place, time) = wanted.rsplit_once(':')?;
        Some((place.to_owned(), time.parse().ok()?))
    });
    static TIMES: AtomicU64 = AtomicU64::new(0);
    if let Some((wanted, time)) = &*WANTED {
        assert!(
            wanted != place || TIMES.fetch_add(1, Ordering::Relaxed) + 1 != *time,
            "{VARIABLE} wants it: {place}, time {time}"
        );
    }
}

/// Does nothing.
#[cfg(not(debug_assertions))]
pub fn reached(_place: &str) {}
