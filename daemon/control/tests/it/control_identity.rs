//! The identity that 17488 shows and no relay is given: how it comes, what is refused, and when it goes.

use hyper::Method;
use serde_json::{Value, json};
use time::Duration;
use zone_protocol::features::CONTROL_IDENTITY;
use zone_protocol::fields;
use zone_protocol::identity::Role;
use zone_protocol::provisioning::{Certificates, NewIdentity, Offer, OfferRequest, Provisioning, Status};
use zone_proxy::state::pin;
use zone_proxy::transaction::Actor;

use crate::authority::{Leaf, Party, Zone};
use crate::client::{Client, by_token};
use crate::harness::{Proxy, run};

/// Every file of a state that has it, beside those that each state has.
const FILES: [&str; 4] = ["control-ec.crt", "control-ec.key", "control-rsa.crt", "control-rsa.key"];

/// What a client says that can have keys for it signed.
const NAMED: [(&str, &str); 1] = [(fields::FEATURES, CONTROL_IDENTITY)];

#[test]
fn a_client_that_names_it_is_offered_two_more_keys_and_no_other_client_is() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        assert_eq!(client.offer(&zone).await.control_signing_requests, None);
        let offer = offer_with(&mut client, &zone).await;
        let own = offer.control_signing_requests.as_ref().expect("they are offered");
        assert_ne!(own, &offer.signing_requests);
        let document = document(&zone, &offer, &proxy);
        let path = format!("/v1/provisioning/{}", offer.id);
        assert_eq!(client.put(&path, &document).await.status, 200);

        let state = proxy.daemon.state();
        let shown = state.control_identity.as_ref().expect("it has one");
        assert_eq!(state.shown(), shown);
        assert_eq!(state.pin().unwrap(), pin(shown).unwrap());
        let files = proxy.state_files();
        assert!(FILES.iter().all(|file| files.iter().any(|found| found == file)), "{files:?}");
        let told = serde_json::to_string(proxy.relays.policy.borrow().as_ref().unwrap()).unwrap();
        for key in [&shown.rsa, &shown.ec] {
            assert!(!told.contains(&json!(key.key).to_string()), "a relay was given a key of 17488");
        }
        assert!(told.contains(&json!(state.identity.ec.key).to_string()), "it was given its own");
        let mut member = proxy.member(&zone, &zone.module_server("inside")).await;
        let status: Status = member.get("/v1/status").await.json();
        assert_eq!(status.control_identity.unwrap().role, Role::ZoneControl);
    });
}

#[test]
fn what_does_not_fit_the_keys_the_role_the_name_or_the_time_is_refused_and_changes_nothing() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let before = proxy.daemon.state();
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = offer_with(&mut client, &zone).await;
        let path = format!("/v1/provisioning/{}", offer.id);
        let good = document(&zone, &offer, &proxy);
        let own = offer.control_signing_requests.as_ref().unwrap();
        let leaf = zone.control_leaf("p1");
        let until = leaf.from + Duration::minutes(1);
        let signed = |leaf: &Leaf| zone.sign_requests(own, leaf);
        let (rsa, ec) = (signed(&leaf).rsa, signed(&leaf).ec);
        for (wrong, words) in [
            (signed(&zone.leaf("p1")), "it names spiffe://plant/zone-proxy/p1"),
            (signed(&zone.control_leaf("p2")), "it names spiffe://plant/zone-control/p2"),
            (signed(&Zone::new("mill").control_leaf("p1")), "it names spiffe://mill/zone-control/p1"),
            (signed(&Leaf { until, ..zone.control_leaf("p1") }), "this proxy's clock says"),
            (zone.sign(&offer, &leaf), "not for the key of this offer"),
            (Certificates { rsa: ec.clone(), ec: rsa.clone() }, "its key is"),
            (Certificates { rsa: rsa.clone(), ec: String::new() }, "no certificate in it"),
        ] {
            let document = Provisioning { control_certificates: Some(wrong), ..good.clone() };
            let answer = client.put(&path, &document).await;
            assert_eq!(answer.refusal(), (422, "validation-failed".into(), "validate".into()), "{words}");
            let detail = answer.problem().detail.unwrap();
            assert!(detail.contains("17488's own ") && detail.contains(words), "{detail}");
        }
        // Nor is one of 17488 taken for the relays.
        let swapped = Provisioning { certificates: Some(zone.sign(&offer, &leaf)), ..good.clone() };
        assert!(client.put(&path, &swapped).await.problem().detail.unwrap().contains("zone-control/p1"));
        proxy.is_as_before(&before).await;
        assert_eq!(client.put(&path, &good).await.status, 200);
    });
}

