//! The files of a host: a cached root below, and all that the host changes in memory above it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::error::{Context, Result};

/// A root directory that can be written to without changing what it was made from. It is unmounted with this handle.
#[derive(Debug)]
pub(crate) struct Overlay {
    root: PathBuf,
    mounts: Vec<PathBuf>,
}

impl Overlay {
    /// Mounts `lower` under `dir`, which must be on a file system that overlayfs can write to (tmpfs can).
    pub(crate) fn mount(lower: &Path, dir: &Path) -> Result<Self> {
        let [upper, work, root] = ["upper", "work", "root"].map(|name| dir.join(name));
        for made in [&upper, &work, &root] {
            fs::create_dir_all(made).during(|| format!("can't make {}", made.display()))?;
        }
        let escape = |path: &Path| path.display().to_string().replace('\\', r"\\").replace([':', ','], r"\:");
        let options =
            format!("lowerdir={},upperdir={},workdir={}", escape(lower), escape(&upper), escape(&work));
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .during(|| format!("can't mount an overlay of {}", lower.display()))?;
        Ok(Self { mounts: vec![root.clone()], root })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Mounts what programs need that run in it without having booted it.
    pub(crate) fn mount_kernel_files(&mut self) -> Result<()> {
        let here = |name: &str| self.root.join(name);
        let (proc, dev, run) = (here("proc"), here("dev"), here("run"));
        mount(Some("proc"), &proc, Some("proc"), MsFlags::empty(), None::<&str>)
            .during(|| format!("can't mount {}", proc.display()))?;
        self.mounts.push(proc);
        mount(Some("/dev"), &dev, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .during(|| format!("can't mount {}", dev.display()))?;
        self.mounts.push(dev);
        mount(Some("tmpfs"), &run, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .during(|| format!("can't mount {}", run.display()))?;
        self.mounts.push(run);
        Ok(())
    }

    /// Shows a file or directory of this machine in it, read-only.
    pub(crate) fn share(&mut self, from: &Path, at: &Path) -> Result<()> {
        let place = inside(&self.root, &at.display().to_string());
        let what = || format!("can't share {} as {}", from.display(), at.display());
        if from.is_dir() {
            fs::create_dir_all(&place).during(what)?;
        } else {
            if let Some(dir) = place.parent() {
                fs::create_dir_all(dir).during(what)?;
            }
            fs::write(&place, "").during(what)?;
        }
        mount(Some(from), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>).during(what)?;
        self.mounts.push(place.clone());
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, &place, None::<&str>, read_only, None::<&str>).during(what)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        for place in self.mounts.iter().rev() {
            // A process that still holds it keeps it until its own end.
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

/// A host's path below its root. Steps upwards are left out.
pub(crate) fn inside(root: &Path, path: &str) -> PathBuf {
    Path::new(path).components().fold(root.to_owned(), |place, step| match step {
        Component::Normal(name) => place.join(name),
        _ => place,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_inside() {
        let place = inside(Path::new("/root/of/it"), "/etc/../../../x/./y");
        assert_eq!(place, Path::new("/root/of/it/etc/x/y"));
    }
}
