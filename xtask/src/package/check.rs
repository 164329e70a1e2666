//! `cargo xtask package --check`: what is true of the packages that were built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::build::PROGRAMS;
use super::contents::Package;
use super::files::{empty, name_of, work_dir};
use super::{build, elf, sign};
use crate::report::{Context, Result, say};
use crate::{children, workspace};

/// The most exposure that `systemd-analyze security` may find in a unit, in tenths.
const EXPOSURE: [(&str, u32); 6] = [
    ("zone-proxy.service", 15),
    ("zone-relay@.service", 6),
    ("zone-relay-end@.service", 15),
    ("zone-firewall.service", 15),
    ("zone-firewall-restore.service", 20),
    ("zone-firewall-reapply.service", 20),
];

/// What only programs with debug assertions look at.
const PANIC_VARIABLE: &[u8] = b"ZONE_PANIC";

/// How many checks passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Checks {
    /// Those without a finding.
    pub(crate) passed: usize,
    /// Those with one.
    pub(crate) failed: usize,
}

/// Runs every check on the packages of a revision that lie in `out`.
pub(crate) fn run(out: &Path, revision: u32) -> Result<Checks> {
    let found = Found::new(out, revision)?;
    let mut checks = Checks::default();
    let mut check = |name: &str, findings: Result<Vec<String>>| {
        let findings = findings.unwrap_or_else(|failure| vec![failure.to_string()]);
        say(&format!("   {:4} {name}", if findings.is_empty() { "ok" } else { "FAIL" }));
        for line in &findings {
            say(&format!("        {line}"));
        }
        if findings.is_empty() { checks.passed += 1 } else { checks.failed += 1 }
    };
    check(&format!("no program asks for more than glibc {}", build::GLIBC), found.glibc());
    check("debs and rpms hold the same programs", found.same_programs());
    check("the relay is not linked with libsystemd", found.relay_libraries());
    check("no program panics on demand", found.faults());
    check("the sums are right and signed", found.signature());
    check("the packaged configuration is valid", found.configuration());
    check("systemd accepts the units", found.units());
    check("the units are as confined as is promised", found.exposure());
    check("lintian finds nothing that is not explained", found.lintian());
    check("rpmlint finds nothing that is not explained", found.rpmlint());
    Ok(checks)
}

struct Found {
    out: PathBuf,
    debs: Vec<PathBuf>,
    rpms: Vec<PathBuf>,
    /// Both debs, unpacked over each other as on a host.
    root: PathBuf,
}

