//! An explanation for people.

use std::collections::BTreeSet;

use zone_firewall_protocol::{
    ExplainedCase, ExplainedCondition, ExplainedRule, Explanation, PacketVerdict, Reachability,
};

/// The lines of an explanation: the verdict first, and each case with its reasons. What happens only above a rate comes last.
pub(crate) fn lines(explanation: &Explanation) -> Vec<String> {
    let (above, mut usual): (Vec<&ExplainedCase>, Vec<&ExplainedCase>) =
        explanation.cases.iter().partition(|case| case.only_above_rate);
    let above = if usual.is_empty() { std::mem::replace(&mut usual, above) } else { above };
    let mut lines = Vec::new();
    match &usual[..] {
        [one] if explanation.cases_left_out == 0 => {
            lines.push(format!("{}: {}", verdict(one), packets(one)));
            lines.extend(indented(reasons(one), 2));
        }
        _ => {
            let count = usual.len() + explanation.cases_left_out;
            lines.push(match explanation.reachability {
                Reachability::Open => format!("open, in {count} cases"),
                Reachability::Shut => format!("shut, in {count} cases"),
                Reachability::Unknown => format!("depends: {count} cases"),
            });
            for (number, case) in usual.iter().enumerate() {
                lines.push(format!("{}. {}: {}", number + 1, verdict(case), packets(case)));
                lines.extend(indented(reasons(case), 3));
            }
        }
    }
    if !above.is_empty() {
        lines.push("only while more comes than a rate lets through:".to_owned());
        for case in above {
            lines.push(format!("  {}: {}", verdict(case), packets(case)));
            lines.extend(indented(deciding(case), 4));
        }
    }
    if explanation.cases_left_out > 0 {
        let more = explanation.cases_left_out;
        lines.push(format!("{more} more cases are not shown; ask for less, with --from or --iif"));
    }
    let options = deciding_options(explanation);
    if explanation.reachability == Reachability::Unknown && !options.is_empty() {
        lines.push(format!("what would decide it: {}", options.into_iter().collect::<Vec<_>>().join(", ")));
    }
    lines
}

fn indented(lines: Vec<String>, columns: usize) -> impl Iterator<Item = String> {
    lines.into_iter().map(move |line| format!("{:columns$}{line}", ""))
}

fn verdict(case: &ExplainedCase) -> String {
    match &case.detail {
        Some(detail) if case.verdict == PacketVerdict::Unknown => format!("{} ({detail})", case.verdict),
        Some(detail) => format!("{} {detail}", case.verdict),
        None => case.verdict.to_string(),
    }
}

/// Which packets a case is about.
fn packets(case: &ExplainedCase) -> String {
    let family = if case.family == "ipv6" { "IPv6" } else { "IPv4" };
    let list = |entries: &[String]| entries.join(", ");
    let mut words = vec![match &case.sources[..] {
        [] => format!("{family} from anywhere"),
        sources => format!("from {}", list(sources)),
    }];
    if !case.source_ports.is_empty() {
        words.push(format!("port {}", list(&case.source_ports)));
    }
    if !case.destinations.is_empty() {
        words.push(format!("to {}", list(&case.destinations)));
    }
    if !case.interfaces.is_empty() {
        words.push(format!("by {}", list(&case.interfaces)));
    }
    words.join(" ")
}

fn reasons(case: &ExplainedCase) -> Vec<String> {
    // Of a rate it goes without saying that it is kept.
    let mut lines: Vec<String> =
        case.conditions.iter().filter(|condition| !condition.rate).map(condition).collect();
    lines.extend(deciding(case));
    if !case.path.is_empty() {
        lines.push("path:".to_owned());
        lines.extend(case.path.iter().map(|step| format!("  {}: {}", step.place, step.what)));
    }
    lines
}

/// The rule that decides, and the one by which the chain was left.
fn deciding(case: &ExplainedCase) -> Vec<String> {
    let mut lines = Vec::new();
    match &case.decided_by {
        Some(rule) => lines.extend(rule_lines("decided by", rule)),
        None if case.verdict == PacketVerdict::Accepted => lines.push("no rule stands in the way".to_owned()),
        None => {}
    }
    if let Some(rule) = &case.left_by {
        lines.extend(rule_lines("the chain was left by", rule));
    }
    lines
}

fn condition(condition: &ExplainedCondition) -> String {
    let holds = if condition.holds { "if" } else { "unless" };
    let option = condition.decided_with.as_ref().map(|option| format!("; {option} would decide it"));
    let ExplainedCondition { what, place, rule, .. } = condition;
    format!("{holds} '{what}' ({place}: {rule}{})", option.unwrap_or_default())
}

