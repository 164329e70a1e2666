//! The host's firewall in the transaction, with a broker that the test plays.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::spawn_local;
use zone_firewall_protocol::{
    Answer, Finding, FindingKind, Level, PortRule, Purpose, Request, WatchMode, WatchReport,
};
use zone_proxy::config::{Config, FirewallMode};
use zone_proxy::state::{State, Store};

use crate::authority::Zone;
use crate::client;
use crate::harness::{
    EVENT_TIMEOUT, FILE, PlayedRelays, Proxy, SetClock, config_in, own_address, run, start,
};

/// A broker that says what the test wants, and notes the ports that it was asked for.
struct PlayedBroker {
    socket: PathBuf,
    asked: watch::Sender<Vec<Vec<(Purpose, u16)>>>,
    rules: RefCell<Vec<PortRule>>,
    /// Whether the endpoint port listened when it was asked for.
    listened: RefCell<Vec<bool>>,
    refuses: RefCell<bool>,
    findings: RefCell<Vec<Finding>>,
    watched: RefCell<Option<WatchReport>>,
    _folder: tempfile::TempDir,
}

impl PlayedBroker {
    fn new() -> Rc<Self> {
        let folder = tempfile::TempDir::new().unwrap();
        Rc::new(Self {
            socket: folder.path().join("broker.sock"),
            asked: watch::Sender::new(Vec::new()),
            rules: RefCell::default(),
            listened: RefCell::default(),
            refuses: RefCell::new(false),
            findings: RefCell::default(),
            watched: RefCell::default(),
            _folder: folder,
        })
    }

    fn serve(self: &Rc<Self>) {
        let (own, listener) = (Rc::clone(self), UnixListener::bind(&self.socket).unwrap());
        spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (reader, mut writer) = stream.into_split();
                let mut line = String::new();
                BufReader::new(reader).read_line(&mut line).await.unwrap();
                let answer = own.answer(serde_json::from_str(&line).unwrap()).await;
                let _ = writer.write_all((serde_json::to_string(&answer).unwrap() + "\n").as_bytes()).await;
            }
        });
    }

    async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::SetRelayPorts(rules) => {
                if let Some(first) = rules.first() {
                    let listens = tokio::net::TcpStream::connect((first.listen[0], first.port)).await.is_ok();
                    self.listened.borrow_mut().push(listens);
                }
                let ports = rules.iter().map(|rule| (rule.purpose, rule.port)).collect();
                self.rules.replace(rules);
                self.asked.send_modify(|asked| asked.push(ports));
                if *self.refuses.borrow() {
                    return Answer::Refused {
                        why: "port 17486 is above the ceiling".into(),
                        help: "ask root to raise it in firewall.toml".into(),
                    };
                }
                Answer::Done(vec!["as wanted".into()])
            }
            Request::Verify => Answer::Verified(self.findings.borrow().clone()),
            Request::Plan => Answer::Plan(String::new()),
            Request::Export { .. } | Request::Explain(_) => {
                Answer::Refused { why: "control does not ask that".into(), help: "ask otherwise".into() }
            }
            Request::Watch => match self.watched.borrow().clone() {
                Some(report) => Answer::Watched(report),
                // As one that does not know the question.
                None => {
                    Answer::Refused { why: "what was sent is no request".into(), help: "send one".into() }
                }
            },
        }
    }

    fn asked(&self) -> Vec<Vec<(Purpose, u16)>> {
        self.asked.borrow().clone()
    }

    async fn was_asked(&self, times: usize) {
        let mut asked = self.asked.subscribe();
        let waiting = tokio::time::timeout(EVENT_TIMEOUT, asked.wait_for(|asked| asked.len() >= times));
        waiting.await.expect("the broker is asked").unwrap();
    }
}

async fn proxy_with(broker: &PlayedBroker) -> Proxy {
    Proxy::start_with(|config| {
        config.firewall.mode = FirewallMode::Broker;
        config.firewall.socket.clone_from(&broker.socket);
    })
    .await
}

const BOTH: [(Purpose, u16); 2] = [(Purpose::Endpoint, 17486), (Purpose::ModuleServer, 17487)];

