//! Tests that modules only use what is below them.
//!
//! The sources are read as text: every `use` and every inline path that starts with `crate`, `super`, `self` or a child
//! module is an arrow. Code of tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// From the ground up. A part uses itself and the floors below, and nothing beside it.
const FLOORS: [&[&str]; 6] = [
    &["engine", "files", "spool"],
    &["providers", "journal", "sharing", "simulator"],
    &["batches"],
    &["dispatch"],
    &["bridge"],
    &["lib"],
];

/// Two modules may need each other; three are a knot.
const LARGEST_CIRCLE: usize = 2;

/// A module's path from the crate's root, which has none.
type Module = Vec<String>;
type Sources = BTreeMap<Module, String>;
type Arrows = BTreeMap<Module, BTreeSet<Module>>;

fn read_sources(folder: &Path, at: &Module, into: &mut Sources) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let mut module = at.clone();
        if path.is_dir() {
            module.push(name);
            read_sources(&path, &module, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            if name != "mod" && name != "lib" {
                module.push(name);
            }
            into.insert(module, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The code without comments and without what only tests see.
fn code_of(source: &str) -> String {
    let mut code = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test") {
            let tested = lines.by_ref().find(|line| !line.trim_start().starts_with("#[")).unwrap_or_default();
            // A module with a body is at the end of its file.
            if tested.ends_with('{') && tested.trim_start().starts_with("mod ") {
                break;
            }
        } else if !line.starts_with("//") {
            code.push_str(line.split(" // ").next().unwrap_or_default());
            code.push('\n');
        }
    }
    code
}

/// Modules that only tests have: declared so by their parents, or `..._tests.rs` beside what they test.
fn tests_of(sources: &Sources) -> BTreeSet<Module> {
    let mut tests: BTreeSet<Module> = BTreeSet::new();
    for (module, source) in sources {
        if module.last().is_some_and(|name| name.ends_with("tests")) {
            tests.insert(module.clone());
        }
        for declared in source.split("#[cfg(test)]\nmod ").skip(1) {
            let name = declared.split([';', ' ']).next().unwrap_or_default();
            tests.insert(module.iter().cloned().chain([name.to_owned()]).collect());
        }
    }
    tests
}

/// All paths of a tree like `a::{b, c::{D, E as F}}`.
fn expand(tree: &str, into: &mut Vec<String>) {
    let Some((prefix, rest)) = tree.split_once('{') else {
        return into.push(tree.split(" as ").next().unwrap_or_default().trim().to_owned());
    };
    let (mut depth, mut part) = (0, String::new());
    for letter in rest.chars() {
        match letter {
            ',' | '}' if depth == 0 => {
                if !part.trim().is_empty() {
                    expand(&format!("{prefix}{}", part.trim()), into);
                }
                part.clear();
                continue;
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        part.push(letter);
    }
}

/// Everything in `code` that may be the path of an item.
fn paths_of(code: &str) -> Vec<String> {
    let (mut paths, mut others) = (Vec::new(), String::new());
    for (number, part) in code.split("use ").enumerate() {
        match part.split_once(';') {
            Some((tree, rest)) if number > 0 => {
                expand(&tree.replace('\n', " "), &mut paths);
                others.push_str(rest);
            }
            _ => others.push_str(part),
        }
    }
    let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    let words = others.split(|letter| !is_of_path(letter)).filter(|word| word.contains("::"));
    paths.extend(words.map(|word| word.trim_end_matches(':').to_owned()));
    paths
}

/// The module that a path in `module` leads to, if it is one of ours.
fn resolve(sources: &Sources, module: &Module, path: &str) -> Option<Module> {
    let mut segments = path.split("::").peekable();
    let mut at = match *segments.peek()? {
        "crate" => Module::new(),
        "super" | "self" => module.clone(),
        child if sources.contains_key(&[module.as_slice(), &[child.to_owned()]].concat()) => module.clone(),
        _ => return None,
    };
    while let Some(segment) = segments.next_if(|segment| matches!(*segment, "crate" | "super" | "self")) {
        if segment == "super" {
            at.pop();
        }
    }
    for segment in segments {
        let deeper = [at.as_slice(), &[segment.to_owned()]].concat();
        if !sources.contains_key(&deeper) {
            break;
        }
        at = deeper;
    }
    Some(at)
}

fn arrows_of(sources: &Sources) -> Arrows {
    let tests = tests_of(sources);
    let is_code = |module: &Module| !tests.contains(module);
    let arrows_of = |(module, source): (&Module, &String)| {
        let paths = paths_of(&code_of(source));
        let targets = paths.iter().filter_map(|path| resolve(sources, module, path));
        (module.clone(), targets.filter(|target| target != module && is_code(target)).collect())
    };
    sources.iter().filter(|(module, _)| is_code(module)).map(arrows_of).collect()
}

fn name_of(module: &Module) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("::") }
}

fn part_of(module: &Module) -> &str {
    module.first().map_or("lib", String::as_str)
}

/// Arrows that do not go down, and modules that are on no floor.
fn climbing(arrows: &Arrows) -> Vec<String> {
    let floor_of = |part: &str| FLOORS.iter().position(|floor| floor.contains(&part));
    let mut found = Vec::new();
    for (module, targets) in arrows {
        let part = part_of(module);
        let Some(floor) = floor_of(part) else {
            found.push(format!("{part} is in no layer"));
            continue;
        };
        let is_below = |target: &&Module| part_of(target) == part || floor_of(part_of(target)) < Some(floor);
        let others = targets.iter().filter(|target| !is_below(target));
        found.extend(others.map(|target| format!("{} -> {}", name_of(module), name_of(target))));
    }
    found
}

/// Modules that reach each other, in groups.
fn circles(arrows: &Arrows) -> BTreeSet<Vec<String>> {
    let reached = |from: &Module| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(module) = left.pop() {
            left.extend(arrows.get(module).into_iter().flatten().filter(|target| seen.insert((*target).clone())));
        }
        seen
    };
    let reach: BTreeMap<&Module, BTreeSet<Module>> = arrows.keys().map(|module| (module, reached(module))).collect();
    let circle_of = |module: &Module| {
        let others = reach[module].iter().filter(|other| reach.get(other).is_some_and(|back| back.contains(module)));
        others.map(name_of).collect::<Vec<_>>()
    };
    reach.keys().map(|module| circle_of(module)).filter(|circle| circle.len() > 1).collect()
}

