//! Revocations reach every proxy, sooner or later.

use zone_module::Error;
use zone_module::control::ControlClient;
use zone_module::provision::{Request, provision};
use zone_module::trust::{Outcome, push};
use zone_module::zone::Settings;
use zone_protocol::identity::Role;
use zone_protocol::merge::digest;
use zone_protocol::tls::certificate::{Leaf, chain_from_pem, hex};
use zone_protocol::trust::{Denied, Retired, fingerprint};

use crate::fake_control::{FakeControl, Quirks};
use crate::{Scratch, label};

async fn member(scratch: &Scratch, name: &str) -> FakeControl {
    let proxy = FakeControl::start(Quirks::default()).await;
    let request = Request {
        name: label(name),
        hosts: vec!["127.0.0.1".into()],
        control_port: proxy.address.port(),
        token: proxy.token.clone(),
        settings: Settings::default(),
    };
    provision(&scratch.zone, &request, &mut |_| ()).await.unwrap();
    proxy
}

#[tokio::test]
async fn a_revocation_is_sent_to_every_proxy_and_one_that_was_down_converges() {
    let scratch = Scratch::new();
    let up = member(&scratch, "up").await;
    let mut down = scratch.zone.proxy(&label("up")).unwrap();
    (down.name, down.control_port) = (label("down"), 1);
    scratch.zone.remember_proxy(down.clone()).unwrap();

    scratch.zone.revoke(Role::Endpoint, &label("host-7")).unwrap();
    let outcomes = push(&scratch.zone).await.unwrap();
    let [(first, Outcome::Failed(Error::Dial { .. })), (second, Outcome::Sent { from: 1, version: 2 })] =
        &outcomes[..]
    else {
        panic!("{outcomes:?}")
    };
    assert_eq!((first.as_str(), second.as_str()), ("down", "up"));
    assert_eq!(up.provisioning().unwrap().trust, scratch.zone.trust().unwrap());
    let versions = |name| scratch.zone.proxy(&label(name)).unwrap().trust_version;
    assert_eq!((versions("down"), versions("up")), (1, 2));

    let back = member(&scratch, "back").await;
    scratch.zone.revoke(Role::Endpoint, &label("host-8")).unwrap();
    scratch.zone.forget_proxy(&label("down")).unwrap();
    let lagging = zone_module::trust::push_to_lagging(&scratch.zone).await.unwrap();
    assert_eq!(lagging.len(), 2);
    assert_eq!(back.provisioning().unwrap().trust.version, 3);
    assert!(zone_module::trust::push_to_lagging(&scratch.zone).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_proxy_that_has_the_document_is_left_alone() {
    let scratch = Scratch::new();
    let proxy = member(&scratch, "p1").await;
    let outcomes = push(&scratch.zone).await.unwrap();
    assert!(matches!(outcomes[..], [(_, Outcome::UpToDate { version: 1 })]), "{outcomes:?}");
    assert!(!proxy.seen().contains(&"PUT /v1/trust".to_owned()));
}

#[tokio::test]
async fn an_old_copy_of_the_zone_directory_learns_what_was_denied_and_takes_nothing_back() {
    let scratch = Scratch::new();
    let proxy = member(&scratch, "p1").await;
    let old = std::fs::read(scratch.zone.directory().join("trust.json")).unwrap();
    scratch.zone.revoke(Role::Endpoint, &label("host-7")).unwrap();
    push(&scratch.zone).await.unwrap();
    std::fs::write(scratch.zone.directory().join("trust.json"), old).unwrap();
    let outcomes = push(&scratch.zone).await.unwrap();
    assert!(matches!(outcomes[..], [(_, Outcome::UpToDate { version: 2 })]), "{outcomes:?}");
    assert_eq!(proxy.provisioning().unwrap().trust.version, 2);
    let ours = scratch.zone.trust().unwrap();
    assert_eq!((ours.version, ours.deny.len()), (2, 1), "it has learned of the denial");
}

#[tokio::test]
async fn our_own_revoked_certificate_is_refused_and_the_new_one_is_not() {
    let scratch = Scratch::new();
    let _proxy = member(&scratch, "p1").await;
    let old = scratch.own();
    scratch.zone.revoke(Role::ModuleServer, &label("module-1")).unwrap();
    push(&scratch.zone).await.unwrap();
    let known = scratch.zone.proxy(&label("p1")).unwrap();
    let refused =
        ControlClient::of(&scratch.zone, &known, &old).unwrap().status().await.unwrap_err().to_string();
    assert!(refused.contains("revoked"), "{refused}");
    ControlClient::of(&scratch.zone, &known, &scratch.own()).unwrap().status().await.unwrap();
}

/// A captured proxy may say what it likes. What it says goes back to it and nowhere else, but for denials.
#[tokio::test]
async fn no_anchor_and_no_lock_out_is_taken_over_from_a_proxy() {
    let scratch = Scratch::new();
    let (captured, honest) = (member(&scratch, "captured").await, member(&scratch, "honest").await);
    let before = scratch.zone.trust().unwrap();
    let now = time::OffsetDateTime::now_utc();
    let identity = |uri: &str| uri.parse().unwrap();
    let denied = |uri: &str, not_before| Denied::Identity { identity: identity(uri), not_before };
    let own = Leaf::read(&chain_from_pem(&scratch.own().certificate, "own").unwrap()[0]).unwrap();
    captured.says(|trust| {
        trust.version = 7;
        let foreign = Scratch::new();
        trust.anchors.endpoint.push(foreign.zone.anchor(Role::Endpoint).unwrap());
        trust.anchors.module_server.push(foreign.zone.anchor(Role::ModuleServer).unwrap());
        let ours = chain_from_pem(&trust.anchors.endpoint[0], "anchor").unwrap();
        trust.retired =
            vec![Retired { fingerprint: fingerprint(&ours[0]), until: now + time::Duration::days(9) }];
        trust.deny = vec![
            denied("spiffe://plant-7/module-server/module-1", now),
            denied("spiffe://plant-7/endpoint/to-come", now + time::Duration::days(900)),
            denied("spiffe://other/endpoint/host-7", now),
            denied("spiffe://plant-7/monitor/x", now),
            Denied::Certificate { issuer: hex(&own.issuer), serial: hex(&own.serial), until: None },
            denied("spiffe://plant-7/endpoint/host-7", now),
        ];
    });
    push(&scratch.zone).await.unwrap();
    let ours = scratch.zone.trust().unwrap();
    assert_eq!(ours.anchors, before.anchors);
    assert_eq!(ours.retired, []);
    assert_eq!(ours.deny, [denied("spiffe://plant-7/endpoint/host-7", now)]);
    let told = honest.provisioning().unwrap().trust;
    assert_eq!(digest(&told).unwrap(), digest(&ours).unwrap());
    scratch.own();

    honest.says(|trust| trust.version = u64::MAX);
    let outcomes = push(&scratch.zone).await.unwrap();
    let (_, Outcome::Failed(error)) = &outcomes[1] else { panic!("{outcomes:?}") };
    assert!(error.to_string().contains("it says that it has version"), "{error}");
    assert!(scratch.zone.trust().unwrap().version < 100);
}
