//! One relay as control sees it: commands answered in order, questions answered by number, and its end.
//!
//! A relay is not trusted: what it says is bounded, nobody waits for it without a deadline, and who it is and whether it has
//! ended is the kernel's word.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::process::Child;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use zone_channel::{
    Configure, FromRelay, HANDS_OVER, LISTS_SESSIONS, ListenerInfo, Policy, Query, READS_RETIRED, RelayState,
    Reply, Sender, TAKES_NOTES, ToRelay, pair,
};
use zone_protocol::identity::Label;
use zone_protocol::provisioning::ProcessStatus;

use super::end::{Ender, HELPER_TIMEOUT};
use super::error::RelayError;
use super::exchange::{Answer, Exchange};
use super::intake::Intake;
use super::life::{EXIT_TIMEOUT, End, Life, reap};
use super::listener::Listener;
use super::notes;
use super::process::Process;
use super::sessions::Sessions;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// The most messages that wait for a relay to read them.
const MAX_QUEUED: usize = 16;
/// For a relay to carry out what it is told. One that takes no policy within it is ended.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Of what a relay says of landlock.
const MAX_LANDLOCK_CHARS: usize = 80;

/// What every relay of a supervisor is made with.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// How it is made to end.
    pub(super) ender: Rc<Ender>,
    /// What control counts.
    pub(super) metrics: Rc<Metrics>,
    /// What this process can't do without.
    pub(super) tasks: Rc<Tasks>,
}

/// A relay process that has said hello.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Its process, as the kernel shows it.
    pub(super) process: Rc<Process>,
    /// Which build it says it is, see [`zone_channel::build`].
    pub(super) build: String,
    /// What came of landlock, as it says: a short line, and nobody else knows.
    pub(super) landlock: Option<String>,
    /// When control got to know it.
    pub(super) since: Instant,
    /// Its open sessions.
    pub(super) sessions: Rc<Sessions>,
    /// The zone whose rules it goes by.
    pub(super) zone: RefCell<Option<Label>>,
    /// How many sessions it carries while it drains, as it said last.
    pub(super) carries: Cell<usize>,
    generation: u64,
    /// Whether it reads the whole of a trust document: it may be of the package before this one.
    reads_retired: bool,
    /// Whether it takes another one's place and leaves its own without a gap: it may be of the package before this one.
    hands_over: bool,
    /// Whether it was told to end, and so has no purpose any more.
    ending: Cell<bool>,
    /// Whether it was told to accept, by this control or one before.
    accepted: Cell<bool>,
    queue: mpsc::Sender<Outgoing>,
    exchange: Rc<Exchange>,
    next_question: Cell<u64>,
    ended: watch::Receiver<Option<End>>,
    kill: Rc<Notify>,
}

/// What a relay says of itself when the channel is taken up.
#[derive(Debug)]
pub(super) struct Hello {
    pub(super) serves: String,
    /// Whether it can be asked for its sessions.
    pub(super) lists_sessions: bool,
    /// Whether it notes what becomes of its sessions while there is no control.
    pub(super) takes_notes: bool,
    pub(super) listeners: Vec<Listener>,
    /// Whether every listener that it named came along.
    pub(super) complete: bool,
}

#[derive(Debug)]
struct Outgoing {
    message: ToRelay,
    descriptors: Vec<OwnedFd>,
    answer: Option<oneshot::Sender<Answer>>,
}

/// A channel on which the hello is awaited.
pub(super) struct Fresh {
    /// Control's end of it.
    pub(super) channel: OwnedFd,
    /// The process, where it is control's own to wait for.
    pub(super) child: Option<Child>,
    /// The generation that it is to be: that of its rendezvous, or a new one.
    pub(super) generation: u64,
    /// Its open sessions.
    pub(super) sessions: Rc<Sessions>,
}

