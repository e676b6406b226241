//! What a path leads to. Opening a pipe waits for whoever is at its other end, perhaps for ever.

use std::fs::{self, FileType};
use std::path::Path;

/// What is at a path, if it is there and no file; links are followed.
pub fn no_file(path: &Path) -> Option<&'static str> {
    let kind = fs::metadata(path).ok()?.file_type();
    (!kind.is_file()).then(|| name_of(kind))
}

fn name_of(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() { "a folder" } else { "not a file" }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_named() {
        let folder = std::env::temp_dir().join(format!("batch-llm-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (file, socket) = (folder.join("file"), folder.join("socket"));
        fs::write(&file, "x").unwrap();
        let _held = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(no_file(&file), None);
        assert_eq!(no_file(&folder.join("absent")), None);
        assert_eq!(no_file(&socket), Some("a socket"));
        assert_eq!(no_file(&folder), Some("a folder"));
        assert_eq!(no_file(Path::new("/dev/null")), Some("a device"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
