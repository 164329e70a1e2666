//! Whom the proxy lets in, and how that is changed.

use hyper::Method;
use time::{Duration, OffsetDateTime};
use zone_protocol::features::Features;
use zone_protocol::fields;
use zone_protocol::tls::certificate::chain_from_pem;
use zone_protocol::trust::{Denied, Retired, Trust, fingerprint};

use crate::authority::Zone;
use crate::client::{Answer, Client, by_certificate};
use crate::harness::{Proxy, run};

async fn put(client: &mut Client, based_on: Option<&str>, trust: &Trust) -> Answer {
    let fields: Vec<_> = based_on.map(|version| ("if-match", version)).into_iter().collect();
    let body = serde_json::to_vec(trust).unwrap();
    client.send(Method::PUT, "/v1/trust", &fields, body).await.unwrap()
}

fn denying(zone: &Zone, version: u64, name: &str, role: &str) -> Trust {
    let identity = format!("spiffe://{}/{role}/{name}", zone.name).parse().unwrap();
    let not_before = OffsetDateTime::now_utc() + Duration::hours(1);
    Trust { deny: vec![Denied::Identity { identity, not_before }], ..zone.trust(version) }
}

#[test]
fn a_new_trust_document_needs_the_version_in_force_and_a_higher_one_of_its_own() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let answer = member.get("/v1/trust").await;
        assert_eq!(answer.headers.get("etag").unwrap(), "\"1\"");
        assert_eq!(answer.json::<Trust>(), zone.trust(1));
        for (based_on, version, status, slug) in [
            (None, 2, 428, "precondition-required"),
            (Some("1"), 2, 400, "malformed"),
            (Some("\"7\""), 8, 412, "precondition-failed"),
            (Some("\"1\""), 1, 422, "validation-failed"),
        ] {
            let answer = put(&mut member, based_on, &zone.trust(version)).await;
            assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (status, slug));
        }
        let answer = put(&mut member, Some("\"1\""), &denying(&zone, 2, "e1", "endpoint")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers.get("etag").unwrap(), "\"2\"");
        let policy = proxy.relays.policy.borrow().clone().unwrap();
        assert_eq!((policy.trust.version, policy.trust.deny.len()), (2, 1));
    });
}

#[test]
fn ticket_keys_are_replaced_with_the_trust_document() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let before = proxy.relays.policy.borrow().clone().unwrap();
        let mut member = proxy.member(&zone, &party).await;
        assert_eq!(put(&mut member, Some("\"1\""), &zone.trust(2)).await.status, 200);
        let after = proxy.relays.policy.borrow().clone().unwrap();
        assert_ne!(before.tickets.endpoint, after.tickets.endpoint);
        assert_ne!(before.tickets.module_server, after.tickets.module_server);
    });
}

#[test]
fn a_trust_document_that_would_lock_its_sender_out_is_refused() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let denied = denying(&zone, 2, "inside", "module-server");
        let answer = put(&mut member, Some("\"1\""), &denied).await;
        assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (409, "lock-out"));
        assert!(answer.problem().detail.unwrap().contains("revoked"));
        let foreign = Zone::new("plant").trust(2);
        let answer = put(&mut member, Some("\"1\""), &foreign).await;
        assert_eq!(answer.refusal().1, "lock-out");
        assert_eq!(member.get("/v1/trust").await.json::<Trust>().version, 1);
    });
}

#[test]
fn a_request_on_its_way_when_the_state_changes_is_answered_as_the_last_one() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let fresh = proxy.member(&zone, &zone.module_server("standby")).await;
        let mut used = proxy.member(&zone, &zone.module_server("other")).await;
        assert_eq!(used.get("/v1/status").await.status, 200);
        assert_eq!(
            put(&mut member, Some("\"1\""), &denying(&zone, 2, "host-7", "endpoint")).await.status,
            200
        );
        for mut client in [fresh, used] {
            let answer = client.get("/v1/status").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.headers["connection"], "close");
            client.is_closed().await;
        }
    });
}

#[test]
fn a_revoked_module_server_is_cut_off_and_let_in_no_more() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let standby = zone.module_server("standby");
        let mut member = proxy.member(&zone, &party).await;
        let mut other = proxy.member(&zone, &standby).await;
        assert_eq!(other.get("/v1/status").await.status, 200);
        let denied = denying(&zone, 2, "standby", "module-server");
        assert_eq!(put(&mut member, Some("\"1\""), &denied).await.status, 200);
        other.is_closed().await;
        let refused = match by_certificate(proxy.address, &zone, &standby).await {
            Ok(mut client) => client.send(Method::GET, "/v1/status", &[], Vec::new()).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
        proxy.member(&zone, &party).await;
    });
}

#[test]
fn a_relay_that_does_not_take_the_policy_is_replaced_and_the_change_stays() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        proxy.relays.fails_at.set(Some("policy"));
        let answer = put(&mut member, Some("\"1\""), &denying(&zone, 2, "e1", "endpoint")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(proxy.relays.told(1).last(), Some(&"stop"), "it is gone when the answer comes");
        let state = proxy.daemon.state();
        assert_eq!(state.membership.as_ref().unwrap().document.trust.version, 2);
        proxy.relays.fails_at.set(None);
        proxy.relays.wait_until_served(2).await;
        assert_eq!(proxy.relays.told(2), ["configure", "activate"]);
        let policy = proxy.relays.policy.borrow().clone().unwrap();
        assert_eq!((policy.trust.version, policy.trust.deny.len()), (2, 1));
    });
}