impl Found {
    fn new(out: &Path, revision: u32) -> Result<Self> {
        let release = format!("{}-{revision}", env!("CARGO_PKG_VERSION"));
        let files = |name: fn(&str, &str) -> String| -> Vec<_> {
            Package::ALL.map(|package| out.join(name(package.name(), &release))).to_vec()
        };
        let debs = files(|name, release| format!("{name}_{release}_amd64.deb"));
        let rpms = files(|name, release| format!("{name}-{release}.x86_64.rpm"));
        if let Some(missing) = debs.iter().chain(&rpms).find(|path| !path.is_file()) {
            return Err(format!("{} is missing: run cargo xtask package", missing.display()).into());
        }
        let root = work_dir().join("check");
        empty(&root)?;
        for deb in &debs {
            children::output(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root))?;
        }
        Ok(Self { out: out.to_owned(), debs, rpms, root })
    }

    fn program(&self, name: &str) -> PathBuf {
        let dir = if name == "zone-installer-helper" { "usr/libexec/zone-installer" } else { "usr/bin" };
        self.root.join(dir).join(name)
    }

    fn glibc(&self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        for name in PROGRAMS {
            let newest = elf::newest_glibc(&self.program(name))?;
            if elf::is_newer(&newest, build::GLIBC) {
                findings.push(format!("{name} asks for GLIBC_{newest}"));
            }
        }
        Ok(findings)
    }

    fn same_programs(&self) -> Result<Vec<String>> {
        let mut query = Command::new("rpm");
        query.args(["-q", "--qf", "[%{FILEDIGESTS}  %{FILENAMES}\\n]", "-p"]).args(&self.rpms);
        let digests = children::output(&mut query)?;
        let mut findings = Vec::new();
        for name in PROGRAMS {
            let sum = children::output(Command::new("sha256sum").arg(self.program(name)))?;
            let sum = sum.split(' ').next().unwrap_or("-");
            let ending = format!("/{name}");
            if !digests.lines().any(|line| line.starts_with(sum) && line.ends_with(&ending)) {
                findings.push(format!("{name} is another one in the rpm"));
            }
        }
        Ok(findings)
    }

    /// libsystemd brings liblzma and libgcrypt, which have no place in the process that faces the internet.
    fn relay_libraries(&self) -> Result<Vec<String>> {
        let headers = children::output(Command::new("objdump").arg("-p").arg(self.program("zone-relay")))?;
        let needed = headers.lines().filter(|line| line.contains("NEEDED") && line.contains("libsystemd"));
        Ok(needed.map(|line| line.trim().to_owned()).collect())
    }

    /// Programs that are built with debug assertions do, for tests.
    fn faults(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in PROGRAMS {
            let program = self.program(name);
            let bytes = fs::read(&program).or_fail(|| format!("can't read {}", program.display()))?;
            if bytes.windows(PANIC_VARIABLE.len()).any(|window| window == PANIC_VARIABLE) {
                found.push(format!("{name} knows ZONE_PANIC"));
            }
        }
        Ok(found)
    }

    fn signature(&self) -> Result<Vec<String>> {
        let mut sums = Command::new("sha256sum");
        children::output(sums.args(["--check", "--quiet", "--strict", "SHA256SUMS"]).current_dir(&self.out))?;
        let mut minisign = Command::new("minisign");
        minisign.args(["-V", "-q", "-m", "SHA256SUMS", "-p", sign::PUBLIC_KEY]).current_dir(&self.out);
        children::output(&mut minisign)?;
        let listed =
            fs::read_to_string(self.out.join("SHA256SUMS")).or_fail(|| "no SHA256SUMS".to_owned())?;
        let missing = self
            .debs
            .iter()
            .chain(&self.rpms)
            .map(|path| name_of(path))
            .filter(|name| !listed.contains(name));
        Ok(missing.map(|name| format!("{name} is not in SHA256SUMS")).collect())
    }

    fn configuration(&self) -> Result<Vec<String>> {
        let mut command = Command::new(self.program("zone-proxy"));
        command.args(["check-config", "--config"]).arg(self.root.join("etc/zone-proxy/zone-proxy.toml"));
        said(&mut command, |line| line == "ok")
    }

    fn units(&self) -> Result<Vec<String>> {
        let units = self.unit_files()?;
        self.bring_targets()?;
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(format!("--root={}", self.root.display()));
        said(command.args(units), |_| false)
    }

    /// What units refer to and systemd itself brings.
    fn bring_targets(&self) -> Result<()> {
        let (from, to) = (Path::new("/lib/systemd/system"), self.root.join("usr/lib/systemd/system"));
        let entries = fs::read_dir(from).or_fail(|| format!("can't list {}", from.display()))?;
        let targets = entries.flatten().map(|entry| entry.path());
        let targets = targets.filter(|path| path.extension().is_some_and(|end| end == "target"));
        let systemctl = (PathBuf::from("/usr/bin/systemctl"), self.root.join("usr/bin/systemctl"));
        for (from, to) in targets.map(|path| (path.clone(), to.join(name_of(&path)))).chain([systemctl]) {
            fs::copy(&from, &to).or_fail(|| format!("can't copy {}", from.display()))?;
        }
        Ok(())
    }

    /// The names of the packaged units; a template gets an instance.
    fn unit_files(&self) -> Result<Vec<String>> {
        let dir = self.root.join("usr/lib/systemd/system");
        let entries = fs::read_dir(&dir).or_fail(|| format!("can't list {}", dir.display()))?;
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().replace("@.", "@1.")).collect();
        names.sort();
        Ok(names)
    }

    fn exposure(&self) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        for (unit, most) in EXPOSURE {
            let mut command = Command::new("systemd-analyze");
            command.args(["security", "--offline=true", "--no-pager"]);
            let text = children::output(command.arg(self.root.join("usr/lib/systemd/system").join(unit)))?;
            let tenths =
                overall(&text).ok_or_else(|| format!("systemd-analyze says no figure for {unit}"))?;
            let figure = |tenths: u32| format!("{}.{}", tenths / 10, tenths % 10);
            let line = format!("{unit}: exposure {}, promised {}", figure(tenths), figure(most));
            if tenths > most {
                findings.push(line);
            } else {
                say(&format!("        {line}"));
            }
        }
        Ok(findings)
    }

    fn lintian(&self) -> Result<Vec<String>> {
        let mut command = Command::new("lintian");
        command.args(["--fail-on", "none", "--tag-display-limit", "0", "--allow-root"]);
        said(command.args(&self.debs), |line| line.starts_with("N:"))
    }

    fn rpmlint(&self) -> Result<Vec<String>> {
        let mut command = Command::new("rpmlint");
        command.arg("--config").arg(workspace::root().join("packaging/rpm/rpmlint.toml"));
        let marks = [": E: ", ": W: "];
        said(command.args(&self.rpms), |line| !marks.iter().any(|mark| line.contains(mark)))
    }
}

/// The lines that a command printed, without those that are none of a finding.
fn said(command: &mut Command, harmless: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.env("LC_ALL", "C.UTF-8").output().or_fail(|| format!("can't start {name}"))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<_> =
        text.lines().filter(|line| !line.trim().is_empty() && !harmless(line)).map(str::to_owned).collect();
    if !output.status.success() && lines.is_empty() {
        lines.push(format!("{name} failed ({}) without a word", output.status));
    }
    Ok(lines)
}

/// `Overall exposure level for NAME: 1.4 OK`, in tenths.
fn overall(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.contains("Overall exposure level for"))?;
    let (whole, tenths) = line.rsplit_once(": ")?.1.split(' ').next()?.split_once('.')?;
    Some(whole.parse::<u32>().ok()? * 10 + tenths.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_read_from_the_last_line() {
        let text = "... 0.5\n\n\u{2192} Overall exposure level for zone-relay@i.service: 1.4 OK :-)\n";
        assert_eq!(overall(text), Some(14));
        assert_eq!(overall("nothing"), None);
    }
}
