//! A state as the files of one directory.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zone_channel::{Identity, KeyPair};
use zone_protocol::tls::config::Leaves;
use zone_protocol::tls::policy::Versions;

use super::error::StateError;
use super::{IssuedToken, Membership, State};

const VERSION: u32 = 1;
const STATE: &str = "state.json";
const TOKEN: &str = "token.json";
const RSA_KEY: &str = "rsa.key";
const RSA_CHAIN: &str = "rsa.crt";
const EC_KEY: &str = "ec.key";
const EC_CHAIN: &str = "ec.crt";

/// Writes a state into a new directory, every file and the directory itself down to the disk.
pub(super) fn write(state: &State, directory: &Path) -> Result<(), StateError> {
    DirBuilder::new().mode(0o700).create(directory).map_err(StateError::at("create", directory))?;
    let kind = if state.membership.is_some() { Kind::Provisioned } else { Kind::Unprovisioned };
    let document = StateDocument { version: VERSION, kind, provisioning: state.membership.clone() };
    write_file(directory, STATE, json(&document).as_bytes())?;
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
    let document: StateDocument = parse(&file, &read_file(&file)?)?;
    if document.version != VERSION {
        let why = format!("it is of version {}, and this program reads version {VERSION}", document.version);
        return Err(StateError::Broken { file, why });
    }
    if (document.kind == Kind::Provisioned) != document.provisioning.is_some() {
        return Err(StateError::Broken { file, why: "its kind and its content differ".into() });
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
