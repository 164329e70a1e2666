//! Provisioning: by token, anew by mutual TLS, and undone.

use std::collections::BTreeMap;
use std::fs;

use hyper::Method;
use rcgen::ExtendedKeyUsagePurpose;
use time::Duration;
use tokio::task::spawn_local;
use zone_protocol::provisioning::{NewIdentity, Offer, Provisioned, Provisioning, Status};

use crate::authority::{Leaf, Zone};
use crate::client::{Answer, by_certificate, by_token, without_certificate};
use crate::harness::{Proxy, run};

///
#[test]
fn a_fresh_proxy_is_provisioned_by_its_token_which_is_good_once() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let token = proxy.token();
        assert!(!proxy.accepts(17486).await && !proxy.accepts(17487).await);

        let (done, party) = proxy.provision(&zone).await;
        assert!(proxy.accepts(17486).await && proxy.accepts(17487).await);
        assert!(done.ports.iter().all(|port| port.listening) && done.ports.len() == 3);
        assert!(!proxy.state_files().contains(&"token.json".to_owned()));
        assert!(by_token(proxy.address, &token).await.is_err(), "the pinned keys are shown no more");

        let mut member = proxy.member(&zone, &party).await;
        let found: Provisioned = member.get(&format!("/v1/provisioning/{}", done.id)).await.json();
        assert_eq!(found, done);
        assert_eq!(member.get("/v1/provisioning/other").await.refusal().1, "not-found");
        let status: Status = member.get("/v1/status").await.json();
        assert_eq!((status.state.as_str(), status.trust_version), ("provisioned", Some(1)));
        assert_eq!(status.relays[0].counts.as_ref().unwrap().parks, 7);
        assert_eq!(status.processes.len(), 2);
        let media_type = |answer: &Answer| answer.headers["content-type"].to_str().unwrap().to_owned();
        let metrics = member.get("/metrics").await;
        assert_eq!(media_type(&metrics), "text/plain; version=0.0.4; charset=utf-8");
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        assert!(text.contains("# TYPE zone_proxy_changes_total counter\n"), "{text}");
        let scraper =
            [("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")];
        let metrics = member.send(Method::GET, "/metrics", &scraper, Vec::new()).await.unwrap();
        assert_eq!(media_type(&metrics), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        assert!(text.contains("zone_relay_played 1") && text.contains("zone_proxy_provisioned 1"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        assert_eq!(member.get("/v1/openapi.json").await.status, 200);
    });
}

#[test]
fn the_connection_that_provisioned_closes_after_its_answer() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let document = zone.document(&offer, "p1", proxy.address);
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        assert_eq!(answer.headers.get("connection").unwrap(), "close");
        client.is_closed().await;
    });
}

#[test]
fn what_is_wrong_with_a_document_is_named_and_changes_nothing() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let before = proxy.daemon.state();
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let path = format!("/v1/provisioning/{}", offer.id);
        for (wrong, words) in wrong_documents(&zone, &offer, &proxy) {
            let answer = client.put(&path, &wrong).await;
            assert_eq!(answer.refusal(), (422, "validation-failed".into(), "validate".into()), "{words}");
            let detail = answer.problem().detail.unwrap();
            assert!(detail.contains(words), "{detail:?} lacks {words:?}");
        }
        proxy.is_as_before(&before).await;
        assert!(proxy.counted("zone_proxy_changes_total{kind=\"provision\",result=\"validate\"} "));
        let good = zone.document(&offer, "p1", proxy.address);
        assert_eq!(client.put(&path, &good).await.status, 200, "the offer is still good");
    });
}

