//! One run of an endpoint program: what tells a cloned image from a second park.

use std::fmt;
use std::str::FromStr;

/// Not the value of a `Zone-Instance` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} must be 32 hex digits, drawn when the program starts", crate::fields::INSTANCE)]
pub struct InstanceError;

/// The value of `Zone-Instance`, drawn at random at every start of an endpoint program.
///
/// It is written as 32 hex digits in lower case, and read as 32 hex digits of either case.
///
/// ```
/// use zone_protocol::instance::Instance;
///
/// let drawn = Instance(0x5b0c_8f0d_3a61_4c0a_9e5a_7c1f_2b3d_4e5f);
/// assert_eq!(drawn.to_string(), "5b0c8f0d3a614c0a9e5a7c1f2b3d4e5f");
/// assert_eq!("5B0C8F0D3A614C0A9E5A7C1F2B3D4E5F".parse(), Ok(drawn));
/// assert!("5b0c8f0d".parse::<Instance>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u128);

impl FromStr for Instance {
    type Err = InstanceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` takes a sign too.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InstanceError);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| InstanceError)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_reads_back_what_it_writes() {
        for number in [0, 1, u128::MAX, u128::MAX >> 4, 0x5b0c_8f0d_3a61_4c0a_9e5a_7c1f_2b3d_4e5f] {
            let text = Instance(number).to_string();
            assert_eq!((text.len(), text.parse()), (32, Ok(Instance(number))), "{text}");
        }
    }

    #[test]
    fn digits_of_either_case_are_taken() {
        assert_eq!("000000000000000000000000000000fF".parse(), Ok(Instance(255)));
    }

    #[test]
    fn anything_but_32_bytes_of_hex_is_refused_in_words() {
        let digits = "0".repeat(32);
        let wrong = [
            String::new(),
            digits[1..].to_owned(),
            format!("{digits}0"),
            format!("x{}", &digits[1..]),
            format!("-{}", &digits[1..]),
            format!("+{}", &digits[1..]),
            format!("0x{}", &digits[2..]),
            format!(" {}", &digits[1..]),
            format!("{}+", &digits[1..]),
            "ü".repeat(16),
        ];
        for text in wrong {
            assert_eq!(text.parse::<Instance>(), Err(InstanceError), "'{text}'");
        }
        let words = "Zone-Instance must be 32 hex digits, drawn when the program starts";
        assert_eq!(InstanceError.to_string(), words);
    }
}
