//! What a relay writes down about its sessions while no control takes its records in, in a file that control has made for
//! it: so that the control that comes next knows which sessions begin and end in the log, whether the relay lives on or not.

use serde::{Deserialize, Serialize};
use zone_log::Record;

use crate::message::OpenSession;

/// The words of the record with which a session begins in the audit log.
pub const SESSION_BEGINS: &str = "session begins";
/// Those of the one with which it ends there.
pub const SESSION_ENDED: &str = "session ended";

/// One line of the file, JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Note {
    /// The relay wrote to its standard error that this session begins.
    Begins(OpenSession),
    /// The relay wrote there that the session with this id has ended.
    Ended(String),
    /// The relay sent this record to a control that is gone and may not have read it.
    Sent(Record),
}

impl Note {
    /// That a record went to standard error; `None` where it is about no session.
    pub fn written(record: &Record) -> Option<Self> {
        let id = session(record)?;
        if record.message() == SESSION_ENDED {
            return Some(Self::Ended(id));
        }
        let (target, caller) = (fact(record, "target"), fact(record, "caller"));
        Some(Self::Begins(OpenSession {
            id,
            target: target.unwrap_or_default(),
            caller: caller.unwrap_or_default(),
        }))
    }
}

/// The session of which a record says that it begins or has ended.
pub fn session(record: &Record) -> Option<String> {
    let message = record.message();
    let is_about_one = record.is_audit() && (message == SESSION_BEGINS || message == SESSION_ENDED);
    is_about_one.then(|| fact(record, "session")).flatten()
}

fn fact(record: &Record, name: &str) -> Option<String> {
    record.fields().find(|field| field.name == name).map(|field| field.value().into_owned())
}

#[cfg(test)]
mod tests {
    use zone_log::{AUDIT, Level};

    use super::*;

    #[test]
    fn only_the_two_records_about_a_session_are_noted() {
        let of = |target: &str, words: &str| {
            let record = Record::new(Level::Info, target, words).with("session", "s1").with("caller", "m");
            Note::written(&record)
        };
        let begins = OpenSession { id: "s1".to_owned(), target: String::new(), caller: "m".to_owned() };
        assert!(matches!(of(AUDIT, SESSION_BEGINS), Some(Note::Begins(session)) if session == begins));
        assert!(matches!(of(AUDIT, SESSION_ENDED), Some(Note::Ended(id)) if id == "s1"));
        assert!(of(AUDIT, "done").is_none() && of("zone_relay", SESSION_ENDED).is_none());
        assert!(Note::written(&Record::new(Level::Info, AUDIT, SESSION_ENDED)).is_none());
    }
}
