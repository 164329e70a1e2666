//! The text format that every scraper reads (Prometheus' text exposition format 0.0.4), made of OpenMetrics.
//!
//! The samples are the same. What differs is how they are announced: a counter is announced by the name that its samples
//! bear, and neither units nor an end are known.

use std::fmt::Write as _;

/// The same exposition, announced in the older format's way.
pub(crate) fn plain_text(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').map(|(_, words)| words);
        } else if let Some((family, kind)) =
            line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "stateset" => ("", "gauge"),
                "unknown" => ("", "untyped"),
                same => ("", same),
            };
            // Writing to a String can't fail.
            if let Some(words) = help.take() {
                let _ = writeln!(text, "# HELP {family}{suffix} {words}");
            }
            let _ = writeln!(text, "# TYPE {family}{suffix} {kind}");
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stay_and_are_announced_by_the_names_that_they_bear() {
        let openmetrics = "# HELP x_requests Requests answered.\n# TYPE x_requests counter\nx_requests_total{status=\"200\"} 3\n\
            # HELP x_open Open.\n# TYPE x_open gauge\n# UNIT x_open seconds\nx_open 1\n# TYPE x_build info\n\
            x_build_info{version=\"1\"} 1\n# EOF\n";
        let plain = "# HELP x_requests_total Requests answered.\n# TYPE x_requests_total counter\n\
            x_requests_total{status=\"200\"} 3\n# HELP x_open Open.\n# TYPE x_open gauge\nx_open 1\n\
            # TYPE x_build_info gauge\nx_build_info{version=\"1\"} 1\n";
        assert_eq!(plain_text(openmetrics), plain);
    }
}
