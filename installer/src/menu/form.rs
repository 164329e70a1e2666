//! The questions before something is done: each shows its range, and keeps the current value on Enter.

use std::net::IpAddr;

use zone_firewall_protocol::DestinationError;

use crate::protocol::{ControlPort, LogChange, MAX_LOG_LINES, Request};
use crate::text;
use crate::version::Version;

/// Room for versions in a prompt, columns.
const VERSIONS_COLUMNS: usize = 48;

/// Questions that end in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Form {
    kind: Kind,
    step: Step,
    versions: Vec<Version>,
    version: Option<Version>,
    control: ControlPort,
    /// The syslog server as it is; empty if there is none.
    syslog: String,
    log: LogChange,
    lines: u32,
    port: u16,
}

/// What the questions are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Install,
    Upgrade,
    Configure,
    Remove,
    Reset,
    Logs,
    Firewall,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Version,
    Listen,
    Networks,
    Syslog,
    Lines,
    Port,
    From,
    Confirm,
}

/// What an answer leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next question.
    Ask(Form),
    /// The same question again, and why.
    Again(Form, String),
    /// All was answered.
    Run(Request),
    /// It was not confirmed.
    Leave,
}

impl Form {
    /// Before an installation; `None` where there is nothing to install.
    pub(crate) fn install(versions: Vec<Version>) -> Option<Self> {
        let control = ControlPort { listen: vec![IpAddr::from([0, 0, 0, 0])], networks: Vec::new() };
        let version = versions.first().cloned();
        version.is_some().then(|| Self {
            versions,
            version,
            control,
            ..Self::of(Kind::Install, Step::Version)
        })
    }

    /// Before an upgrade; `None` where there is nothing newer.
    pub(crate) fn upgrade(versions: Vec<Version>, installed: &Version) -> Option<Self> {
        let versions: Vec<_> = versions.into_iter().filter(|version| version > installed).collect();
        let version = versions.first().cloned();
        version.is_some().then(|| Self { versions, version, ..Self::of(Kind::Upgrade, Step::Version) })
    }

    /// Before a change of where 17488 is served, and of the syslog server, which is empty if there is none.
    pub(crate) fn configure(control: ControlPort, syslog: String) -> Self {
        Self { control, syslog, ..Self::of(Kind::Configure, Step::Listen) }
    }

    /// Before a removal.
    pub(crate) fn remove() -> Self {
        Self::of(Kind::Remove, Step::Confirm)
    }

    /// Before leaving the zone.
    pub(crate) fn reset() -> Self {
        Self::of(Kind::Reset, Step::Confirm)
    }

    /// Before the log is shown.
    pub(crate) fn logs() -> Self {
        Self::of(Kind::Logs, Step::Lines)
    }

    /// Before the firewall is looked at: a port is explained, or without one all rules are compared.
    pub(crate) fn firewall() -> Self {
        Self::of(Kind::Firewall, Step::Port)
    }

    fn of(kind: Kind, step: Step) -> Self {
        Self {
            kind,
            step,
            versions: Vec::new(),
            version: None,
            control: ControlPort::default(),
            syslog: String::new(),
            log: LogChange::Keep,
            lines: 50,
            port: 0,
        }
    }

    /// What stands above the prompt.
    pub(crate) fn lines(&self) -> Vec<String> {
        let now = |value: String| vec![format!("Now: {value} (Enter keeps it)")];
        match self.step {
            Step::Version => now(self.version.as_ref().map(ToString::to_string).unwrap_or_default()),
            Step::Listen => now(text::list(&self.control.listen, "nowhere")),
            Step::Networks => now(text::list(&self.control.networks, "any")),
            Step::Syslog => now(self.server()),
            Step::Lines => now(self.lines.to_string()),
            Step::Port => vec![
                "Enter alone compares all rules with what they should be.".to_owned(),
                "A port shows to whom it is open, and which rules decide it.".to_owned(),
            ],
            Step::From => vec!["Enter alone asks for all addresses.".to_owned()],
            Step::Confirm => self.summary(),
        }
    }

