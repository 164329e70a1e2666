//! Provisioning by token, its repetition, and what a wrong proxy achieves.

use time::Duration;
use zone_module::provision::{Request, Step, provision, provision_again, rotate, unprovision};
use zone_module::zone::{Settings, Zone};
use zone_module::{Error, Result};
use zone_protocol::provisioning::{PerPort, Provisioned};

use crate::fake_control::{FakeControl, OFFER, Quirks};
use crate::{Scratch, label};

fn request(proxy: &FakeControl, name: &str) -> Request {
    let listen = vec!["127.0.0.1".parse().unwrap()];
    Request {
        name: label(name),
        hosts: vec!["127.0.0.1".into()],
        control_port: proxy.address.port(),
        token: proxy.token.clone(),
        settings: Settings {
            ports: PerPort { endpoint: 20_486, module_server: 20_487 },
            listen: PerPort { endpoint: listen.clone(), module_server: listen },
            ..Settings::default()
        },
    }
}

async fn run(zone: &Zone, request: &Request) -> (Result<Provisioned>, Vec<Step>) {
    let mut steps = Vec::new();
    let result = provision(zone, request, &mut |step| steps.push(step)).await;
    (result, steps)
}

#[tokio::test]
async fn a_fresh_proxy_becomes_a_member_and_is_remembered() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    let (result, steps) = run(&scratch.zone, &request(&proxy, "p1")).await;
    assert_eq!(result.unwrap().id, OFFER);
    assert!(matches!(steps.last(), Some(Step::Done(_))), "{steps:?}");
    assert!(steps.iter().all(|step| !step.to_string().contains("zp1-")), "the token is never shown");
    let known = scratch.zone.proxy(&label("p1")).unwrap();
    assert_eq!((known.provisioning.as_str(), known.trust_version), (OFFER, 1));
    assert_eq!(known.settings.ports.module_server, 20_487);
    let told = proxy.provisioning().unwrap();
    assert_eq!((told.zone, told.name), (label("plant-7"), label("p1")));
    assert_eq!(told.trust, scratch.zone.trust().unwrap());
}

#[tokio::test]
async fn the_same_command_again_finds_it_done() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    run(&scratch.zone, &request(&proxy, "p1")).await.0.unwrap();
    scratch.zone.forget_proxy(&label("p1")).unwrap();
    let (result, steps) = run(&scratch.zone, &request(&proxy, "p1")).await;
    result.unwrap();
    let words = steps.last().unwrap().to_string();
    assert!(words.contains("already provisioned by this zone as p1 (provisioning 0193-offer)"), "{words}");
    let known = scratch.zone.proxy(&label("p1")).unwrap();
    assert_eq!(known.settings.ports.endpoint, 20_486, "it is remembered again");
}

#[tokio::test]
async fn a_lost_answer_is_found_to_have_been_a_success() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks { lost_answers: 1, ..Quirks::default() }).await;
    let (result, steps) = run(&scratch.zone, &request(&proxy, "p1")).await;
    result.unwrap();
    assert!(matches!(steps[steps.len() - 2..], [Step::AnswerLost(_), Step::FoundDone(_)]), "{steps:?}");
    assert!(scratch.zone.proxy(&label("p1")).is_ok());
}

#[tokio::test]
async fn a_provisioned_proxy_under_another_name_is_told_apart() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    run(&scratch.zone, &request(&proxy, "p1")).await.0.unwrap();
    scratch.zone.forget_proxy(&label("p1")).unwrap();
    let error = run(&scratch.zone, &request(&proxy, "p2")).await.0.unwrap_err();
    assert!(matches!(error, Error::ProvisionedAs { .. }), "{error}");
}

#[tokio::test]
async fn a_token_whose_keys_are_gone_is_said_to_be_spent() {
    let scratch = Scratch::new();
    let other = Scratch::new();
    let taken = FakeControl::start(Quirks::default()).await;
    run(&other.zone, &request(&taken, "p1")).await.0.unwrap();
    let replaced = FakeControl::start(Quirks::default()).await;
    replaced.replace_keys();
    for proxy in [&taken, &replaced] {
        let error = run(&scratch.zone, &request(proxy, "p1")).await.0.unwrap_err();
        assert!(matches!(error, Error::TokenSpent { .. }), "{error}");
    }
    assert!(replaced.seen().is_empty(), "nothing was asked of a stranger");
}

