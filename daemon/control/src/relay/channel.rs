//! One relay as control sees it: commands answered in order, questions answered by number, and its end.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::rc::Rc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::spawn_local;
use tokio::time::{Instant, timeout};
use zone_channel::{
    ChannelError, Configure, FromRelay, ListenerInfo, Policy, Query, Receiver, RelayState, Reply, Sender,
    ToRelay, pair,
};
use zone_log::Source;
use zone_protocol::provisioning::ProcessStatus;

use super::error::RelayError;
use super::listener::Listener;

/// The most messages that wait for a relay to read them.
const MAX_QUEUED: usize = 16;
/// For a relay to carry out what it is told.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// For a relay to exit once it was told to, before it is killed.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);
/// For the log records that a relay sent before its end to be taken in.
const LAST_RECORDS_TIMEOUT: Duration = Duration::from_secs(1);
/// What a relay's log records are known by.
const PROCESS: &str = "zone-relay";

/// A relay process that has said hello.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Its process id, as it says.
    pub(super) pid: u32,
    /// Which build it is, see [`zone_channel::build`].
    pub(super) build: String,
    /// The process as the kernel showed it to the relay itself.
    pub(super) process: Option<ProcessStatus>,
    /// When control got to know it.
    pub(super) since: Instant,
    generation: Cell<u64>,
    queue: mpsc::Sender<Outgoing>,
    exchange: Rc<Exchange>,
    next_question: Cell<u64>,
    ended: watch::Receiver<Option<Rc<str>>>,
    kill: Rc<Notify>,
}

/// What a relay says of itself when the channel is taken up.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) generation: u64,
    pub(super) serves: String,
    pub(super) listeners: Vec<Listener>,
    /// Whether every listener that it named came along.
    pub(super) complete: bool,
}

/// Who a relay is.
struct Process {
    pid: u32,
    build: String,
    process: Option<ProcessStatus>,
    generation: u64,
}

#[derive(Debug)]
struct Outgoing {
    message: ToRelay,
    descriptors: Vec<OwnedFd>,
    answer: Option<oneshot::Sender<Answer>>,
}

type Answer = Result<RelayState, RelayError>;

#[derive(Debug)]
struct Exchange {
    /// For its log records.
    pid: u32,
    state: Cell<RelayState>,
    commands: RefCell<VecDeque<oneshot::Sender<Answer>>>,
    questions: RefCell<HashMap<u64, oneshot::Sender<Reply>>>,
}

impl Relay {
    /// Waits for the hello on a fresh channel. A child that does not say it in time is killed.
    pub(super) async fn after_hello(
        channel: OwnedFd,
        child: Option<Child>,
        within: Duration,
    ) -> Result<(Rc<Self>, Hello), RelayError> {
        let prepare =
            |error: std::io::Error| RelayError::Prepare { what: "channel", error: error.to_string() };
        let (sender, mut receiver) = pair::<ToRelay, FromRelay>(channel).map_err(prepare)?;
        let (message, descriptors) = match timeout(within, receiver.receive()).await {
            Ok(Ok(first)) => first,
            result => {
                let end = reap(child).await;
                return Err(match (result, end) {
                    (Ok(_), Some(end)) => RelayError::Ended(end),
                    (Ok(Err(error)), None) => RelayError::Ended(error.to_string()),
                    _ => RelayError::Silent { what: "hello", within },
                });
            }
        };
        let FromRelay::Hello { pid, version, build, process, state, generation, serves, listeners } = message
        else {
            reap(child).await;
            return Err(RelayError::Failed { step: "hello".into(), error: "it said something else".into() });
        };
        tracing::debug!(pid, version, generation, ?state, "a relay said hello");
        let hello = Hello {
            generation,
            serves,
            complete: descriptors.len() == listeners.len(),
            listeners: received(&listeners, descriptors),
        };
        let process = Process { pid, build, process, generation };
        Ok((Self::run(process, state, (sender, receiver), child), hello))
    }

