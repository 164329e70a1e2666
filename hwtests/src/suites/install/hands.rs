//! The two ways to operate an appliance over ssh: the menu by keystrokes, and the verbs.

use std::time::Duration;

use crate::lab::{Error, Result, Scene, Terminal};
use crate::suites::appliance::{Admin, INSTALL_TIMEOUT};

/// How long the menu may take for anything quick.
const MENU_TIMEOUT: Duration = Duration::from_secs(20);
/// What the page prompt says where more follows, and where not.
const MORE: &str = "Enter: more   R: back > ";
const LAST: &str = "Enter: back > ";

/// A way to operate the appliance.
pub(super) enum Hands {
    /// Keystrokes at the menu that is zone-admin's shell.
    Menu(Menu),
    /// `ssh host VERB`.
    Verbs,
}

/// A login at the menu.
pub(super) struct Menu {
    terminal: Terminal,
}

/// Where 17488 is to be served.
pub(super) struct Control {
    pub(super) listen: &'static str,
    pub(super) networks: &'static str,
}

impl Hands {
    /// Opens the menu again, after a reboot.
    pub(super) fn log_in_again(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<()> {
        if let Self::Menu(menu) = self {
            *menu = Menu::open(scene, admin)?;
        }
        Ok(())
    }

    /// Looks whether the host is ready, and returns the verdicts.
    pub(super) fn preflight(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
        match self {
            Self::Menu(menu) => menu.act(scene, "A-A-1", &[]),
            Self::Verbs => Ok(admin.verb(scene, "preflight", b"")?.stdout),
        }
    }

    /// Installs a version, and returns what is shown, the payload included.
    pub(super) fn install(
        &mut self,
        scene: &mut Scene<'_>,
        admin: &Admin,
        version: &str,
        control: &Control,
    ) -> Result<String> {
        match self {
            Self::Menu(menu) => menu.act(
                scene,
                "A-A-2",
                &[
                    ("Version [", version),
                    ("Listen on [", control.listen),
                    ("Allowed networks [", control.networks),
                    ("Type yes to go on", "yes"),
                ],
            ),
            Self::Verbs => {
                let list = |option: &str, values: &str| -> String {
                    values.split(", ").fold(String::new(), |words, value| words + " " + option + " " + value)
                };
                let words = format!(
                    "install {version}{}{}",
                    list("--listen", control.listen),
                    list("--allow", control.networks)
                );
                Ok(admin.must(scene, &words, b"")?.stdout)
            }
        }
    }

    /// The payload as JSON.
    pub(super) fn payload(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
        let shown = match self {
            Self::Menu(menu) => menu.act(scene, "A-A-3", &[])?,
            Self::Verbs => admin.must(scene, "show payload", b"")?.stdout,
        };
        json(&shown)
    }

    /// How the proxy is.
    pub(super) fn status(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
        match self {
            Self::Menu(menu) => menu.act(scene, "A-A-4", &[]),
            Self::Verbs => Ok(admin.verb(scene, "status", b"")?.text()),
        }
    }

    /// How the live firewall differs from what it should be.
    pub(super) fn firewall(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
        match self {
            Self::Menu(menu) => menu.act(scene, "A-A-5", &[("Port [", "")]),
            Self::Verbs => Ok(admin.verb(scene, "firewall verify", b"")?.text()),
        }
    }

    /// Goes to a newer version.
    pub(super) fn upgrade(&mut self, scene: &mut Scene<'_>, admin: &Admin, version: &str) -> Result<String> {
        match self {
            Self::Menu(menu) => {
                menu.act(scene, "A-A-8", &[("Version [", version), ("Type yes to go on", "yes")])
            }
            Self::Verbs => Ok(admin.must(scene, &format!("upgrade {version}"), b"")?.text()),
        }
    }

    /// Leaves the zone.
    pub(super) fn reset(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
        match self {
            Self::Menu(menu) => menu.act(scene, "A-A-9", &[("Type yes to go on", "yes")]),
            Self::Verbs => Ok(admin.must(scene, "reset", b"yes\n")?.text()),
        }
    }

    /// Removes the proxy.
    pub(super) fn remove(&mut self, scene: &mut Scene<'_>, admin: &Admin) -> Result<String> {
        match self {
            Self::Menu(menu) => menu.act(scene, "A-A-0", &[("Type yes to go on", "yes")]),
            Self::Verbs => Ok(admin.must(scene, "remove", b"yes\n")?.text()),
        }
    }

    /// Logs out.
    pub(super) fn leave(self) -> Result<()> {
        match self {
            Self::Menu(menu) => menu.leave(),
            Self::Verbs => Ok(()),
        }
    }
}

impl Menu {
    /// Logs in, and waits for the first menu.
    pub(super) fn open(scene: &mut Scene<'_>, admin: &Admin) -> Result<Self> {
        let mut terminal = admin.login(scene)?;
        terminal.expect("Z  log out", MENU_TIMEOUT)?;
        terminal.expect("> ", MENU_TIMEOUT)?;
        Ok(Self { terminal })
    }