fn crate_arrows() -> Arrows {
    let mut sources = Sources::new();
    read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Module::new(), &mut sources);
    arrows_of(&sources)
}

#[test]
fn arrows_only_go_down() {
    let arrows = crate_arrows();
    assert!(arrows.len() > 80, "only {} modules were found", arrows.len());
    assert!(arrows.values().map(BTreeSet::len).sum::<usize>() > 200, "hardly any arrow was found");
    assert_eq!(climbing(&arrows), Vec::<String>::new());
}

#[test]
fn no_circle_is_large() {
    let large: Vec<_> = circles(&crate_arrows()).into_iter().filter(|circle| circle.len() > LARGEST_CIRCLE).collect();
    assert_eq!(large, Vec::<Vec<String>>::new());
}

fn sources(files: &[(&str, &str)]) -> Sources {
    let module = |path: &str| path.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    files.iter().map(|(path, source)| (module(path), (*source).to_owned())).collect()
}

#[test]
fn arrows_that_go_up_or_sideways_are_found() {
    let arrows = arrows_of(&sources(&[
        ("engine", "pub mod run;"),
        ("engine::run", "use super::super::bridge::messages::code;"),
        ("providers", "fn open() { let _ = crate::journal::open(); }"),
        ("journal", "// use crate::bridge;\n#[cfg(test)]\nmod tests {\n    use crate::bridge;\n}"),
        ("bridge", "pub mod messages;"),
        ("bridge::messages", "use crate::{engine::run::Run, journal};"),
        ("attic", ""),
    ]));
    assert_eq!(climbing(&arrows), ["attic is in no layer", "engine::run -> bridge::messages", "providers -> journal"]);
}

#[test]
fn circles_through_a_parent_are_found() {
    let arrows = arrows_of(&sources(&[
        ("engine", "pub use run::{Executor,\n    Run};\npub type Index = u64;"),
        ("engine::run", "use super::{Index, scope as shared};"),
        ("engine::scope", "pub struct Scope(super::run::Run);"),
    ]));
    assert_eq!(circles(&arrows).into_iter().collect::<Vec<_>>(), [["engine", "engine::run", "engine::scope"]]);
}

#[test]
fn an_arrow_of_this_crate_that_is_reversed_is_found() {
    let mut sources = Sources::new();
    read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Module::new(), &mut sources);
    let run = sources.get_mut(["engine", "run"].map(str::to_owned).as_slice()).unwrap();
    run.insert_str(0, "use crate::dispatch::mailbox;\n");
    assert_eq!(climbing(&arrows_of(&sources)), ["engine::run -> dispatch::mailbox"]);
}