impl Relay {
    /// Waits for the hello on a fresh channel. A child that does not say it in time is killed, and so is whoever says
    /// something else.
    pub(super) async fn after_hello(
        fresh: Fresh,
        within: Duration,
        surroundings: &Surroundings,
    ) -> Result<(Rc<Self>, Hello), RelayError> {
        let Fresh { channel, child, generation, sessions } = fresh;
        let prepare =
            |error: std::io::Error| RelayError::Prepare { what: "channel", error: error.to_string() };
        let (sender, mut receiver) = pair::<ToRelay, FromRelay>(channel).map_err(prepare)?;
        let said = timeout(within, receiver.receive()).await;
        let process = match &said {
            Ok(Ok(_)) => Process::of_sender(receiver.sender()),
            Ok(Err(error)) if error.is_violation() => Process::of_sender(receiver.sender()),
            _ => {
                let end = reap(child).await;
                return Err(match (said, end) {
                    (Ok(_), Some(end)) => RelayError::Ended(end),
                    (Ok(Err(error)), None) => RelayError::Ended(error.to_string()),
                    _ => RelayError::Silent { what: "hello", within },
                });
            }
        };
        let process = match process {
            Ok(process) => Rc::new(process),
            Err(error) => {
                reap(child).await;
                return Err(error);
            }
        };
        let refused = |error: String| RelayError::Failed { step: "hello".into(), error };
        let (mut reads_retired, mut hands_over) = (false, false);
        let named = match said {
            Ok(Ok((
                FromRelay::Hello {
                    version,
                    build,
                    process: own,
                    features,
                    state,
                    generation: named,
                    serves,
                    listeners,
                    ..
                },
                fds,
            ))) => {
                let pid = process.pid();
                reads_retired = features.iter().any(|feature| feature == READS_RETIRED);
                hands_over = features.iter().any(|feature| feature == HANDS_OVER);
                tracing::debug!(pid, version, named, ?state, "a relay said hello");
                let hello = Hello {
                    serves,
                    takes_notes: features.iter().any(|feature| feature == TAKES_NOTES),
                    lists_sessions: features.iter().any(|feature| feature == LISTS_SESSIONS),
                    complete: fds.len() == listeners.len(),
                    listeners: received(&listeners, fds),
                };
                // A new one is of no generation yet.
                if named == if state == RelayState::Fresh { 0 } else { generation } {
                    Ok(((build, landlock(own)), state, hello))
                } else {
                    Err(format!("relay {generation} says that it is relay {named}"))
                }
            }
            Ok(Err(error)) => Err(error.to_string()),
            _ => Err("it said something else".to_owned()),
        };
        let ((build, landlock), state, hello) = match named {
            Ok(named) => named,
            Err(error) => {
                reap(child).await;
                if let Err(error) = surroundings.ender.end(&process).await {
                    tracing::error!(pid = process.pid(), %error, "a relay that does not speak the channel can't be ended");
                }
                return Err(refused(error));
            }
        };
        let exchange = Rc::new(Exchange {
            state: Cell::new(state),
            intake: Intake::new(process.pid(), Rc::clone(&sessions), Rc::clone(&surroundings.metrics)),
            commands: RefCell::default(),
            questions: RefCell::default(),
            wanted: watch::Sender::default(),
        });
        let (queue, outgoing) = mpsc::channel(MAX_QUEUED);
        let (end, ended) = watch::channel(None);
        let kill = Rc::new(Notify::new());
        surroundings.tasks.spawn(write(sender, outgoing, Rc::clone(&exchange)));
        let life = Life {
            receiver,
            exchange: Rc::clone(&exchange),
            child,
            process: Rc::clone(&process),
            kill: Rc::clone(&kill),
            ender: Rc::clone(&surroundings.ender),
        };
        surroundings.tasks.spawn(async move {
            end.send_replace(Some(life.live().await));
        });
        let relay = Rc::new(Self {
            process,
            build,
            landlock,
            since: Instant::now(),
            sessions,
            zone: RefCell::default(),
            carries: Cell::default(),
            generation,
            reads_retired,
            hands_over,
            ending: Cell::default(),
            accepted: Cell::new(state != RelayState::Fresh),
            queue,
            exchange,
            next_question: Cell::new(1),
            ended,
            kill,
        });
        Ok((relay, hello))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Counts relays.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether it was told to end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// What it is doing, as it said last.
    pub(super) fn state(&self) -> RelayState {
        self.exchange.state.get()
    }

    /// Whether it accepts, or has accepted, so that there may be somebody whom it let in.
    pub(super) fn has_served(&self) -> bool {
        self.accepted.get()
    }

    /// Hands over everything that the relay needs; it is ready afterwards, and does not accept yet.
    pub(super) async fn configure(
        &self,
        mut configure: Configure,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), RelayError> {
        self.note(&configure.policy);
        configure.policy = self.readable(configure.policy);
        let message = ToRelay::Configure(Box::new(configure));
        self.command("configure", message, descriptors, RelayState::Ready).await
    }

    /// It accepts from now on.
    pub(crate) async fn activate(&self) -> Result<(), RelayError> {
        self.accepted.set(true);
        self.command("activate", ToRelay::Activate, Vec::new(), RelayState::Serving).await
    }

    /// The rules that it goes by from now on.
    pub(super) async fn set_policy(&self, policy: &Policy) -> Result<(), RelayError> {
        self.note(policy);
        let message = ToRelay::Policy(Box::new(self.readable(policy.clone())));
        self.command_any("policy", message, Vec::new()).await.map(drop)
    }

    /// A policy in words that this relay knows.
    fn readable(&self, mut policy: Policy) -> Policy {
        if !self.reads_retired {
            policy.trust = policy.trust.in_first_version();
        }
        policy
    }

    fn note(&self, policy: &Policy) {
        self.zone.replace(Some(policy.zone.clone()));
        self.exchange.intake.expect(policy.log, policy.limits.sessions);
    }

    /// Whether it knows what is told and asked where one relay takes another one's place, see [`HANDS_OVER`].
    pub(super) fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// The endpoints that it wants to be let go by others, in the order in which it said so.
    pub(super) fn wanted(&self) -> watch::Receiver<Vec<Label>> {
        self.exchange.wanted.subscribe()
    }

    /// Tells it what it does not answer; whether it could be told.
    pub(super) async fn tell(&self, message: ToRelay) -> bool {
        self.enqueue(message, Vec::new(), None).await.is_ok()
    }

    /// It accepts no more, and keeps its sessions until they end. Returns when the callers that were under way have their
    /// answers, or had the time for it.
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
            answered.await.map_err(|_| self.lost())
        };
        let reply = timeout(within, asked).await;
        self.exchange.questions.borrow_mut().remove(&id);
        reply.unwrap_or(Err(RelayError::Silent { what: "a question", within }))
    }

    /// Takes in what it noted while no control took its records in.
    pub(super) fn take_in_notes(&self, runtime_dir: &Path) {
        notes::take_in(runtime_dir, self.generation, &self.exchange.intake);
    }

    /// Learns which sessions are open of a relay that was alone for a while.
    pub(super) async fn reconcile_sessions(&self, within: Duration) -> Result<(), RelayError> {
        let (mut listed, mut next) = (Vec::new(), Some(0));
        // A relay that goes on and on is not followed.
        while let Some(after) = next.filter(|_| listed.len() <= self.exchange.intake.max_sessions()) {
            let Reply::Sessions { sessions, next: more } =
                self.ask(Query::Sessions { after }, within).await?
            else {
                let (step, error) = ("sessions".to_owned(), "it answered something else".to_owned());
                return Err(RelayError::Failed { step, error });
            };
            next = more.filter(|_| !sessions.is_empty());
            listed.extend(sessions);
        }
        self.exchange.intake.reconcile(listed);
        Ok(())
    }

    /// Tells it to close everything and exit, and sees to it that it does. Whether its process is gone; one that is not is
    /// killed again and again, and `status` shows it.
    pub(crate) async fn stop(&self) -> bool {
        self.ending.set(true);
        let told = self.enqueue(ToRelay::Stop, Vec::new(), None);
        let stopped = async {
            // Where it can't be told, it may be on its way out.
            let _ = told.await;
            self.gone().await;
        };
        timeout(EXIT_TIMEOUT, stopped).await.is_ok() || self.kill().await
    }

    /// Ends it at once. Whether its process is gone.
    pub(super) async fn kill(&self) -> bool {
        self.ending.set(true);
        self.kill.notify_one();
        timeout(HELPER_TIMEOUT + EXIT_TIMEOUT, self.gone()).await.is_ok()
    }

    /// Waits until its process is gone, as far as that can be told.
    async fn gone(&self) {
        let End { gone, .. } = self.ended().await;
        if !gone {
            self.process.ended().await;
        }
    }

    /// Waits until it is gone, or has lost its channel, and says how that went.
    pub(super) async fn ended(&self) -> End {
        let mut ended = self.ended.clone();
        let end = match ended.wait_for(Option::is_some).await {
            Ok(end) => end.clone(),
            Err(_) => None,
        };
        end.unwrap_or_else(|| End { how: "it is gone".into(), gone: true })
    }

    /// How it ended, or lost its channel, if it has.
    pub(super) fn end(&self) -> Option<End> {
        self.ended.borrow().clone()
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
            answered.await.map_err(|_| self.lost())?
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
        self.queue.send(outgoing).await.map_err(|_| self.lost())
    }

    fn lost(&self) -> RelayError {
        let end = self.end();
        RelayError::Ended(end.map_or_else(|| "it closed its channel".to_owned(), |end| end.how.to_string()))
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

/// What a relay says of landlock, of which a short line is taken.
fn landlock(own: Option<ProcessStatus>) -> Option<String> {
    let word = own?.confinement?.landlock?;
    Some(word.chars().filter(|char| !char.is_control()).take(MAX_LANDLOCK_CHARS).collect())
}

fn received(infos: &[ListenerInfo], descriptors: Vec<OwnedFd>) -> Vec<Listener> {
    infos.iter().zip(descriptors).filter_map(|(info, fd)| Listener::received(*info, fd)).collect()
}

#[cfg(test)]
mod tests {
    use zone_protocol::provisioning::Confinement;

    use super::*;

    #[test]
    fn of_what_a_relay_says_of_landlock_one_short_line_is_taken() {
        let word = format!("ABI 7, \n{}", "x".repeat(1_000));
        let confinement = Confinement { seccomp: "a lie".to_owned(), filters: Some(9), landlock: Some(word) };
        let own = ProcessStatus {
            role: "relay".to_owned(),
            pid: 1,
            uid: 0,
            capabilities: String::new(),
            no_new_privs: true,
            confinement: Some(confinement),
        };
        let line = landlock(Some(own)).unwrap();
        assert!(line.starts_with("ABI 7, xx") && line.len() == MAX_LANDLOCK_CHARS, "{line}");
        assert_eq!(landlock(None), None);
    }
}