#[test]
fn certificates_for_keys_that_were_not_offered_are_refused_with_what_to_do() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let other = offer_with(&mut client, &zone).await;
        let offer = client.offer(&zone).await;
        let document = Provisioning {
            control_certificates: document(&zone, &other, &proxy).control_certificates,
            ..zone.document(&offer, "p1", proxy.address)
        };
        let answer = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await;
        assert_eq!(answer.refusal().1, "validation-failed");
        assert!(answer.problem().help.unwrap().contains(CONTROL_IDENTITY));
    });
}

#[test]
fn new_keys_bring_it_to_a_proxy_without_and_replace_it_at_a_proxy_with() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        assert_eq!(proxy.daemon.state().control_identity, None);
        let first = rotate(&proxy, &zone, &party).await;
        let second = rotate(&proxy, &zone, &party).await;
        assert_ne!(first, second);

        // Without certificates for it, it stays; and a proxy whose first certificate runs out says which day that is.
        let mut member = proxy.member(&zone, &party).await;
        let offer: Offer = member.send(Method::POST, "/v1/identity", &[], Vec::new()).await.unwrap().json();
        let certificates = zone.sign(&offer, &zone.leaf("p1"));
        let new = NewIdentity { offer: offer.id, certificates, control_certificates: None };
        assert_eq!(member.put("/v1/identity", &new).await.status, 200);
        assert_eq!(proxy.daemon.state().control_identity, Some(second));
    });
}

#[test]
fn the_first_certificate_to_run_out_counts_whichever_port_shows_it() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let mut client = by_token(proxy.address, &proxy.token()).await.unwrap();
        let offer = offer_with(&mut client, &zone).await;
        let until = (zone.leaf("p1").until - Duration::days(20)).truncate_to_second();
        let leaf = Leaf { until, ..zone.control_leaf("p1") };
        let own = zone.sign_requests(offer.control_signing_requests.as_ref().unwrap(), &leaf);
        let document = Provisioning { control_certificates: Some(own), ..document(&zone, &offer, &proxy) };
        assert_eq!(client.put(&format!("/v1/provisioning/{}", offer.id), &document).await.status, 200);
        assert_eq!(proxy.daemon.state().certificate_expiry(), Some(until));
        let warnings = proxy.daemon.report().await.warnings;
        assert!(warnings.iter().any(|line| line.contains("zone-module rotate p1")), "{warnings:?}");
    });
}