#[test]
fn the_broker_is_asked_for_both_ports_once_they_listen_and_for_none_after_leaving_the_zone() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        broker.serve();
        let proxy = proxy_with(&broker).await;
        broker.was_asked(1).await;
        let (provisioned, party) = proxy.provision(&zone).await;
        assert!(provisioned.ports.iter().all(|port| port.listening), "{provisioned:?}");
        let relay_ports = provisioned.ports.iter().filter(|port| port.purpose != "control");
        assert!(relay_ports.clone().count() == 2 && relay_ports.clone().all(|port| port.firewall == "open"));
        assert_eq!(broker.asked(), [Vec::new(), BOTH.to_vec()]);
        assert_eq!(*broker.listened.borrow(), [true], "a port that nobody listens on would be refused");

        let mut member = proxy.member(&zone, &party).await;
        let left = member.send(hyper::Method::DELETE, "/v1/provisioning", &[], Vec::new()).await.unwrap();
        assert!(left.status < 300, "{}", left.status);
        assert_eq!(broker.asked().last(), Some(&Vec::new()));
    });
}

#[test]
fn a_refusal_of_the_broker_undoes_the_provisioning_and_says_why_and_what_to_do() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        broker.serve();
        let proxy = proxy_with(&broker).await;
        broker.was_asked(1).await;
        let before = proxy.daemon.state();
        broker.refuses.replace(true);
        let mut client = client::by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let document = zone.document(&offer, "p1", proxy.address);
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        let problem = answer.problem();
        assert_eq!((answer.status, problem.slug()), (500, "firewall-failed"));
        assert_eq!(problem.step.as_deref(), Some("firewall"));
        assert_eq!(problem.detail.as_deref(), Some("port 17486 is above the ceiling"));
        assert_eq!(problem.help.as_deref(), Some("ask root to raise it in firewall.toml"));
        proxy.is_as_before(&before).await;
        // This broker refuses the old set too, which is then tried again.
        assert_eq!(broker.asked()[..3], [Vec::new(), BOTH.to_vec(), Vec::new()], "the old set is asked for");

        broker.refuses.replace(false);
        proxy.provision(&zone).await;
        assert!(proxy.accepts(17486).await);
    });
}

#[test]
fn without_the_broker_a_provisioning_fails_and_names_its_socket() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        let proxy = proxy_with(&broker).await;
        let mut client = client::by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let document = zone.document(&offer, "p1", proxy.address);
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        let detail = answer.problem().detail.unwrap();
        assert!(detail.contains("broker.sock") && detail.contains("firewall.mode"), "{detail}");
        assert!(!proxy.accepts(17486).await);
    });
}

#[test]
fn a_move_to_other_ports_opens_the_new_ones_beside_the_old_and_closes_these_last() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        broker.serve();
        let proxy = proxy_with(&broker).await;
        broker.was_asked(1).await;
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let mut document = zone.document(&offer, "p1", proxy.address);
        document.ports.endpoint = 20486;
        assert_eq!(member.put(&format!("/v1/provisioning/{}", offer.id), &document).await.status, 200);
        let new = [(Purpose::Endpoint, 20486), (Purpose::ModuleServer, 17487)];
        let between = [new[0], new[1], (Purpose::Endpoint, 17486)];
        assert_eq!(broker.asked()[2..], [between.to_vec(), new.to_vec()]);
    });
}

#[test]
fn a_daemon_that_starts_without_its_broker_serves_warns_and_has_the_ports_opened_when_it_comes() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        let first = Proxy::start().await;
        first.provision(&zone).await;
        let state = State::clone(&first.daemon.state());
        first.daemon.stop().await;

        let directory = tempfile::TempDir::new().unwrap();
        let mut config = config_in(&directory, own_address());
        config.firewall.mode = FirewallMode::Broker;
        config.firewall.socket.clone_from(&broker.socket);
        let store = Store::open(&config.state_dir).unwrap();
        store.replace(&state).unwrap().commit();
        drop(store);
        let relays = PlayedRelays::default();
        let daemon = start(config, SetClock::default().into(), relays.clone()).await.unwrap();
        relays.wait_until_served(1).await;
        let report = loop {
            let report = daemon.report().await;
            if report.warnings.iter().any(|warning| warning.contains("firewall")) {
                break report;
            }
            tokio::task::yield_now().await;
        };
        let unknown = report.status.ports.iter().filter(|port| port.firewall.starts_with("unknown: "));
        assert_eq!(unknown.count(), 3, "{report:?}");
        assert!(report.status.ports.iter().all(|port| port.listening), "{report:?}");
        broker.serve();
        broker.was_asked(1).await;
        assert_eq!(broker.asked(), [BOTH.to_vec()]);
    });
}