fn wrong_documents(zone: &Zone, offer: &Offer, proxy: &Proxy) -> Vec<(Provisioning, &'static str)> {
    let good = || zone.document(offer, "p1", proxy.address);
    let signed = |change: &dyn Fn(&mut Leaf)| {
        let mut leaf = zone.leaf("p1");
        change(&mut leaf);
        Provisioning { certificates: Some(zone.sign(offer, &leaf)), ..good() }
    };
    let with = |change: &dyn Fn(&mut Provisioning)| {
        let mut document = good();
        change(&mut document);
        document
    };
    vec![
        (signed(&|leaf| leaf.from += Duration::hours(2)), "this proxy's clock says"),
        (signed(&|leaf| leaf.until = leaf.from + Duration::minutes(1)), "this proxy's clock says"),
        (
            signed(&|leaf| leaf.uri = "spiffe://plant/zone-proxy/p2".into()),
            "it names spiffe://plant/zone-proxy/p2",
        ),
        (
            signed(&|leaf| leaf.uri = "spiffe://plant/endpoint/p1".into()),
            "it names spiffe://plant/endpoint/p1",
        ),
        (signed(&|leaf| leaf.uri = "https://plant/".into()), "spiffe://"),
        (signed(&|leaf| leaf.usage = ExtendedKeyUsagePurpose::ClientAuth), "serverAuth"),
        (with(&|d| d.certificates = None), "certificates are missing"),
        (with(&|d| swap_certificates(d)), "its key is"),
        (with(&|d| d.zone = "other".parse().unwrap()), "the offer is for zone plant"),
        (with(&|d| d.ports.module_server = 17486), "both 17486"),
        (with(&|d| d.ports.endpoint = 17488), "17488 is the provisioning port"),
        (with(&|d| d.ports.endpoint = 443), "below 1024"),
        (with(&|d| d.listen.endpoint.clear()), "listen.endpoint: at least one address"),
        (with(&|d| d.listen.endpoint = vec![d.listen.endpoint[0]; 2]), "stands there twice"),
        (with(&|d| d.listen.module_server = (1..10).map(|n| [127, 0, 0, n].into()).collect()), "more than 8"),
        (with(&|d| d.limits = limit("sessions", 9_000)), "limits.sessions 9000 is above this host's 4000"),
        (with(&|d| d.limits = limit("sesions", 1)), "limits.sesions is no limit"),
        (with(&|d| d.trust.anchors.endpoint.clear()), "trust anchor for endpoint: at least one"),
        (with(&|d| d.trust.anchors.module_server = vec!["no PEM".into()]), "no certificate in it"),
        (with(&|d| d.trust.anchors.endpoint = vec![zone.endpoint("e").chain]), "no authority's"),
    ]
}

fn limit(name: &str, value: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(name.to_owned(), value)])
}

fn swap_certificates(document: &mut Provisioning) {
    if let Some(certificates) = &mut document.certificates {
        std::mem::swap(&mut certificates.rsa, &mut certificates.ec);
    }
}

#[test]
fn certificates_for_other_keys_are_refused() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let earlier = client.offer(&zone).await;
        let offer = client.offer(&zone).await;
        let document = Provisioning {
            certificates: Some(zone.sign(&earlier, &zone.leaf("p1"))),
            ..zone.document(&offer, "p1", proxy.address)
        };
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        assert!(answer.problem().detail.unwrap().contains("not for the key of this offer"));
        let answer = client.put(&format!("/v1/provisioning/{}", earlier.id), &document).await;
        assert_eq!(answer.refusal().1, "offer-unknown", "the newer offer replaced it");
    });
}

#[test]
fn a_taken_port_undoes_everything_and_is_named() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let before = proxy.daemon.state();
        let taken = std::net::TcpListener::bind((proxy.address, 17487)).unwrap();
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let path = format!("/v1/provisioning/{}", offer.id);
        let document = zone.document(&offer, "p1", proxy.address);
        let answer = client.put(&path, &document).await;
        assert_eq!(answer.refusal(), (409, "bind-failed".into(), "bind".into()));
        assert!(answer.problem().detail.unwrap().contains(&format!("{}:17487", proxy.address)));
        drop(taken);
        proxy.is_as_before(&before).await;
        assert_eq!(client.put(&path, &document).await.status, 200);
    });
}

#[test]
fn a_relay_that_fails_at_any_step_undoes_everything() {
    run(async {
        for (fails_at, step) in [("configure", "relay"), ("activate", "accept")] {
            let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
            let before = proxy.daemon.state();
            proxy.relays.fails_at.set(Some(fails_at));
            let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
            let offer = client.offer(&zone).await;
            let path = format!("/v1/provisioning/{}", offer.id);
            let document = zone.document(&offer, "p1", proxy.address);
            let answer = client.put(&path, &document).await;
            assert_eq!(answer.refusal(), (500, format!("{step}-failed"), step.into()));
            proxy.is_as_before(&before).await;
            assert_eq!(proxy.relays.told(1).last(), Some(&"stop"));
            proxy.relays.fails_at.set(None);
            assert_eq!(client.put(&path, &document).await.status, 200, "the token is still good");
        }
    });
}