    /// The syslog server as it will be.
    fn server(&self) -> String {
        match self.log {
            LogChange::Server(server) => server.to_string(),
            LogChange::Keep if !self.syslog.is_empty() => text::plain(&self.syslog),
            LogChange::Keep | LogChange::Off => "off".to_owned(),
        }
    }

    fn summary(&self) -> Vec<String> {
        let version = self.version.as_ref().map(ToString::to_string).unwrap_or_default();
        let mut lines = match self.kind {
            Kind::Install => vec![format!("Install zone-proxy {version}")],
            Kind::Upgrade => {
                vec![format!("Upgrade zone-proxy to {version}. Provisioning and sessions stay.")]
            }
            Kind::Configure => vec!["Change port 17488 and the log. Sessions stay.".to_owned()],
            Kind::Remove => {
                vec!["REMOVE the proxy: every session ends, its keys and configuration go.".to_owned()]
            }
            Kind::Reset => vec!["RESET the proxy: every session ends, it leaves its zone.".to_owned()],
            Kind::Logs | Kind::Firewall => Vec::new(),
        };
        if matches!(self.kind, Kind::Install | Kind::Configure) {
            lines.push(format!("  17488 listens on  {}", text::list(&self.control.listen, "nowhere")));
            lines.push(format!("  open to networks  {}", text::list(&self.control.networks, "any")));
            lines.extend(self.control.warnings().into_iter().map(|warning| format!("WARNING: {warning}")));
        }
        if self.kind == Kind::Configure {
            lines.push(format!("  syslog server     {}", self.server()));
        }
        lines
    }

    /// The prompt, with its range.
    pub(crate) fn prompt(&self) -> String {
        match self.step {
            Step::Version => {
                let mut columns = 0;
                let named = self.versions.iter().take_while(|version| {
                    columns += version.to_string().len() + 2;
                    columns <= VERSIONS_COLUMNS
                });
                let named: Vec<_> = named.collect();
                let more = if named.len() < self.versions.len() { ", ..." } else { "" };
                format!("Version [{}{more}] > ", text::list(&named, "see B-3"))
            }
            Step::Listen => "Listen on [addresses of this host, with commas] > ".to_owned(),
            Step::Networks => "Allowed networks [any, or such as 10.0.0.0/8, with commas] > ".to_owned(),
            Step::Syslog => "Syslog server [off, or such as 10.0.0.5:6514/tcp] > ".to_owned(),
            Step::Lines => format!("Lines [1 to {MAX_LOG_LINES}] > "),
            Step::Port => "Port [1 to 65535, such as 17486] > ".to_owned(),
            Step::From => "From [any, or an address or network such as 198.51.100.7] > ".to_owned(),
            Step::Confirm => "Type yes to go on [yes, no] > ".to_owned(),
        }
    }

    /// Takes an answer, without blanks around it.
    pub(crate) fn answer(mut self, typed: &str) -> Next {
        if self.step == Step::Confirm {
            return if typed == "yes" { self.request().map_or(Next::Leave, Next::Run) } else { Next::Leave };
        }
        let taken = if typed.is_empty() { Ok(()) } else { self.take(typed) };
        match taken {
            Err(why) => Next::Again(self, why),
            Ok(()) if self.step == Step::Port && typed.is_empty() => Next::Run(Request::FirewallVerify {}),
            Ok(()) if self.step == Step::From => {
                let from = self.control.networks.pop();
                Next::Run(Request::FirewallExplain { port: self.port, from })
            }
            Ok(()) if self.step == Step::Lines => Next::Run(Request::Logs { lines: self.lines }),
            Ok(()) => {
                self.step = match (self.kind, self.step) {
                    (Kind::Install, Step::Version) => Step::Listen,
                    (Kind::Install | Kind::Configure, Step::Listen) => Step::Networks,
                    (Kind::Firewall, Step::Port) => Step::From,
                    (Kind::Configure, Step::Networks) => Step::Syslog,
                    _ => Step::Confirm,
                };
                Next::Ask(self)
            }
        }
    }