    /// Types a path, answers its questions, and reads what is shown to its end. It ends at a menu again.
    pub(super) fn act(
        &mut self,
        scene: &mut Scene<'_>,
        path: &str,
        answers: &[(&str, &str)],
    ) -> Result<String> {
        self.terminal.send(&format!("{path}\r"))?;
        for (prompt, answer) in answers {
            self.terminal.expect(prompt, MENU_TIMEOUT)?;
            self.terminal.expect("> ", MENU_TIMEOUT)?;
            self.terminal.send(&format!("{answer}\r"))?;
        }
        let mut all = String::new();
        loop {
            let (which, text) = self.terminal.expect_any(&[MORE, LAST], INSTALL_TIMEOUT)?;
            let page = if which == 0 { text.trim_end_matches(MORE) } else { text.trim_end_matches(LAST) };
            all += body(page);
            self.terminal.send("\r")?;
            if which == 1 {
                break;
            }
        }
        self.terminal.expect("Z  log out", MENU_TIMEOUT)?;
        self.terminal.expect("> ", MENU_TIMEOUT)?;
        let keys: Vec<_> = answers.iter().map(|(_, answer)| *answer).collect();
        scene.note(format!("menu: {path} {}\n{all}", keys.join(" ")));
        Ok(all)
    }

    /// The terminal, for keys that are no choice.
    pub(super) fn terminal(&mut self) -> &mut Terminal {
        &mut self.terminal
    }

    /// Logs out, which ends the login.
    pub(super) fn leave(mut self) -> Result<()> {
        self.terminal.send("Z\r")?;
        self.terminal.expect("Logged out", MENU_TIMEOUT)?;
        self.terminal.wait(MENU_TIMEOUT).map(|_| ())
    }
}

/// What a page shows below its header of two lines and a blank one.
fn body(page: &str) -> &str {
    let below = page.rsplit_once("| installer ").map_or(page, |(_, rest)| rest);
    below.splitn(4, '\n').nth(3).unwrap_or(below)
}

/// The JSON among other lines.
pub(super) fn json(shown: &str) -> Result<String> {
    let found = shown.find('{').and_then(|start| {
        let mut values = serde_json::Deserializer::from_str(&shown[start..]).into_iter::<serde_json::Value>();
        values.next()?.ok()?;
        shown.get(start..start + values.byte_offset())
    });
    found.map(str::to_owned).ok_or_else(|| Error::other(format!("no payload in: {}", shown.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_found_below_the_header_and_among_words() {
        let page = "A-A-3\nWorking ...\n\nZone Server p | zone-proxy 0.1.0-1 | installer 0.1.0\nA-A Zone Proxy\n\n{\n  \"a\": 1\n}\nnext: (from { to })\n";
        assert_eq!(body(page), "{\n  \"a\": 1\n}\nnext: (from { to })\n");
        assert_eq!(json(body(page)).expect("JSON"), "{\n  \"a\": 1\n}");
        assert!(json("nothing").is_err());
    }
}