#[test]
fn a_state_that_can_not_be_stored_undoes_everything() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let before = proxy.daemon.state();
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let path = format!("/v1/provisioning/{}", offer.id);
        let document = zone.document(&offer, "p1", proxy.address);
        let (states, away) =
            (proxy.directory.path().join("state/states"), proxy.directory.path().join("away"));
        fs::rename(&states, &away).unwrap();
        let answer = client.put(&path, &document).await;
        assert_eq!(answer.refusal(), (500, "store-failed".into(), "store state".into()));
        fs::rename(&away, &states).unwrap();
        proxy.is_as_before(&before).await;
        assert_eq!(client.put(&path, &document).await.status, 200);
    });
}

#[test]
fn a_client_that_goes_away_does_not_stop_a_provisioning_half_way() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.relays.hold.send_replace(true);
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = client.offer(&zone).await;
        let (document, path) =
            (zone.document(&offer, "p1", proxy.address), format!("/v1/provisioning/{}", offer.id));
        let asking = spawn_local(async move { client.put(&path, &document).await });
        proxy.relays.wait_until_told(1, "configure").await;
        asking.abort();
        let _ = asking.await;
        proxy.relays.hold.send_replace(false);
        proxy.relays.wait_until_served(1).await;
        let party = zone.module_server("inside");
        let mut member = loop {
            match by_certificate(proxy.address, &zone, &party).await {
                Ok(member) => break member,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let found: Provisioned = member.get(&format!("/v1/provisioning/{}", offer.id)).await.json();
        assert_eq!(found.id, offer.id);
    });
}

#[test]
fn a_second_change_meanwhile_is_told_to_come_again() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.relays.hold.send_replace(true);
        let mut first = by_token(proxy.address, &proxy.token()).await.unwrap();
        let mut second = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = first.offer(&zone).await;
        let path = format!("/v1/provisioning/{}", offer.id);
        let document = zone.document(&offer, "p1", proxy.address);
        let asking = spawn_local({
            let (path, document) = (path.clone(), document.clone());
            async move { first.put(&path, &document).await }
        });
        proxy.relays.wait_until_told(1, "configure").await;
        assert_eq!(second.put(&path, &document).await.refusal().1, "busy");
        proxy.relays.hold.send_replace(false);
        assert_eq!(asking.await.unwrap().status, 200);
    });
}

#[test]
fn a_member_is_provisioned_anew_by_its_certificate_and_the_old_relay_drains() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (first, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let mut document = zone.document(&offer, "p1", proxy.address);
        document.ports.endpoint = 27486;
        document.certificates = None;
        let path = format!("/v1/provisioning/{}", offer.id);
        let second: Provisioned = member.put(&path, &document).await.json();
        assert_ne!(first.id, second.id);
        proxy.relays.wait_until_told(1, "drain").await;
        assert_eq!(proxy.relays.told(2), ["configure", "activate"]);
        assert!(proxy.accepts(27486).await && proxy.accepts(17487).await);
        while proxy.accepts(17486).await {
            tokio::task::yield_now().await;
        }
        member.is_closed().await;
    });
}

#[test]
fn an_older_trust_document_is_refused_when_provisioning_anew() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let mut document = zone.document(&offer, "p1", proxy.address);
        document.trust.version = 0;
        let answer = member.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        assert!(answer.problem().detail.unwrap().contains("trust.version 0 is below 1"));
    });
}

///
#[test]
fn un_provisioning_closes_both_ports_and_shows_a_new_token() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let old = proxy.token();
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let answer = member.send(Method::DELETE, "/v1/provisioning", &[], Vec::new()).await.unwrap();
        assert_eq!(answer.status, 204);
        assert!(!proxy.accepts(17486).await && !proxy.accepts(17487).await);
        assert_eq!(proxy.relays.told(1).last(), Some(&"stop"));
        assert_ne!(proxy.token(), old);
        member.is_closed().await;
        assert!(by_certificate(proxy.address, &zone, &party).await.is_err());
        let (_, party) = proxy.provision(&zone).await;
        proxy.member(&zone, &party).await;
    });
}

