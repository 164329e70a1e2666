//! How limits and timeouts travel in a [`Policy`](crate::Policy).
//!
//! A relay of the first versions refuses a policy whose limits or timeouts have a name that it does not know, and after an
//! upgrade a relay is older than its control. So names that came later travel beside the others, where such a relay does not
//! look. Relays from this version on ignore names that they don't know.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The names of limits that every relay knows.
const FIRST_LIMITS: [&str; 20] = [
    "connections",
    "endpoint_connections_per_source",
    "module_server_connections_per_source",
    "connections_per_endpoint",
    "parks_per_endpoint",
    "sessions_per_endpoint",
    "endpoints",
    "connections_per_module_server",
    "sessions",
    "waiting_per_endpoint",
    "waiting",
    "attempts",
    "event_streams",
    "event_backlog",
    "head_bytes",
    "head_fields",
    "early_bytes",
    "control_connections",
    "control_connections_per_source",
    "control_body_bytes",
];

/// The names of timeouts that every relay knows.
const FIRST_TIMEOUTS: [&str; 18] = [
    "proxy_header",
    "handshake",
    "head",
    "idle_connection",
    "ping_after",
    "pong",
    "first_byte",
    "answer",
    "connect",
    "session_idle",
    "remember_endpoint",
    "settle",
    "drain",
    "release",
    "orphan",
    "control_request",
    "offer",
    "token",
];

/// `limits`, and `later_limits` beside it.
pub(crate) mod limits {
    use super::{Deserialize, Deserializer, FIRST_LIMITS, Map, Serialize, Serializer, Value, joined, parted};
    use zone_settings::Limits;

    #[derive(Serialize, Deserialize)]
    struct Wire {
        limits: Map<String, Value>,
        #[serde(default)]
        later_limits: Map<String, Value>,
    }

    pub(crate) fn serialize<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
        let (limits, later_limits) = parted(limits, &FIRST_LIMITS)?;
        Wire { limits, later_limits }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
        let Wire { limits, later_limits } = Wire::deserialize(deserializer)?;
        joined(limits, later_limits)
    }
}

/// `timeouts`, and `later_timeouts` beside it.
pub(crate) mod timeouts {
    use super::{
        Deserialize, Deserializer, FIRST_TIMEOUTS, Map, Serialize, Serializer, Value, joined, parted,
    };
    use zone_settings::Timeouts;

    #[derive(Serialize, Deserialize)]
    struct Wire {
        timeouts: Map<String, Value>,
        #[serde(default)]
        later_timeouts: Map<String, Value>,
    }

    pub(crate) fn serialize<S: Serializer>(timeouts: &Timeouts, serializer: S) -> Result<S::Ok, S::Error> {
        let (timeouts, later_timeouts) = parted(timeouts, &FIRST_TIMEOUTS)?;
        Wire { timeouts, later_timeouts }.serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timeouts, D::Error> {
        let Wire { timeouts, later_timeouts } = Wire::deserialize(deserializer)?;
        joined(timeouts, later_timeouts)
    }
}

type Parts = (Map<String, Value>, Map<String, Value>);

fn parted<E: serde::ser::Error>(settings: &impl Serialize, first: &[&str]) -> Result<Parts, E> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(all)) => Ok(all.into_iter().partition(|(name, _)| first.contains(&name.as_str()))),
        Ok(_) => Err(E::custom("settings are an object")),
        Err(error) => Err(E::custom(error)),
    }
}

fn joined<T: DeserializeOwned, E: serde::de::Error>(
    mut first: Map<String, Value>,
    later: Map<String, Value>,
) -> Result<T, E> {
    first.extend(later);
    serde_json::from_value(Value::Object(first)).map_err(E::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zone_settings::{Limits, Timeouts};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        #[serde(flatten, with = "limits")]
        limits: Limits,
        #[serde(flatten, with = "timeouts")]
        timeouts: Timeouts,
    }

    #[test]
    fn an_earlier_relay_is_told_no_name_that_it_does_not_know_and_a_later_one_all() {
        let limits = Limits { connections: 7, unauthenticated_connections: 8, ..Limits::default() };
        let sent = Settings { limits, timeouts: Timeouts::default() };
        let text = serde_json::to_string(&sent).unwrap();
        let wire: Value = serde_json::from_str(&text).unwrap();
        let names = |key: &str| -> Vec<String> { wire[key].as_object().unwrap().keys().cloned().collect() };
        let sorted = |names: &[&str]| {
            let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names("limits"), sorted(&FIRST_LIMITS));
        assert_eq!(names("timeouts"), sorted(&FIRST_TIMEOUTS));
        assert_eq!(wire["later_limits"]["unauthenticated_connections"], 8);
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), sent);
    }

    #[test]
    fn what_an_earlier_control_does_not_say_is_as_by_default_and_what_a_later_one_says_more_is_ignored() {
        let text = r#"{"limits": {"connections": 7}, "timeouts": {}, "later_limits": {"moons": 3}}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        assert_eq!(settings.limits, Limits { connections: 7, ..Limits::default() });
        assert_eq!(settings.timeouts, Timeouts::default());
    }
}
