//! Programs of the machine that the commands need, and how they get there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::Uid;

use crate::report::{Context, Result, headline, say};

/// Where programs are looked for. A version manager's shims in somebody's home are of no use to another user.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program, the package that brings it, and what for. None of these packages starts a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

/// The ssh client: the demo logs in with it, tests drive it.
const SSH: Tool = Tool {
    program: "ssh",
    package: "openssh-client",
    why: "logs in to an endpoint through the proxy, as a real client",
};
/// rsync: its own service starts only where /etc/rsyncd.conf exists.
const RSYNC: Tool =
    Tool { program: "rsync", package: "rsync", why: "copies a large file through the proxy and back" };
const CURL: Tool =
    Tool { program: "curl", package: "curl", why: "uses the proxy without any program of ours on its side" };
const PYTHON: Tool = Tool {
    program: "python3",
    package: "python3",
    why: "is a web server, and the peers written in another language",
};
const OPENSSL: Tool =
    Tool { program: "openssl", package: "openssl", why: "is a second TLS implementation to test against" };
const STRACE: Tool = Tool {
    program: "strace",
    package: "strace",
    why: "ends a program at an exact system call, for crash tests",
};
const FAKETIME: Tool = Tool {
    program: "faketime",
    package: "faketime",
    why: "gives one program another wall clock, for tests of clocks that are wrong",
};
const IP: Tool = Tool { program: "ip", package: "iproute2", why: "makes networks of their own for tests" };
const CXX: Tool = Tool { program: "g++", package: "g++", why: "compiles libFuzzer" };
const MMDEBSTRAP: Tool =
    Tool { program: "mmdebstrap", package: "mmdebstrap", why: "makes the bare Debian that `fresh` runs in" };

const LAB_ROOTS: Tool =
    Tool { program: "mmdebstrap", package: "mmdebstrap", why: "makes the Debian roots that the lab boots" };
const NSPAWN: Tool = Tool {
    program: "systemd-nspawn",
    package: "systemd-container",
    why: "boots the lab's Debian roots, with a real systemd",
};
const NFT: Tool =
    Tool { program: "nft", package: "nftables", why: "reads and empties rules of the lab's own networks" };
const IPTABLES: Tool = Tool {
    program: "iptables-nft",
    package: "iptables",
    why: "saves and restores rules beside ours, in networks of the tests' own",
};
const TMUX: Tool = Tool { program: "tmux", package: "tmux", why: "takes the menu's picture" };
const PIP: Tool = Tool {
    program: "pip3",
    package: "python3-pip",
    why: "fetches the compiler for an older glibc, from PyPI",
};
const BINUTILS: Tool =
    Tool { program: "objdump", package: "binutils", why: "strips programs and shows what they ask of glibc" };
const PKG_CONFIG: Tool =
    Tool { program: "pkg-config", package: "pkg-config", why: "tells cargo where libsystemd is" };
/// Named by a file of its own, as it brings no program.
const LIBSYSTEMD: Tool = Tool {
    program: "/usr/lib/x86_64-linux-gnu/pkgconfig/libsystemd.pc",
    package: "libsystemd-dev",
    why: "writes to the journal, for zone-proxy",
};
const RPM: Tool = Tool { program: "rpmbuild", package: "rpm", why: "builds rpms" };
const RPMLINT: Tool = Tool { program: "rpmlint", package: "rpmlint", why: "finds what is wrong with rpms" };
const LINTIAN: Tool = Tool { program: "lintian", package: "lintian", why: "finds what is wrong with debs" };
const MINISIGN: Tool = Tool {
    program: "minisign",
    package: "minisign",
    why: "signs the packages' sums, as the installer wants",
};
const SYSTEMD: Tool =
    Tool { program: "systemd-analyze", package: "systemd", why: "checks units; nothing of it is started" };

/// What the demo needs.
pub(crate) const DEMO: &[Tool] = &[PKG_CONFIG, LIBSYSTEMD, SSH, RSYNC, CURL, PYTHON];
/// What the tests need.
pub(crate) const TEST: &[Tool] = &[
    PKG_CONFIG, LIBSYSTEMD, SSH, RSYNC, CURL, PYTHON, OPENSSL, STRACE, FAKETIME, IP, CXX, NFT, IPTABLES,
    TMUX, MINISIGN,
];
/// What building and checking packages needs.
pub(crate) const PACKAGE: &[Tool] =
    &[PIP, BINUTILS, PKG_CONFIG, LIBSYSTEMD, RPM, RPMLINT, LINTIAN, MINISIGN, SYSTEMD];
/// What fuzzing needs.
pub(crate) const FUZZ: &[Tool] = &[CXX];
/// What the lab needs. systemd-container starts nothing by itself; nftables has a unit, which Debian leaves disabled.
pub(crate) const LAB: &[Tool] = &[IP, LAB_ROOTS, NSPAWN, NFT, TMUX, SSH, CURL, PYTHON, RPM, MINISIGN];
/// What the oracle needs.
pub(crate) const ORACLE: &[Tool] = &[IP, NFT];
/// What the bare machine needs to be made.
pub(crate) const FRESH: &[Tool] = &[MMDEBSTRAP];

/// Installs what is missing, after saying what and why.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|tool| find(tool.program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    headline("Programs that are missing here");
    for tool in &missing {
        say(&format!("   {:16} {}", tool.package, tool.why));
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    if !Uid::effective().is_root() {
        let packages = packages.join(" ");
        return Err(format!(
            "not root, so nothing was installed; run: sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}"
        )
        .into());
    }
    update_lists()?;
    run_apt(&[&["install", "-y", "-q", "--no-install-recommends"], packages.as_slice()].concat())?;
    match missing.iter().find(|tool| find(tool.program).is_none()) {
        Some(tool) => {
            Err(format!("package {} is installed but brings no {} on {PATH}", tool.package, tool.program)
                .into())
        }
        None => Ok(()),
    }
}

/// Brings apt's lists up to date, once; a fresh machine has none.
pub(crate) fn update_lists() -> Result<()> {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) { Ok(()) } else { run_apt(&["update", "-qq"]) }
}

fn run_apt(args: &[&str]) -> Result<()> {
    let status = Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .or_fail(|| "can't start apt-get; this needs Debian 12".to_owned())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("apt-get {} failed; it says why above", args.join(" ")).into())
    }
}

/// A program's place on [`PATH`]; a full path is its own.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}
