//! The proxy's own keys: bootstrap certificates, and signing requests for the zone's authority.

use std::sync::Arc;

use rcgen::{
    CertificateParams, DnType, KeyPair as Key, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, PublicKeyData,
    RsaKeySize,
};
use time::{Duration, OffsetDateTime};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::spawn_blocking;
use zone_channel::{Identity, KeyPair};
use zone_protocol::provisioning::{Certificates, SigningRequests};
use zone_protocol::tls::certificate::BOOTSTRAP_NAME;

const BOOTSTRAP_VALIDITY: Duration = Duration::days(3_653);
/// So that a peer whose clock is somewhat behind can look at them.
const BACK_DATED: Duration = Duration::hours(1);

/// Why keys were not made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Keys are being made for somebody else.
    #[error("keys are being made for another request")]
    Busy,
    /// They can't be made, or their certificates or signing requests can't.
    #[error(transparent)]
    Failed(#[from] rcgen::Error),
    /// The thread that made them ended before it was done.
    #[error("the thread that made them broke off")]
    BrokeOff,
}

/// Has keys made beside the one thread that serves everybody, one time after the other: an RSA key takes long.
#[derive(Debug, Default)]
pub(crate) struct KeyMaker {
    /// Locked while keys are being made.
    making: Arc<Mutex<()>>,
}

impl KeyMaker {
    /// Makes keys by `work`, unless that is being done for somebody else.
    pub(crate) async fn try_make<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, rcgen::Error> + Send + 'static,
    ) -> Result<T, KeyError> {
        let making = Arc::clone(&self.making).try_lock_owned().map_err(|_| KeyError::Busy)?;
        beside(making, work).await
    }

    /// Makes keys by `work` as soon as those of somebody else are done, and before any that are asked for meanwhile.
    pub(crate) async fn make<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, rcgen::Error> + Send + 'static,
    ) -> Result<T, KeyError> {
        beside(Arc::clone(&self.making).lock_owned().await, work).await
    }
}

/// Runs `work` on a thread of its own. The lock is held until that is done, also where nobody waits for it any more.
async fn beside<T: Send + 'static>(
    making: OwnedMutexGuard<()>,
    work: impl FnOnce() -> Result<T, rcgen::Error> + Send + 'static,
) -> Result<T, KeyError> {
    let made = spawn_blocking(move || {
        let _making = making;
        work()
    });
    Ok(made.await.map_err(|_| KeyError::BrokeOff)??)
}

/// Fresh keys under self-signed certificates, for a proxy that belongs to no zone.
pub(crate) fn bootstrap(now: OffsetDateTime) -> Result<Identity, rcgen::Error> {
    let keys = OfferedKeys::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, BOOTSTRAP_NAME);
    params.not_before = now - BACK_DATED;
    params.not_after = now + BOOTSTRAP_VALIDITY;
    let certificates =
        Certificates { rsa: params.self_signed(&keys.rsa)?.pem(), ec: params.self_signed(&keys.ec)?.pem() };
    Ok(keys.with(certificates))
}

/// The two keys of an offer, kept in memory until it is completed or lapses.
#[derive(Debug)]
pub(crate) struct OfferedKeys {
    rsa: Key,
    ec: Key,
}

impl OfferedKeys {
    /// An RSA 2048 and a P-256 key.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        Ok(Self {
            rsa: Key::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
            ec: Key::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        })
    }

    /// Signing requests (PKCS #10) for both. Names are the authority's to give.
    pub(crate) fn signing_requests(&self, host: &str) -> Result<SigningRequests, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, host);
        Ok(SigningRequests {
            rsa: params.serialize_request(&self.rsa)?.pem()?,
            ec: params.serialize_request(&self.ec)?.pem()?,
        })
    }

    /// The SubjectPublicKeyInfo of the RSA and of the P-256 key, DER.
    pub(crate) fn public_keys(&self) -> (Vec<u8>, Vec<u8>) {
        (self.rsa.subject_public_key_info(), self.ec.subject_public_key_info())
    }

    /// With the certificates that an authority gave for them.
    pub(crate) fn with(&self, certificates: Certificates) -> Identity {
        Identity {
            rsa: KeyPair { chain: certificates.rsa, key: self.rsa.serialize_pem() },
            ec: KeyPair { chain: certificates.ec, key: self.ec.serialize_pem() },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use tokio::join;
    use tokio::time::timeout;
    use zone_protocol::tls::certificate::{KeyKind, chain_from_pem, facts};

    use super::*;

    /// Keys that take until a word comes.
    fn slow(word: Receiver<()>) -> impl FnOnce() -> Result<&'static str, rcgen::Error> + Send + 'static {
        move || {
            word.recv_timeout(std::time::Duration::from_secs(20)).expect("this thread is not held up");
            Ok("slow")
        }
    }

    #[tokio::test]
    async fn keys_hold_nobody_up_and_a_second_maker_is_told_to_come_again() {
        let maker = KeyMaker::default();
        let (go_on, word) = channel();
        let others = async {
            assert!(matches!(maker.try_make(|| Ok(())).await, Err(KeyError::Busy)));
            go_on.send(()).unwrap();
        };
        let (made, ()) = join!(maker.try_make(slow(word)), others);
        assert_eq!(made.unwrap(), "slow");
        assert!(maker.try_make(|| Ok(())).await.is_ok());
    }

    #[tokio::test]
    async fn whoever_may_wait_comes_before_those_that_ask_later() {
        let maker = KeyMaker::default();
        let (go_on, word) = channel();
        let later = async {
            // By now the one that waits is in line.
            go_on.send(()).unwrap();
            while maker.try_make(|| Ok(())).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        let waits = maker.make(|| Ok("waited"));
        let (slow, waited, ()) = join!(maker.try_make(slow(word)), waits, later);
        assert_eq!((slow.unwrap(), waited.unwrap()), ("slow", "waited"));
    }

    #[tokio::test]
    async fn keys_that_nobody_waits_for_any_more_keep_the_next_ones_waiting_until_they_are_done() {
        let maker = KeyMaker::default();
        let (go_on, word) = channel();
        assert!(timeout(Duration::from_millis(1), maker.try_make(slow(word))).await.is_err());
        assert!(matches!(maker.try_make(|| Ok(())).await, Err(KeyError::Busy)));
        go_on.send(()).unwrap();
        maker.make(|| Ok(())).await.unwrap();
    }

    #[test]
    fn bootstrap_certificates_hold_an_rsa_2048_and_a_p256_key_and_are_good_at_once() {
        let now = OffsetDateTime::now_utc();
        let identity = bootstrap(now).unwrap();
        for (pair, kind) in [(&identity.rsa, KeyKind::Rsa(2048)), (&identity.ec, KeyKind::P256)] {
            let facts = facts(&chain_from_pem(&pair.chain, "leaf").unwrap()[0], "leaf").unwrap();
            assert_eq!(facts.key, kind);
            assert!(facts.not_before < now && !facts.authority);
        }
    }
}
