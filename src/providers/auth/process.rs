//! Programs that print credentials: AWS's `credential_process`, Google's executables. Bounded in time and size.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::failure::Failure;

/// Longest output, bytes.
const LONGEST: u64 = 1 << 20;
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What a command prints. It is split at blanks as a shell would split it, and not given to a shell.
pub async fn output(command: &str) -> Result<String, Failure> {
    let words = words(command);
    match tokio::task::spawn_blocking(move || run(&words)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::interrupted()),
    }
}

fn run(words: &[String]) -> Result<String, Failure> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Failure::rejected("the command that prints credentials is empty".to_owned()));
    };
    let wrong =
        |problem: &str| Failure::rejected(format!("the command {program:?}, which prints credentials, {problem}"));
    let child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| wrong(&format!("could not be run: {error}")))?;
    let Some(stdout) = child.stdout.take() else { return Err(wrong("has no output")) };
    // Not joined: what the program leaves behind may hold its output open for ever.
    let (tell, printed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if stdout.take(LONGEST).read_to_end(&mut bytes).is_ok() {
            let _ = tell.send(bytes);
        }
    });
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(wrong(&format!("did not end within {} s", PATIENCE.as_secs())));
            }
        }
    };
    if !status.success() {
        return Err(wrong(&format!("failed ({status})")));
    }
    match printed.recv_timeout(end.saturating_duration_since(Instant::now())) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(_) => Err(wrong("has an output that cannot be read")),
    }
}

/// Words separated by blanks; quotes keep them together.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in command.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        assert_eq!(words("a  'b c' \"d\"e ''"), ["a", "b c", "de", ""]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_a_program_prints_is_read() {
        assert_eq!(output("echo {}").await.unwrap(), "{}\n");
        assert!(output("false").await.unwrap_err().to_string().contains("failed"));
        assert!(output("/no/such/program").await.is_err());
    }
}
