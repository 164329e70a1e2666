//! The menu's picture for the README, of a real login.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::install::{deb_needs, topology};
use crate::lab::picture::svg;
use crate::lab::{Case, Cmd, Context, Error, Need, Result, Scene, Suite};
use crate::suites::appliance::{Admin, Format, prepare};

const COLUMNS: usize = 80;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Takes the picture and writes it to a file.
pub fn suite(file: PathBuf) -> Suite {
    let case = Case::new("the menu's picture is taken", topology(), move |scene| take(scene, &file))
        .needs(&deb_needs())
        .needs(&[Need::Tool("tmux")]);
    Suite { name: "picture", about: "the menu's picture for the README", cases: vec![case] }
}

fn take(scene: &mut Scene<'_>, file: &Path) -> Result<()> {
    let admin = prepare(scene, Format::Deb, "admin")?;
    admin.must(scene, "install 0.1.0-1 --listen 10.20.0.10 --allow 10.20.0.0/24", b"")?;
    let screen = screen(scene, &admin)?;
    let page = below_last_header(&screen);
    let picture = svg(&page, COLUMNS, page.lines().count());
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).during(|| format!("can't make {}", dir.display()))?;
    }
    std::fs::write(file, picture).during(|| format!("can't write {}", file.display()))?;
    scene.check("the picture shows the menu", page.contains("Preflight"), page);
    Ok(())
}

/// The page that was shown last.
fn below_last_header(screen: &str) -> String {
    let lines: Vec<_> = screen.trim_end().lines().collect();
    let header = lines.iter().rposition(|line| line.contains("| installer ")).unwrap_or(0);
    lines[header..].join("\n")
}

/// What the menu for the proxy looks like, by tmux(1), which is a terminal.
fn screen(scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
    let socket = scene.host("admin")?.dir().join("tmux").display().to_string();
    let tmux = |words: &[&str]| {
        Cmd::new("tmux").args(["-S", &socket, "-f", "/dev/null"]).args(words.iter().copied())
    };
    let ssh = admin.ssh(&["-tt"]).to_string();
    scene.must("admin", &tmux(&["new-session", "-d", "-x", "80", "-y", "24", &ssh]))?;
    let host = scene.host("admin")?;
    let shown = || host.run(&tmux(&["capture-pane", "-p"])).map(|output| output.stdout).unwrap_or_default();
    let there = |text: &str| shown().contains(text) && shown().trim_end().ends_with('>');
    let first = scene.until(ANSWER_TIMEOUT, || there("Z  log out"));
    scene.must("admin", &tmux(&["send-keys", "A-A", "Enter"]))?;
    let seen = first && scene.until(ANSWER_TIMEOUT, || there("Remove"));
    let screen = shown();
    scene.run("admin", &tmux(&["kill-server"]))?;
    if seen { Ok(screen) } else { Err(Error::other(format!("the menu did not come: {screen}"))) }
}
