//! What questions to nfnetlink consist of.

use crate::attributes::append;
use crate::model::Name;
use crate::uapi::message;

/// `struct nfgenmsg` of a family; 0 for all.
pub(crate) fn header(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

/// `struct nfgenmsg` at the begin and the end of a transaction on nf_tables, which is named as `res_id`.
pub(crate) fn transaction_header() -> Vec<u8> {
    let [upper, lower] = message::SUBSYSTEM.to_be_bytes();
    vec![0, 0, upper, lower]
}

/// Appends a number in the network's order.
pub(crate) fn append_number(request: &mut Vec<u8>, number: usize, value: u32) {
    append(request, number, &value.to_be_bytes());
}

/// Appends a name with its NUL.
pub(crate) fn append_name(request: &mut Vec<u8>, number: usize, name: &Name) {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    append(request, number, &bytes);
}
