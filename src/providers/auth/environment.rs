//! Where credentials are looked for: variables of the environment, and files that they name. Files are read leniently,
//! and no further than credentials are long.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use std::io::Read;

use super::failure::Failure;

/// Longest file with credentials, bytes.
const LONGEST: u64 = 1 << 20;
/// How long reading one may take: it may be a pipe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Variables, as they were when the client was made.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// With these variables.
    pub fn new(variables: BTreeMap<String, String>) -> Self {
        Self(variables)
    }

    /// A variable that is set to something.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The first of several that is set to something.
    pub fn first(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.get(name))
    }

    /// Whether a variable says yes.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }

    /// The path in a variable, else one below the user's home.
    pub fn path(&self, variable: &str, below_home: &[&str]) -> Option<PathBuf> {
        if let Some(path) = self.get(variable) {
            return Some(self.expanded(path));
        }
        let home = self.first(&["HOME", "USERPROFILE"])?;
        Some(below_home.iter().fold(PathBuf::from(home), |path, part| path.join(part)))
    }

    /// A path without the `~` that stands for the user's home.
    pub fn expanded(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.first(&["HOME", "USERPROFILE"])) {
            (Some(rest), Some(home)) => Path::new(home).join(rest),
            _ => PathBuf::from(path),
        }
    }
}

/// The text of a file, as far as credentials go; `None`: there is none.
pub fn read_now(path: &Path) -> Result<Option<String>, Failure> {
    let wrong = |problem: &dyn std::fmt::Display| Failure::rejected(format!("{} {problem}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(&format_args!("cannot be read: {error}"))),
    };
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| wrong(&format_args!("cannot be read: {error}")))?;
    if bytes.len() as u64 > LONGEST {
        return Err(wrong(&"is too large for a file with credentials"));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned()))
}

/// The same without blocking, and without what is blank around it; there has to be such a file.
pub async fn read(path: PathBuf) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let reading = tokio::task::spawn_blocking(move || read_now(&path));
    match tokio::time::timeout(PATIENCE, reading).await {
        Ok(Ok(Ok(Some(text)))) => Ok(text.trim().to_owned()),
        Ok(Ok(Ok(None))) => Err(Failure::rejected(format!("{shown} does not exist"))),
        Ok(Ok(Err(failure))) => Err(failure),
        Ok(Err(_)) => Err(Failure::interrupted()),
        Err(_) => Err(Failure::away(format!("{shown} could not be read within {} s", PATIENCE.as_secs()))),
    }
}

/// Sections of an INI file by name, as AWS writes them. Lines that are neither a section nor a setting do not count.
pub fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = None;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            all.entry(name.clone()).or_default();
            section = Some(name);
        } else if let (false, Some(section), Some((name, value))) = (is_nested, &section, line.split_once('=')) {
            let value = value.split(" #").next().unwrap_or_default().trim();
            all.entry(section.clone()).or_default().insert(name.trim().to_ascii_lowercase(), value.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_aws_are_read_leniently() {
        let all = sections(
            "stray = 1\n# a comment\n[default]\naws_access_key_id=A\n\n[profile  other]\nregion = eu-west-1 # here\n\
             s3 =\n    max = 3\n  nonsense\nrole_arn = arn:aws:iam::1:role/r=x\n[broken\n",
        );
        assert_eq!(all["default"]["aws_access_key_id"], "A");
        assert_eq!(all["profile other"]["region"], "eu-west-1");
        assert_eq!(all["profile other"]["role_arn"], "arn:aws:iam::1:role/r=x");
        assert!(!all["profile other"].contains_key("max"));
    }

    #[test]
    fn long_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert!(read_now(&path).unwrap().is_none());
        std::fs::write(&path, "\u{feff}x").unwrap();
        assert_eq!(read_now(&path).unwrap().as_deref(), Some("x"));
        std::fs::write(&path, vec![b'a'; (LONGEST + 1) as usize]).unwrap();
        assert!(read_now(&path).is_err());
    }
}
