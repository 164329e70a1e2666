//! A table for a request to a network team, or for a spreadsheet (RFC 4180 with the line ends of Unix).

use super::opening::Opening;

/// The first line.
const HEADER: &str = "purpose,protocol,family,port,source,destination,interface";

/// One line for each opening. No value has a comma or a quote in it.
pub(super) fn text(openings: &[Opening]) -> String {
    let lines = openings.iter().map(|opening| {
        let interface = opening.interface.as_ref().map_or("any", |name| name.as_str());
        let source = opening.source.map_or_else(any, |network| network.to_string());
        let destination = opening.destination.map_or_else(any, |address| address.to_string());
        let (purpose, family, port) = (opening.purpose, opening.family.as_str(), opening.port);
        format!("{purpose},tcp,{family},{port},{source},{destination},{interface}\n")
    });
    format!("{HEADER}\n{}", lines.collect::<String>())
}

fn any() -> String {
    "any".to_owned()
}
