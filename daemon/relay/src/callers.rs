//! The callers that are under way: from their connection to the answer to their CONNECT. A relay that drains serves them
//! before it lets its parks go, for nobody else can.

use std::sync::Arc;

use tokio::sync::watch;

/// How many callers are under way.
#[derive(Debug, Default)]
pub(crate) struct Callers(watch::Sender<usize>);

/// One of them, or the loop that accepts them. Dropped, it is under way no more.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Callers>);

impl Callers {
    /// One more.
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(Arc::clone(self))
    }

    /// Waits until there is none.
    pub(crate) async fn none_under_way(&self) {
        // The sender lives as long as this does.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl UnderWay {
    /// Another one beside it.
    pub(crate) fn another(&self) -> Self {
        self.0.begin()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn nobody_is_under_way_once_the_last_one_and_the_loop_have_ended() {
        let callers: Arc<Callers> = Arc::default();
        callers.none_under_way().await;
        let accepting = callers.begin();
        let caller = accepting.another();
        let mut none = pin!(callers.none_under_way());
        drop(accepting);
        assert_eq!(futures_poll(none.as_mut()).await, Poll::Pending);
        drop(caller);
        none.await;
    }

    /// Polls a future once.
    async fn futures_poll<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }
}