    fn take(&mut self, typed: &str) -> Result<(), String> {
        match self.step {
            Step::Version => {
                let version = typed.parse().map_err(|_| format!("'{typed}' is no version."))?;
                if !self.versions.contains(&version) {
                    return Err(format!("There is no {version} here."));
                }
                self.version = Some(version);
            }
            Step::Listen => {
                let listen = split(typed, |one| one.parse::<IpAddr>().ok(), "address, such as 10.0.0.1")?;
                let control = ControlPort { listen, networks: Vec::new() };
                control.wrong().map_or(Ok(()), Err)?;
                self.control.listen = control.listen;
            }
            Step::Networks | Step::From if typed.eq_ignore_ascii_case("any") => {
                self.control.networks = Vec::new();
            }
            Step::Networks => {
                let networks = split(typed, |one| text::network(one).ok(), "network, such as 10.0.0.0/8")?;
                let control = ControlPort { listen: self.control.listen.clone(), networks };
                control.wrong().map_or(Ok(()), Err)?;
                self.control.networks = control.networks;
            }
            Step::Syslog => {
                self.log = typed.parse().map_err(|error: DestinationError| format!("{error}."))?;
            }
            Step::Lines => {
                let lines = typed.parse().ok().filter(|lines| (1..=MAX_LOG_LINES).contains(lines));
                self.lines = lines.ok_or(format!("'{typed}' is no number from 1 to {MAX_LOG_LINES}."))?;
            }
            Step::Port => {
                let port = typed.parse().ok().filter(|port| *port != 0);
                self.port = port.ok_or(format!("'{typed}' is no number from 1 to 65535."))?;
            }
            Step::From => self.control.networks = vec![text::network(typed)?],
            Step::Confirm => {}
        }
        Ok(())
    }

    fn request(self) -> Option<Request> {
        Some(match self.kind {
            Kind::Install => Request::Install { version: self.version?, control: self.control },
            Kind::Upgrade => Request::Upgrade { version: self.version? },
            Kind::Configure => Request::Configure { control: self.control, log: self.log },
            Kind::Remove => Request::Remove {},
            Kind::Reset => Request::Reset {},
            Kind::Logs => Request::Logs { lines: self.lines },
            Kind::Firewall => Request::FirewallVerify {},
        })
    }
}