/// The same zone and name keep it, everything else drops it.
#[test]
fn it_stays_with_the_same_member_and_goes_with_another_zone_another_name_and_the_membership() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let own = rotate(&proxy, &zone, &party).await;

        // By a token, which pins what 17488 shows, and by a client that does not name it.
        proxy.daemon.new_token(Actor::new("the test", "here")).await.unwrap();
        assert_eq!(proxy.token().pin(), &pin(&own).unwrap());
        proxy.provision(&zone).await;
        assert_eq!(proxy.daemon.state().control_identity, Some(own.clone()));

        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let keeping = Provisioning { certificates: None, ..zone.document(&offer, "p1", proxy.address) };
        assert_eq!(member.put(&format!("/v1/provisioning/{}", offer.id), &keeping).await.status, 200);
        assert_eq!(proxy.daemon.state().control_identity, Some(own));

        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let renamed = zone.document(&offer, "p2", proxy.address);
        assert_eq!(member.put(&format!("/v1/provisioning/{}", offer.id), &renamed).await.status, 200);
        assert_eq!(proxy.daemon.state().control_identity, None, "it names another proxy");
        assert!(!proxy.state_files().iter().any(|file| file.starts_with("control-")));

        let mut member = proxy.member(&zone, &party).await;
        let offer = offer_with(&mut member, &zone).await;
        let document = document(&zone, &offer, &proxy);
        assert_eq!(member.put(&format!("/v1/provisioning/{}", offer.id), &document).await.status, 200);
        assert!(proxy.daemon.state().control_identity.is_some());
        proxy.daemon.new_token(Actor::new("the test", "here")).await.unwrap();
        let other = Zone::new("factory");
        proxy.provision(&other).await;
        assert_eq!(proxy.daemon.state().control_identity, None, "it is of another zone");

        rotate(&proxy, &other, &other.module_server("inside")).await;
        let mut member = proxy.member(&other, &other.module_server("inside")).await;
        let left = member.send(Method::DELETE, "/v1/provisioning", &[], Vec::new()).await.unwrap();
        assert_eq!(left.status, 204);
        assert_eq!(proxy.daemon.state().control_identity, None);
        assert!(!proxy.state_files().iter().any(|file| file.starts_with("control-")));
    });
}

/// Keys are made for one offer at a time, and a later offer replaces an earlier one.
#[test]
fn requests_are_answered_while_keys_are_made_and_the_last_offer_is_the_one_that_counts() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let (mut one, mut other) = (proxy.member(&zone, &party).await, proxy.member(&zone, &party).await);
        let mut third = proxy.member(&zone, &party).await;
        let (earlier, refused, status) = tokio::join!(
            biased;
            offer_with(&mut one, &zone),
            other.send(Method::POST, "/v1/identity", &NAMED, Vec::new()),
            third.get("/v1/status"),
        );
        assert_eq!(status.status, 200);
        let refused = refused.unwrap();
        assert_eq!((refused.refusal().0, refused.refusal().1.as_str()), (409, "busy"));
        let later = offer_with(&mut other, &zone).await;
        let put = |offer: &Offer| (format!("/v1/provisioning/{}", offer.id), document(&zone, offer, &proxy));
        let (path, document) = put(&earlier);
        assert_eq!(one.put(&path, &document).await.refusal().1, "offer-unknown");
        let (path, document) = put(&later);
        assert_eq!(other.put(&path, &document).await.status, 200);
    });
}

/// New keys for everything, by a client that names the feature; what 17488 shows afterwards.
async fn rotate(proxy: &Proxy, zone: &Zone, party: &Party) -> zone_channel::Identity {
    let mut member = proxy.member(zone, party).await;
    let answer = member.send(Method::POST, "/v1/identity", &NAMED, Vec::new()).await.unwrap();
    let offer: Offer = answer.json();
    let own = offer.control_signing_requests.as_ref().expect("they are offered");
    let new = NewIdentity {
        certificates: zone.sign(&offer, &zone.leaf("p1")),
        control_certificates: Some(zone.sign_requests(own, &zone.control_leaf("p1"))),
        offer: offer.id.clone(),
    };
    assert_eq!(member.put("/v1/identity", &new).await.status, 200);
    let mut member = proxy.member(zone, party).await;
    let status: Value = member.get("/v1/status").await.json();
    assert_eq!(status["control_identity"], format!("spiffe://{}/zone-control/p1", zone.name));
    proxy.daemon.state().control_identity.clone().expect("it has one")
}

async fn offer_with(client: &mut Client, zone: &Zone) -> Offer {
    let request = OfferRequest { zone: zone.name.parse().unwrap(), module_server: "inside".parse().unwrap() };
    let body = serde_json::to_vec(&request).unwrap();
    client.send(Method::POST, "/v1/provisioning", &NAMED, body).await.unwrap().json()
}

fn document(zone: &Zone, offer: &Offer, proxy: &Proxy) -> Provisioning {
    let own = offer.control_signing_requests.as_ref().expect("they are offered");
    Provisioning {
        control_certificates: Some(zone.sign_requests(own, &zone.control_leaf("p1"))),
        ..zone.document(offer, "p1", proxy.address)
    }
}
