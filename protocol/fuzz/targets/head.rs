//! Request and response heads: more bytes never change what fewer have settled, an independent reader sees
//! the same fields, and what is accepted can be written and read again.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use zone_protocol::head::{
    Fields, HeadError, HeadLimits, parse_request, parse_response, write_request, write_response,
};

type Read<T> = Result<Option<(T, usize)>, HeadError>;

const SMALL: HeadLimits = HeadLimits { bytes: 64, fields: 3 };

fuzz_target!(|data: &[u8]| {
    for limits in [HeadLimits::default(), SMALL] {
        let request = |bytes: &[u8]| parse_request(bytes, limits);
        let response = |bytes: &[u8]| parse_response(bytes, limits);
        settled_once_is_settled_for_good(data, limits, request);
        settled_once_is_settled_for_good(data, limits, response);
    }
    if let Ok(Some((head, length))) = parse_request(data, HeadLimits::default()) {
        same_fields_as_plain_reading(&data[..length], &head.fields);
        let again = write_request(&head.method, &head.target, &pairs(&head.fields));
        let read = parse_request(again.as_bytes(), roomy(again.len()));
        assert_eq!(read, Ok(Some((head.clone(), again.len()))));
        if let Ok(target) = head.connect_target() {
            let text = target.to_string();
            assert_eq!(text, head.target, "a target is passed on as it was written");
            let onward = write_request("CONNECT", &text, &[("Host", &text)]);
            let (read, _) = parse_request(onward.as_bytes(), HeadLimits::default())
                .expect("our own head")
                .expect("a whole head");
            assert_eq!(read.connect_target(), Ok(target));
            assert!(head.without_body().is_ok());
        }
    }
    if let Ok(Some((head, length))) = parse_response(data, HeadLimits::default()) {
        assert!((100..=999).contains(&head.status), "status {}", head.status);
        same_fields_as_plain_reading(&data[..length], &head.fields);
        let again = write_response(head.status, &head.reason, &pairs(&head.fields));
        let read = parse_response(again.as_bytes(), roomy(again.len()));
        assert_eq!(read, Ok(Some((head, again.len()))));
    }
});

/// A prefix that asks for more may become anything; one that is complete or wrong stays so.
fn settled_once_is_settled_for_good<T: Debug + PartialEq>(
    data: &[u8],
    limits: HeadLimits,
    read: impl Fn(&[u8]) -> Read<T>,
) {
    let whole = read(data);
    if let Ok(Some((_, length))) = &whole {
        assert!(*length <= data.len() && *length <= limits.bytes, "{length} bytes");
    }
    if whole == Ok(None) {
        assert!(data.len() < limits.bytes, "an endless head is cut");
    }
    // Every cut of a short head; of a long one, as many cuts spread evenly.
    let stride = data.len() / 128 + 1;
    for cut in (0..data.len()).step_by(stride) {
        match read(&data[..cut]) {
            Ok(None) => {}
            Ok(Some(complete)) => {
                assert!(whole.as_ref().is_ok_and(|w| w.as_ref() == Some(&complete)), "complete at {cut}");
            }
            Err(error) => assert!(whole.is_err(), "at {cut} {error}, and then {whole:?}"),
        }
    }
}

/// RFC 9112 section 5 read line by line: the name ends at the colon, and spaces and tabs around a value are
/// not part of it.
fn same_fields_as_plain_reading(head: &[u8], fields: &Fields) {
    let text = std::str::from_utf8(head).map(str::to_owned);
    let text = text.unwrap_or_else(|_| String::from_utf8_lossy(head).into_owned());
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    lines.by_ref().find(|line| !line.is_empty());
    let plain: Vec<_> = lines
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_once(':').expect("a field line holds a colon"))
        .map(|(name, value)| (name, value.trim_matches([' ', '\t'])))
        .collect();
    assert_eq!(pairs(fields), plain);
}

fn pairs(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().collect()
}

/// What was read with bare line feeds grows when it is written.
fn roomy(bytes: usize) -> HeadLimits {
    HeadLimits { bytes: bytes + 1, ..HeadLimits::default() }
}
