//! Finds the batch of a chunk whose create was not answered: it may have been made, and must not be made again. Pure.

use super::wire::{Finding, Seen};
use crate::journal::batches::Chunk;

/// Clocks differ, and providers round, seconds.
const SLACK: f64 = 120.0;
/// The same where the time is all there is to go by.
const CLOSE: f64 = 5.0;
/// A body of 256 MB may have been under way for so long, seconds.
const UNDER_WAY: f64 = 900.0;

/// What a list of batches says about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This is its batch; the others are doubles of it, to be cancelled.
    One(String, Vec<String>),
    /// One of these is, or none: only their results tell.
    Several(Vec<String>),
    /// None of them is.
    None,
}

/// The name of a way to find a batch, for the ledger.
pub fn name(finding: Finding) -> &'static str {
    match finding {
        Finding::Label => "label",
        Finding::File => "file",
        Finding::Fingerprint => "fingerprint",
    }
}

/// Whether a list that goes back to this page goes back far enough for a chunk. A page that does not begin with its newest
/// batch never does: others may come in any order.
pub fn is_far_enough(chunk: &Chunk, page: &[Seen]) -> bool {
    let begun = chunk.create_begun_at.unwrap_or(chunk.planned_at) + chunk.skew;
    let created = |seen: Option<&Seen>| seen.and_then(|seen| seen.created_at);
    match (created(page.first()), created(page.last())) {
        (Some(first), Some(last)) => last < begun - SLACK && (first > last || page.len() == 1),
        _ => false,
    }
}

/// Looks for the batch of a chunk. `claimed`: batches of other chunks of ours.
pub fn find(finding: Finding, chunk: &Chunk, list: &[Seen], claimed: impl Fn(&str) -> bool) -> Found {
    let mut matches: Vec<&Seen> =
        list.iter().filter(|seen| is_it(finding, chunk, seen) && !claimed(&seen.id)).collect();
    if finding == Finding::Fingerprint && matches.len() > 1 {
        return Found::Several(matches.iter().map(|seen| seen.id.clone()).collect());
    }
    // The oldest: the others were made by whatever repeated our request.
    matches.sort_by(|a, b| a.created_at.unwrap_or_default().total_cmp(&b.created_at.unwrap_or_default()));
    match matches.split_first() {
        Some((first, others)) => Found::One(first.id.clone(), others.iter().map(|seen| seen.id.clone()).collect()),
        None => Found::None,
    }
}

fn is_it(finding: Finding, chunk: &Chunk, seen: &Seen) -> bool {
    let is_of_file = || chunk.file.is_some() && seen.file == chunk.file;
    match finding {
        // A label may be dropped on the way; the file is known too.
        Finding::Label => seen.label.as_ref() == Some(&chunk.nonce) || (seen.label.is_none() && is_of_file()),
        Finding::File => is_of_file(),
        Finding::Fingerprint => {
            let begun = chunk.create_begun_at.unwrap_or(chunk.planned_at) + chunk.skew;
            let in_time = seen.created_at.is_some_and(|at| (begun - CLOSE..=begun + UNDER_WAY).contains(&at));
            in_time && seen.total == Some(chunk.lines)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::wire::State;
    use crate::journal::batches::Route;

    fn chunk() -> Chunk {
        let text = |text: &str| text.to_owned();
        let (provider, base_url, model) = (text("anthropic"), text("http://h"), text("m"));
        let route = Route { account: [0; 16], provider, base_url, model, endpoint: text("v1/messages") };
        let (file, create_begun_at) = (Some(text("file-1")), Some(1000.0));
        Chunk { file, create_begun_at, skew: 10.0, ..Chunk::planned(1, "nonce", &route, 100, 1) }
    }

    fn seen(id: &str, created_at: f64) -> Seen {
        Seen {
            id: id.to_owned(),
            state: State::Running,
            word: String::new(),
            created_at: Some(created_at),
            total: Some(100),
            done: None,
            label: None,
            file: None,
            outputs: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn one(id: &str) -> Found {
        Found::One(id.to_owned(), Vec::new())
    }

    #[test]
    fn a_label_or_a_file_is_proof() {
        let labelled = Seen { label: Some("nonce".to_owned()), ..seen("b", 1011.0) };
        let other = Seen { label: Some("other".to_owned()), file: Some("file-1".to_owned()), ..seen("c", 1011.0) };
        let by_file = Seen { file: Some("file-1".to_owned()), ..seen("d", 1012.0) };
        let nobody = |_: &str| false;
        assert_eq!(find(Finding::Label, &chunk(), &[seen("a", 1011.0), labelled, other.clone()], nobody), one("b"));
        assert_eq!(find(Finding::Label, &chunk(), std::slice::from_ref(&other), nobody), Found::None);
        assert_eq!(find(Finding::Label, &chunk(), std::slice::from_ref(&by_file), nobody), one("d"));
        assert_eq!(
            find(Finding::File, &chunk(), &[by_file, other], nobody),
            Found::One("c".to_owned(), vec!["d".to_owned()])
        );
    }

    #[test]
    fn a_fingerprint_is_a_time_and_a_size() {
        let other_size = Seen { total: Some(99), ..seen("size", 1011.0) };
        let list = [seen("early", 1004.0), seen("it", 1010.0), other_size, seen("late", 2000.0)];
        assert_eq!(find(Finding::Fingerprint, &chunk(), &list, |_| false), one("it"));
        assert_eq!(find(Finding::Fingerprint, &chunk(), &list, |id| id == "it"), Found::None);
        let two = [seen("a", 1011.0), seen("b", 1300.0)];
        let both = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(find(Finding::Fingerprint, &chunk(), &two, |_| false), Found::Several(both));
    }

    #[test]
    fn a_list_is_read_back_to_before_the_create() {
        let is_enough =
            |times: &[f64]| is_far_enough(&chunk(), &times.iter().map(|at| seen("a", *at)).collect::<Vec<_>>());
        assert!(is_enough(&[880.0]) && is_enough(&[1000.0, 880.0]));
        assert!(!is_enough(&[900.0]) && !is_enough(&[1000.0, 900.0]) && !is_enough(&[]));
        // The oldest come first: ours may be on the last page.
        assert!(!is_enough(&[700.0, 880.0]));
    }
}
