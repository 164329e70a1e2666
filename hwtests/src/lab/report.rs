//! What was done and seen: JUnit XML for machines, one HTML page for people.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::description::{Host, Kind, Nic, Topology};
use super::error::{Context, Error, Result};
use super::record::{Entry, Outcome};
use super::suite::Case;

/// How much of a command's output goes into the report.
const MAX_SHOWN_BYTES: usize = 6000;

/// A case that is over.
#[derive(Debug, Clone)]
pub struct CaseReport {
    suite: &'static str,
    name: String,
    shows: &'static [&'static str],
    topology: Topology,
    entries: Vec<Entry>,
    outcome: Outcome,
    time: Duration,
}

impl CaseReport {
    pub(crate) fn new(
        suite: &'static str,
        case: &Case,
        entries: Vec<Entry>,
        outcome: Outcome,
        time: Duration,
    ) -> Self {
        Self {
            suite,
            name: case.name.clone(),
            shows: case.shows,
            topology: case.topology.clone(),
            entries,
            outcome,
            time,
        }
    }

    fn checks(&self) -> impl Iterator<Item = (&str, bool, &str)> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Check { sentence, held, seen } => Some((sentence.as_str(), *held, seen.as_str())),
            _ => None,
        })
    }

    /// Passed, failed and skipped: each check counts, and so does a case that broke off.
    fn counts(&self) -> (usize, usize, usize) {
        let failed = self.checks().filter(|(_, held, _)| !held).count();
        let passed = self.checks().count() - failed;
        match &self.outcome {
            Outcome::NotRun(_) => (0, 0, 1),
            Outcome::Failed(_) if failed == 0 => (passed, 1, 0),
            _ => (passed, failed, 0),
        }
    }

    /// One line for the screen.
    pub(crate) fn line(&self) -> String {
        let (passed, failed, _) = self.counts();
        let time = self.time.as_secs_f32();
        match &self.outcome {
            Outcome::Passed => {
                format!("ok       {}: {} ({passed} checks, {time:.1} s)", self.suite, self.name)
            }
            Outcome::Failed(why) => format!(
                "FAILED   {}: {}: {why} ({failed} failed, {passed} passed, {time:.1} s)",
                self.suite, self.name
            ),
            Outcome::NotRun(why) => format!("NOT RUN  {}: {}: {why}", self.suite, self.name),
        }
    }
}

/// All cases of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    cases: Vec<(usize, CaseReport)>,
    /// How long it took so far.
    pub time: Duration,
}

impl Report {
    /// Adds a case at its place among the others.
    pub(crate) fn add(&mut self, number: usize, case: CaseReport) {
        self.cases.push((number, case));
        self.cases.sort_by_key(|(number, _)| *number);
    }

    /// Passed, failed and skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.cases
            .iter()
            .map(|(_, case)| case.counts())
            .fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2 + one.2))
    }

    /// Whether nothing failed; where strict, also whether all could run.
    pub fn is_good(&self, strict: bool) -> bool {
        let (_, failed, skipped) = self.counts();
        failed == 0 && (skipped == 0 || !strict)
    }

    /// What a person reads at the end.
    pub fn last_lines(&self, dir: &Path) -> String {
        let mut text = format!("\nThe report: {}\n", dir.join("report.html").display());
        let not_run: Vec<_> =
            self.cases.iter().filter(|(_, case)| matches!(case.outcome, Outcome::NotRun(_))).collect();
        if !not_run.is_empty() {
            text += "COULD NOT RUN:\n";
            for (_, case) in &not_run {
                let _ = writeln!(text, "   {}", case.line());
            }
        }
        let (passed, failed, skipped) = self.counts();
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
        text + &format!("{passed} passed, {failed} failed{skipped}")
    }

    /// Writes both files.
    pub fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).during(|| format!("can't make {}", dir.display()))?;
        let (xml, html) = (dir.join("report.xml"), dir.join("report.html"));
        fs::write(&xml, self.junit()?).during(|| format!("can't write {}", xml.display()))?;
        fs::write(&html, self.html()).during(|| format!("can't write {}", html.display()))
    }

    fn junit(&self) -> Result<String> {
        let mut report = quick_junit::Report::new("zone-lab");
        report.set_time(self.time);
        for (_, case) in &self.cases {
            let mut suite = TestSuite::new(format!("{}: {}", case.suite, case.name));
            suite.set_time(case.time);
            let add = |suite: &mut TestSuite, name: &str, status: TestCaseStatus| {
                let mut test = TestCase::new(name, status);
                test.set_classname(format!("lab.{}", case.suite));
                suite.add_test_case(test);
            };
            for (sentence, held, seen) in case.checks() {
                let status = if held {
                    TestCaseStatus::success()
                } else {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(cut(seen));
                    status
                };
                add(&mut suite, sentence, status);
            }
            match &case.outcome {
                Outcome::Passed => {}
                Outcome::NotRun(why) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(why.as_str());
                    add(&mut suite, &case.name, status);
                }
                Outcome::Failed(why) => {
                    if !case.entries.iter().any(Entry::is_failed) {
                        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                        status.set_message(why.as_str());
                        add(&mut suite, &case.name, status);
                    }
                }
            }
            report.add_test_suite(suite);
        }
        report.to_string().map_err(|error| Error::other(format!("can't write JUnit XML: {error}")))
    }

    fn html(&self) -> String {
        let (passed, failed, skipped) = self.counts();
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Lab report</title><style>{STYLE}</style>\n\
             <h1>Lab report</h1><p>{passed} passed, {failed} failed, {skipped} not run, in {:.0} s</p><table>\n",
            self.time.as_secs_f32()
        );
        for (number, case) in &self.cases {
            let (class, word) = verdict(&case.outcome);
            let _ = writeln!(
                page,
                "<tr class=\"{class}\"><td>{word}<td>{}<td><a href=\"#c{number}\">{}</a><td>{}<td>{:.1} s",
                case.suite,
                escape(&case.name),
                case.shows.join(", "),
                case.time.as_secs_f32()
            );
        }
        page += "</table>\n";
        for (number, case) in &self.cases {
            page += &section(*number, case);
        }
        page
    }
}

