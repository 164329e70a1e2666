//! Rules and their statements as nft has them in JSON (libnftables-json(5)): in one form for comparing, and in words.

use serde_json::{Map, Value, json};

/// A statement or expression without what differs between versions of nft, or from moment to moment.
pub(crate) fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(fields) => canonical_object(fields),
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        other => other.clone(),
    }
}

fn canonical_object(fields: &Map<String, Value>) -> Value {
    // Newer versions list `a | b | c` as a list, and so is it here.
    if let Some(Value::Array(sides)) = fields.get("|") {
        let flat = sides.iter().map(canonical).flat_map(|side| match side {
            Value::Array(items) => items,
            one => vec![one],
        });
        return Value::Array(flat.collect());
    }
    // Versions from 1.1 on list a meter as a dynamic set.
    if let Some(set) = fields.get("set").filter(|set| set.get("stmt").is_some()) {
        let name = set.get("set").and_then(Value::as_str).unwrap_or_default().trim_start_matches('@');
        let statement = set.pointer("/stmt/0").cloned().unwrap_or_default();
        let key = set.get("elem").map(canonical);
        return json!({ "meter": { "name": name, "key": key, "stmt": canonical(&statement) } });
    }
    let mut plain = Map::new();
    for (key, value) in fields {
        match key.as_str() {
            "meter" => {
                let mut meter = canonical(value);
                if let Some(meter) = meter.as_object_mut() {
                    meter.remove("size");
                }
                plain.insert(key.clone(), meter);
            }
            // Those that are not set are null here and left out there.
            "expires" | "comment" | "counter" if value.is_null() => {}
            "burst_unit" | "rate_unit" => {}
            _ => drop(plain.insert(key.clone(), canonical(value))),
        }
    }
    Value::Object(plain)
}

/// A rule (`{expr, comment}`, or a list of statements) much as nft would print it; what has no words here stays JSON.
pub(crate) fn render(rule: &Value) -> String {
    let statements = rule.get("expr").unwrap_or(rule).as_array().cloned().unwrap_or_default();
    let mut words: Vec<String> = statements.iter().map(statement_words).collect();
    if let Some(comment) = rule.get("comment").and_then(Value::as_str) {
        words.push(format!("comment \"{comment}\""));
    }
    words.join(" ")
}

fn statement_words(statement: &Value) -> String {
    let Some((name, body)) = statement.as_object().and_then(|fields| fields.iter().next()) else {
        return statement.to_string();
    };
    match name.as_str() {
        "match" => {
            let op = match body.get("op").and_then(Value::as_str) {
                Some("==" | "in") | None => String::new(),
                Some(op) => format!("{op} "),
            };
            format!("{} {op}{}", words(body.get("left")), words(body.get("right")))
        }
        "accept" | "drop" | "return" | "continue" => name.clone(),
        "jump" | "goto" => format!("{name} {}", words(body.get("target"))),
        "counter" if body.is_string() => format!("counter {}", words(Some(body))),
        "meter" => format!(
            "meter {} {{ {} {} }}",
            words(body.get("name")),
            words(body.get("key")),
            body.get("stmt").map(statement_words).unwrap_or_default()
        ),
        "limit" => format!(
            "limit {}{}/{} burst {}",
            if body.get("inv").and_then(Value::as_bool) == Some(true) { "over " } else { "" },
            words(body.get("rate")),
            words(body.get("per")),
            words(body.get("burst")),
        ),
        _ => statement.to_string(),
    }
}

fn words(expression: Option<&Value>) -> String {
    let Some(expression) = expression else { return String::new() };
    if let Some(text) = expression.as_str() {
        return text.to_owned();
    }
    if let Some(items) = expression.as_array() {
        return items.iter().map(|item| words(Some(item))).collect::<Vec<_>>().join(",");
    }
    let at = |path: &str| expression.pointer(path);
    if at("/payload/field").is_some() {
        return format!("{} {}", words(at("/payload/protocol")), words(at("/payload/field")));
    }
    if at("/prefix").is_some() {
        return format!("{}/{}", words(at("/prefix/addr")), words(at("/prefix/len")));
    }
    if let Some(key) = at("/meta/key") {
        return format!("meta {}", words(Some(key)));
    }
    if let Some(Value::Array(sides)) = expression.get("&") {
        return sides.iter().map(|side| words(Some(side))).collect::<Vec<_>>().join(" & ");
    }
    if at("/elem/val").is_some() {
        return format!("{} timeout {}s", words(at("/elem/val")), words(at("/elem/timeout")));
    }
    expression.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_that_a_newer_nft_lists_as_a_set_is_the_same() {
        let meter = json!({"meter": {"name": "m", "key": {"elem": {"val": {"payload": {"protocol": "ip",
            "field": "saddr"}}, "timeout": 60, "expires": null}}, "size": 65535, "stmt": {"limit": {"rate": 1}}}});
        let set = json!({"set": {"op": "add", "set": "@m", "elem": {"elem": {"val": {"payload": {"protocol": "ip",
            "field": "saddr"}}, "timeout": 60}}, "stmt": [{"limit": {"rate": 1}}]}});
        assert_eq!(canonical(&meter), canonical(&set));
    }
}
