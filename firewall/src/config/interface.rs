//! Names of network devices in `firewall.toml`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name, bytes (`IFNAMSIZ` without its end).
const MAX_BYTES: usize = 15;

/// The name of a network device, such as `mgmt0`. There need not be such a device.
///
/// Letters, digits, `.`, `_` and `-` make it up: the kernel takes more, but nft(8) has a meaning for `*` and iptables(8) one for
/// `+`, and neither prints every name so that it can be read back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct InterfaceName(String);

impl InterfaceName {
    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for InterfaceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        if (1..=MAX_BYTES).contains(&text.len())
            && text.chars().all(plain)
            && ![".", ".."].contains(&text.as_str())
        {
            return Ok(Self(text));
        }
        Err(format!(
            "'{text}' is no name of a network device: 1 to {MAX_BYTES} letters, digits, '.', '_' and '-' are taken"
        ))
    }
}

impl From<InterfaceName> for String {
    fn from(name: InterfaceName) -> Self {
        name.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_rule_would_take_for_something_else_are_refused() {
        for name in ["eth0", "mgmt-0", "br_lan", "eth0.100", "abcdefghijklmno"] {
            assert_eq!(InterfaceName::try_from(name.to_owned()).unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "eth*", "ppp+", "a b", "a/b", "a\"b", "abcdefghijklmnop", "e\u{fc}l0"] {
            assert!(InterfaceName::try_from(name.to_owned()).is_err(), "{name}");
        }
    }
}
