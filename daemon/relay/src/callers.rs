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

    /// Waits until there are fewer than this, or this is the only one. Can be cancelled.
    pub(crate) async fn fewer_than(&self, most: usize) {
        let Callers(count) = &*self.0;
        if *count.borrow() >= most {
            let _ = count.subscribe().wait_for(|count| *count < most.max(2)).await;
        }
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
        assert_eq!(poll_once(none.as_mut()).await, Poll::Pending);
        drop(caller);
        none.await;
    }

    #[tokio::test]
    async fn one_more_is_waited_with_until_there_are_fewer() {
        let callers: Arc<Callers> = Arc::default();
        let accepting = callers.begin();
        let caller = accepting.another();
        accepting.fewer_than(3).await;
        let mut room = pin!(accepting.fewer_than(2));
        assert_eq!(poll_once(room.as_mut()).await, Poll::Pending);
        drop(caller);
        room.await;
    }

    /// Polls a future once.
    async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
    }
}
