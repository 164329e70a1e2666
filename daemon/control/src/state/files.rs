//! A state as the files of one directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zone_channel::{Identity, KeyPair};
use zone_protocol::tls::config::Leaves;
use zone_protocol::tls::policy::Versions;
use zone_protocol::trust::{Trust, fingerprint};

use super::error::StateError;
use super::{IssuedToken, Membership, State};

const VERSION: u32 = 1;
const STATE: &str = "state.json";
/// What the first version of the trust document can't say. Programs of that version don't look at this file, and don't
/// carry it into the next state: so it names the `state.json` that it belongs to, and counts beside no other.
const TRUST: &str = "trust.json";
const TOKEN: &str = "token.json";
const RELAY_PAIRS: PairNames =
    PairNames { rsa_chain: "rsa.crt", rsa_key: "rsa.key", ec_chain: "ec.crt", ec_key: "ec.key" };
/// What 17488 shows and no relay is given. Programs of the first version don't look at these files, and don't carry them
/// into the next state: 17488 shows the relays' pairs then.
const CONTROL_PAIRS: PairNames = PairNames {
    rsa_chain: "control-rsa.crt",
    rsa_key: "control-rsa.key",
    ec_chain: "control-ec.crt",
    ec_key: "control-ec.key",
};

/// Writes a state into a new directory, every file and the directory itself down to the disk.
pub(super) fn write(state: &State, directory: &Path) -> Result<(), StateError> {
    DirBuilder::new().mode(0o700).create(directory).map_err(StateError::at("create", directory))?;
    let kind = if state.membership.is_some() { Kind::Provisioned } else { Kind::Unprovisioned };
    let mut document = StateDocument { version: VERSION, kind, provisioning: state.membership.clone() };
    let trust = document.provisioning.as_mut().map(|membership| {
        let plain = membership.document.trust.in_first_version();
        std::mem::replace(&mut membership.document.trust, plain)
    });
    let text = json(&document);
    write_file(directory, STATE, text.as_bytes())?;
    if let Some(trust) = trust {
        let whole = WholeTrust { state: fingerprint(text.as_bytes()), trust };
        write_file(directory, TRUST, json(&whole).as_bytes())?;
    }
    RELAY_PAIRS.write(directory, &state.identity)?;
    if let Some(identity) = &state.control_identity {
        CONTROL_PAIRS.write(directory, identity)?;
    }
    if let Some(token) = &state.token {
        write_file(directory, TOKEN, json(token).as_bytes())?;
    }
    sync(directory)
}

/// Reads a state back. What is missing, cut or inconsistent is named with its file.
pub(super) fn read(directory: &Path) -> Result<State, StateError> {
    let file = directory.join(STATE);
    let state = read_file(&file)?;
    let mut document: StateDocument = parse(&file, &state)?;
    if document.version != VERSION {
        let why = format!("it is of version {}, and this program reads version {VERSION}", document.version);
        return Err(StateError::Broken { file, why });
    }
    if (document.kind == Kind::Provisioned) != document.provisioning.is_some() {
        return Err(StateError::Broken { file, why: "its kind and its content differ".into() });
    }
    if let Some(membership) = &mut document.provisioning
        && let Some(trust) =
            whole_trust(directory, &fingerprint(state.as_bytes()), &membership.document.trust)
    {
        membership.document.trust = trust;
    }
    let identity = RELAY_PAIRS.read(directory)?;
    // One that is not whole is not passed over: whoever has seen it takes nothing less.
    let control_identity = (document.kind == Kind::Provisioned && CONTROL_PAIRS.any_in(directory))
        .then(|| CONTROL_PAIRS.read(directory))
        .transpose()?;
    let file = directory.join(TOKEN);
    let token: Option<IssuedToken> = match read_file(&file) {
        Ok(text) => Some(parse(&file, &text)?),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(State { identity, control_identity, membership: document.provisioning, token })
}

/// The files of two certificates and their keys.
struct PairNames {
    rsa_chain: &'static str,
    rsa_key: &'static str,
    ec_chain: &'static str,
    ec_key: &'static str,
}

impl PairNames {
    fn any_in(&self, directory: &Path) -> bool {
        [self.rsa_chain, self.rsa_key, self.ec_chain, self.ec_key]
            .into_iter()
            .any(|name| directory.join(name).symlink_metadata().is_ok())
    }

    fn write(&self, directory: &Path, Identity { rsa, ec }: &Identity) -> Result<(), StateError> {
        write_file(directory, self.rsa_key, rsa.key.as_bytes())?;
        write_file(directory, self.rsa_chain, rsa.chain.as_bytes())?;
        write_file(directory, self.ec_key, ec.key.as_bytes())?;
        write_file(directory, self.ec_chain, ec.chain.as_bytes())
    }

    fn read(&self, directory: &Path) -> Result<Identity, StateError> {
        let text = |name| read_file(&directory.join(name));
        let identity = Identity {
            rsa: KeyPair { chain: text(self.rsa_chain)?, key: text(self.rsa_key)? },
            ec: KeyPair { chain: text(self.ec_chain)?, key: text(self.ec_key)? },
        };
        for (chain, pair) in [(self.rsa_chain, &identity.rsa), (self.ec_chain, &identity.ec)] {
            let pair = (pair.chain.as_str(), pair.key.as_str());
            Leaves::from_pem(pair, pair, &Versions::Tls12.provider()).map_err(|error| {
                StateError::Broken {
                    file: directory.join(chain),
                    why: format!("it and its key are of no use: {error}"),
                }
            })?;
        }
        Ok(identity)
    }
}

/// The trust document in all its words, where the file is there and belongs to this state.
fn whole_trust(directory: &Path, state: &str, plain: &Trust) -> Option<Trust> {
    let file = directory.join(TRUST);
    let found = read_file(&file).and_then(|text| parse::<WholeTrust>(&file, &text));
    match found {
        Ok(whole) if whole.state == state && whole.trust.in_first_version() == *plain => Some(whole.trust),
        Ok(_) => {
            tracing::warn!(path = %file.display(), "it belongs to another state: retired anchors are not known any more");
            None
        }
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, "retired anchors are not known any more");
            None
        }
    }
}

