//! What becomes of connections whose certificates end while they stand.

use crate::bench::{ACCEPT, Bench, Parked, connect_request, park_request};

async fn parked(bench: &Bench, certified: &crate::bench::Certified) -> Parked {
    let mut park = Parked { stream: bench.dial_endpoint_port(certified).await.unwrap(), bytes: Vec::new() };
    park.send(&park_request(7)).await;
    assert_eq!(park.response().await.status, 101);
    park
}

#[tokio::test]
async fn a_park_and_an_idle_caller_end_with_their_certificates_and_a_session_goes_on() {
    let mut bench = Bench::start(|_| {}).await;
    let (endpoint, _) = bench.endpoints.leaf_about_to_expire("spiffe://zone/endpoint/host-7");
    let (module_server, _) = bench.module_servers.leaf_about_to_expire("spiffe://zone/module-server/inside");
    let call = async |bench: &Bench| Parked {
        stream: bench.dial_module_port(&module_server).await.unwrap(),
        bytes: Vec::new(),
    };
    let mut leg = parked(&bench, &endpoint).await;
    let mut caller = call(&bench).await;
    caller.send(&connect_request("host-7:ssh")).await;
    assert_eq!(leg.request().await.method, "CONNECT");
    leg.send(ACCEPT).await;
    assert_eq!(caller.response().await.status, 200);
    let mut park = parked(&bench, &endpoint).await;
    let mut idle = call(&bench).await;
    bench.until("a park and a session", |counts| (counts.parks, counts.sessions) == (1, 1)).await;

    assert_eq!(park.end().await.0, b"", "the park ends by itself");
    assert_eq!(idle.end().await.0, b"", "and so does a connection that could ask for another session");
    bench.logged("connections whose certificates have ended were ended").await;
    bench.until("the session alone", |counts| (counts.parks, counts.sessions) == (0, 1)).await;
    caller.send("still here").await;
    leg.exactly(b"still here").await;
}
