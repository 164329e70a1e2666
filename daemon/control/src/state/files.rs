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
const RSA_KEY: &str = "rsa.key";
const RSA_CHAIN: &str = "rsa.crt";
const EC_KEY: &str = "ec.key";
const EC_CHAIN: &str = "ec.crt";

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
    let Identity { rsa, ec } = &state.identity;
    write_file(directory, RSA_KEY, rsa.key.as_bytes())?;
    write_file(directory, RSA_CHAIN, rsa.chain.as_bytes())?;
    write_file(directory, EC_KEY, ec.key.as_bytes())?;
    write_file(directory, EC_CHAIN, ec.chain.as_bytes())?;
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
    let text = |name| read_file(&directory.join(name));
    let identity = Identity {
        rsa: KeyPair { chain: text(RSA_CHAIN)?, key: text(RSA_KEY)? },
        ec: KeyPair { chain: text(EC_CHAIN)?, key: text(EC_KEY)? },
    };
    for (chain, pair) in [(RSA_CHAIN, &identity.rsa), (EC_CHAIN, &identity.ec)] {
        let pair = (pair.chain.as_str(), pair.key.as_str());
        Leaves::from_pem(pair, pair, &Versions::Tls12.provider()).map_err(|error| StateError::Broken {
            file: directory.join(chain),
            why: format!("it and its key are of no use: {error}"),
        })?;
    }
    let file = directory.join(TOKEN);
    let token: Option<IssuedToken> = match read_file(&file) {
        Ok(text) => Some(parse(&file, &text)?),
        Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(State { identity, membership: document.provisioning, token })
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
        State { identity, membership: Some(Membership { id: "1".into(), document }), token: None }
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