#[test]
fn a_new_identity_is_shown_at_once_and_told_to_the_relay() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let before = proxy.daemon.state();
        let mut member = proxy.member(&zone, &party).await;
        let offer: Offer = member.send(Method::POST, "/v1/identity", &[], Vec::new()).await.unwrap().json();
        let wrong = NewIdentity {
            offer: offer.id.clone(),
            certificates: zone.sign(&offer, &zone.leaf("p2")),
            control_certificates: None,
        };
        assert_eq!(member.put("/v1/identity", &wrong).await.refusal().2, "validate");
        let certificates = zone.sign(&offer, &zone.leaf("p1"));
        let new = NewIdentity { offer: offer.id, certificates, control_certificates: None };
        assert_eq!(member.put("/v1/identity", &new).await.status, 200);
        let after = proxy.daemon.state();
        assert_ne!(before.identity, after.identity);
        assert_eq!(before.membership, after.membership);
        assert_eq!(proxy.relays.told(1), ["configure", "activate", "policy"]);
        assert_eq!(proxy.relays.policy.borrow().as_ref().unwrap().identity, after.identity);
        proxy.member(&zone, &party).await;
    });
}

#[test]
fn a_lost_authority_is_replaced_by_a_new_token_while_the_old_zone_is_served() {
    run(async {
        let (proxy, old, new) = (Proxy::start().await, Zone::new("plant"), Zone::new("factory"));
        let (_, party) = proxy.provision(&old).await;
        let actor = zone_proxy::transaction::Actor::new("the test", "here");
        proxy.daemon.new_token(actor).await.unwrap();

        let mut member = proxy.member(&old, &party).await;
        assert_eq!(member.get("/v1/status").await.status, 200);
        let mut stranger = without_certificate(proxy.address, &old).await.unwrap();
        assert_eq!(stranger.get("/v1/status").await.refusal().1, "certificate-needed");
        let mut stranger = without_certificate(proxy.address, &old).await.unwrap();
        assert_eq!(stranger.open_offer("factory").await.refusal().1, "proof-wrong");

        proxy.provision(&new).await;
        assert!(by_certificate(proxy.address, &old, &party).await.is_err());
        proxy.member(&new, &new.module_server("inside")).await;
        assert!(
            without_certificate(proxy.address, &new).await.is_err_and(|_| true) || {
                let mut stranger = without_certificate(proxy.address, &new).await.unwrap();
                stranger.send(Method::GET, "/v1/status", &[], Vec::new()).await.is_err()
            }
        );
    });
}

#[test]
fn an_expired_token_is_called_so_to_its_holder_alone() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let token = proxy.token();
        let mut client = by_token(proxy.address, &token).await.unwrap();
        proxy.clock.set_ahead(Duration::days(2));
        let answer = client.open_offer(zone.name).await;
        assert_eq!(answer.refusal(), (401, "token-expired".into(), String::new()));
        assert!(answer.problem().help.unwrap().contains("zone-proxy token new"));

        let secret = zone_protocol::token::Token::new(*token.pin(), [0; 20]);
        let mut stranger = by_token(proxy.address, &secret).await.unwrap();
        assert_eq!(stranger.open_offer(zone.name).await.refusal().1, "proof-wrong");
    });
}

#[test]
fn a_wrong_proof_says_nothing_of_the_host_and_locks_nobody_out() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let wrong = zone_protocol::token::Token::new(*proxy.token().pin(), [7; 20]);
        for _ in 0..20 {
            let mut stranger = by_token(proxy.address, &wrong).await.unwrap();
            let answer = stranger.open_offer(zone.name).await;
            assert_eq!(answer.refusal(), (401, "proof-wrong".into(), String::new()));
            let problem = answer.problem();
            assert_eq!(problem.detail, None);
            assert_eq!(problem.help.unwrap(), "check that the token is the one this proxy shows now");
            stranger.is_closed().await;
        }
        assert!(proxy.counted("zone_proxy_wrong_proofs_total 20"));
        proxy.provision(&zone).await;
    });
}
