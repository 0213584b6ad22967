//! Folders for tests, removed with their end.

use std::path::{Path, PathBuf};

/// A folder of its own.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    #[allow(clippy::unwrap_used)]
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("ph-unit-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
