//! A file system of its own, on an image behind a loop device, whose power can be cut.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use rustix::ioctl::{Setter, ioctl};
use tempfile::TempDir;

use crate::eventually;
use crate::skip::skip;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn mkfs(self) -> Command {
        let mut mkfs = program(if self == Self::Ext4 { "mkfs.ext4" } else { "mkfs.xfs" });
        // Neither asks anything nor discards what an empty image does not have.
        mkfs.args(if self == Self::Ext4 { ["-q", "-F", "-E", "nodiscard"].as_slice() } else { &["-q", "-f", "-K"] });
        mkfs
    }

    /// As small as may be: mkfs.xfs refuses less.
    fn bytes(self) -> u64 {
        if self == Self::Ext4 { 64 << 20 } else { 320 << 20 }
    }
}

/// mkfs and mount lie where a user's path does not lead.
fn program(name: &str) -> Command {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name));
    Command::new(places.into_iter().find(|path| path.is_file()).unwrap_or_else(|| name.into()))
}

/// A container has its own view of what is mounted, so that a volume of which it got hold while it booted is still
/// there after it was unmounted here: the power would stay cut. So no container runs while there are volumes.
pub static MOUNTS: RwLock<()> = RwLock::new(());

pub struct Volume {
    dir: TempDir,
    _without_containers: RwLockReadGuard<'static, ()>,
}

impl Volume {
    /// An empty volume, mounted. Where there can be none, `test` is skipped.
    pub fn for_test(test: &str, kind: Kind) -> Option<Self> {
        Self::new(kind).map_err(|lacking| skip(test, lacking)).ok()
    }

    fn new(kind: Kind) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("root, to mount a file system".into());
        }
        let without_containers = MOUNTS.read().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a folder for an image");
        let volume = Self { dir, _without_containers: without_containers };
        let image = File::create(volume.image()).expect("an image");
        image.set_len(kind.bytes()).expect("a sparse image");
        fs::create_dir(volume.path()).expect("a mount point");
        let needs = |what: &str, run: std::io::Result<Output>| match run {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("{what}: {error}")),
        };
        needs(&format!("mkfs for {kind:?}"), kind.mkfs().arg(volume.image()).output())?;
        needs("the right to mount, and a loop device", volume.mount())?;
        Ok(volume)
    }

    /// Its root folder.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// mount lets go of the loop device together with the file system.
    fn mount(&self) -> std::io::Result<Output> {
        program("mount").args(["-o", "loop"]).arg(self.image()).arg(self.path()).output()
    }

    /// Drops everything that is not synced, the journal included, as when the power fails. From here on
    /// nothing can be read or written.
    #[allow(unsafe_code)]
    pub fn cut(&self) {
        const FS_IOC_SHUTDOWN: u32 = 0x8004_587D;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(self.path()).expect("the volume is mounted");
        // SAFETY: this ioctl reads one u32, and changes no memory of this process.
        unsafe { ioctl(&root, Setter::<{ FS_IOC_SHUTDOWN as _ }, u32>::new(NO_LOG_FLUSH)) }.expect("a power cut");
    }

    /// The power is back. Whoever used the volume must have ended.
    pub fn restore(&self) {
        // A process of another test that is just being spawned may hold on to what this one had open.
        eventually("the volume is let go", Duration::from_secs(20), || {
            let umount = program("umount").arg(self.path()).output().ok()?;
            umount.status.success().then_some(())
        });
        let mount = self.mount().expect("mount can be run");
        assert!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a daemon that is ended only after this.
        _ = program("umount").arg("--lazy").arg(self.path()).output();
    }
}