#[test]
fn an_endpoint_has_no_business_on_17488() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.provision(&zone).await;
        let endpoint = zone.endpoint("e1");
        let refused = match by_certificate(proxy.address, &zone, &endpoint).await {
            Ok(mut client) => client.send(Method::GET, "/v1/status", &[], Vec::new()).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
        assert!(proxy.counted("zone_proxy_control_handshake_failures_total{reason=\"wrong_role\"} 1"));
    });
}

async fn put_merging(client: &mut Client, based_on: u64, trust: &Trust) -> Answer {
    let (based_on, own) = (format!("\"{based_on}\""), Features::own().to_field());
    let fields = [("if-match", based_on.as_str()), (fields::FEATURES, own.as_str())];
    client.send(Method::PUT, "/v1/trust", &fields, serde_json::to_vec(trust).unwrap()).await.unwrap()
}

/// Whoever can merge has read what holds, and is told what their document would take back.
#[test]
fn a_document_that_takes_back_a_denial_or_a_retired_anchor_is_refused() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let mut next = denying(&zone, 2, "e1", "endpoint");
        let other = Zone::new("plant").trust(1).anchors.endpoint.remove(0);
        let fingerprint = fingerprint(&chain_from_pem(&other, "anchor").unwrap()[0]);
        next.retired = vec![Retired { fingerprint, until: OffsetDateTime::now_utc() + Duration::days(1) }];
        assert_eq!(put_merging(&mut member, 1, &next).await.status, 200);
        // A change ends the connections that it was made over.
        let mut member = proxy.member(&zone, &party).await;

        let mut without = Trust { version: 3, ..next.clone() };
        without.deny.clear();
        let mut brought_back = Trust { version: 3, ..next.clone() };
        brought_back.anchors.endpoint.push(other.clone());
        let mut no_anchor = Trust { version: 3, ..next.clone() };
        no_anchor.anchors.endpoint = vec![other.clone()];
        no_anchor.retired.clear();
        for (trust, words) in [
            (&without, "endpoint/e1 would be let in again"),
            (&brought_back, "is retired, and would come back"),
            (&no_anchor, "would go without being retired"),
        ] {
            let answer = put_merging(&mut member, 2, trust).await;
            assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (409, "takes-back"));
            let problem = answer.problem();
            assert!(problem.detail.unwrap().contains(words) && problem.help.unwrap().contains("merge"));
        }
        assert_eq!(member.get("/v1/trust").await.json::<Trust>().version, 2);

        // A client of the first version is not obeyed in this, and is not hindered in the rest.
        let sent = Trust { retired: Vec::new(), ..brought_back.clone() };
        let mut sent = Trust { deny: denying(&zone, 3, "e2", "endpoint").deny, ..sent };
        let answer = put(&mut member, Some("\"2\""), &sent).await;
        assert_eq!(answer.status, 200);
        let told: Trust = answer.json();
        assert_eq!((told.version, told.deny.len(), told.anchors), (3, 2, zone.trust(1).anchors));
        let mut member = proxy.member(&zone, &party).await;
        sent.version = 4;
        sent.anchors.endpoint = vec![other];
        let answer = put(&mut member, Some("\"3\""), &sent).await;
        assert_eq!((answer.refusal().0, answer.refusal().1.as_str()), (422, "validation-failed"));
    });
}

/// What is spelled wrong would deny nobody, and nobody would notice.
#[test]
fn an_entry_that_would_deny_nobody_is_refused_with_its_place() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let good = "ab".repeat(32);
        for (issuer, serial, words) in [
            (good.as_str(), "", "trust.deny[0].serial"),
            (&good, "0x1a", "trust.deny[0].serial: '0x1a' is not 1 to 64 hex digits"),
            (&good, "1A:2B", "serial"),
            (&good, " a", "serial"),
            ("ab", "1a", "trust.deny[0].issuer: 'ab' is not 64 hex digits"),
        ] {
            let entry = Denied::Certificate { issuer: issuer.into(), serial: serial.into(), until: None };
            let trust = Trust { deny: vec![entry], ..zone.trust(2) };
            let problem = put(&mut member, Some("\"1\""), &trust).await.problem();
            assert_eq!((problem.status, problem.slug()), (422, "validation-failed"));
            assert!(problem.detail.as_ref().unwrap().contains(words), "{problem:?}");
        }
        let entry = Denied::Certificate { issuer: good, serial: "00A".into(), until: None };
        let trust = Trust { deny: vec![entry], ..zone.trust(2) };
        assert_eq!(put(&mut member, Some("\"1\""), &trust).await.status, 200);
    });
}

/// While a package is upgraded, the relay is of the one before.
#[test]
fn a_relay_is_told_what_is_retired_only_where_it_says_that_it_reads_it() {
    for (features, told) in [(Vec::new(), 0), (vec![zone_channel::READS_RETIRED.to_owned()], 1)] {
        run(async {
            let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
            proxy.relays.features.replace(features);
            let (_, party) = proxy.provision(&zone).await;
            let mut member = proxy.member(&zone, &party).await;
            let until = OffsetDateTime::now_utc() + Duration::days(1);
            let retired = vec![Retired { fingerprint: "ab".repeat(32), until }];
            let answer = put_merging(&mut member, 1, &Trust { retired, ..zone.trust(2) }).await;
            assert_eq!(answer.status, 200);
            let policy = proxy.relays.policy.borrow().clone().unwrap();
            assert_eq!((policy.trust.version, policy.trust.retired.len()), (2, told));
            proxy.relays.crash();
            proxy.relays.wait_until_served(2).await;
            let policy = proxy.relays.policy.borrow().clone().unwrap();
            assert_eq!((policy.trust.version, policy.trust.retired.len()), (2, told), "a fresh one");
        });
    }
}
