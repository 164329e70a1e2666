//! Which build a process runs: the same version may be packaged twice.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The version with the device and inode of the executable file. A running program holds its file, so no other
/// file on the host can have these numbers, and a package manager that replaces the file gives it new ones.
pub fn of_this_process() -> io::Result<String> {
    fs::metadata("/proc/self/exe").map(|file| name(&file))
}

/// The same of a program that would be started now.
pub fn of_program(path: &Path) -> io::Result<String> {
    fs::metadata(path).map(|file| name(&file))
}

fn name(file: &Metadata) -> String {
    format!("{} {}:{}", env!("CARGO_PKG_VERSION"), file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_a_program_is_another_build_and_a_link_to_it_is_the_same_one() {
        let own = std::env::current_exe().unwrap();
        let folder = tempfile::tempdir_in(own.parent().unwrap()).unwrap();
        let (copy, link) = (folder.path().join("copy"), folder.path().join("link"));
        fs::copy(&own, &copy).unwrap();
        fs::hard_link(&own, &link).unwrap();
        assert_eq!(of_program(&own).unwrap(), of_this_process().unwrap());
        assert_eq!(of_program(&link).unwrap(), of_this_process().unwrap());
        assert_ne!(of_program(&copy).unwrap(), of_this_process().unwrap());
    }
}
