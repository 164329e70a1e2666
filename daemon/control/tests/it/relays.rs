//! Relays that die, and what becomes of the ports meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use zone_channel::HANDS_OVER;
use zone_protocol::provisioning::{Provisioned, Status};
use zone_proxy::config::Config;
use zone_proxy::state::State;

use crate::authority::Zone;
use crate::harness::{FILE, PlayedRelays, Proxy, SetClock, config_in, own_address, run, start};

#[test]
fn a_relay_that_dies_is_replaced_in_under_a_second_and_no_port_closes() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let since = Instant::now();
        proxy.relays.crash();
        assert!(proxy.accepts(17486).await && proxy.accepts(17487).await);
        proxy.relays.wait_until_served(2).await;
        assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
        assert!(proxy.counted("zone_proxy_relay_crashes_total 1"));
        let mut member = proxy.member(&zone, &party).await;
        let status: Status = member.get("/v1/status").await.json();
        assert_eq!((status.relays.len(), status.relays[0].generation), (1, 2));
        assert!(status.ports.iter().all(|port| port.listening));
    });
}

#[test]
fn relays_that_die_again_and_again_are_started_more_and_more_slowly() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.provision(&zone).await;
        let mut waits = Vec::new();
        for served in 2..5 {
            let since = Instant::now();
            proxy.relays.crash();
            proxy.relays.wait_until_served(served).await;
            waits.push(since.elapsed());
        }
        assert!(
            waits[1] >= Duration::from_millis(200) && waits[2] >= Duration::from_millis(400),
            "{waits:?}"
        );
    });
}

#[test]
fn a_provisioned_proxy_whose_ports_are_taken_at_its_start_says_so_and_goes_on_trying() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.provision(&zone).await;
        let (state, address) = (State::clone(&proxy.daemon.state()), own_address());
        let taken = std::net::TcpListener::bind((proxy.address, 17486));
        assert!(taken.is_err(), "the first proxy holds it");

        let directory = tempfile::TempDir::new().unwrap();
        let config = config_in(&directory, address);
        let store = zone_proxy::state::Store::open(&config.state_dir).unwrap();
        store.replace(&state).unwrap().commit();
        drop(store);
        let relays = PlayedRelays::default();
        let daemon = start(config, SetClock::default().into(), relays.clone()).await.unwrap();
        while daemon.report().await.warnings.is_empty() {
            tokio::task::yield_now().await;
        }
        let warnings = daemon.report().await.warnings.join("\n");
        assert!(warnings.contains(&format!("{}:17486", proxy.address)), "{warnings}");
        assert!(warnings.contains("nobody listens there"), "{warnings}");

        proxy.daemon.stop().await;
        relays.wait_until_served(1).await;
        assert!(proxy.accepts(17486).await);
    });
}

#[test]
fn a_configuration_that_is_read_again_reaches_the_relay_and_an_invalid_one_changes_nothing() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.provision(&zone).await;
        let file = proxy.directory.path().join(FILE);
        let limits = || proxy.relays.policy.borrow().as_ref().unwrap().limits.clone();
        let mut config = Config::clone(&proxy.daemon.config());
        config.limits.sessions = 7;
        fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
        proxy.daemon.reload().await.unwrap();
        assert_eq!(limits().sessions, 7);
        fs::write(&file, "[limits]\nsessions = 0\n").unwrap();
        assert!(proxy.daemon.reload().await.is_err());
        assert_eq!((limits().sessions, proxy.daemon.config().limits.sessions), (7, 7));
    });
}

/// The order in which two relays move, by what each is told.
#[test]
fn callers_move_to_the_next_relay_first_then_endpoints_and_before_all_those_that_are_called() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        proxy.relays.features.borrow_mut().push(HANDS_OVER.to_owned());
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let document = zone.document(&offer, "p1", proxy.address);
        let _: Provisioned = member.put(&format!("/v1/provisioning/{}", offer.id), &document).await.json();
        proxy.relays.wait_until_told(1, "release").await;
        let told = proxy.relays.told.borrow().clone();
        let at = |wanted| told.iter().position(|told| *told == wanted).unwrap_or_else(|| panic!("{told:?}"));
        let order = [(2, "activate"), (1, "drain"), (2, "accept endpoints"), (1, "release")].map(at);
        assert!(order.is_sorted(), "{told:?}");
        while proxy.relays.expected.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(proxy.relays.expected.borrow()[0].id.as_str(), "host-7");
    });
}

#[test]
fn relays_of_an_earlier_version_are_told_nothing_that_they_do_not_know() {
    run(async {
        let (proxy, zone) = (Proxy::start().await, Zone::new("plant"));
        let (_, party) = proxy.provision(&zone).await;
        let mut member = proxy.member(&zone, &party).await;
        let offer = member.offer(&zone).await;
        let document = zone.document(&offer, "p1", proxy.address);
        let _: Provisioned = member.put(&format!("/v1/provisioning/{}", offer.id), &document).await.json();
        proxy.relays.wait_until_told(1, "drain").await;
        proxy.daemon.report().await;
        assert_eq!(proxy.relays.told(1), ["configure", "activate", "drain"]);
        assert_eq!(proxy.relays.told(2), ["configure", "activate"]);
    });
}
