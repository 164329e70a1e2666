//! The endpoints that calls wait for in a relay that took another one's place, until control is told of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use crate::lock::lock;

/// The most that wait to be told at a time; one beyond comes when its turn comes at the relay that drains.
const MAX_WANTED: usize = 1_024;
/// The most in one message.
const MAX_TOLD: usize = 256;

/// Endpoints that are to be told to control.
#[derive(Debug, Default)]
pub(crate) struct WantedEndpoints {
    names: Mutex<BTreeSet<Arc<str>>>,
    added: Notify,
}

impl WantedEndpoints {
    /// One more.
    pub(crate) fn add(&self, endpoint: Arc<str>) {
        let mut names = lock(&self.names);
        if names.len() < MAX_WANTED {
            names.insert(endpoint);
            self.added.notify_one();
        }
    }

    /// Waits until there are some, and takes as many as one message tells. Can be cancelled.
    pub(crate) async fn next(&self) -> Vec<Arc<str>> {
        loop {
            let told: Vec<_> = {
                let mut names = lock(&self.names);
                (0..MAX_TOLD).map_while(|_| names.pop_first()).collect()
            };
            if !told.is_empty() {
                return told;
            }
            self.added.notified().await;
        }
    }
}