/// Values with commas or blanks between them.
fn split<T>(typed: &str, parse: impl Fn(&str) -> Option<T>, what: &str) -> Result<Vec<T>, String> {
    typed
        .split([',', ' '])
        .filter(|one| !one.is_empty())
        .map(|one| parse(one).ok_or_else(|| format!("'{one}' is no {what}.")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Vec<Version> {
        ["0.1.0-3", "0.1.0-2", "0.1.0-1"].map(|text| text.parse().unwrap()).to_vec()
    }

    fn asked(next: Next) -> Form {
        match next {
            Next::Ask(form) => form,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn enter_keeps_each_current_value() {
        let form = Form::install(versions()).unwrap();
        let form = asked(asked(asked(form.answer("")).answer("")).answer(""));
        let summary = form.lines().join("\n");
        assert!(
            summary.contains("0.1.0-3") && summary.contains("0.0.0.0") && summary.contains("any"),
            "{summary}"
        );
        assert!(summary.contains("WARNING: ANY network"), "{summary}");
        let Next::Run(Request::Install { version, control }) = form.answer("yes") else { panic!() };
        assert_eq!((version.to_string().as_str(), control.networks.len()), ("0.1.0-3", 0));
    }

    #[test]
    fn typed_values_are_taken_and_wrong_ones_are_asked_for_again() {
        let form = Form::install(versions()).unwrap();
        let Next::Again(form, why) = form.answer("9.9.9-9") else { panic!() };
        assert!(why.contains("no 9.9.9-9"), "{why}");
        let form = asked(form.answer("0.1.0-1"));
        let Next::Again(form, why) = form.answer("10.0.0.1, x") else { panic!() };
        assert!(why.contains("'x' is no address"), "{why}");
        let form = asked(form.answer("10.0.0.1, fd00::1"));
        let Next::Again(form, _) = form.answer("10.0.0.0/99") else { panic!() };
        let form = asked(form.answer("10.0.0.0/24,192.0.2.1"));
        assert!(!form.lines().join("\n").contains("WARNING"));
        let Next::Run(Request::Install { version, control }) = form.answer("yes") else { panic!() };
        assert_eq!(version.to_string(), "0.1.0-1");
        assert_eq!(text::list(&control.listen, ""), "10.0.0.1, fd00::1");
        assert_eq!(text::list(&control.networks, ""), "10.0.0.0/24, 192.0.2.1/32");
    }

    #[test]
    fn the_firewall_is_compared_unless_a_port_is_asked_for() {
        assert_eq!(Form::firewall().answer(""), Next::Run(Request::FirewallVerify {}));
        let Next::Again(form, why) = Form::firewall().answer("65536") else { panic!() };
        assert_eq!(why, "'65536' is no number from 1 to 65535.");
        let form = asked(form.answer("17486"));
        assert_eq!(
            form.clone().answer("any"),
            Next::Run(Request::FirewallExplain { port: 17486, from: None })
        );
        let Next::Again(form, why) = form.answer("somewhere") else { panic!() };
        assert!(why.contains("'somewhere' is neither an address nor a network"), "{why}");
        let from = "198.51.100.7/32".parse().ok();
        assert_eq!(form.answer("198.51.100.7"), Next::Run(Request::FirewallExplain { port: 17486, from }));
    }

    #[test]
    fn a_syslog_server_is_kept_exchanged_or_switched_off() {
        let control = ControlPort { listen: vec!["10.0.0.1".parse().unwrap()], networks: Vec::new() };
        let at_syslog = || {
            let form = Form::configure(control.clone(), "logs.example:6514/tcp".to_owned());
            asked(asked(form.answer("")).answer(""))
        };
        assert_eq!(at_syslog().lines(), ["Now: logs.example:6514/tcp (Enter keeps it)"]);
        let change = |typed| match asked(at_syslog().answer(typed)).answer("yes") {
            Next::Run(Request::Configure { log, .. }) => log,
            other => panic!("{other:?}"),
        };
        assert_eq!(change(""), LogChange::Keep);
        assert_eq!(change("OFF"), LogChange::Off);
        assert_eq!(change("10.0.0.5:514/udp"), LogChange::Server("10.0.0.5:514/udp".parse().unwrap()));
        let Next::Again(_, why) = at_syslog().answer("logs.example:514/udp") else { panic!() };
        assert!(why.contains("write its address"), "{why}");
    }

    #[test]
    fn nothing_destructive_is_done_without_a_whole_yes() {
        for typed in ["", "y", "YES", "yes please", "no", "1"] {
            assert_eq!(Form::remove().answer(typed), Next::Leave, "{typed:?}");
            assert_eq!(Form::reset().answer(typed), Next::Leave, "{typed:?}");
        }
        assert_eq!(Form::remove().answer("yes"), Next::Run(Request::Remove {}));
    }

    #[test]
    fn only_newer_versions_are_offered_for_an_upgrade() {
        let form = Form::upgrade(versions(), &"0.1.0-2".parse().unwrap()).unwrap();
        assert_eq!(form.prompt(), "Version [0.1.0-3] > ");
        assert_eq!(Form::upgrade(versions(), &"0.1.0-3".parse().unwrap()), None);
        assert_eq!(Form::install(Vec::new()), None);
    }

    #[test]
    fn every_prompt_fits_a_line_with_room_for_an_answer() {
        let many: Vec<Version> = (0..50).map(|n| format!("10.10.{n}-10.el9").parse().unwrap()).collect();
        for form in [
            Form::install(many).unwrap(),
            Form::configure(ControlPort::default(), String::new()),
            Form::logs(),
            Form::reset(),
            Form::firewall(),
            asked(Form::firewall().answer("17486")),
        ] {
            assert!(form.prompt().len() < 78, "{}", form.prompt());
        }
    }
}
