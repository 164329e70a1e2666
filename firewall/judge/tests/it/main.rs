//! The host that packets come to is read as it is.

mod host;