    fn run(
        Process { pid, build, process, generation }: Process,
        state: RelayState,
        (sender, receiver): (Sender<ToRelay>, Receiver<FromRelay>),
        child: Option<Child>,
    ) -> Rc<Self> {
        let exchange = Rc::new(Exchange {
            pid,
            state: Cell::new(state),
            commands: RefCell::default(),
            questions: RefCell::default(),
        });
        let (queue, outgoing) = mpsc::channel(MAX_QUEUED);
        let (end, ended) = watch::channel(None);
        let kill = Rc::new(Notify::new());
        spawn_local(write(sender, outgoing, Rc::clone(&exchange)));
        spawn_local({
            let (exchange, kill) = (Rc::clone(&exchange), Rc::clone(&kill));
            async move {
                let reason = receive_until_end(receiver, &exchange, child, &kill).await;
                end.send_replace(Some(reason.into()));
                // Whoever waits for an answer learns that none will come.
                exchange.commands.borrow_mut().clear();
                exchange.questions.borrow_mut().clear();
            }
        });
        Rc::new(Self {
            pid,
            build,
            process,
            since: Instant::now(),
            generation: Cell::new(generation),
            queue,
            exchange,
            next_question: Cell::new(1),
            ended,
            kill,
        })
    }

    /// Counts relays; 0 before it was configured.
    pub(super) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// What it is doing, as it said last.
    pub(super) fn state(&self) -> RelayState {
        self.exchange.state.get()
    }

    /// Hands over everything that the relay needs; it is ready afterwards, and does not accept yet.
    pub(super) async fn configure(
        &self,
        configure: Configure,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), RelayError> {
        self.generation.set(configure.generation);
        let message = ToRelay::Configure(Box::new(configure));
        self.command("configure", message, descriptors, RelayState::Ready).await
    }

    /// It accepts from now on.
    pub(crate) async fn activate(&self) -> Result<(), RelayError> {
        self.command("activate", ToRelay::Activate, Vec::new(), RelayState::Serving).await
    }

    /// The rules that it goes by from now on.
    pub(super) async fn set_policy(&self, policy: &Policy) -> Result<(), RelayError> {
        let message = ToRelay::Policy(Box::new(policy.clone()));
        self.command_any("policy", message, Vec::new()).await.map(drop)
    }

    /// It accepts no more, and keeps its sessions until they end.
    pub(super) async fn drain(&self) -> Result<(), RelayError> {
        self.command("drain", ToRelay::Drain, Vec::new(), RelayState::Draining).await
    }

    /// Asks; the answer must come within a time.
    pub(super) async fn ask(&self, query: Query, within: Duration) -> Result<Reply, RelayError> {
        let id = self.next_question.get();
        self.next_question.set(id + 1);
        let (answer, answered) = oneshot::channel();
        self.exchange.questions.borrow_mut().insert(id, answer);
        let asked = async {
            self.enqueue(ToRelay::Ask { id, query }, Vec::new(), None).await?;
            answered.await.map_err(|_| self.gone())
        };
        let reply = timeout(within, asked).await;
        self.exchange.questions.borrow_mut().remove(&id);
        reply.unwrap_or(Err(RelayError::Silent { what: "a question", within }))
    }

    /// Tells it to close everything and exit, and sees to it that it does.
    pub(crate) async fn stop(&self) {
        let told = self.enqueue(ToRelay::Stop, Vec::new(), None);
        let stopped = async {
            if told.await.is_ok() {
                self.ended().await;
            }
        };
        if timeout(EXIT_TIMEOUT, stopped).await.is_err() {
            self.kill.notify_one();
            if timeout(EXIT_TIMEOUT, self.ended()).await.is_err() {
                tracing::error!(pid = self.pid, "a relay that was told to stop goes on");
            }
        }
    }

    /// Waits until it is gone, and says how it went.
    pub(super) async fn ended(&self) -> Rc<str> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "it is gone".into(),
        }
    }

    /// Whether it is gone already.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    async fn command(
        &self,
        what: &'static str,
        message: ToRelay,
        descriptors: Vec<OwnedFd>,
        wanted: RelayState,
    ) -> Result<(), RelayError> {
        let state = self.command_any(what, message, descriptors).await?;
        if state == wanted { Ok(()) } else { Err(RelayError::OutOfStep { what, state: state_word(state) }) }
    }

    async fn command_any(&self, what: &'static str, message: ToRelay, descriptors: Vec<OwnedFd>) -> Answer {
        let (answer, answered) = oneshot::channel();
        let told = async {
            self.enqueue(message, descriptors, Some(answer)).await?;
            answered.await.map_err(|_| self.gone())?
        };
        timeout(COMMAND_TIMEOUT, told)
            .await
            .unwrap_or(Err(RelayError::Silent { what, within: COMMAND_TIMEOUT }))
    }

    async fn enqueue(
        &self,
        message: ToRelay,
        descriptors: Vec<OwnedFd>,
        answer: Option<oneshot::Sender<Answer>>,
    ) -> Result<(), RelayError> {
        let outgoing = Outgoing { message, descriptors, answer };
        self.queue.send(outgoing).await.map_err(|_| self.gone())
    }

    fn gone(&self) -> RelayError {
        let reason = self.ended.borrow().clone();
        RelayError::Ended(reason.as_deref().unwrap_or("it closed its channel").to_owned())
    }
}

