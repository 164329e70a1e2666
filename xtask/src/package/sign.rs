//! `SHA256SUMS` over every package in the folder, and its signature.
//!
//! The key is made here, once, for development. Its secret half never leaves `target/`; whoever releases signs with a key
//! of their own.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::files::{name_of, packages_in, write};
use crate::report::{Context, Result, say};
use crate::{children, workspace};

/// What the key says of itself wherever it is shown.
const WARNING: &str = "DEVELOPMENT KEY, NOT FOR PRODUCTION";
/// The public half, beside the packages.
pub(crate) const PUBLIC_KEY: &str = "development-key.pub";

/// Sums up and signs what is in the folder.
pub(crate) fn all(out: &Path, version: &str, epoch: u64) -> Result<()> {
    let files: Vec<_> = packages_in(out)?.iter().map(|path| name_of(path)).collect();
    let sums = children::output(Command::new("sha256sum").args(&files).current_dir(out))?;
    write(&out.join("SHA256SUMS"), &sums, 0o644)?;
    let key = key()?;
    fs::copy(key.join("public"), out.join(PUBLIC_KEY)).or_fail(|| format!("can't write {PUBLIC_KEY}"))?;
    let mut minisign = Command::new("minisign");
    minisign.current_dir(out).args(["-S", "-m", "SHA256SUMS", "-x", "SHA256SUMS.minisig", "-s"]);
    minisign.arg(key.join("secret")).args(["-c", WARNING]);
    minisign.arg("-t").arg(format!("zone-proxy {version}, packages of {epoch}, signed with a {WARNING}"));
    children::output(&mut minisign)?;
    say(&format!("   SHA256SUMS, signed with the {WARNING} ({PUBLIC_KEY})"));
    Ok(())
}

/// The folder with the key, made when it is first asked for.
fn key() -> Result<PathBuf> {
    let dir = workspace::target().join("development-key");
    if dir.join("public").is_file() {
        return Ok(dir);
    }
    let wrong = || format!("can't make a key in {}", dir.display());
    if dir.exists() {
        fs::remove_dir_all(&dir).or_fail(wrong)?;
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).or_fail(wrong)?;
    let draft = dir.join("draft");
    let mut minisign = Command::new("minisign");
    minisign.args(["-G", "-W", "-f", "-p"]).arg(&draft).arg("-s").arg(dir.join("secret"));
    children::output(&mut minisign)?;
    fs::set_permissions(dir.join("secret"), fs::Permissions::from_mode(0o600)).or_fail(wrong)?;
    let text = fs::read_to_string(&draft).or_fail(wrong)?;
    write(
        &draft,
        &text.replacen("untrusted comment: ", &format!("untrusted comment: {WARNING}: "), 1),
        0o644,
    )?;
    fs::rename(&draft, dir.join("public")).or_fail(wrong)?;
    Ok(dir)
}