/// Brings a directory's entries down to the disk.
pub(super) fn sync(directory: &Path) -> Result<(), StateError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(StateError::at("sync", directory))
}

/// Writes a new file, readable to nobody else, down to the disk.
pub(super) fn write_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), StateError> {
    let path = directory.join(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(StateError::at("write", &path))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateDocument {
    version: u32,
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provisioning: Option<Membership>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Unprovisioned,
    Provisioned,
}

#[derive(Serialize, Deserialize)]
struct WholeTrust {
    /// SHA-256 over the `state.json` that it belongs to, hex.
    state: String,
    trust: Trust,
}

fn json(value: &impl Serialize) -> String {
    // The documents hold no map with keys that JSON can't hold.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn parse<T: serde::de::DeserializeOwned>(file: &Path, text: &str) -> Result<T, StateError> {
    serde_json::from_str(text)
        .map_err(|error| StateError::Broken { file: file.to_owned(), why: error.to_string() })
}

fn read_file(path: &Path) -> Result<String, StateError> {
    fs::read_to_string(path).map_err(StateError::at("read", path))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use time::OffsetDateTime;
    use zone_protocol::trust::{Anchors, Retired};

    use super::*;
    use crate::keys;

    fn member() -> State {
        let trust = Trust::of(1, Anchors { endpoint: Vec::new(), module_server: Vec::new() }, Vec::new());
        let document = serde_json::json!({"zone": "z", "name": "p", "trust": trust});
        let mut document: zone_protocol::provisioning::Provisioning =
            serde_json::from_value(document).unwrap();
        let until = OffsetDateTime::UNIX_EPOCH;
        document.trust.retired = vec![Retired { fingerprint: "ab".repeat(32), until }];
        let identity = keys::bootstrap(OffsetDateTime::now_utc()).unwrap();
        let membership = Some(Membership { id: "1".into(), document });
        State { identity, control_identity: None, membership, token: None }
    }

    #[test]
    fn the_identity_of_17488_lies_beside_the_relays_and_is_never_taken_in_part() {
        let scratch = TempDir::new().unwrap();
        let (directory, plain) = (scratch.path().join("1"), member());
        let own = keys::bootstrap(OffsetDateTime::now_utc()).unwrap();
        let state = State { control_identity: Some(own), ..plain.clone() };
        write(&state, &directory).unwrap();
        assert_eq!(read(&directory).unwrap(), state);

        let names = ["control-rsa.crt", "control-rsa.key", "control-ec.crt", "control-ec.key"];
        for name in names {
            let file = directory.join(name);
            let whole = fs::read(&file).unwrap();
            fs::remove_file(&file).unwrap();
            let error = read(&directory).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("zone-proxy reset"), "{error}");
            for forged in [&whole[..20], &fs::read(directory.join("rsa.key")).unwrap(), b""] {
                fs::write(&file, forged).unwrap();
                let error = read(&directory).unwrap_err().to_string();
                assert!(error.contains("control-") && error.contains("zone-proxy reset"), "{error}");
            }
            fs::write(&file, whole).unwrap();
        }
        assert_eq!(read(&directory).unwrap(), state);

        // As a program of the first version leaves it.
        for name in names {
            fs::remove_file(directory.join(name)).unwrap();
        }
        assert_eq!(read(&directory).unwrap(), plain);
    }

    #[test]
    fn what_the_first_version_can_not_say_lies_beside_the_state_and_counts_beside_no_other() {
        let scratch = TempDir::new().unwrap();
        let (directory, state) = (scratch.path().join("1"), member());
        write(&state, &directory).unwrap();
        assert_eq!(read(&directory).unwrap(), state);
        let plain = fs::read_to_string(directory.join(STATE)).unwrap();
        assert!(!plain.contains("retired"), "{plain}");

        let retired = |state: &State| state.membership.as_ref().unwrap().document.trust.retired.len();
        // A program of the first version has written another state into the same place.
        fs::write(directory.join(STATE), plain.replace("\"id\": \"1\"", "\"id\": \"2\"")).unwrap();
        assert_eq!(retired(&read(&directory).unwrap()), 0);
        fs::write(directory.join(STATE), &plain).unwrap();
        assert_eq!(retired(&read(&directory).unwrap()), 1);
        for garbage in ["", "{", "[]", "{\"state\": 1}"] {
            fs::write(directory.join(TRUST), garbage).unwrap();
            assert_eq!(retired(&read(&directory).unwrap()), 0);
        }
        fs::remove_file(directory.join(TRUST)).unwrap();
        assert_eq!(retired(&read(&directory).unwrap()), 0);
    }
}