fn rule_lines(what: &str, rule: &ExplainedRule) -> Vec<String> {
    let ExplainedRule { family, table, chain, handle, text, nft } = rule;
    let handle = handle.map(|handle| format!(" handle {handle}")).unwrap_or_default();
    let mut lines = vec![format!("{what} {family} {table} {chain}{handle}: {text}")];
    lines.extend(nft.as_ref().map(|nft| format!("  nft prints: {nft}")));
    lines
}

/// The options that would decide between cases of different verdicts: those that a condition names, and those for what the cases
/// are told apart by.
fn deciding_options(explanation: &Explanation) -> BTreeSet<String> {
    let cases = || explanation.cases.iter().filter(|case| !case.only_above_rate);
    let mut options: BTreeSet<String> = cases()
        .flat_map(|case| &case.conditions)
        .filter_map(|condition| condition.decided_with.clone())
        .collect();
    for (one, other) in cases().flat_map(|one| cases().map(move |other| (one, other))) {
        if one.verdict == other.verdict {
            continue;
        }
        if one.family != other.family {
            options.insert("--from (of IPv4 or of IPv6)".to_owned());
            continue;
        }
        let differing = [
            (one.sources != other.sources, "--from"),
            (one.source_ports != other.source_ports, "--source-port"),
            (one.destinations != other.destinations, "--to"),
            (one.interfaces != other.interfaces, "--iif"),
        ];
        options
            .extend(differing.iter().filter(|(differs, _)| *differs).map(|(_, option)| (*option).to_owned()));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(verdict: PacketVerdict, sources: &[&str]) -> ExplainedCase {
        ExplainedCase {
            verdict,
            detail: None,
            family: "ipv4".to_owned(),
            sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            source_ports: Vec::new(),
            destinations: vec!["192.0.2.1".to_owned()],
            interfaces: vec!["eth0".to_owned()],
            conditions: Vec::new(),
            only_above_rate: false,
            decided_by: None,
            left_by: None,
            path: Vec::new(),
        }
    }

    fn explanation(reachability: Reachability, cases: Vec<ExplainedCase>) -> Explanation {
        Explanation { reachability, cases, cases_left_out: 0 }
    }

    #[test]
    fn one_case_is_said_in_one_line_and_its_reasons() {
        let rule = ExplainedRule {
            family: "inet".to_owned(),
            table: "filter".to_owned(),
            chain: "input".to_owned(),
            handle: Some(7),
            text: "tcp dport 17488 drop".to_owned(),
            nft: None,
        };
        let dropped =
            ExplainedCase { decided_by: Some(rule), ..case(PacketVerdict::Dropped, &["198.51.100.7"]) };
        assert_eq!(
            lines(&explanation(Reachability::Shut, vec![dropped])),
            [
                "dropped: from 198.51.100.7 to 192.0.2.1 by eth0",
                "  decided by inet filter input handle 7: tcp dport 17488 drop",
            ]
        );
    }

    #[test]
    fn what_happens_above_a_rate_comes_last_and_does_not_count() {
        let above = ExplainedCase { only_above_rate: true, ..case(PacketVerdict::Dropped, &[]) };
        let cases = vec![case(PacketVerdict::Accepted, &[]), above];
        assert_eq!(
            lines(&explanation(Reachability::Open, cases)),
            [
                "accepted: IPv4 from anywhere to 192.0.2.1 by eth0",
                "  no rule stands in the way",
                "only while more comes than a rate lets through:",
                "  dropped: IPv4 from anywhere to 192.0.2.1 by eth0",
            ]
        );
    }

    #[test]
    fn where_cases_differ_it_is_said_what_would_decide() {
        let condition = ExplainedCondition {
            what: "ether saddr".to_owned(),
            holds: true,
            rate: false,
            place: "inet filter input handle 3".to_owned(),
            rule: "ether saddr 02:00:00:00:00:01 accept".to_owned(),
            decided_with: Some("--mac".to_owned()),
        };
        let open = ExplainedCase { conditions: vec![condition], ..case(PacketVerdict::Accepted, &[]) };
        let cases = vec![open, case(PacketVerdict::Dropped, &["10.0.0.0/8"])];
        let lines = lines(&explanation(Reachability::Unknown, cases));
        assert_eq!(lines[0], "depends: 2 cases");
        assert_eq!(lines[1], "1. accepted: IPv4 from anywhere to 192.0.2.1 by eth0");
        assert_eq!(
            lines[2],
            "   if 'ether saddr' (inet filter input handle 3: ether saddr 02:00:00:00:00:01 accept; --mac would \
             decide it)"
        );
        assert_eq!(lines.last().unwrap(), "what would decide it: --from, --mac");
    }
}