#[test]
fn what_the_broker_finds_is_a_warning_and_a_blocked_port_is_closed() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        broker.serve();
        broker.findings.replace(vec![Finding {
            id: "closed:17487".into(),
            level: Level::Closed,
            kind: FindingKind::Blocked,
            port: Some(17487),
            what: "table inet filter drops 17487".into(),
            help: "look at its third rule".into(),
        }]);
        let proxy = proxy_with(&broker).await;
        broker.was_asked(1).await;
        proxy.provision(&zone).await;
        let report = proxy.daemon.report().await;
        let words: Vec<_> =
            report.status.ports.iter().map(|port| (port.port, port.firewall.as_str())).collect();
        assert_eq!(words, [(17488, "open"), (17486, "open"), (17487, "closed")]);
        let told = "firewall: table inet filter drops 17487: look at its third rule";
        assert!(report.warnings.iter().any(|warning| warning == told), "{report:?}");
    });
}

#[test]
fn networks_of_balancers_are_let_in_beside_the_allowed_ones_and_a_change_of_them_is_sent_again() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        broker.serve();
        let proxy = proxy_with(&broker).await;
        broker.was_asked(1).await;
        proxy.provision(&zone).await;
        let mut config = Config::clone(&proxy.daemon.config());
        config.balancer.networks = vec!["198.51.100.0/24".parse().unwrap()];
        let file = proxy.directory.path().join(FILE);
        std::fs::write(file, toml::to_string(&config).unwrap()).unwrap();
        proxy.daemon.reload().await.unwrap();
        broker.was_asked(3).await;
        let rules = broker.rules.borrow().clone();
        assert_eq!(rules[0].balancers, config.balancer.networks);
        assert!(rules[0].networks.is_empty(), "any network stays any network");
        assert!(rules[1].balancers.is_empty());
        assert!(tokio::time::timeout(Duration::from_millis(50), broker.was_asked(4)).await.is_err());
    });
}

#[test]
fn what_the_watch_of_the_broker_saw_is_in_the_metrics_and_its_trouble_is_a_warning() {
    run(async {
        let (broker, zone) = (PlayedBroker::new(), Zone::new("plant"));
        broker.serve();
        let proxy = proxy_with(&broker).await;
        broker.was_asked(1).await;
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;

        // A broker of an earlier version has no watch.
        member.get("/metrics").await;
        assert!(proxy.counted("zone_proxy_firewall_watched 0"));
        assert!(proxy.daemon.report().await.warnings.iter().all(|warning| !warning.contains("watched")));

        broker.watched.replace(Some(WatchReport {
            mode: WatchMode::Repair,
            watching: true,
            judged_at: Some(1_764_435_600),
            findings: [("closed".to_owned(), 2)].into(),
            judgements: 12,
            repairs: 5,
            trouble: Some("others undid every repair".into()),
        }));
        let samples = [
            "zone_proxy_firewall_watched 1",
            "zone_proxy_firewall_findings{level=\"closed\"} 2",
            "zone_proxy_firewall_findings{level=\"denied\"} 0",
            "zone_proxy_firewall_repairs_total 5",
            "zone_proxy_firewall_checked_timestamp_seconds 1764435600",
        ];
        let told = async {
            loop {
                member.get("/metrics").await;
                if samples.iter().all(|sample| proxy.counted(sample)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(EVENT_TIMEOUT, told).await.expect("the metrics tell what the watch saw");
        let report = proxy.daemon.report().await;
        let warned = report.warnings.iter().any(|warning| warning.contains("others undid every repair"));
        assert!(warned, "{report:?}");
    });
}
