//! A relay that stands still where no service manager watches over it: control asks for a sign of life, and ends a relay that
//! gives none.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;
use zone_channel::Query;

use super::channel::Relay;
use super::error::RelayError;

/// Between a sign of life and the next question, and for an answer to it.
const QUESTION_INTERVAL: Duration = Duration::from_secs(8);
/// Questions in a row without an answer, after which a relay is ended: 16 to 24 s after it stood still, within the 30 s that
/// zone-relay@.service gives it (`WatchdogSec`). They are counted, so that a relay is not blamed for a pause of this process.
const MAX_UNANSWERED: u32 = 2;

/// Watches over a relay until it has ended, and ends it if it stands still.
pub(super) async fn watch_over(relay: Rc<Relay>) {
    let mut unanswered = 0;
    while unanswered < MAX_UNANSWERED {
        if unanswered == 0 {
            sleep(QUESTION_INTERVAL).await;
        }
        match relay.ask(Query::Counts, QUESTION_INTERVAL).await {
            Ok(_) => unanswered = 0,
            Err(RelayError::Silent { .. }) => unanswered += 1,
            Err(_) => return,
        }
    }
    let (generation, pid) = (relay.generation(), relay.pid());
    tracing::error!(generation, pid, "a relay gives no sign of life, and is killed");
    relay.kill().await;
}
