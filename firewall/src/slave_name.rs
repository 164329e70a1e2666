//! What the `nftables` crate has no word for: the device of a VRF that a packet came in by.

use nftables::expr::MetaKey;
use serde_json::{Value, json};

/// The name of the device of a VRF that a packet came in by (`sdifname`), which the crate has no key for: nothing of ours
/// asks for the kind of a device, so that rules are built with that key, and [`with_slave_names`] writes the right one.
pub(crate) const SLAVE_NAME: MetaKey = MetaKey::Iifkind;

/// Objects of ours as nft has them: with the key that [`SLAVE_NAME`] stands for.
pub(crate) fn with_slave_names(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                let placeholder = name == "meta" && field["key"] == json!(SLAVE_NAME);
                *field =
                    if placeholder { json!({ "key": "sdifname" }) } else { with_slave_names(field.take()) };
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = with_slave_names(item.take());
            }
        }
        _ => {}
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_that_stands_for_it_is_exchanged() {
        let [by, other] = [json!({ "meta": { "key": SLAVE_NAME } }), json!({ "meta": { "key": "iifname" } })];
        let rule = json!({ "expr": [{ "match": { "left": by } }, { "match": { "left": other } }], "comment": "iifkind" });
        assert_eq!(
            with_slave_names(rule).to_string(),
            r#"{"comment":"iifkind","expr":[{"match":{"left":{"meta":{"key":"sdifname"}}}},{"match":{"left":{"meta":{"key":"iifname"}}}}]}"#
        );
    }
}
