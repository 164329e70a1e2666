//! The one offer that is open: keys that wait for their certificates.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use zone_protocol::identity::Label;

use crate::keys::OfferedKeys;

/// What an offer is to be completed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A provisioning into this zone.
    Provisioning(Label),
    /// New certificates for a member of its zone.
    Identity,
}

/// An offer that is open.
#[derive(Debug)]
pub(crate) struct OpenOffer {
    /// The offer's name, a UUID.
    pub(crate) id: String,
    /// Whether its keys are for a first provisioning or for new certificates.
    pub(crate) purpose: Purpose,
    /// Its keys; they leave memory only with the state that they become part of.
    pub(crate) keys: OfferedKeys,
    /// Those for the identity of 17488, where the client can have them signed.
    pub(crate) control_keys: Option<OfferedKeys>,
    /// When it lapses, by the clock since boot.
    pub(crate) lapses: Duration,
}

/// Holds at most one open offer: a newer one replaces it.
#[derive(Debug, Default)]
pub(crate) struct OfferSlot {
    slot: RefCell<Option<Rc<OpenOffer>>>,
}

impl OfferSlot {
    /// Opens an offer in the place of an earlier one.
    pub(crate) fn open(&self, offer: OpenOffer) {
        self.slot.replace(Some(Rc::new(offer)));
    }

    /// The open offer, if it has this id and has not lapsed by now (time since boot).
    pub(crate) fn find(&self, id: &str, now: Duration) -> Option<Rc<OpenOffer>> {
        let mut open = self.slot.borrow_mut();
        if open.as_ref().is_some_and(|offer| offer.lapses <= now) {
            *open = None;
        }
        open.clone().filter(|offer| offer.id == id)
    }

    /// Forgets the open offer: it is completed, or its keys are good for nothing any more.
    pub(crate) fn close(&self) {
        self.slot.take();
    }
}