/// The word for a state in `status` and in errors.
pub(super) fn state_word(state: RelayState) -> &'static str {
    match state {
        RelayState::Fresh | RelayState::Ready => "starting",
        RelayState::Serving => "serving",
        RelayState::Draining => "draining",
    }
}

/// Sends what is queued. A frame is never cut short by somebody who waits for its answer no longer.
async fn write(sender: Sender<ToRelay>, mut queue: mpsc::Receiver<Outgoing>, exchange: Rc<Exchange>) {
    while let Some(Outgoing { message, descriptors, answer }) = queue.recv().await {
        if let Some(answer) = answer {
            exchange.commands.borrow_mut().push_back(answer);
        }
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        if sender.send(&message, &descriptors).await.is_err() {
            // The reading side finds out why, and ends what waits.
            return;
        }
    }
}

/// Takes in what the relay says until it is gone, and says how it went.
async fn receive_until_end(
    mut receiver: Receiver<FromRelay>,
    exchange: &Exchange,
    child: Option<Child>,
    kill: &Notify,
) -> String {
    let Some(mut child) = child else {
        return tokio::select! {
            error = read(&mut receiver, exchange) => error.to_string(),
            () = kill.notified() => "it was given up".to_owned(),
        };
    };
    tokio::select! {
        status = child.wait() => {
            // What it said last is still on the way: its last records.
            let _ = timeout(LAST_RECORDS_TIMEOUT, read(&mut receiver, exchange)).await;
            describe(status)
        }
        () = kill.notified() => {
            let _ = child.start_kill();
            format!("it was killed, not having stopped in time ({})", describe(child.wait().await))
        }
        error = read(&mut receiver, exchange) => {
            if let Ok(status) = timeout(EXIT_TIMEOUT, child.wait()).await {
                return describe(status);
            }
            let _ = child.start_kill();
            format!("{error}, and it was killed ({})", describe(child.wait().await))
        }
    }
}

async fn read(receiver: &mut Receiver<FromRelay>, exchange: &Exchange) -> ChannelError {
    loop {
        let message = match receiver.receive().await {
            Ok((message, _)) => message,
            Err(error) => return error,
        };
        match message {
            FromRelay::Done(state) => {
                exchange.state.set(state);
                exchange.answer(Ok(state));
            }
            FromRelay::Failed { step, error } => exchange.answer(Err(RelayError::Failed { step, error })),
            FromRelay::Reply { id, reply } => {
                if let Some(asker) = exchange.questions.borrow_mut().remove(&id) {
                    let _ = asker.send(reply);
                }
            }
            FromRelay::Log(record) => {
                zone_log::submit(record, Source { process: PROCESS.into(), pid: exchange.pid });
            }
            FromRelay::Hello { .. } => tracing::warn!("a relay said hello twice"),
        }
    }
}

impl Exchange {
    fn answer(&self, answer: Answer) {
        if let Some(teller) = self.commands.borrow_mut().pop_front() {
            let _ = teller.send(answer);
        }
    }
}

fn received(infos: &[ListenerInfo], descriptors: Vec<OwnedFd>) -> Vec<Listener> {
    infos.iter().zip(descriptors).filter_map(|(info, fd)| Listener::received(*info, fd)).collect()
}

async fn reap(child: Option<Child>) -> Option<String> {
    let mut child = child?;
    if let Ok(status) = timeout(Duration::from_millis(100), child.wait()).await {
        return Some(describe(status));
    }
    let _ = child.start_kill();
    let _ = child.wait().await;
    None
}

fn describe(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("its exit status can't be had: {error}"),
    }
}
