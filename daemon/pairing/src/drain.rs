//! The plan by which a draining machine lets its parks go.

use std::collections::VecDeque;

use crate::{ParkId, Time};

/// Lets the parks without a call go, evenly spread until the end.
#[derive(Debug)]
pub(crate) struct Drain {
    end: Time,
    /// When to let the next one go; `None` while there is none.
    next: Option<Time>,
    /// Holds at least all parks that are to go; may hold others, and some twice.
    queue: VecDeque<ParkId>,
}

impl Drain {
    /// Lets these parks go until `end`, once it is planned.
    pub(crate) fn new(end: Time, queue: VecDeque<ParkId>) -> Self {
        Self { end, next: None, queue }
    }

    /// One more park that is to go.
    pub(crate) fn add(&mut self, park: ParkId) {
        self.queue.push_back(park);
    }

    /// The park whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<ParkId> {
        self.queue.pop_front()
    }

    /// When to let the next one go; `None` while there is none.
    pub(crate) fn next(&self) -> Option<Time> {
        self.next
    }

    /// Spreads what is left of the time evenly over this many parks.
    pub(crate) fn plan(&mut self, now: Time, parks: usize) {
        let left = self.end.saturating_sub(now);
        let step = left.checked_div(u32::try_from(parks).unwrap_or(u32::MAX));
        self.next = step.filter(|_| !self.queue.is_empty()).map(|step| now.saturating_add(step));
    }

    pub(crate) fn into_queue(self) -> VecDeque<ParkId> {
        self.queue
    }
}
