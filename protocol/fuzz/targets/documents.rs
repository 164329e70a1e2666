//! Documents of 17488 and 17487, problems, and the Proxy-Status field: what is accepted means the same after
//! it was written and read again.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{
    Endpoints, NewIdentity, Offer, OfferRequest, Payload, Provisioned, Provisioning, Status,
};
use zone_protocol::proxy_status::ProxyStatus;
use zone_protocol::trust::{Denied, Trust};

fuzz_target!(|data: &[u8]| {
    means_the_same_again::<Payload>(data);
    means_the_same_again::<OfferRequest>(data);
    means_the_same_again::<Offer>(data);
    means_the_same_again::<Provisioning>(data);
    means_the_same_again::<Provisioned>(data);
    means_the_same_again::<NewIdentity>(data);
    means_the_same_again::<Status>(data);
    means_the_same_again::<Endpoints>(data);
    means_the_same_again::<Problem>(data);
    if let Some(trust) = means_the_same_again::<Trust>(data) {
        for denied in &trust.deny {
            let one = serde_json::to_vec(denied).expect("a denial can be written");
            assert_eq!(means_the_same_again::<Denied>(&one).as_ref(), Some(denied));
        }
    }
    if let Ok(field) = std::str::from_utf8(data) {
        proxy_status(field);
    }
});

fn means_the_same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) -> Option<T> {
    let document: T = serde_json::from_slice(data).ok()?;
    let written = serde_json::to_vec(&document).expect("what was read can be written");
    let read: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(read, document);
    assert_eq!(serde_json::to_vec(&read).expect("and written again"), written);
    Some(document)
}

fn proxy_status(field: &str) {
    let Some(status) = ProxyStatus::from_field(field) else { return };
    let written = status.to_field();
    assert!(written.bytes().all(|b| (b' '..=b'~').contains(&b)), "{written:?}");
    assert_eq!(ProxyStatus::from_field(&written), Some(status), "{written:?}");
}
