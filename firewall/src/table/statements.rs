//! Statements of rules, as the `nftables` crate has them.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, Elem, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
};
use nftables::stmt::{Counter, JumpTarget, Limit, Match, Meter, Operator, Statement};
use zone_firewall_protocol::Transport;

use crate::config::{InterfaceName, Limits};
use crate::desired::Family;
use crate::slave_name::SLAVE_NAME;

/// Seconds after which a source that opens no connections is forgotten. The bucket is full again long before.
const SOURCE_TIMEOUT_SECONDS: u32 = 60;
/// The part of an IPv6 address that stands for one source.
const SOURCE_MASK_V6: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0);

/// What a rule consists of.
pub(crate) type Statements = Vec<Statement<'static>>;

pub(super) fn accept() -> Statement<'static> {
    Statement::Accept(None)
}

pub(super) fn goto(chain: &str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.to_owned().into() })
}

pub(super) fn count(counter: &str) -> Statement<'static> {
    Statement::Counter(Counter::Named(counter.to_owned().into()))
}

pub(super) fn drop_packet() -> Statement<'static> {
    Statement::Drop(None)
}

/// A port of TCP that packets go to.
pub(super) fn dport(port: u16) -> Statement<'static> {
    port_of(Transport::Tcp, port)
}

/// A port of a transport that packets go to.
pub(super) fn port_of(transport: Transport, port: u16) -> Statement<'static> {
    matches(payload(transport.as_str(), "dport"), Operator::EQ, Expression::Number(port.into()))
}

/// TCP, and the first packet of a connection: SYN alone, whatever connection tracking says.
pub(super) fn is_opening() -> Statement<'static> {
    opening(Operator::EQ)
}

/// TCP, and not the first packet of a connection.
pub(super) fn no_opening() -> Statement<'static> {
    opening(Operator::NEQ)
}

/// TCP, whichever packet.
pub(super) fn is_tcp() -> Statement<'static> {
    matches(meta(MetaKey::L4proto), Operator::EQ, text(Transport::Tcp.as_str()))
}

/// It comes in by this device.
pub(super) fn comes_in_by(name: &str) -> Statement<'static> {
    matches(meta(MetaKey::Iifname), Operator::EQ, text(name))
}

/// It comes in by this device of a VRF, whose own name is what [`comes_in_by`] sees there.
pub(super) fn comes_in_by_slave(name: &InterfaceName) -> Statement<'static> {
    matches(meta(SLAVE_NAME), Operator::EQ, text(name.as_str()))
}

/// It goes out by this device.
pub(super) fn goes_out_by(name: &str) -> Statement<'static> {
    matches(meta(MetaKey::Oifname), Operator::EQ, text(name))
}

/// It comes from a socket of this user.
pub(super) fn is_sent_by(uid: u32) -> Statement<'static> {
    matches(meta(MetaKey::Skuid), Operator::EQ, Expression::Number(uid))
}

pub(super) fn is_family(family: Family) -> Statement<'static> {
    matches(meta(MetaKey::Nfproto), Operator::EQ, text(family.as_str()))
}

pub(super) fn address_is(address: IpAddr, field: &str) -> Statement<'static> {
    matches(payload(Family::of(address).header(), field), Operator::EQ, text(&address.to_string()))
}

pub(super) fn network_is(network: IpNet) -> Statement<'static> {
    let family = Family::of(network.network());
    if network.prefix_len() == 0 {
        is_family(family)
    } else if network.prefix_len() == network.max_prefix_len() {
        address_is(network.network(), "saddr")
    } else {
        let prefix =
            Prefix { addr: Box::new(text(&network.network().to_string())), len: network.prefix_len().into() };
        let right = Expression::Named(NamedExpression::Prefix(prefix));
        matches(payload(family.header(), "saddr"), Operator::EQ, right)
    }
}

/// A meter and not a set: the crate's set statement would lose the limit, and "drop above 500" become "drop".
pub(super) fn too_many(port: u16, family: Family, limits: &Limits) -> Statement<'static> {
    let source = payload(family.header(), "saddr");
    let source = match family {
        Family::V4 => source,
        Family::V6 => Expression::BinaryOperation(Box::new(BinaryOperation::AND(
            source,
            text(&SOURCE_MASK_V6.to_string()),
        ))),
    };
    let key = Elem {
        val: Box::new(source),
        timeout: Some(SOURCE_TIMEOUT_SECONDS),
        expires: None,
        comment: None,
        counter: None,
    };
    let limit = Limit {
        rate: limits.new_connections_per_second,
        rate_unit: None,
        per: Some("second".into()),
        burst: Some(limits.burst),
        burst_unit: None,
        inv: Some(true),
    };
    Statement::Meter(Meter {
        name: format!("port_{port}_{}", family.as_str()).into(),
        key: Expression::Named(NamedExpression::Elem(key)),
        stmt: Box::new(Statement::Limit(limit)),
    })
}

fn opening(operator: Operator) -> Statement<'static> {
    let or = |left, right| Expression::BinaryOperation(Box::new(BinaryOperation::OR(vec![left, right])));
    let judged = or(or(or(text("fin"), text("syn")), text("rst")), text("ack"));
    let flags = Expression::BinaryOperation(Box::new(BinaryOperation::AND(payload("tcp", "flags"), judged)));
    matches(flags, operator, text("syn"))
}

fn text(value: &str) -> Expression<'static> {
    Expression::String(value.to_owned().into())
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn payload(protocol: &str, field: &str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.to_owned().into(),
        field: field.to_owned().into(),
    })))
}

fn matches(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}