fn section(number: usize, case: &CaseReport) -> String {
    let (class, word) = verdict(&case.outcome);
    let mut text = format!(
        "<h2 id=\"c{number}\" class=\"{class}\">{}: {}</h2>\n<p>{word}, {:.1} s</p>\n",
        case.suite,
        escape(&case.name),
        case.time.as_secs_f32()
    );
    if let Outcome::Failed(why) | Outcome::NotRun(why) = &case.outcome {
        let _ = writeln!(text, "<p class=\"{class}\">{}</p>", escape(why));
    }
    let _ =
        writeln!(text, "<details><summary>Hosts and links</summary>{}</details>", drawing(&case.topology));
    for entry in &case.entries {
        let _ = match entry {
            Entry::Step { title, time, error } => writeln!(
                text,
                "<h3>{} <small>{:.1} s</small></h3>{}",
                escape(title),
                time.as_secs_f32(),
                error
                    .as_ref()
                    .map_or(String::new(), |error| format!("<p class=\"bad\">{}</p>", escape(error)))
            ),
            Entry::Command { host, shown, code, said, time } => writeln!(
                text,
                "<details class=\"command\"><summary><b>{host}</b> <code>{}</code> <small>{code}, {:.2} s</small></summary><pre>{}</pre></details>",
                escape(&one_line(shown)),
                time.as_secs_f32(),
                escape(&cut(said))
            ),
            Entry::Check { sentence, held, seen } => writeln!(
                text,
                "<details {}><summary class=\"{}\">{} {}</summary><pre>{}</pre></details>",
                if *held { "" } else { "open" },
                if *held { "good" } else { "bad" },
                if *held { "&#10003;" } else { "&#10007;" },
                escape(sentence),
                escape(&cut(seen))
            ),
            Entry::Note(note) => writeln!(text, "<pre class=\"note\">{}</pre>", escape(&cut(note))),
        };
    }
    text
}

fn verdict(outcome: &Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Passed => ("good", "passed"),
        Outcome::Failed(_) => ("bad", "FAILED"),
        Outcome::NotRun(_) => ("skipped", "not run"),
    }
}

/// A picture of hosts above and links below, each NIC a line between, with its name and addresses beside it.
fn drawing(topology: &Topology) -> String {
    const COLUMN: usize = 210;
    const BOX: usize = 44;
    const LINE: usize = 15;
    const LINK_GAP: usize = 34;
    let rows = |nic: &Nic| 1 + nic.addresses.len();
    let text_height = |host: &Host| host.nics.iter().map(|nic| rows(nic) * LINE + 8).sum::<usize>();
    let links_top = 8 + BOX + 20 + topology.hosts.iter().map(text_height).max().unwrap_or(0);
    let (width, height) =
        (COLUMN * topology.hosts.len().max(1) + 20, links_top + LINK_GAP * topology.links.len() + 10);
    let link_y = |name: &str| {
        let index = topology.links.iter().position(|link| link == name).unwrap_or(0);
        links_top + LINK_GAP * index
    };
    let mut svg =
        format!("<svg width=\"{width}\" height=\"{height}\" xmlns=\"http://www.w3.org/2000/svg\">\n");
    for link in &topology.links {
        let (y, end) = (link_y(link), width - 10);
        let _ = writeln!(
            svg,
            "<line x1=\"10\" y1=\"{y}\" x2=\"{end}\" y2=\"{y}\" class=\"link\"/><text x=\"12\" y=\"{}\">{}</text>",
            y + 16,
            escape(link)
        );
    }
    for (column, host) in topology.hosts.iter().enumerate() {
        let left = 10 + COLUMN * column;
        let kind = match &host.kind {
            Kind::Netns => "namespace".to_owned(),
            Kind::Chroot(root) => format!("root {}, not booted", root.name),
            Kind::Booted(root) => format!("root {}, booted", root.name),
        };
        let _ = writeln!(
            svg,
            "<rect x=\"{left}\" y=\"8\" width=\"{}\" height=\"{BOX}\" rx=\"5\"/>\
             <text x=\"{2}\" y=\"27\" font-weight=\"bold\">{1}</text><text x=\"{2}\" y=\"44\">{kind}</text>",
            COLUMN - 20,
            escape(&host.name),
            left + 8
        );
        let (text_x, mut y) = (left + 14 + 10 * host.nics.len(), 8 + BOX + LINE);
        for (row, nic) in host.nics.iter().enumerate() {
            let x = left + 10 + row * 10;
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" y1=\"{}\" x2=\"{x}\" y2=\"{}\" class=\"nic\"/>",
                8 + BOX,
                link_y(&nic.link)
            );
            for text in std::iter::once(&nic.name).chain(&nic.addresses) {
                let _ = writeln!(svg, "<text x=\"{text_x}\" y=\"{y}\">{}</text>", escape(text));
                y += LINE;
            }
            y += 8;
        }
    }
    svg + "</svg>"
}