#[tokio::test]
async fn an_offer_without_a_good_proof_gets_no_certificate() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks { wrong_proof: Some("POST"), ..Quirks::default() }).await;
    let issued = scratch.zone.audit().unwrap().len();
    let error = run(&scratch.zone, &request(&proxy, "p1")).await.0.unwrap_err();
    assert!(matches!(error, Error::AnswerProof { .. }), "{error}");
    assert_eq!(proxy.seen(), ["POST /v1/provisioning"]);
    assert_eq!(scratch.zone.audit().unwrap().len(), issued, "nothing was signed");
}

#[tokio::test]
async fn a_success_without_a_good_proof_is_not_believed() {
    let scratch = Scratch::new();
    // The fake becomes a member before it answers, as an impostor in its place would.
    let proxy = FakeControl::start(Quirks { wrong_proof: Some("PUT"), ..Quirks::default() }).await;
    let error = run(&scratch.zone, &request(&proxy, "p1")).await.0.unwrap_err();
    assert!(matches!(error, Error::AnswerProof { .. }), "{error}");
    assert!(scratch.zone.proxies().unwrap().is_empty());
}

#[tokio::test]
async fn a_refusal_is_shown_in_the_proxys_words() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    let mut wanted = request(&proxy, "p1");
    wanted.token = zone_protocol::token::Token::new(*proxy.token.pin(), [6; 20]);
    let error = run(&scratch.zone, &wanted).await.0.unwrap_err().to_string();
    assert!(error.contains("the proof is missing or wrong"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[tokio::test]
async fn clocks_that_differ_are_named_and_too_much_is_refused() {
    let scratch = Scratch::new();
    let somewhat = Quirks { clock_ahead: Duration::minutes(-20), ..Quirks::default() };
    let proxy = FakeControl::start(somewhat).await;
    let (result, steps) = run(&scratch.zone, &request(&proxy, "p1")).await;
    result.unwrap();
    assert!(steps.iter().any(|step| matches!(step, Step::ClocksDiffer { .. })), "{steps:?}");
    let wrong = Quirks { clock_ahead: Duration::days(-365), ..Quirks::default() };
    let proxy = FakeControl::start(wrong).await;
    let error = run(&scratch.zone, &request(&proxy, "p2")).await.0.unwrap_err();
    assert!(matches!(error, Error::Clocks { .. }), "{error}");
    assert_eq!(proxy.seen().len(), 1, "nothing was completed");
}

#[tokio::test]
async fn a_name_that_another_proxy_has_is_refused_before_anything_is_sent() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    run(&scratch.zone, &request(&proxy, "p1")).await.0.unwrap();
    let mut other = request(&proxy, "p1");
    other.hosts = vec!["127.0.0.2".into()];
    let error = run(&scratch.zone, &other).await.0.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
}

#[tokio::test]
async fn ports_that_no_proxy_takes_are_refused_before_anything_is_sent() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    for (endpoint, module_server) in [(20_000, 20_000), (17_488, 20_000), (20_000, 443)] {
        let mut wanted = request(&proxy, "p1");
        wanted.settings.ports = PerPort { endpoint, module_server };
        let error = run(&scratch.zone, &wanted).await.0.unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
    }
    assert!(proxy.seen().is_empty());
}

#[tokio::test]
async fn a_member_is_provisioned_anew_gets_new_keys_and_leaves_by_mutual_tls() {
    let scratch = Scratch::new();
    let proxy = FakeControl::start(Quirks::default()).await;
    let wanted = request(&proxy, "p1");
    run(&scratch.zone, &wanted).await.0.unwrap();
    let mut settings = wanted.settings.clone();
    settings.ports.endpoint = 21_486;
    let first = proxy.provisioning().unwrap().certificates;
    provision_again(&scratch.zone, &label("p1"), settings, &mut |_| ()).await.unwrap();
    assert_eq!(scratch.zone.proxy(&label("p1")).unwrap().settings.ports.endpoint, 21_486);
    let second = proxy.provisioning().unwrap().certificates;
    assert_ne!(first, second);
    rotate(&scratch.zone, &label("p1"), &mut |_| ()).await.unwrap();
    assert_ne!(proxy.provisioning().unwrap().certificates, second);
    unprovision(&scratch.zone, &label("p1")).await.unwrap();
    assert!(scratch.zone.proxies().unwrap().is_empty());
    assert_eq!(proxy.seen().last().unwrap(), "DELETE /v1/provisioning");
}
