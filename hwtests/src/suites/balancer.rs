//! *balancer*: HAProxy and nginx in front of the endpoint port of two proxies of one zone.
//!
//! The balancers run the configurations that ship as examples, with only their time-out, their address and the
//! version of the PROXY protocol changed. Each balancer is there twice: with a time-out shorter than the one after
//! which a proxy ends an idle session, and with a longer one. The longer one is dialled by IPv6.

mod checks;
mod configuration;
mod stage;
mod times;

use crate::lab::{Case, Need, Result, Scene, Suite};
use configuration::{Balancer, Header, Product};
use stage::Stage;
use times::{SCALED, TRUE, Times};

/// The suite.
pub(crate) fn suite() -> Suite {
    let haproxy =
        [Header::None, Header::V1, Header::V2].map(|header| Balancer { product: Product::HaProxy, header });
    let nginx = [Header::None, Header::V1].map(|header| Balancer { product: Product::Nginx, header });
    let case = |name: &str, balancers: &[Balancer], times: Times| {
        let (topology, balancers) = (stage::topology(balancers), balancers.to_vec());
        Case::new(name, topology, move |scene| play(scene, &balancers, &times))
            .shows(&["R-31", "R-32", "R-33"])
            .needs(&[
                Need::Program("zone-proxy"),
                Need::Program("zone-relay"),
                Need::Program("zone-module"),
                Need::Program("zone-endpoint"),
                Need::Tool("curl"),
                Need::Tool("python3"),
            ])
    };
    Suite {
        name: "balancer",
        about: "HAProxy and nginx in front of two proxies: pings, idle sessions, real sources, probes, a stopped proxy",
        cases: vec![
            case("HAProxy stands in front of two proxies", &haproxy, SCALED),
            case("nginx stands in front of two proxies", &nginx, SCALED),
            case(
                "HAProxy and nginx stand in front of two proxies for the true times",
                &[haproxy.as_slice(), &nginx].concat(),
                TRUE,
            )
            .only_when_long(),
        ],
    }
}

fn play(scene: &mut Scene<'_>, balancers: &[Balancer], times: &Times) -> Result<()> {
    let products = [Product::HaProxy, Product::Nginx];
    for product in products.into_iter().filter(|product| balancers.iter().any(|one| one.product == *product))
    {
        scene.step(&format!("the example for {product}"), |scene| {
            checks::the_example_is_accepted(scene, product, balancers)
        })?;
    }
    let mut stage = scene
        .step("two proxies, their balancers, and endpoints", |scene| Stage::set(scene, balancers, times))?;
    scene.step("where endpoints come from", |scene| checks::real_sources(scene, &stage))?;
    scene.step("probes", |scene| checks::probes(scene, &stage))?;
    scene.step("PROXY headers", |scene| checks::headers(scene, &stage))?;
    scene.step("half-closed sessions", |scene| checks::half_close(scene, &stage))?;
    scene.step("idle sessions", |scene| checks::idle_sessions(scene, &stage, times))?;
    scene.step("parks", |scene| checks::parks_outlive_the_balancer(scene, &stage, times))?;
    scene.step("a stopped proxy", |scene| checks::a_stopped_proxy(scene, &mut stage))
}