fn cut(text: &str) -> String {
    if text.len() <= MAX_SHOWN_BYTES {
        return text.to_owned();
    }
    let half = MAX_SHOWN_BYTES / 2;
    let head = (0..=half).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let tail = (text.len() - half..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    format!("{}\n[... {} bytes ...]\n{}", &text[..head], tail - head, &text[tail..])
}

fn one_line(text: &str) -> String {
    const MAX_LINE_CHARS: usize = 300;
    let line = text.replace('\n', " ");
    if line.chars().count() <= MAX_LINE_CHARS {
        line
    } else {
        line.chars().take(MAX_LINE_CHARS).collect::<String>() + " ..."
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222}\
table{border-collapse:collapse;width:100%}td{padding:.25em .6em;border-bottom:1px solid #ddd}\
h2{margin-top:2em;border-bottom:2px solid #ccc}h3{margin:1em 0 .2em}small{color:#777;font-weight:normal}\
pre{background:#f5f5f5;padding:.6em;overflow:auto;white-space:pre-wrap;margin:.2em 0}pre.note{background:none;color:#555;padding:0}\
summary{cursor:pointer}summary.good{color:#060}.bad,tr.bad td:first-child,summary.bad{color:#b00;font-weight:bold}\
tr.good td:first-child{color:#060}tr.skipped td:first-child,p.skipped{color:#a60}.command{color:#444}\
svg rect{fill:#eef;stroke:#667}svg text{font:12px sans-serif}svg .link{stroke:#383;stroke-width:3}svg .nic{stroke:#667}";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let topology =
            Topology::new().link("wire").host(Host::netns("a").nic("eth0", "wire", &["192.0.2.1/24"]));
        let case = Case::new("a < b & c", topology, |_| Ok(()));
        let check = |held: bool| Entry::Check {
            sentence: "it holds".to_owned(),
            held,
            seen: "<seen>\u{1b}[1m".to_owned(),
        };
        let mut report = Report::default();
        let case_report =
            |entries, outcome| CaseReport::new("lab", &case, entries, outcome, Duration::from_secs(1));
        report.add(1, case_report(vec![check(true), check(false)], Outcome::Failed("checks failed".into())));
        report.add(0, case_report(vec![check(true)], Outcome::Passed));
        report.add(2, case_report(vec![], Outcome::NotRun("no nft".into())));
        report.add(3, case_report(vec![check(true)], Outcome::Failed("it broke off".into())));
        report
    }

    #[test]
    fn checks_are_counted_and_so_is_a_case_that_broke_off() {
        assert_eq!(report().counts(), (3, 2, 1));
        assert!(!report().is_good(false));
        let text = report().last_lines(Path::new("lab"));
        assert!(text.contains("NOT RUN  lab: a < b & c: no nft"), "{text}");
        assert!(text.ends_with("\n3 passed, 2 failed, 1 skipped"), "{text}");
    }

    #[test]
    fn what_was_seen_harms_no_report() {
        let xml = report().junit().expect("XML");
        assert!(xml.contains("tests=\"6\"") && !xml.contains('\u{1b}'), "{xml}");
        assert!(report().html().contains("&lt;seen&gt;"));
    }

    #[test]
    fn long_output_is_cut_in_the_middle() {
        let text = format!("start{}end", "\u{e9}".repeat(MAX_SHOWN_BYTES));
        let cut = cut(&text);
        assert!(cut.starts_with("start") && cut.ends_with("end") && cut.len() < MAX_SHOWN_BYTES + 50);
    }
}
