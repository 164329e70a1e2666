//! Records on their way to real syslog servers on loopback.

mod receiver;
mod servers;
