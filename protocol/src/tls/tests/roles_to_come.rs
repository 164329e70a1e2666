//! Roles that no port is for: those of versions to come, and 17488's own. They are refused on every port, and by every client
//! that did not ask for them, whoever vouches for them, by name.

use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};

use super::admission::shown;
use super::zone::{Draft, NOW, Zone, identity, label, unix};
use crate::identity::Role;
use crate::tls::policy::Versions;
use crate::tls::refusal::{Refusal, capture};
use crate::tls::verifier::Expectation;

fn no_port_is_for() -> impl Iterator<Item = Role> {
    Role::TO_COME.into_iter().chain([Role::ZoneControl])
}

#[test]
fn no_port_admits_a_role_that_none_is_for_and_says_which_it_was() {
    let zone = Zone::new();
    for role in no_port_is_for() {
        let uri = format!("spiffe://plant-7/{role}/x");
        assert_eq!(identity(&uri).role, role);
        for port in [Role::Endpoint, Role::ModuleServer] {
            let refused = |signer: Role| {
                let chain = [zone.authority(signer).sign(&Draft::of(&uri))];
                shown(&zone.port(port), &chain, NOW).unwrap_err()
            };
            let other = if port == Role::Endpoint { Role::ModuleServer } else { Role::Endpoint };
            let wrong_role = Refusal::WrongRole { identity: identity(&uri), wanted: port };
            assert!(wrong_role.to_string().contains(role.as_str()) && wrong_role.label() == "wrong_role");
            assert_eq!(refused(port), wrong_role, "{role} at {port}");
            let wrong_authority = Refusal::WrongAuthority { claimed: identity(&uri), vouched: other };
            assert_eq!(refused(other), wrong_authority, "{role} at {port}");
            assert_eq!(refused(Role::ZoneProxy), Refusal::UnknownAuthority(identity(&uri)));
        }
    }
}

#[test]
fn no_client_takes_such_a_role_for_the_one_it_dialed() {
    let zone = Zone::new();
    for (role, wanted) in
        no_port_is_for().flat_map(|role| [Role::ZoneProxy, Role::Endpoint].map(|wanted| (role, wanted)))
    {
        let uri = format!("spiffe://plant-7/{role}/x");
        let authority = zone.authority(wanted);
        let expected = Expectation::new(label("plant-7"), wanted, None, &[authority.pem()], Versions::Tls12);
        let leaf = authority.sign(&Draft::of(&uri));
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
        let (result, refusal) =
            capture(|| expected.unwrap().verify_server_cert(&leaf, &[], &name, &[], unix(NOW)));
        assert!(result.is_err());
        assert_eq!(refusal, Some(Refusal::WrongRole { identity: identity(&uri), wanted }), "{role}");
    }
}
